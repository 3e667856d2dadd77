package app

import (
	"os"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestNotifications_FollowCycleStatus(t *testing.T) {
	all := pipeline.Mode{Name: "overnight", Critical: []string{"a"}, Optional: []string{"b"}, Complete: pipeline.CompleteAll}
	critical := all
	critical.Complete = pipeline.CompleteCritical
	file, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	chained, err := pipeline.Parse(file) // of two transitions
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		mode     pipeline.Mode
		status   cycle.Status
		told     bool
		state    string // "" is over
		severity notify.Severity
		page     string
	}{
		"blocked":             {all, cycle.Status{State: "blocked"}, true, "blocked", notify.Warning, "cycle-blocked"},
		"overdue":             {all, cycle.Status{State: "overdue"}, true, "overdue", notify.Critical, "cycle-overdue"},
		"on_hold":             {all, cycle.Status{State: "on_hold", Hold: &cycle.Hold{}}, false, "", "", ""},
		"degraded":            {all, cycle.Status{State: "published", Missing: []string{"b"}}, true, "degraded", notify.Warning, "processor-errors"},
		"without_an_optional": {critical, cycle.Status{State: "published", Missing: []string{"b"}}, true, "", "", ""},
		"complete":            {all, cycle.Status{State: "published"}, true, "", "", ""},
		"closed":              {all, cycle.Status{State: "closed"}, true, "", "", ""},
		"critical_failed":     {all, cycle.Status{State: "waiting", Failed: []string{"a", "b"}}, true, "failed: a", notify.Critical, "processor-errors"},
		"optional_failed":     {all, cycle.Status{State: "waiting", Failed: []string{"b"}}, false, "", "", ""},
		"early_failed":        {all, cycle.Managed{Since: "2026-02-04"}.Judged(cycle.Status{State: "waiting", Period: "2026-02-03", Failed: []string{"a"}}), true, "", "", ""},
		"early_overdue":       {all, cycle.Managed{Since: "2026-02-04"}.Judged(cycle.Status{State: "overdue", Period: "2026-02-03"}), true, "", "", ""},
		"waiting":             {all, cycle.Status{State: "waiting", Missing: []string{"a"}}, false, "", "", ""},
		"grace":               {all, cycle.Status{State: "grace", Missing: []string{"b"}}, false, "", "", ""},
		"publishing":          {all, cycle.Status{State: "publishing"}, false, "", "", ""},
	} {
		tc.status.Cycle, tc.status.Period, tc.status.Mode = "t_2026-02-03_overnight", "2026-02-03", "overnight"
		got := cycleNotifications(&pipeline.Transition{ID: "t"}, tc.mode, tc.status)
		if (len(got) == 1) != tc.told {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if !tc.told {
			continue
		}
		n := got[0]
		if n.Subject != "cycle_t_2026-02-03_overnight" || n.State != tc.state || n.Page != tc.page || n.Command != "phasectl explain 2026-02-03 overnight" || n.State != "" && n.Severity != tc.severity {
			t.Errorf("%s: %+v", name, n)
		}
		if n := cycleNotifications(chained.Transitions[0], tc.mode, tc.status)[0]; n.Command != "phasectl explain 2026-02-03 overnight --transition enrich_to_aggregate" ||
			!strings.HasPrefix(n.Title, "2026-02-03 overnight of enrich_to_aggregate ") {
			t.Errorf("of two transitions, %s: %+v", name, n)
		}
	}
}
