//go:build unix && !race

package simulation

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// season is a calendar and the periods of a world.
type season struct {
	name, zone, calendar  string
	periods               []pipeline.Period
	starts                []time.Time // of the time in which runs of the period happen
	earliest              []time.Time // at which something of the period may be handed over
	last                  time.Time   // the last of starts
	countsFrom, notBefore string
	deadline, definition  string
	within                time.Duration // in which runs happen
}

// seasons: a day of 23 hours, one of 25, a leap day, and hours in which clocks change.
var seasons = sync.OnceValue(func() []*season {
	day := func(name, zone string, year, month, day int) *season {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			panic(err)
		}
		s := &season{name: name, zone: zone, calendar: "day", countsFrom: "+1d 00:00", notBefore: "+1d 05:00", deadline: "+1d 16:00", within: 8 * time.Hour}
		for n := range 3 {
			s.periods = append(s.periods, pipeline.Period(time.Date(year, time.Month(month), day+n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)))
			s.starts = append(s.starts, time.Date(year, time.Month(month), day+n+1, 0, 0, 0, 0, loc))
			s.earliest = append(s.earliest, time.Date(year, time.Month(month), day+n+1, 5, 0, 0, 0, loc))
		}
		return s
	}
	hours := &season{name: "hours", zone: "Europe/Berlin", calendar: "hour", countsFrom: "+1h :00", notBefore: "+1h :05", deadline: "+1h :50", within: 20 * time.Minute}
	for n := range 3 {
		begins := time.Date(2000, 3, 26, n, 0, 0, 0, time.UTC) // at 01:00 UTC the clock goes from 02:00 to 03:00
		hours.periods = append(hours.periods, pipeline.Period(begins.Format("2006-01-02T15")))
		hours.starts, hours.earliest = append(hours.starts, begins.Add(time.Hour)), append(hours.earliest, begins.Add(65*time.Minute))
	}
	all := []*season{day("23_hours", "America/New_York", 2000, 3, 31), day("25_hours", "America/New_York", 2000, 10, 28),
		day("leap_day", "Europe/Berlin", 2000, 2, 27), hours}
	for _, s := range all {
		s.last = s.starts[len(s.starts)-1]
		s.definition = s.yaml()
	}
	return all
})

var upstream = map[string][]string{"a_to_b": {"a1_table", "a2_table", "a3_table"}, "b_to_c": {"b1_table", "b2_table"}}

// critical are the processors that a hand-over needs.
var critical = map[string][]string{"a_to_b": {"a1_table", "a2_table"}, "b_to_c": {"b1_table", "b2_table"}}

// follows has the processor that a trigger of a table starts.
var follows = map[string]string{"a1_table": "b1_table", "a2_table": "b2_table", "a3_table": "b1_table", "b1_table": "c1_table", "b2_table": "c1_table"}

func (s *season) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema: 1\nname: sim\ntime_zone: %s\ncalendar: %s\nkinds: {team: teams}\nschedules:\n"+
		"  - {name: relay, cron: \"*/5 * * * *\", function: reconcile, job: relay}\n"+
		"  - {name: nightly, cron: \"45 10 * * *\", function: reconcile, job: nightly}\nphases:\n", s.zone, s.calendar)
	for _, phase := range [][]string{{"a", "a1_table", "a2_table", "a3_table"}, {"b", "b1_table", "b2_table"}, {"c", "c1_table"}} {
		fmt.Fprintf(&b, "  - name: %s\n    processors:\n", phase[0])
		for _, p := range phase[1:] {
			fmt.Fprintf(&b, "      - {name: %s, kind: team, table: d.%s, date_column: at, key: [at], order_by: processed_at}\n", p, p)
		}
	}
	b.WriteString("transitions:\n")
	for _, id := range []string{"a_to_b", "b_to_c"} {
		rest := slices.DeleteFunc(slices.Clone(upstream[id]), func(p string) bool { return slices.Contains(critical[id], p) })
		fmt.Fprintf(&b, "  - id: %s\n    upstream: {phase: %s, topic: %s_done}\n", id, id[:1], id[:1])
		fmt.Fprintf(&b, "    downstream: {phase: %s, topic: %s_trigger, triggered_by: us, parent_processor: Us, order: [%s]}\n", id[5:], id[5:], strings.Join(upstream[id], ", "))
		fmt.Fprintf(&b, "    compatibility_collection: %s_completion\n    trigger_within: 120h\n    managed_since: %q\n    modes:\n", id[:1], s.periods[0])
		fmt.Fprintf(&b, "      - name: after\n        event: after\n        critical: [%s]\n        optional: [%s]\n        complete: all\n        second_runs: resend_if_changed\n",
			strings.Join(critical[id], ", "), strings.Join(rest, ", "))
		fmt.Fprintf(&b, "        counts_from: %q\n        not_before: %q\n        deadline: %q\n", s.countsFrom, s.notBefore, s.deadline)
		if len(rest) > 0 {
			b.WriteString("        grace: {quorum_pct: 60, after: 20m}\n")
		}
	}
	return b.String()
}

