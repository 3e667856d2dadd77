package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// definitions draws valid definitions of one transition: any number of modes, each
// with its own processors and policy.
func definitions(t *rapid.T) string {
	var b strings.Builder
	processors := make([]string, rapid.IntRange(2, 6).Draw(t, "processors"))
	fmt.Fprintf(&b, "schema: 1\nname: any\ntime_zone: %s\ncalendar: day\nkinds: {k: things}\nphases:\n  - name: up\n    processors:\n",
		rapid.SampledFrom([]string{"America/New_York", "UTC", "Asia/Kathmandu"}).Draw(t, "zone"))
	for i := range processors {
		processors[i] = fmt.Sprintf("p%d", i)
		writeProcessor(&b, processors[i])
	}
	b.WriteString("  - name: down\n    processors:\n")
	writeProcessor(&b, "next")

	var modes strings.Builder
	expected, within := map[string]bool{}, 1
	events := rapid.SampledFrom([][]string{{"before"}, {"within"}, {"after"}, {"before", "within"}, {"before", "after"}, {"within", "after"},
		{"before", "within", "after"}}).Draw(t, "events")
	for _, event := range events {
		shuffled := rapid.Permutation(processors).Draw(t, "of "+event)
		named := shuffled[:upTo(t, "named", 1+len(shuffled)/3, len(shuffled))]
		critical := upTo(t, "critical", 1, (len(named)+1)/2)
		for _, name := range named {
			expected[name] = true
		}
		from, notBefore, deadline := times(t, event)
		within = max(within, from-24, notBefore-24, deadline-24)
		fmt.Fprintf(&modes, "      - name: m_%s\n        event: %s\n        critical: %s\n        optional: %s\n        complete: %s\n        second_runs: %s\n        counts_from: %q\n",
			event, event, list(named[:critical]), list(named[critical:]), rapid.SampledFrom([]string{"all", "all", "critical"}).Draw(t, "complete"),
			rapid.SampledFrom([]string{"ignore", "resend_if_changed"}).Draw(t, "second"), offset(from))
		longest := 9
		if deadline != never {
			begin := map[string]int{"before": from, "within": 0, "after": 24}[event] // of a processor that other modes name, too
			longest = min(longest, deadline-max(from, begin)-1)
		}
		if longest > 0 && rapid.IntRange(0, 2).Draw(t, "has grace") < 2 {
			fmt.Fprintf(&modes, "        grace: {quorum_pct: %d, after: %dh}\n", rapid.SampledFrom([]int{1, 34, 50, 60, 67, 80, 100}).Draw(t, "quorum"), rapid.IntRange(1, longest).Draw(t, "after"))
		}
		if rapid.Bool().Draw(t, "accepts earlier") {
			fmt.Fprintf(&modes, "        accept_earlier: %s\n", list(named[:rapid.IntRange(0, len(named)).Draw(t, "accepted")]))
		}
		if notBefore != never {
			fmt.Fprintf(&modes, "        not_before: %q\n", offset(notBefore))
		}
		if deadline != never {
			fmt.Fprintf(&modes, "        deadline: %q\n        at_deadline: %s\n", offset(deadline), rapid.SampledFrom([]string{"hold", "hand_over", "hand_over"}).Draw(t, "at deadline"))
		}
	}
	order := slices.DeleteFunc(rapid.Permutation(processors).Draw(t, "order"), func(name string) bool { return !expected[name] })
	writeTransition(&b, order, fmt.Sprintf("%dh", rapid.IntRange(within, 96).Draw(t, "trigger_within")), modes.String())
	return b.String()
}

// upTo draws a number between two; none of them is preferred.
func upTo(t *rapid.T, label string, from, to int) int {
	numbers := make([]int, to-from+1)
	for i := range numbers {
		numbers[i] = from + i
	}
	return rapid.SampledFrom(numbers).Draw(t, label)
}

func writeProcessor(b *strings.Builder, name string) {
	fmt.Fprintf(b, "      - {name: %s, kind: k, table: d.%s, date_column: day, key: [day], order_by: written}\n", name, name)
}

func writeTransition(b *strings.Builder, order []string, within, modes string) {
	fmt.Fprintf(b, `schedules: [{name: relay, cron: "*/5 * * * *", function: reconcile, job: relay}]
transitions:
  - id: up_to_down
    upstream: {phase: up, topic: completions}
    downstream: {phase: down, topic: triggers, triggered_by: gate, parent_processor: Up, order: %s}
    compatibility_collection: completion
    trigger_within: %s
    modes:
%s`, list(order), within, modes)
}

func list(names []string) string { return "[" + strings.Join(names, ", ") + "]" }

