package reconcile

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// A name that was changed without formerly is reported, and nothing is repaired: records that
// seem to be missing under the new name exist under the other.
func TestRun_ReportsARenamingAndRepairsNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		from, to string
		formerly string
		findings string
	}{
		"transition":      {"- id: phase3_to_phase4", "- id: up_to_down", "\n    formerly: [phase3_to_phase4]", "renamed"},
		"mode":            {"- name: overnight", "- name: late", "\n        formerly: [overnight]", "renamed"},
		"transition_said": {"- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4]", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.first()
			s.good("2026-02-02")
			s.good(night)
			before := len(s.PubSub.Messages())
			rename := func(to string) {
				definition := strings.NewReplacer(tc.from, to, "modes: [overnight]", "modes: ["+map[bool]string{true: "late", false: "overnight"}[name == "mode"]+"]").Replace(string(pipeline.Default()))
				p, err := pipeline.Parse([]byte(definition))
				if err != nil {
					t.Fatal(err)
				}
				s.rec.Pipeline, s.tr = p, p.Transitions[0]
			}
			rename(tc.to)
			if tc.findings != "" { // one report by the new name, as a second run sends it
				s.report(night, "team_defense_game_summary", 20)
			}
			found := 0
			for _, f := range s.run("2026-02-02", night, "ada@host").Findings {
				switch {
				case f.Status == Repaired && tc.findings != "":
					t.Errorf("%s of %s was repaired", f.Type, f.Period)
				case f.Type == Renamed && f.Severity == Critical && strings.Contains(f.Repair, "write `formerly: ["):
					found++
				}
			}
			if found != len(tc.findings)/len("renamed") {
				t.Errorf("%d renamings", found)
			}
			rename(tc.to + tc.formerly)
			s.run("2026-02-02", night, "ada@host") // the document that others read gets the new names
			if r := s.run("2026-02-02", night, "ada@host"); types(r) != "" || len(r.Unknown) != 0 {
				t.Errorf("with formerly: %q %q", types(r), r.Unknown)
			}
			if n := len(s.PubSub.Messages()); n != before {
				t.Errorf("%d messages more", n-before)
			}
		})
	}
}
