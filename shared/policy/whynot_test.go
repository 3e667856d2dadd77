package policy

import (
	"testing"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestWhyNot_NamesReasonRunDoesNotCount(t *testing.T) {
	tr := nba(t)
	for name, tc := range map[string]struct {
		mode string
		run  Run
		want string
	}{
		"counts":                   {"overnight", run(pgs, "2026-02-04 06:00"), ""},
		"accepted_earlier":         {"overnight", run(upg, "2026-02-02 17:00"), ""},
		"evening":                  {"overnight", run(toff, "2026-02-03 22:40"), ""},
		"stranger":                 {"overnight", run("", "2026-02-04 06:00"), "the pipeline knows no such processor"},
		"not_expected_by_the_mode": {"same_day", run(pgs, "2026-02-03 11:00"), "same_day does not expect this processor"},
		"failed":                   {"overnight", run(pgs, "2026-02-04 06:00", status(wire.StatusFailed)), "it reported failed"},
		"of_another_mode":          {"same_day", run(upg, "2026-02-02 17:00"), "it belongs to tomorrow"},
		"before_its_hours":         {"overnight", run(toff, "2026-02-03 17:59"), "it completed before 18:00 EST"},
		"before_the_day_before":    {"tomorrow", run(upg, "2026-02-02 09:00"), "it completed before 2026-02-02 16:30 EST"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := tr.Mode(tc.mode)
			in := Input{Transition: tr, Mode: m, Period: gameDay}
			if got := WhyNot(in, tc.run); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			in.Runs = []Run{tc.run}
			if counts := len(Counting(in)) == 1; counts != (tc.want == "") {
				t.Errorf("counts: %t", counts)
			}
		})
	}
}
