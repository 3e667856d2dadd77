package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

func keysOf(rs []Run) []string {
	keys := names()
	for _, r := range rs {
		keys = append(keys, r.Key)
	}
	return keys
}

func coveredBy(rs ...Run) map[string]bool {
	covered := map[string]bool{}
	for _, r := range rs {
		covered[r.Key] = true
	}
	return covered
}

func TestPending_SelectsRunsForHandOver(t *testing.T) {
	evening, night := run(pgs, "2026-02-03 23:00"), run(pgs, "2026-02-04 01:15")
	team, upcoming := run(toff, "2026-02-04 06:00"), run(upg, "2026-02-03 10:40")
	for _, tc := range []struct {
		name    string
		mode    string
		covered []Run
		open    []Run
		want    []Run
		late    bool
	}{
		{name: "nothing_reported", mode: "overnight"},
		{name: "first_hand_over_takes_all_counting_runs_in_the_order_of_messages", mode: "overnight",
			open: []Run{upcoming, night, team, evening, run(tdef, "2026-02-04 06:00", failed("Timeout")), run("roster_history", "2026-02-04 06:00", unknown), run(pgs, "2026-02-03 12:00")},
			want: []Run{evening, night, team, upcoming}, late: true},
		{name: "everything_is_handed_over", mode: "overnight", covered: []Run{night, team, upcoming}},
		{name: "late_optional_one", mode: "overnight", covered: []Run{night, upcoming}, open: []Run{team}, want: []Run{team}, late: true},
		{name: "late_failure", mode: "overnight", covered: []Run{night, upcoming}, open: []Run{run(toff, "2026-02-04 06:00", failed("Timeout"))}},

		{name: "second_run_with_the_same_count", mode: "overnight", covered: []Run{night}, open: []Run{run(pgs, "2026-02-04 06:00")}},
		{name: "second_run_with_another_count", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 06:00", count(348))}, want: []Run{run(pgs, "2026-02-04 06:00", count(348))}},
		{name: "second_run_with_entities", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 06:00", entities("lebronjames"))}, want: []Run{run(pgs, "2026-02-04 06:00", entities("lebronjames"))}},
		{name: "second_run_with_a_truncated_list", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 06:00", truncated)}, want: []Run{run(pgs, "2026-02-04 06:00", truncated)}},
		{name: "second_run_incremental_in_name_only", mode: "overnight", covered: []Run{night}, open: []Run{run(pgs, "2026-02-04 06:00", entities())}},
		{name: "second_run_without_a_count", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 06:00", noCount)}, want: []Run{run(pgs, "2026-02-04 06:00", noCount)}},
		{name: "second_run_with_a_count_after_one_without", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 01:15", noCount)},
			open: []Run{run(pgs, "2026-02-04 06:00")}, want: []Run{run(pgs, "2026-02-04 06:00")}},
		{name: "neither_has_a_count", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 01:15", noCount)}, open: []Run{run(pgs, "2026-02-04 06:00", noCount)}},
		{name: "a_count_of_0_is_a_count", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 01:15", noCount)},
			open: []Run{run(pgs, "2026-02-04 06:00", count(0))}, want: []Run{run(pgs, "2026-02-04 06:00", count(0))}},
		{name: "second_run_that_failed", mode: "overnight", covered: []Run{night}, open: []Run{run(pgs, "2026-02-04 06:00", failed("Timeout"), count(3))}},
		{name: "second_run_where_they_are_ignored", mode: "same_day", covered: []Run{run(upg, "2026-02-03 10:40")},
			open: []Run{run(upg, "2026-02-03 11:00", count(7), entities("lebronjames"))}},
		{name: "late_optional_one_where_second_runs_are_ignored", mode: "same_day", covered: []Run{run(upg, "2026-02-03 10:40")},
			open: []Run{run(upg, "2026-02-03 11:00", count(7)), run(utg, "2026-02-03 11:10")}, want: []Run{run(utg, "2026-02-03 11:10")}, late: true},

		{name: "the_newest_covered_run_is_compared_with", mode: "overnight",
			covered: []Run{run(pgs, "2026-02-04 06:00", count(348)), night}, open: []Run{run(pgs, "2026-02-04 07:00", count(348))}},
		{name: "back_to_an_older_count_is_another_count", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", count(348)), night},
			open: []Run{run(pgs, "2026-02-04 07:00")}, want: []Run{run(pgs, "2026-02-04 07:00")}},
		{name: "an_older_run_with_another_count_that_arrives_later", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", count(348))},
			open: []Run{night}, want: []Run{night}},
		{name: "an_older_run_with_the_same_count_that_arrives_later", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00")}, open: []Run{night}},

		{name: "one_execution_that_reported_twice", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", entities("lebronjames"), execution("e"))},
			open: []Run{run(pgs, "2026-02-04 06:01", entities("lebronjames"), execution("e"))}},
		{name: "equal_to_a_covered_run_that_is_not_the_newest", mode: "overnight",
			covered: []Run{run(pgs, "2026-02-04 01:15", execution("e")), run(pgs, "2026-02-04 06:00", count(348))},
			open:    []Run{run(pgs, "2026-02-04 01:16", execution("e"))}},
		{name: "another_execution_that_reported_the_same_entities", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", entities("lebronjames"))},
			open: []Run{run(pgs, "2026-02-04 06:01", entities("lebronjames"))}, want: []Run{run(pgs, "2026-02-04 06:01", entities("lebronjames"))}},
		{name: "one_execution_with_another_count", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", execution("e"))},
			open: []Run{run(pgs, "2026-02-04 06:01", execution("e"), count(348))}, want: []Run{run(pgs, "2026-02-04 06:01", execution("e"), count(348))}},
		{name: "one_execution_with_other_entities", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", execution("e"), entities("a"))},
			open: []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("b"))}, want: []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("b"))}},
		{name: "one_execution_with_entities_and_another_status", mode: "overnight",
			covered: []Run{run(pgs, "2026-02-04 06:00", execution("e"), entities("a"), status(wire.StatusPartial))},
			open:    []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("a"))}, want: []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("a"))}},
		{name: "one_execution_whose_list_is_now_truncated", mode: "overnight", covered: []Run{run(pgs, "2026-02-04 06:00", execution("e"), entities("a"))},
			open: []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("a"), truncated)},
			want: []Run{run(pgs, "2026-02-04 06:01", execution("e"), entities("a"), truncated)}},

		{name: "a_changed_run_takes_the_unchanged_ones_along", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 07:00", count(348)), run(pgs, "2026-02-04 06:00")},
			want: []Run{run(pgs, "2026-02-04 06:00"), run(pgs, "2026-02-04 07:00", count(348))}},
		{name: "but_none_of_another_processor", mode: "overnight", covered: []Run{night, team},
			open: []Run{run(pgs, "2026-02-04 07:00", count(348)), run(toff, "2026-02-04 07:00")}, want: []Run{run(pgs, "2026-02-04 07:00", count(348))}},
		{name: "late_and_second_runs_go_together", mode: "overnight", covered: []Run{night},
			open: []Run{team, run(pgs, "2026-02-04 07:00", count(348))}, want: []Run{run(pgs, "2026-02-04 07:00", count(348)), team}, late: true},

		{name: "in_time_at_the_last_moment", mode: "overnight", covered: []Run{night}, open: []Run{run(toff, "2026-02-07 00:00")},
			want: []Run{run(toff, "2026-02-07 00:00")}, late: true},
		{name: "never_handed_over_and_too_late", mode: "overnight", covered: []Run{night}, open: []Run{run(toff, "2026-02-07 00:00:01")}},
		{name: "changed_but_too_late", mode: "overnight", covered: []Run{night}, open: []Run{run(pgs, "2026-02-07 00:00:01", count(348))}},
		{name: "a_run_too_late_does_not_go_along", mode: "overnight", covered: []Run{night},
			open: []Run{run(pgs, "2026-02-04 06:00", count(348)), run(pgs, "2026-02-07 00:00:01", count(349))}, want: []Run{run(pgs, "2026-02-04 06:00", count(348))}},
		// A person may hand over what came too late; then it is what consumers have.
		{name: "compared_with_a_covered_run_that_was_too_late", mode: "overnight", covered: []Run{run(pgs, "2026-02-09 12:00", count(348))},
			open: []Run{run(pgs, "2026-02-04 06:00", count(348))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := input(t, nba(t), tc.mode, "", "", append(append([]Run{}, tc.open...), tc.covered...))
			got, late := Pending(in, coveredBy(tc.covered...))
			if diff := cmp.Diff(keysOf(tc.want), keysOf(got)); diff != "" || late != tc.late {
				t.Errorf("late: %v, want %v; runs (-want +got):\n%s", late, tc.late, diff)
			}
		})
	}
}

// Batches of another mode do not cover a run in this one: each cycle has its own batches.
func TestPending_RunIsHandedOverInEachModeItCountsFor(t *testing.T) {
	for _, mode := range []string{"same_day", "overnight"} {
		r := run(upg, "2026-02-03 10:40")
		if got, late := Pending(input(t, nba(t), mode, "", "", []Run{r}), nil); !late || !cmp.Equal(keysOf(got), names(r.Key)) {
			t.Errorf("%s: %v, late %v", mode, keysOf(got), late)
		}
	}
}
