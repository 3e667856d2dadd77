package statuspage

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// many is a pipeline of n processors, with one cycle in which all but the last have run twice. Every
// tenth failed.
func many(t *testing.T, w *apptest.World, n int) *cycleState {
	t.Helper()
	var b strings.Builder
	b.WriteString("schema: 1\nname: wide\ntime_zone: America/New_York\ncalendar: day\nphases:\n  - name: up\n    processors:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - {name: processor_%d, table: d.t%d, date_column: day, key: [day, id], order_by: processed_at}\n", i, i)
	}
	b.WriteString("  - name: down\n    processors: [{name: cache, table: d.cache, date_column: day, key: [day], order_by: processed_at}]\n")
	b.WriteString("transitions: [{id: up_to_down, upstream: {phase: up, topic: completed}, downstream: {phase: down, topic: trigger}, modes: [{name: overnight, event: after}]}]\n")
	p, err := pipeline.Parse([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Transitions[0]
	w.App.Pipeline = p
	last := n - 1
	st := cycle.Status{Cycle: "c", Transition: tr.ID, Period: string(night), Mode: "overnight", State: "published", Satisfied: tr.Order[:last], Missing: tr.Order[last:], Failed: tr.Order[last:]}
	batch := cycle.BatchStatus{ID: "b", N: 1, State: cycle.StatePublished, PublishedAt: morning, DueAt: morning, Messages: map[string]string{}}
	x := cycle.Explanation{Status: st, Readiness: &policy.Readiness{Outcome: policy.Passed}}
	for i, name := range tr.Order[:last] {
		for again := range 2 {
			r := cycle.RunStatus{Processor: name, ExecutionID: fmt.Sprint("run-", i, "-", again), EventTime: morning.Add(time.Duration(again-9) * time.Hour), Status: wire.StatusSuccess, Counts: true, Batch: 1}
			x.Runs = append(x.Runs, r)
		}
		batch.Messages[name] = fmt.Sprint(i)
		state := "pass"
		if i == last-1 {
			state = "fail"
		}
		x.Readiness.Checks = append(x.Readiness.Checks, policy.CheckResult{Name: "row_count." + name, State: state})
	}
	x.Batches = []cycle.BatchStatus{batch}
	m := tr.Modes[0]
	return &cycleState{at: morning, explained: x, shown: &shown{Status: x.Status, of: tr, mode: m, period: night, kind: kind(x.State)}}
}

func TestCycle_ShowsSomeOfThousandsAndSaysSo(t *testing.T) {
	for _, n := range []int{1000, 10_000} {
		w := apptest.New(t, morning)
		s := many(t, w, n)
		v := newCyclePage(w.App, s, query{})
		out := httptest.NewRecorder()
		if err := answer(out, httptest.NewRequest(http.MethodGet, "/", nil), cyclePage, v); err != nil {
			t.Fatal(err)
		}
		page := out.Body.String()
		for _, want := range []string{
			fmt.Sprintf("%d older ones are not shown; all of them: <code>phasectl explain 2026-02-03 overnight --json</code>", 2*(n-1)-mostRuns),
			fmt.Sprintf("<summary>%d in batch 1</summary>", n-1),
			fmt.Sprintf("and %d more; all of them: <code>phasectl explain 2026-02-03 overnight --json</code>", n-1-mostTriggers),
			fmt.Sprintf("%d of %d processors, those that failed or are missing first", mostLanes, n),
			fmt.Sprintf("%d more are not shown, and those that pass come last", n-1-mostChecks),
		} {
			if !strings.Contains(page, want) {
				t.Errorf("%d processors: the page does not say %q", n, want)
			}
		}
		if len(page) > 512<<10 {
			t.Errorf("%d processors: a page of %d bytes", n, len(page))
		}
		if v.Timeline.Lanes[0].Name != s.explained.Failed[0] || v.Ready[0].Result != "blocks" {
			t.Errorf("%d processors: the first lane is %s, the first check %s", n, v.Timeline.Lanes[0].Name, v.Ready[0].Result)
		}
		c := *s.shown
		c.Satisfied, c.Missing = c.Missing, c.Satisfied
		if got := newCycleJSON(&c); len(got.Missing) != min(n-1, mostMissing) || got.MissingAll != n-1 || got.Complete != 1 {
			t.Errorf("%d of %d missing", len(got.Missing), got.MissingAll)
		}
		var o overview
		o.Query.Processor = s.shown.of.Order[n-1]
		o.choices(&state{transitions: []*transition{{Transition: s.shown.of}}})
		if len(o.Processors) != mostProcessors+1 || !slices.Contains(o.Processors, o.Query.Processor) {
			t.Errorf("%d processors to choose from", len(o.Processors))
		}
	}
}
