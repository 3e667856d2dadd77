package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// modesCounting returns the modes for which a run counts, in the definition's order.
func modesCounting(tr *pipeline.Transition, p pipeline.Period, r Run) []string {
	counting := names()
	for _, m := range tr.Modes {
		if len(Counting(Input{Transition: tr, Mode: m, Period: p, Runs: []Run{r}})) > 0 {
			counting = append(counting, m.Name)
		}
	}
	return counting
}

func TestCounting_SelectsModesOfRun(t *testing.T) {
	tr := nba(t)
	for _, tc := range []struct {
		name string
		run  Run
		want []string
	}{
		{"team_on_the_evening_of_the_game", run(toff, "2026-02-03 23:10"), names("overnight")},
		{"team_from_18_00_of_the_game_date", run(toff, "2026-02-03 18:00"), names("overnight")},
		{"team_before_18_00_of_the_game_date", run(toff, "2026-02-03 17:59:59"), names()},
		{"team_the_day_before", run(toff, "2026-02-02 19:00"), names()},
		{"team_after_midnight", run(toff, "2026-02-04 00:00"), names("overnight")},
		{"players_in_the_morning_after", run(pgs, "2026-02-04 06:03"), names("overnight")},
		{"players_on_the_evening_of_the_game", run(pgs, "2026-02-03 22:50"), names("overnight")},
		{"upcoming_the_day_before", run(upg, "2026-02-02 17:03"), names("tomorrow", "overnight")},
		{"upcoming_from_16_30_the_day_before", run(upg, "2026-02-02 16:30"), names("tomorrow", "overnight")},
		{"upcoming_before_16_30_the_day_before", run(upg, "2026-02-02 16:29:59"), names()},
		{"upcoming_six_days_before", run(upg, "2026-01-28 17:03"), names()},
		{"upcoming_36_years_before", run(utg, "1990-02-02 17:03"), names()},
		{"upcoming_of_the_same_day", run(upg, "2026-02-03 10:34"), names("same_day", "overnight")},
		{"upcoming_from_10_00", run(utg, "2026-02-03 10:00"), names("same_day", "overnight")},
		{"upcoming_before_10_00", run(utg, "2026-02-03 09:59:59"), names()},
		{"odds_update_of_the_evening", run(upg, "2026-02-03 23:59:59"), names("same_day", "overnight")},
		{"odds_update_at_00_03", run(upg, "2026-02-04 00:03"), names("overnight")},
		{"odds_update_at_00_03_of_the_game_date", run(upg, "2026-02-03 00:03"), names()},
		{"partial", run(pgs, "2026-02-04 06:03", status(wire.StatusPartial)), names("overnight")},
		{"failed", run(pgs, "2026-02-04 06:03", failed("Timeout")), names()},
		{"no_data", run(upg, "2026-02-03 10:34", status(wire.StatusNoData)), names()},
		{"skipped", run(upg, "2026-02-03 10:34", status(wire.StatusSkipped)), names()},
		{"unknown_name", run("roster_history", "2026-02-04 06:03", unknown), names()},
		{"name_that_only_an_older_definition_knew", run("defense_zone_analytics", "2026-02-04 06:03"), names()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := modesCounting(tr, gameDay, tc.run); !cmp.Equal(tc.want, got) {
				t.Errorf("counts for %v, want %v", got, tc.want)
			}
		})
	}
}

// A mode that accepts earlier runs of one processor does not accept those of another,
// and no mode accepts later ones.
func TestCounting_AcceptsEarlierRunsOfNamedProcessorsOnly(t *testing.T) {
	tr := nba(t, "accept_earlier: [upcoming_player_game_context, upcoming_team_game_context]", "accept_earlier: [upcoming_team_game_context]",
		`counts_from: "10:00"`, `counts_from: "10:00"`+"\n        accept_earlier: [upcoming_player_game_context]")
	for _, tc := range []struct {
		run  Run
		want []string
	}{
		{run(upg, "2026-02-02 17:00"), names("tomorrow", "same_day")},
		{run(upg, "2026-02-03 09:00"), names()}, // too early for its own mode, which it is not earlier than
		{run(upg, "2026-02-03 11:00"), names("same_day")},
		{run(upg, "2026-02-04 06:00"), names("overnight")},
		{run(utg, "2026-02-02 17:00"), names("tomorrow", "overnight")},
		{run(utg, "2026-02-03 11:00"), names("same_day", "overnight")},
	} {
		if got := modesCounting(tr, gameDay, tc.run); !cmp.Equal(tc.want, got) {
			t.Errorf("%s counts for %v, want %v", tc.run.Key, got, tc.want)
		}
	}
}