func newWorld(seed uint64) *world {
	all := seasons()
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), season: *all[[]int{0, 1, 2, 0, 1, 2, 0, 3}[seed%8]], mem: memory.New(time.Now), tables: map[string]map[pipeline.Period]warehouse.Slice{},
		effects: map[string]string{}, sent: map[string]int{}, panicked: map[int]bool{}}
	p, err := pipeline.Parse([]byte(w.season.definition))
	if err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, w.season.definition))
	}
	w.pipeline = p
	return w
}

// scenario draws a world from the seed.
func (w *world) scenario() {
	for i := range 1 + w.rng.IntN(2) {
		w.processes = append(w.processes, &process{skew: time.Duration(w.rng.IntN(3)-1) * time.Duration(w.rng.IntN(200)) * time.Second})
		w.boot(i)
	}
	time.Sleep(time.Until(w.season.starts[0]))
	w.shadow = w.rng.IntN(4) == 0
	if w.rng.IntN(6) > 0 {
		w.rate, w.faults = []int{40, 12}[w.rng.IntN(2)], 1+w.rng.IntN(8)
	}
	switch w.rng.IntN(4) {
	case 0:
		w.poisoned = w.season.periods[w.rng.IntN(3)]
	case 1:
		w.hangs = w.season.periods[w.rng.IntN(3)]
	}
	for i, period := range w.season.periods {
		for _, p := range upstream["a_to_b"] {
			if w.rng.IntN(12) == 0 {
				continue
			}
			for range 1 + w.rng.IntN(5)/4 {
				w.ran(p, period, w.season.starts[i].Add(time.Minute+time.Duration(w.rng.Int64N(int64(w.season.within)))))
			}
		}
	}
	for range w.rng.IntN(3) {
		w.at(w.sometime(), func() {
			w.send("transition?transition=a_to_b", map[string]any{"processor_name": "a1_table", "game_date": "YESTERDAY", "status": "success"}, true)
		})
	}
	for range 2 + w.rng.IntN(4) {
		w.at(w.sometime(), func() { w.job(wire.JobRelay) })
	}
	if w.rng.IntN(3) == 0 {
		at := w.sometime()
		for range 2 { // two at once
			w.at(at, func() { w.job(wire.JobNightly) })
		}
		w.at(at, func() { w.reconcile() })
	}
	w.at(w.sometime(), func() { w.tidy() })
}

