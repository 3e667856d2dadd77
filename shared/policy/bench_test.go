package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// scene is a decision of a size, and half of its counting runs as covered.
type scene struct {
	name    string
	in      Input
	covered map[string]bool
}

// scenes are a night of the default pipeline, and the most that a definition allows:
// 300 processors, each named by three modes, with as many runs as a document holds.
func scenes(b *testing.B) []scene {
	night := input(b, nba(b), "overnight", "2026-02-04 06:30", "", runs("2026-02-04 06:00", pgs, tdef, toff, upg, utg))

	full := wide(b, 300, 3000)
	odds := night
	odds.Runs = nil // dozens a day are usual; this many of one processor are the worst case
	for i := range 3000 {
		odds.Runs = append(odds.Runs, run(pgs, "2026-02-04 06:00", key(fmt.Sprint(i)), execution(fmt.Sprint(i))))
	}
	out := []scene{{name: "5_runs", in: night}, {name: "3000_runs_of_300_processors", in: full}, {name: "20000_runs_of_10000_processors", in: wide(b, 10_000, 20_000)}, {name: "3000_runs_of_one_processor", in: odds}}
	for i := range out {
		out[i].covered = map[string]bool{}
		for j, r := range Counting(out[i].in) {
			out[i].covered[r.Key] = j%2 == 0
		}
	}
	return out
}

// wide is a decision about n processors, each named by three modes, with so many runs. One processor
// has none.
func wide(t testing.TB, n, runs int) Input {
	t.Helper()
	var def, modes strings.Builder
	def.WriteString("schema: 1\nname: any\ntime_zone: America/New_York\ncalendar: day\nkinds: {k: things}\nphases:\n  - name: up\n    processors:\n")
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("processor_with_a_name_of_usual_length_%03d", i)
		writeProcessor(&def, all[i])
	}
	def.WriteString("  - name: down\n    processors:\n")
	writeProcessor(&def, "next")
	for _, event := range []string{"before", "within", "after"} {
		fmt.Fprintf(&modes, "      - {name: m_%s, event: %s, critical: %s, optional: %s, complete: all, counts_from: \"-1d 18:00\", accept_earlier: %s, second_runs: resend_if_changed, grace: {quorum_pct: 60, after: 30m}}\n",
			event, event, list(all[:n/2]), list(all[n/2:]), list(all))
	}
	writeTransition(&def, all, "72h", modes.String())
	in := input(t, parse(t, def.String()), "m_after", "2026-02-04 06:30", "", nil)
	for i := range runs {
		r := run(all[i%(n-1)], "2026-02-04 06:00", key(fmt.Sprint(i)), count(int64(i)), entities("a", "b"))
		r.EventTime = r.EventTime.Add(-12 * time.Hour * time.Duration(i) / time.Duration(runs)) // half of them before midnight
		in.Runs = append(in.Runs, r)
	}
	return in
}

func BenchmarkDecide(b *testing.B) {
	for _, s := range scenes(b) {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(s.in)
			}
		})
	}
}

func BenchmarkPending(b *testing.B) {
	for _, s := range scenes(b) {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Pending(s.in, s.covered)
			}
		})
	}
}
