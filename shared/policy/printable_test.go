package policy

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestVerdict_EscapesAndShortensReportedErrorType(t *testing.T) {
	tr := nba(t)
	m, _ := tr.Mode("overnight")
	for name, tc := range map[string]struct{ reported, want string }{
		"plain":   {"ValueError", "(ValueError)"},
		"escapes": {"E\x1b]0;pwned\a\nforged line", `("E\x1b]0;pwned\a\nforged line")`},
		"long":    {strings.Repeat("x", 1000), "(" + strings.Repeat("x", 100) + "…)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(pgs, "2026-02-04 06:00", status(wire.StatusFailed))
			r.ErrorType = tc.reported
			v := Decide(Input{Transition: tr, Mode: m, Period: gameDay, Runs: []Run{r}, Now: at("2026-02-04 06:01")})
			if !strings.Contains(v.Reason, tc.want) {
				t.Errorf("%q does not contain %q", v.Reason, tc.want)
			}
		})
	}
}
