package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestCollected_KeepsFurtherRunsForTheInterval(t *testing.T) {
	first, second, third := run(pgs, "2026-02-04 06:00"), run(pgs, "2026-02-04 07:10", count(348)), run(pgs, "2026-02-04 07:11", count(350))
	team := run(toff, "2026-02-04 07:11")
	began := names(pgs, tdef, toff, upg, utg)
	for name, tc := range map[string]struct {
		now       string
		again     map[string]time.Time
		began     []string
		pending   []Run
		collected []Run
		until     string
	}{
		"handed_over_again_a_minute_ago": {now: "2026-02-04 07:11", again: map[string]time.Time{pgs: at("2026-02-04 07:10")}, began: began,
			pending: []Run{team}, collected: []Run{third}, until: "2026-02-04 07:12"},
		"at_the_last_moment": {now: "2026-02-04 07:11:59", again: map[string]time.Time{pgs: at("2026-02-04 07:10")}, began: began,
			pending: []Run{team}, collected: []Run{third}, until: "2026-02-04 07:12"},
		"the_interval_has_passed": {now: "2026-02-04 07:12", again: map[string]time.Time{pgs: at("2026-02-04 07:10")}, began: began, pending: []Run{third, team}},
		"handed_over_once":        {now: "2026-02-04 07:11", again: map[string]time.Time{pgs: {}}, began: began, pending: []Run{third, team}},
		"another_was_handed_over_again": {now: "2026-02-04 07:11", again: map[string]time.Time{pgs: {}, toff: at("2026-02-04 07:10")}, began: began,
			pending: []Run{third, team}},
		"the_cycle_has_not_begun": {now: "2026-02-04 07:11", again: map[string]time.Time{pgs: at("2026-02-04 07:10")}, pending: []Run{third, team}},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t, nba(t), "overnight", tc.now, "", []Run{first, second, third, team})
			in.Began, in.Again = tc.began, tc.again
			covered := coveredBy(first, second)
			pending, _ := Pending(in, covered)
			collected, until := Collected(in, covered)
			var want time.Time
			if tc.until != "" {
				want = at(tc.until)
			}
			if diff := cmp.Diff([][]string{keysOf(tc.pending), keysOf(tc.collected)}, [][]string{keysOf(pending), keysOf(collected)}); diff != "" || !until.Equal(want) {
				t.Errorf("until %s, want %s; pending and collected (-want +got):\n%s", until, want, diff)
			}
		})
	}
}

func TestRepeats_IsOnlyWhatSaysNothingNew(t *testing.T) {
	newest := run(pgs, "2026-02-04 06:00")
	for name, tc := range map[string]struct {
		newest, run Run
		want        bool
	}{
		"the_same_again":           {newest, run(pgs, "2026-02-04 06:10"), true},
		"neither_has_a_count":      {run(pgs, "2026-02-04 06:00", noCount), run(pgs, "2026-02-04 06:10", noCount), true},
		"another_count":            {newest, run(pgs, "2026-02-04 06:10", count(348)), false},
		"no_count":                 {newest, run(pgs, "2026-02-04 06:10", noCount), false},
		"entities":                 {newest, run(pgs, "2026-02-04 06:10", entities("lebronjames")), false},
		"a_list_that_is_truncated": {newest, run(pgs, "2026-02-04 06:10", truncated), false},
		"newest_with_entities":     {run(pgs, "2026-02-04 06:00", entities("lebronjames")), run(pgs, "2026-02-04 06:10"), false},
		"another_processor":        {newest, run(toff, "2026-02-04 06:10"), false},
		"partial":                  {newest, run(pgs, "2026-02-04 06:10", status(wire.StatusPartial)), false},
		"failed":                   {run(pgs, "2026-02-04 06:00", failed("x")), run(pgs, "2026-02-04 06:10", failed("x")), false},
		"older":                    {newest, run(pgs, "2026-02-04 05:50"), false},
		"in_another_mode":          {run(upg, "2026-02-03 10:40"), run(upg, "2026-02-04 06:00"), false},
		"counts_and_does_not":      {run(pgs, "2026-02-03 17:00"), run(pgs, "2026-02-03 18:30"), false},
		"in_time_and_too_late":     {newest, run(pgs, "2026-02-07 00:00:01"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Repeats(nba(t), gameDay, tc.newest, tc.run); got != tc.want {
				t.Errorf("%t, want %t", got, tc.want)
			}
		})
	}
}