// A mode takes from an earlier one what that mode itself has taken, and nothing that it
// has refused.
func TestAcceptEarlier_CountsOnlyRunsThatCountForTheirOwnMode(t *testing.T) {
	fewer := nba(t, `        critical: [upcoming_player_game_context]
        optional: [upcoming_team_game_context]
        complete: critical
        counts_from: "10:00"`, `        critical: [upcoming_player_game_context]
        optional: []
        complete: critical
        counts_from: "10:00"`)
	alone := nba(t, "accept_earlier: [", "accept_earlier: [team_offense_game_summary, ")
	for _, tc := range []struct {
		name string
		tr   *pipeline.Transition
		run  Run
		want []string
		why  string // not for overnight
	}{
		{"at_the_first_instant_of_its_own_mode", nba(t), run(upg, "2026-02-02 16:30"), names("tomorrow", "overnight"), ""},
		{"before_it", nba(t), run(upg, "2026-02-02 16:29:59"), names(), "it belongs to tomorrow, and completed before 2026-02-02 16:30 EST"},
		{"36_years_before_it", nba(t), run(upg, "1990-02-02 17:00"), names(), "it belongs to tomorrow, and completed before 2026-02-02 16:30 EST"},
		{"too_early_for_the_day_itself", nba(t), run(utg, "2026-02-03 09:59"), names(), "it belongs to same_day, and completed before 10:00 EST"},
		{"in_the_time_of_a_mode_that_does_not_expect_it", fewer, run(utg, "2026-02-03 11:00"), names(), "it completed in the time of same_day, which does not expect this processor"},
		{"in_the_time_of_one_that_does", fewer, run(utg, "2026-02-02 17:00"), names("tomorrow", "overnight"), ""},
		{"its_only_mode_refuses_it", alone, run(toff, "2026-02-03 17:59"), names(), "it completed before 18:00 EST"},
		{"its_only_mode_takes_it", alone, run(toff, "2026-02-03 18:00"), names("overnight"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := modesCounting(tc.tr, gameDay, tc.run); !cmp.Equal(tc.want, got) {
				t.Errorf("counts for %v, want %v", got, tc.want)
			}
			m, _ := tc.tr.Mode("overnight")
			if got := WhyNot(Input{Transition: tc.tr, Mode: m, Period: gameDay}, tc.run); got != tc.why {
				t.Errorf("why not %q, want %q", got, tc.why)
			}
		})
	}
}