// sometime draws a moment, often close to that of another event.
func (w *world) sometime() time.Time {
	if w.rng.IntN(2) == 0 && len(w.events) > 0 {
		return w.events[w.rng.IntN(len(w.events))].at.Add(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	}
	return w.season.starts[w.rng.IntN(3)].Add(time.Duration(w.rng.Int64N(int64(w.season.within + time.Hour))))
}

// ran schedules a run of a processor for a period: it writes rows, and soon reports.
func (w *world) ran(processor string, period pipeline.Period, at time.Time) {
	if latest := time.Now().Add(time.Second); at.Before(latest) {
		at = latest
	}
	r := &run{processor: processor, period: period, event: at.Truncate(time.Millisecond), rows: int64(100 + w.rng.IntN(50)), execution: fmt.Sprintf("e%d", len(w.runs)), reported: w.rng.IntN(15) > 0}
	w.runs = append(w.runs, r)
	w.at(r.event, func() {
		w.tell("     %s runs for %s, reported %t", processor, period, r.reported)
		if w.tables["d."+processor] == nil {
			w.tables["d."+processor] = map[pipeline.Period]warehouse.Slice{}
		}
		w.tables["d."+processor][period] = warehouse.Slice{Rows: r.rows, Oldest: r.event, Newest: r.event}
	})
	if !r.reported || processor[0] == 'c' {
		return
	}
	w.at(r.event.Add(time.Duration(1+w.rng.IntN(2000))*time.Millisecond), func() {
		report := map[string]any{"processor_name": processor, "game_date": period, "status": "success", "timestamp": r.event.UTC().Format(time.RFC3339Nano), "execution_id": r.execution, "record_count": r.rows}
		path := "transition?transition=" + map[byte]string{'a': "a_to_b", 'b': "b_to_c"}[processor[0]]
		w.send(path, report, false)
		if w.shadow {
			w.send(path+"&shadow=1", report, false)
		}
	})
}

// accepted handles a message of a downstream topic. Its consumer drops copies, and runs.
func (w *world) accepted(topic string, m wire.Outgoing) {
	id := m.Attributes["trigger_id"]
	w.sent[id]++
	if first, seen := w.effects[id]; seen {
		if first != string(m.Data) {
			w.fail("two messages with the trigger id %s differ:\n%s\n%s", id, first, m.Data)
		}
		return
	}
	w.effects[id] = string(m.Data)
	t, err := wire.DecodeTrigger(m.Data)
	if err != nil {
		w.fail("%s: %v", id, err)
		return
	}
	i := slices.Index(w.season.periods, pipeline.Period(t.GameDate))
	switch {
	case i < 0 || topic != map[byte]string{'a': "b_trigger", 'b': "c_trigger"}[t.SourceTable[0]]:
		w.fail("%s is published to %s about %s", id, topic, t.GameDate)
	case time.Now().Before(w.season.earliest[i]):
		w.fail("%s is published at %s, before %s", id, time.Now().UTC(), w.season.earliest[i].UTC())
	case !slices.ContainsFunc(w.runs, func(r *run) bool {
		return r.processor == t.SourceTable && r.period == pipeline.Period(t.GameDate) && !r.event.After(time.Now())
	}):
		w.fail("%s is published, and %s has not run for %s", id, t.SourceTable, t.GameDate)
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		next, at := follows[t.SourceTable], time.Now().Add(time.Minute+time.Duration(w.rng.IntN(600))*time.Second)
		w.ran(next, pipeline.Period(t.GameDate), at)
	}
}

// reconcile is the nightly comparison with the tables, on some process.
func (w *world) reconcile() {
	p := w.processes[w.rng.IntN(len(w.processes))]
	w.request(p, func(ctx context.Context) int { w.compared(ctx, p); return 1 }, func(int) {})
}

// compared compares and repairs, and returns the findings that are left.
func (w *world) compared(ctx context.Context, p *process) (left []string, err error) {
	r := reconcile.New(p.app)
	r.Contents = func(_ context.Context, processors []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, pr := range processors {
			out[pr.Table] = warehouse.Contents{Slices: maps.Clone(w.tables[pr.Table]), Strays: map[pipeline.Period]warehouse.Stray{}}
		}
		return out
	}
	r.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
		return map[pipeline.Period]int64{}, nil
	}
	for _, t := range w.pipeline.Transitions {
		from, to := t.Window(time.Now(), 7)
		report, err := guarded(func() (reconcile.Report, error) { return r.Run(ctx, t, from, to, "nightly") })
		if err != nil {
			return nil, err
		}
		w.tell("     %s: unknown: %q", t.ID, report.Unknown)
		for _, f := range report.Findings {
			w.tell("     %s: %s %s %s %s: %s", t.ID, f.Type, f.Period, f.Table, f.Status, f.Repair)
			if f.Severity != reconcile.Info && (f.Status == reconcile.Open || f.Status == reconcile.Failed) {
				left = append(left, fmt.Sprintf("%s %s %s %s", f.Type, t.ID, f.Period, f.Table))
			}
		}
	}
	return left, nil
}

// tidy is an operator who replays quarantined messages, or discards them.
func (w *world) tidy() {
	p := w.processes[w.rng.IntN(len(w.processes))]
	discard := w.calm || w.rng.IntN(2) == 0
	w.request(p, func(ctx context.Context) int {
		for q, err := range delivery.ListQuarantine(ctx, p.app) {
			if err != nil || q.Settled() {
				continue
			}
			if !discard { // it is refused again: the definition is the same
				w.after(time.Millisecond, func() {
					for _, m := range w.messages {
						if m.id == q.MessageID {
							w.deliver(m)
						}
					}
				})
				continue
			}
			id := fmt.Sprintf("discard-%s-%d", q.ID, threadOf(ctx))
			_, _ = delivery.MarkDiscarded(ctx, p.app, q.ID, audit.Record{Action: "discard", Actor: "ada", Reason: "no period"}, id) // if it fails, the next tidy tries again
		}
		return 1
	}, func(int) {})
}

// applied counts writes, except those of heartbeats.
func (w *world) applied(ws []store.Write) {
	if !slices.ContainsFunc(ws, func(wr store.Write) bool { return wr.Ref.Collection == "function_status" }) {
		w.mu.Lock()
		w.writes++
		w.mu.Unlock()
		w.tell("     writes %s", ws[len(ws)-1].Ref)
	}
}

// guarded turns a panic of a transition into an error, as the function does.
func guarded(do func() (reconcile.Report, error)) (r reconcile.Report, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return do()
}
