package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// If the pipeline has several transitions, each row names its transition, even if all rows have the same.
func TestStatus_NamesTransition(t *testing.T) {
	for _, several := range []bool{false, true} {
		p := &page{zone: time.UTC}
		(&statusAnswer{Cycles: []cycle.Status{{Transition: "ingest_to_enrich", Period: "2026-02-03", Mode: "hourly", State: "waiting"}}, several: several}).text(p)
		var b bytes.Buffer
		if err := p.writeTo(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "hourly of ingest_to_enrich") != several {
			t.Errorf("several %v: %s", several, b.String())
		}
	}
}

// The texts name some of thousands of processors, and say how many more there are.
func TestStatusAndExplain_NameSomeOfThousandsOfProcessors(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Transitions[0]
	const n = 3000
	st := cycle.Status{Transition: tr.ID, Period: "2026-02-03", Mode: "overnight", State: "waiting"}
	x := &explained{transition: tr, page: 1, Help: []string{"nothing yet"}}
	batch := cycle.BatchStatus{N: 1, State: cycle.StatePublishing, Messages: map[string]string{}}
	ready := policy.Readiness{Outcome: policy.Failed}
	for i := range n {
		name := fmt.Sprintf("stranger_%04d", i)
		st.Ignored, st.Outside, st.LocalTimes = append(st.Ignored, name), append(st.Outside, name), append(st.LocalTimes, name)
		x.Waited = append(x.Waited, waited{Processor: name, Attempts: i / (n - 1)})
		batch.Messages[name] = "1"
		batch.Runs = append(batch.Runs, name+"@1#2")
		ready.Checks = append(ready.Checks, policy.CheckResult{Name: name, State: map[bool]string{true: "fail", false: "pass"}[i == n-1]})
	}
	st.Batches, x.Batches, x.Readiness = []cycle.BatchStatus{batch}, []cycle.BatchStatus{batch}, &ready
	for name, show := range map[string]func(*page){
		"status":  (&statusAnswer{Cycles: []cycle.Status{st}, of: map[string]*pipeline.Transition{tr.ID: tr}}).text,
		"explain": (&explainAnswer{Cycles: []*explained{x}}).text,
	} {
		p := &page{zone: time.UTC}
		show(p)
		var b bytes.Buffer
		if err := p.writeTo(&b); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		if len(lines) > 100 || !strings.Contains(b.String(), fmt.Sprintf("and %d more", n-policy.MostNames)) {
			t.Errorf("%s: %d lines: %s", name, len(lines), b.String()[:min(len(b.String()), 3000)])
		}
		if name == "explain" && (!strings.Contains(b.String(), "stranger_2999 (optional), 1 attempt") || strings.Count(b.String(), "stranger_2999") != 2) {
			t.Errorf("the processor that reported and the check that fails must come first: %s", b.String())
		}
	}
}

// A day before the adoption is not judged, as on the status page and in notifications.
func TestStatus_PeriodBeforeTheAdoptionIsNotOverdue(t *testing.T) {
	night(t)
	ours := written(t, "    trigger_within: 72h\n", "    trigger_within: 72h\n    managed_since: 2026-02-03\n")
	later := written(t, "    trigger_within: 72h\n", "    trigger_within: 72h\n    managed_since: 2026-02-04\n")
	want(t, 1, []string{"2026-02-03  overnight  overdue"}, "status", "2026-02-03", "--exit-code", "--pipeline", ours)
	want(t, 0, []string{"2026-02-03  overnight  waiting", "not judged: the period is before the adoption"}, "status", "2026-02-03", "--exit-code", "--pipeline", later)
}

// phasectl suggests no flag for one that resembles none.
func TestFlags_SuggestOnlyWhatWasProbablyMeant(t *testing.T) {
	if code, _, stderr := command(t, "status", "--colour"); code != 64 || strings.Contains(stderr, "did you mean") {
		t.Errorf("%d %s", code, stderr)
	}
}