// A night waits for its contexts while only contexts of six days before are recorded: those
// complete nothing.
func TestDecide_WaitsForContextsWhileOnlyStaleOnesAreOnRecord(t *testing.T) {
	in := input(t, nba(t), "overnight", "2026-02-04 06:30", "", append(runs("2026-02-04 06:00", pgs, tdef, toff), runs("2026-01-28 17:00", upg, utg)...))
	v := Decide(in)
	if v.State != Waiting || !cmp.Equal(v.Missing, names(upg, utg)) {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
	if runs, _ := Pending(in, nil); !cmp.Equal(processorsOf(runs), names(pgs, tdef, toff)) {
		t.Errorf("to be handed over: %v", keysOf(runs))
	}
}

// Without a mode for the time before the period, a run of that time has no mode of
// its own, so that it is an earlier run of no mode.
func TestCounting_RunOutsideDeclaredModesIsNotAcceptedAsEarlier(t *testing.T) {
	tr := nba(t, `      - name: tomorrow
        event: before
        critical: [upcoming_player_game_context]
        optional: [upcoming_team_game_context]
        complete: critical
        counts_from: "-1d 16:30"
        deadline: "-1d 21:00"
        second_runs: ignore
`, "", `counts_from: "18:00"`, `counts_from: "-1d 18:00"`)
	for _, tc := range []struct {
		run  Run
		want []string
	}{
		{run(upg, "2026-02-02 19:00"), names()},
		{run(upg, "2026-02-03 11:00"), names("same_day", "overnight")},
		{run(toff, "2026-02-02 19:00"), names("overnight")}, // the only mode that names it
		{run(toff, "2026-02-02 17:00"), names()},
	} {
		if got := modesCounting(tr, gameDay, tc.run); !cmp.Equal(tc.want, got) {
			t.Errorf("%s counts for %v, want %v", tc.run.Key, got, tc.want)
		}
	}
}

func TestCounting_UsesLocalTimeAcrossClockChange(t *testing.T) {
	tr := nba(t)
	for _, tc := range []struct {
		name      string
		period    pipeline.Period
		processor string
		event     string // UTC
		want      []string
	}{
		{"winter_time_on_the_eve", "2026-03-07", toff, "2026-03-07T23:00:00Z", names("overnight")},
		{"winter_time_on_the_eve_too_early", "2026-03-07", toff, "2026-03-07T22:59:59Z", names()},
		{"last_second_of_the_eve", "2026-03-07", upg, "2026-03-08T04:59:59Z", names("same_day", "overnight")},
		{"first_second_after_the_eve", "2026-03-07", upg, "2026-03-08T05:00:00Z", names("overnight")},
		{"just_after_the_leap", "2026-03-07", pgs, "2026-03-08T07:00:00Z", names("overnight")},
		{"summer_time_at_18_00", "2026-03-08", toff, "2026-03-08T22:00:00Z", names("overnight")},
		{"summer_time_before_18_00", "2026-03-08", toff, "2026-03-08T21:59:59Z", names()},
		{"the_short_day_ends_an_hour_sooner", "2026-03-08", upg, "2026-03-09T04:00:00Z", names("overnight")},
		{"summer_time_on_halloween", "2026-10-31", toff, "2026-10-31T22:00:00Z", names("overnight")},
		{"halloween_ends_by_summer_time", "2026-10-31", upg, "2026-11-01T04:00:00Z", names("overnight")},
		{"first_of_two_half_past_ones", "2026-10-31", pgs, "2026-11-01T05:30:00Z", names("overnight")},
		{"second_of_two_half_past_ones", "2026-10-31", pgs, "2026-11-01T06:30:00Z", names("overnight")},
		{"winter_time_at_18_00", "2026-11-01", toff, "2026-11-01T23:00:00Z", names("overnight")},
		{"winter_time_before_18_00", "2026-11-01", toff, "2026-11-01T22:59:59Z", names()},
		{"the_long_day_ends_an_hour_later", "2026-11-01", upg, "2026-11-02T04:59:59Z", names("same_day", "overnight")},
		{"the_day_before_the_long_day", "2026-11-01", upg, "2026-10-31T20:30:00Z", names("tomorrow", "overnight")},
		{"the_day_before_the_long_day_too_early", "2026-11-01", upg, "2026-10-31T20:29:59Z", names()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(tc.processor, "2026-02-04 06:00")
			var err error
			if r.EventTime, err = time.Parse(time.RFC3339, tc.event); err != nil {
				t.Fatal(err)
			}
			if got := modesCounting(tr, tc.period, r); !cmp.Equal(tc.want, got) {
				t.Errorf("counts for %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCounting_ReturnsOldestRunsFirst(t *testing.T) {
	want := []Run{run(toff, "2026-02-03 23:00"), run(pgs, "2026-02-04 01:00", key("a")), run(tdef, "2026-02-04 01:00", key("b")), run(pgs, "2026-02-04 06:00")}
	in := input(t, nba(t), "overnight", "", "", []Run{want[3], want[2], run(pgs, "2026-02-04 00:30", failed("")), want[0], want[1]})
	given := slices.Clone(in.Runs)
	if diff := cmp.Diff(want, Counting(in)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(given, in.Runs); diff != "" {
		t.Errorf("the caller's runs were changed (-want +got):\n%s", diff)
	}
}