// never is the hour of a time that a mode does not have.
const never = -1000

// times draws the times of a mode, in hours since the period's beginning, such that the
// definition does not contradict itself.
func times(t *rapid.T, event string) (from, notBefore, deadline int) {
	begin := map[string]int{"before": -48, "within": 0, "after": 24}[event]
	end := map[string]int{"before": 0, "within": 24, "after": 48}[event]
	from, notBefore, deadline = rapid.IntRange(-48, end-1).Draw(t, "counts_from"), never, never
	if rapid.Bool().Draw(t, "has deadline") {
		deadline = rapid.IntRange(max(from, begin)+1, 49).Draw(t, "deadline")
	}
	if rapid.Bool().Draw(t, "has not_before") {
		last := 47
		if deadline != never {
			last = deadline
		}
		notBefore = rapid.IntRange(-48, last).Draw(t, "not_before")
	}
	return from, notBefore, deadline
}

func offset(hours int) string {
	day := (hours+480)/24 - 20
	return pipeline.Offset{Periods: day, Minute: 60 * (hours - 24*day)}.String()
}

// instants draws times around the game day, coarse enough that many are equal.
func instants(t *rapid.T, cal pipeline.Calendar, label string) time.Time {
	return cal.Start(gameDay).Add(time.Duration(rapid.IntRange(-3*24, 6*24).Draw(t, label)) * time.Hour)
}

// situations draws everything that a decision depends on, with a GraceStart that the
// engine could have set.
func situations(t *rapid.T) Input {
	tr := parse(t, definitions(t))
	in := Input{Transition: tr, Period: gameDay, Mode: rapid.SampledFrom(tr.Modes).Draw(t, "mode")}
	in.Now = instants(t, tr.Calendar(), "now")
	if rapid.Bool().Draw(t, "in grace") {
		in.GraceStart = in.Now.Add(-time.Duration(rapid.IntRange(0, 48).Draw(t, "for")) * time.Hour)
	}
	for i := range rapid.IntRange(0, 14).Draw(t, "runs") {
		in.Runs = append(in.Runs, anyRun(t, tr, i))
	}
	// Runs at random rarely complete a mode: some of its processors report in time.
	in.Runs = append(in.Runs, completing(t, in)...)
	return in
}

// completing draws successful runs of the mode's first processors, from none to all.
func completing(t *rapid.T, in Input) []Run {
	cal := in.Transition.Calendar()
	own := map[pipeline.Relation]time.Time{
		pipeline.Before: cal.Start(gameDay).Add(-time.Minute),
		pipeline.Within: cal.End(gameDay).Add(-time.Minute),
		pipeline.After:  cal.End(gameDay),
	}
	expected := slices.Concat(in.Mode.Critical, in.Mode.Optional)
	var out []Run
	for i, name := range expected[:upTo(t, "completing", 0, len(expected))] {
		r := anyRun(t, in.Transition, len(in.Runs)+i)
		r.Processor, r.Reported, r.Status, r.EventTime = name, name, wire.StatusSuccess, own[in.Mode.Event]
		out = append(out, r)
	}
	return out
}

// anyRun draws a run; runs of one situation differ in i.
func anyRun(t *rapid.T, tr *pipeline.Transition, i int) Run {
	r := Run{Key: fmt.Sprintf("k%02d", i), Completion: &wire.Completion{
		Period: gameDay, Reported: "a_stranger", EventTime: instants(t, tr.Calendar(), "event"),
		Status: rapid.SampledFrom([]wire.Status{wire.StatusSuccess, wire.StatusSuccess, wire.StatusSuccess, wire.StatusPartial,
			wire.StatusFailed, wire.StatusNoData}).Draw(t, "status"),
		ExecutionID: rapid.SampledFrom([]string{"e1", "e2", "e3"}).Draw(t, "execution"),
		Entities:    rapid.SampledFrom([][]string{nil, nil, nil, {"a"}, {"a", "b"}}).Draw(t, "entities"),
		Truncated:   rapid.IntRange(0, 9).Draw(t, "truncated") == 0,
	}}
	if name := rapid.SampledFrom(append([]string{""}, tr.Order...)).Draw(t, "processor"); name != "" {
		r.Processor, r.Reported = name, name
	}
	if n := rapid.Int64Range(0, 3).Draw(t, "count"); n > 0 {
		r.RecordCount = &n
	}
	return r
}

func processorsOf(rs []Run) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Processor)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func differ(t *rapid.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func anyCovered(t *rapid.T, rs []Run) map[string]bool {
	covered := map[string]bool{}
	for _, r := range rs {
		if rapid.Bool().Draw(t, "covered") {
			covered[r.Key] = true
		}
	}
	return covered
}
