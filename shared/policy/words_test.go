package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestVerdict_NamesFailedProcessorWithErrorImmediately(t *testing.T) {
	upcoming := runs("2026-02-03 10:40", upg, utg)
	const before = "upcoming_player_game_context complete, 2 of 5, not every critical one; missing player_game_summary (critical), team_defense_game_summary and team_offense_game_summary (optional)"
	for _, tc := range []struct {
		name string
		runs []Run
		want string
	}{
		{"failed_with_an_error", []Run{run(pgs, "2026-02-04 06:10", failed("DataQualityError"))},
			before + "; player_game_summary reported failed at 2026-02-04 06:10 EST (DataQualityError: a long story)"},
		{"failed_without_one", []Run{run(pgs, "2026-02-04 06:10", failed(""))},
			before + "; player_game_summary reported failed at 2026-02-04 06:10 EST (a long story)"},
		{"failed_on_the_evening_that_belongs_to_the_night", []Run{run(pgs, "2026-02-03 23:40", failed("Timeout"))},
			before + "; player_game_summary reported failed at 23:40 EST (Timeout: a long story)"},
		{"no_data", []Run{run(toff, "2026-02-04 06:10", status(wire.StatusNoData))},
			before + "; team_offense_game_summary reported no_data at 2026-02-04 06:10 EST"},
		{"skipped", []Run{run(toff, "2026-02-04 06:10", status(wire.StatusSkipped))},
			before + "; team_offense_game_summary reported skipped at 2026-02-04 06:10 EST"},
		{"several_in_the_order_of_messages", []Run{run(toff, "2026-02-04 06:10", status(wire.StatusNoData)), run(pgs, "2026-02-04 06:12", failed("Timeout"))},
			before + "; player_game_summary reported failed at 2026-02-04 06:12 EST (Timeout: a long story), team_offense_game_summary reported no_data at 2026-02-04 06:10 EST"},
		{"the_last_of_several_failures", []Run{run(pgs, "2026-02-04 06:30", failed("Timeout")), run(pgs, "2026-02-04 06:10", failed("DataQualityError"))},
			before + "; player_game_summary reported failed at 2026-02-04 06:30 EST (Timeout: a long story)"},
		{"a_completed_one_that_failed_before_and_after", []Run{run(upg, "2026-02-04 06:10", failed("Timeout")), run(upg, "2026-02-03 09:10", failed("Timeout"))}, before},
		{"an_unknown_one", []Run{run("roster_history", "2026-02-04 06:10", failed("Timeout"), unknown)}, before},
		{"a_failure_of_an_afternoon_that_would_not_have_counted", []Run{run(pgs, "2026-02-03 15:00", failed("Timeout"))}, before},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Decide(input(t, nba(t), "overnight", "2026-02-04 07:00", "", append(tc.runs, upcoming...)))
			if got.State != Waiting || got.Reason != tc.want {
				t.Errorf("%s:\n%s\nwant waiting:\n%s", got.State, got.Reason, tc.want)
			}
		})
	}
}

func TestVerdict_ReasonIncludesFailureWhenWaitingOrOverdue(t *testing.T) {
	rs := []Run{run(upg, "2026-02-02 18:00", failed("Timeout")), run(upg, "2026-02-03 10:40", failed("KeyError"))}
	for _, tc := range []struct{ mode, now, want string }{
		{"tomorrow", "2026-02-02 19:00", "; upcoming_player_game_context reported failed at 2026-02-02 18:00 EST (Timeout: a long story)"},
		{"same_day", "2026-02-03 13:00", "; upcoming_player_game_context reported failed at 10:40 EST (KeyError: a long story)"},
		{"overnight", "2026-02-04 10:00", "; upcoming_player_game_context reported failed at 10:40 EST (KeyError: a long story)"},
	} {
		if got := Decide(input(t, nba(t), tc.mode, tc.now, "", rs)); !strings.HasSuffix(got.Reason, tc.want) {
			t.Errorf("%s: %q, want it to end with %q", tc.mode, got.Reason, tc.want)
		}
	}
}

func TestVerdict_IgnoredListsReportsOfModeTimeThatCountForNoMode(t *testing.T) {
	rs := []Run{
		run("roster_history", "2026-02-04 06:00", unknown),
		run("defense_zone_analytics", "2026-02-04 06:00", unknown),
		run("roster_history", "2026-02-04 07:00", unknown),
		run(tdef, "2026-02-04 06:00", failed("Timeout")),
		run(toff, "2026-02-04 06:00", failed("Timeout")),
		run(toff, "2026-02-04 06:30"),
		run(pgs, "2026-02-03 15:00"),  // the game has not begun
		run(upg, "2026-02-03 09:00"),  // too early for the day, so that the night does not accept it either
		run(toff, "2026-02-03 22:00"), // counts for the night
		run(utg, "2026-02-03 09:00", failed("Timeout")),
		run(utg, "2026-02-02 12:00", status(wire.StatusNoData)),
	}
	for mode, want := range map[string][]string{
		"tomorrow":  {utg},
		"same_day":  {pgs, upg, utg},
		"overnight": {"defense_zone_analytics", "roster_history", tdef},
	} {
		if got := Decide(input(t, nba(t), mode, "2026-02-04 08:00", "", rs)).Ignored; !cmp.Equal(want, got) {
			t.Errorf("%s ignores %v, want %v", mode, got, want)
		}
	}
}

func TestVerdict_NamesPolicyAndDefinition(t *testing.T) {
	tr := nba(t)
	for mode, want := range map[string]string{
		"tomorrow":  "complete: critical, deadline -1d 21:00",
		"same_day":  "complete: critical, deadline 13:00",
		"overnight": "complete: all, or critical and 60% after 30m, not before +1d 05:00, deadline +1d 10:00",
	} {
		got := Decide(input(t, tr, mode, "2026-02-04 08:00", "", nil))
		if got.Policy != want || got.Definition != tr.Definition() {
			t.Errorf("%s: policy %q of %s, want %q of %s", mode, got.Policy, got.Definition, want, tr.Definition())
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A verdict is stored as JSON and read by people and by scripts: lists are lists even
// when they are empty, and what does not apply is left out.
func TestVerdict_JSONHasEmptyListsAndOmitsZeroTimes(t *testing.T) {
	b := marshal(t, Decide(input(t, nba(t), "same_day", "2026-02-03 14:00", "", runs("2026-02-03 10:40", upg, utg))))
	for _, want := range []string{`"missing":[]`, `"ignored":[]`, `"cause":"all_complete"`, `"since":"2026-02-03T15:40:00Z"`} {
		if !strings.Contains(b, want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if strings.Contains(b, "next_check") {
		t.Errorf("a next check in %s", b)
	}
	if b := marshal(t, Decide(input(t, nba(t), "same_day", "2026-02-03 11:00", "", nil))); !strings.Contains(b, `"satisfied":[]`) || strings.Contains(b, `"since"`) {
		t.Errorf("no empty list of the satisfied, or a since, in %s", b)
	}
}
