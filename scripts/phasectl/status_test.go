package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
)

// Where the pipeline has several transitions, each row names its own, whichever rows there are.
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

// A day before the adoption is not judged: the same rule as of the status page and the notifications.
func TestStatus_PeriodBeforeTheAdoptionIsNotOverdue(t *testing.T) {
	night(t)
	ours := written(t, "    trigger_within: 72h\n", "    trigger_within: 72h\n    managed_since: 2026-02-03\n")
	later := written(t, "    trigger_within: 72h\n", "    trigger_within: 72h\n    managed_since: 2026-02-04\n")
	want(t, 1, []string{"2026-02-03  overnight  overdue"}, "status", "2026-02-03", "--exit-code", "--pipeline", ours)
	want(t, 0, []string{"2026-02-03  overnight  waiting", "not judged: the period is before the adoption"}, "status", "2026-02-03", "--exit-code", "--pipeline", later)
}

func TestStatus_NamesTheModesThereAre(t *testing.T) {
	night(t)
	want(t, 64, []string{`MODE: "overnigth": phase3_to_phase4 has tomorrow, same_day, overnight; did you mean "overnight"?`}, "status", "2026-02-03", "overnigth")
}

// A mistyped flag is answered with the one that was probably meant.
func TestFlags_AreSuggestedWhereTheyAreMistyped(t *testing.T) {
	want(t, 64, []string{`unknown flag: --exit-cod; did you mean "--exit-code"?`}, "status", "--exit-cod")
	want(t, 64, []string{`unknown flag: --pipelin; did you mean "--pipeline"?`}, "status", "--pipelin", "x")
	if code, _, stderr := command(t, "status", "--colour"); code != 64 || strings.Contains(stderr, "did you mean") {
		t.Errorf("%d %s", code, stderr)
	}
}
