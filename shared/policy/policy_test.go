package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestVerdict_WaitingNamesMissingProcessorsAndNextCheck(t *testing.T) {
	deadline := at("2026-02-04 10:00")
	check(t, nba(t), []decision{{
		name: "overnight_without_a_run", mode: "overnight", now: "2026-02-04 02:00",
		want: Verdict{State: Waiting, Satisfied: names(), Missing: names(pgs, tdef, toff, upg, utg), NextCheck: deadline,
			Reason: "0 of 5 complete; missing " +
				"player_game_summary and upcoming_player_game_context (critical), team_defense_game_summary, team_offense_game_summary and upcoming_team_game_context (optional)"},
	}, {
		name: "overnight_with_optional_ones_alone", mode: "overnight", now: "2026-02-04 02:00",
		runs: runs("2026-02-04 01:30", utg, toff, tdef), // 60 % are there
		want: Verdict{State: Waiting, Satisfied: names(tdef, toff, utg), Missing: names(pgs, upg), NextCheck: deadline,
			Reason: "3 of 5 complete, none of them critical; missing player_game_summary and upcoming_player_game_context (critical)"},
	}, {
		name: "overnight_with_one_critical", mode: "overnight", now: "2026-02-04 06:30",
		runs: runs("2026-02-04 06:10", pgs),
		want: Verdict{State: Waiting, Satisfied: names(pgs), Missing: names(tdef, toff, upg, utg), NextCheck: deadline,
			Reason: "player_game_summary complete, 1 of 5, not every critical one; missing " +
				"upcoming_player_game_context (critical), team_defense_game_summary, team_offense_game_summary and upcoming_team_game_context (optional)"},
	}, {
		name: "both_critical_ones_are_no_quorum", mode: "overnight", now: "2026-02-04 06:30", graceStart: "2026-02-04 05:30",
		runs: runs("2026-02-04 05:10", upg, pgs),
		want: Verdict{State: Waiting, Satisfied: names(pgs, upg), Missing: names(tdef, toff, utg), NextCheck: deadline,
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5; missing " +
				"team_defense_game_summary, team_offense_game_summary and upcoming_team_game_context (optional)"},
	}, {
		name: "four_of_five_never_do_without_a_critical_one", mode: "overnight", now: "2026-02-04 09:59:59", graceStart: "2026-02-04 05:30",
		runs: runs("2026-02-04 05:10", utg, toff, tdef, pgs),
		want: Verdict{State: Waiting, Satisfied: names(pgs, tdef, toff, utg), Missing: names(upg), NextCheck: deadline,
			Reason: "player_game_summary complete, 4 of 5, not every critical one; missing upcoming_player_game_context (critical)"},
	}, {
		name: "complete_before_not_before", mode: "overnight", now: "2026-02-04 04:59:59",
		runs: runs("2026-02-04 01:30", pgs, tdef, toff, upg, utg),
		want: Verdict{State: Waiting, Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(), NextCheck: at("2026-02-04 05:00"),
			Reason: "5 of 5 complete, not handed over before 2026-02-04 05:00 EST"},
	}, {
		name: "same_day_without_a_run", mode: "same_day", now: "2026-02-03 12:59:59",
		want: Verdict{State: Waiting, Satisfied: names(), Missing: names(upg, utg), NextCheck: at("2026-02-03 13:00"),
			Reason: "0 of 2 complete; missing upcoming_player_game_context (critical), upcoming_team_game_context (optional)"},
	}, {
		name: "same_day_with_the_optional_one", mode: "same_day", now: "2026-02-03 11:00",
		runs: runs("2026-02-03 10:40", utg),
		want: Verdict{State: Waiting, Satisfied: names(utg), Missing: names(upg), NextCheck: at("2026-02-03 13:00"),
			Reason: "1 of 2 complete, none of them critical; missing upcoming_player_game_context (critical)"},
	}, {
		name: "tomorrow_without_a_run", mode: "tomorrow", now: "2026-02-02 17:00",
		want: Verdict{State: Waiting, Satisfied: names(), Missing: names(upg, utg), NextCheck: at("2026-02-02 21:00"),
			Reason: "0 of 2 complete; missing upcoming_player_game_context (critical), upcoming_team_game_context (optional)"},
	}})
}

func TestDecide_WithoutDeadlineOnlyRunChangesVerdict(t *testing.T) {
	check(t, nba(t, `deadline: "13:00"`, `not_before: "10:30"`), []decision{{
		name: "waits_for_good", mode: "same_day", now: "2026-02-05 12:00",
		want: Verdict{State: Waiting, Satisfied: names(), Missing: names(upg, utg),
			Reason: "0 of 2 complete; missing upcoming_player_game_context (critical), upcoming_team_game_context (optional)"},
	}, {
		name: "an_instant_within_the_period_is_said_without_its_date", mode: "same_day", now: "2026-02-03 10:20", runs: runs("2026-02-03 10:10", upg),
		want: Verdict{State: Waiting, Satisfied: names(upg), Missing: names(utg), NextCheck: at("2026-02-03 10:30"),
			Reason: "upcoming_player_game_context complete, 1 of 2, not handed over before 10:30 EST; missing upcoming_team_game_context (optional)"},
	}})
}

func TestGrace_BeginsWithQuorumAndEndsWithHandOver(t *testing.T) {
	three, four := runs("2026-02-04 05:40", pgs, upg, utg), runs("2026-02-04 05:40", pgs, upg, utg, toff)
	const sum3 = "player_game_summary and upcoming_player_game_context complete, 3 of 5"
	const missing2 = "; missing team_defense_game_summary and team_offense_game_summary (optional)"
	sets := func(v Verdict) Verdict {
		v.Satisfied, v.Missing = names(pgs, upg, utg), names(tdef, toff)
		return v
	}
	check(t, nba(t), []decision{{
		name: "not_begun", mode: "overnight", now: "2026-02-04 05:45", runs: three,
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 06:15"), Reason: sum3 + ", grace of 30m begins" + missing2}),
	}, {
		name: "begins_at_night_and_lasts_until_not_before", mode: "overnight", now: "2026-02-04 03:00", runs: runs("2026-02-04 02:40", pgs, upg, utg),
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 05:00"), Reason: sum3 + ", grace of 30m begins" + missing2}),
	}, {
		name: "begins_just_before_not_before_and_lasts_its_time", mode: "overnight", now: "2026-02-04 04:50", runs: runs("2026-02-04 02:40", pgs, upg, utg),
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 05:20"), Reason: sum3 + ", grace of 30m begins" + missing2}),
	}, {
		name: "runs", mode: "overnight", now: "2026-02-04 06:14:59", graceStart: "2026-02-04 05:45", runs: three,
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 06:15"), Reason: sum3 + ", grace until 2026-02-04 06:15 EST" + missing2}),
	}, {
		name: "is_over_but_it_is_before_not_before", mode: "overnight", now: "2026-02-04 04:59:59", graceStart: "2026-02-04 03:00",
		runs: runs("2026-02-04 02:40", pgs, upg, utg),
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 05:00"), Reason: sum3 + ", grace until 2026-02-04 05:00 EST" + missing2}),
	}, {
		name: "was_over_before_not_before", mode: "overnight", now: "2026-02-04 05:00", graceStart: "2026-02-04 03:00",
		runs: runs("2026-02-04 02:40", pgs, upg, utg),
		want: sets(Verdict{State: Ready, Cause: "critical_plus_majority_60pct", Since: at("2026-02-04 05:00"),
			Reason: sum3 + ", grace ended 2026-02-04 05:00 EST" + missing2}),
	}, {
		name: "has_ended_with_three_of_five", mode: "overnight", now: "2026-02-04 06:15", graceStart: "2026-02-04 05:45", runs: three,
		want: sets(Verdict{State: Ready, Cause: "critical_plus_majority_60pct", Since: at("2026-02-04 06:15"),
			Reason: sum3 + ", grace ended 2026-02-04 06:15 EST" + missing2}),
	}, {
		name: "has_ended_with_four_of_five", mode: "overnight", now: "2026-02-04 08:00", graceStart: "2026-02-04 05:45", runs: four,
		want: Verdict{State: Ready, Cause: "critical_plus_majority_80pct", Since: at("2026-02-04 06:15"),
			Satisfied: names(pgs, toff, upg, utg), Missing: names(tdef),
			Reason: "player_game_summary and upcoming_player_game_context complete, 4 of 5, grace ended 2026-02-04 06:15 EST; missing team_defense_game_summary (optional)"},
	}, {
		name: "the_last_one_ends_it", mode: "overnight", now: "2026-02-04 06:00", graceStart: "2026-02-04 05:45",
		runs: append(runs("2026-02-04 05:59", tdef), four...),
		want: Verdict{State: Ready, Cause: AllComplete, Since: at("2026-02-04 05:59"),
			Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(), Reason: "5 of 5 complete"},
	}, {
		name: "begins_after_the_deadline_too", mode: "overnight", now: "2026-02-04 11:00", runs: runs("2026-02-04 10:50", pgs, upg, utg),
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 11:30"), Reason: sum3 + ", grace of 30m begins" + missing2}),
	}})
}

// Three of five are 60 %: the quorum is met by exactly as many, not by nearly as many.
func TestQuorum_IsMetAtExactPercentage(t *testing.T) {
	three := runs("2026-02-04 05:40", pgs, upg, utg)
	for pct, want := range map[string]State{"1": Grace, "59": Grace, "60": Grace, "61": Waiting, "100": Waiting} {
		tr := nba(t, "quorum_pct: 60", "quorum_pct: "+pct)
		if got := Decide(input(t, tr, "overnight", "2026-02-04 06:00", "", three)); got.State != want {
			t.Errorf("3 of 5 with a quorum of %s %%: %s, want %s", pct, got.State, want)
		}
	}
}

func TestVerdict_ReadyNamesCauseAndStartTime(t *testing.T) {
	check(t, nba(t), []decision{{
		name: "all_complete_since_not_before", mode: "overnight", now: "2026-02-04 05:00", runs: runs("2026-02-04 01:30", utg, upg, toff, tdef, pgs),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 05:00")},
	}, {
		name: "all_complete_since_the_last_one", mode: "overnight", now: "2026-02-04 06:20",
		runs: append(runs("2026-02-04 06:10", tdef), runs("2026-02-04 05:30", pgs, toff, upg, utg)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 06:10")},
	}, {
		name: "a_second_run_does_not_move_the_moment", mode: "overnight", now: "2026-02-04 07:20",
		runs: append(runs("2026-02-04 07:10", pgs, tdef), runs("2026-02-04 05:30", pgs, tdef, toff, upg, utg)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 05:30")},
	}, {
		name: "completeness_ends_the_hold_of_a_deadline", mode: "overnight", now: "2026-02-04 11:20",
		runs: append(runs("2026-02-04 11:10", upg), runs("2026-02-04 05:30", pgs, tdef, toff, utg)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 11:10")},
	}, {
		name: "critical_complete", mode: "same_day", now: "2026-02-03 10:40", runs: runs("2026-02-03 10:35", upg),
		want: Verdict{State: Ready, Cause: "critical_complete", Satisfied: names(upg), Missing: names(utg),
			Reason: "upcoming_player_game_context complete, 1 of 2; missing upcoming_team_game_context (optional)", Since: at("2026-02-03 10:35")},
	}, {
		name: "critical_complete_though_another_came_first", mode: "same_day", now: "2026-02-03 10:40",
		runs: append(runs("2026-02-03 10:35", upg), runs("2026-02-03 10:31", utg)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(upg, utg), Missing: names(),
			Reason: "2 of 2 complete", Since: at("2026-02-03 10:35")},
	}, {
		name: "since_the_critical_one_though_another_came_later", mode: "tomorrow", now: "2026-02-02 17:40",
		runs: append(runs("2026-02-02 17:05", upg), runs("2026-02-02 17:31", utg)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(upg, utg), Missing: names(),
			Reason: "2 of 2 complete", Since: at("2026-02-02 17:05")},
	}})
}

func TestVerdict_OverdueNamesReason(t *testing.T) {
	check(t, nba(t), []decision{{
		name: "overnight_deadline", mode: "overnight", now: "2026-02-04 10:00", runs: runs("2026-02-04 05:10", pgs, tdef, toff, utg),
		want: Verdict{State: Overdue, Satisfied: names(pgs, tdef, toff, utg), Missing: names(upg),
			Reason: "deadline 2026-02-04 10:00 EST passed: player_game_summary complete, 4 of 5, not every critical one; missing upcoming_player_game_context (critical)"},
	}, {
		name: "same_day_deadline", mode: "same_day", now: "2026-02-03 13:00", runs: runs("2026-02-03 10:31", utg),
		want: Verdict{State: Overdue, Satisfied: names(utg), Missing: names(upg),
			Reason: "deadline 13:00 EST passed: 1 of 2 complete, none of them critical; missing upcoming_player_game_context (critical)"},
	}, {
		name: "tomorrow_deadline", mode: "tomorrow", now: "2026-02-02 21:00",
		want: Verdict{State: Overdue, Satisfied: names(), Missing: names(upg, utg),
			Reason: "deadline 2026-02-02 21:00 EST passed: 0 of 2 complete; missing upcoming_player_game_context (critical), upcoming_team_game_context (optional)"},
	}, {
		name: "complete_too_late", mode: "overnight", now: "2026-02-07 00:10",
		runs: append(runs("2026-02-07 00:00:01", upg), runs("2026-02-04 05:10", pgs, tdef, toff, utg)...),
		want: Verdict{State: Overdue, TooLate: true, Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete, but only at 2026-02-07 00:00 EST, more than 72h after the period: not handed over automatically"},
	}, {
		name: "quorum_too_late", mode: "overnight", now: "2026-02-09 12:00", graceStart: "2026-02-09 11:00",
		runs: append(runs("2026-02-09 10:00", utg), runs("2026-02-04 05:10", pgs, upg)...),
		want: Verdict{State: Overdue, TooLate: true, Satisfied: names(pgs, upg, utg), Missing: names(tdef, toff),
			Reason: "player_game_summary and upcoming_player_game_context complete, 3 of 5, but only at 2026-02-09 10:00 EST, more than 72h after the period: " +
				"not handed over automatically; missing team_defense_game_summary and team_offense_game_summary (optional)"},
	}, {
		name: "critical_too_late_for_the_quorum", mode: "overnight", now: "2026-02-09 12:00", graceStart: "2026-02-09 11:00",
		runs: append(runs("2026-02-09 10:00", pgs), runs("2026-02-04 05:10", tdef, toff, utg, upg)...),
		want: Verdict{State: Overdue, TooLate: true, Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete, but only at 2026-02-09 10:00 EST, more than 72h after the period: not handed over automatically"},
	}})
}

func TestDecide_RunsInTimeAreHandedOverDespiteLateRuns(t *testing.T) {
	inTime := runs("2026-02-04 05:10", pgs, tdef, upg, utg)
	check(t, nba(t), []decision{{
		name: "the_last_moment_is_in_time", mode: "overnight", now: "2026-02-07 00:10", runs: append(runs("2026-02-07 00:00", toff), inTime...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-07 00:00")},
	}, {
		name: "a_backfill_of_the_missing_one_does_not_stop_the_others", mode: "overnight", now: "2026-02-09 12:00", graceStart: "2026-02-04 05:15",
		runs: append(runs("2026-02-09 11:00", toff), inTime...),
		want: Verdict{State: Ready, Cause: "critical_plus_majority_80pct", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(), Since: at("2026-02-04 05:45"),
			Reason: "5 of 5 complete, grace ended 2026-02-04 05:45 EST; team_offense_game_summary only at 2026-02-09 11:00 EST, too late to be handed over automatically"},
	}, {
		name: "the_share_is_of_those_in_time", mode: "overnight", now: "2026-02-09 12:00", graceStart: "2026-02-04 05:15",
		runs: append(runs("2026-02-09 11:00", toff), runs("2026-02-04 05:10", pgs, upg, utg)...),
		want: Verdict{State: Ready, Cause: "critical_plus_majority_60pct", Satisfied: names(pgs, toff, upg, utg), Missing: names(tdef), Since: at("2026-02-04 05:45"),
			Reason: "player_game_summary and upcoming_player_game_context complete, 4 of 5, grace ended 2026-02-04 05:45 EST; missing team_defense_game_summary (optional); " +
				"team_offense_game_summary only at 2026-02-09 11:00 EST, too late to be handed over automatically"},
	}, {
		name: "a_backfill_of_what_had_completed_changes_nothing", mode: "overnight", now: "2026-02-09 12:00",
		runs: append(runs("2026-02-09 11:00", pgs, toff), append(runs("2026-02-04 06:00", toff), inTime...)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 06:00")},
	}})
	check(t, nba(t, "complete: all", "complete: critical"), []decision{{
		name: "complete_by_its_critical_ones", mode: "overnight", now: "2026-02-09 12:00",
		runs: append(runs("2026-02-09 11:00", toff), inTime...),
		want: Verdict{State: Ready, Cause: "critical_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(), Since: at("2026-02-04 05:10"),
			Reason: "5 of 5 complete; team_offense_game_summary only at 2026-02-09 11:00 EST, too late to be handed over automatically"},
	}})
}

// The verdict and its hand-over decide by the same rule whether a run is in time. A run that
// was found too late hides no run that came in time. The reason names a processor that is left out.
func TestDecide_JudgesEachRunOfAProcessorByItself(t *testing.T) {
	found := func(r *Run) { r.Found, r.FoundLate = true, true }
	late := run(toff, "2026-02-04 05:00", found)
	others := runs("2026-02-04 05:10", pgs, tdef, upg, utg)
	for _, tc := range []struct {
		name   string
		runs   []Run
		want   Verdict
		handed []string
	}{{
		name: "its_own_report_comes_after_it_was_found", runs: append(runs("2026-02-04 05:20", toff), append(others, late)...),
		want: Verdict{State: Ready, Cause: "all_complete", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete", Since: at("2026-02-04 05:20")},
		handed: names(pgs, tdef, toff, upg, utg),
	}, {
		name: "it_was_only_found", runs: append(others, late),
		want: Verdict{State: Ready, Cause: "critical_plus_majority_80pct", Satisfied: names(pgs, tdef, toff, upg, utg), Missing: names(),
			Reason: "5 of 5 complete, grace ended 2026-02-04 05:45 EST; team_offense_game_summary only found, too late to be handed over automatically", Since: at("2026-02-04 05:45")},
		handed: names(pgs, tdef, upg, utg),
	}} {
		row := decision{name: tc.name, mode: "overnight", now: "2026-02-09 12:00", graceStart: "2026-02-04 05:15", runs: tc.runs, want: tc.want}
		check(t, nba(t), []decision{row})
		handed, _ := Pending(input(t, nba(t), row.mode, row.now, row.graceStart, row.runs), nil)
		if got := processorsOf(handed); !slices.Equal(got, tc.handed) {
			t.Errorf("%s: %v are handed over, want %v", tc.name, got, tc.handed)
		}
	}
}

// The clock goes forward on 2026-03-08 and back on 2026-11-01: the local times of the
// policy stay where people set them, durations are what has passed.
func TestPolicy_LocalTimesHoldAcrossClockChange(t *testing.T) {
	for _, tc := range []struct {
		period              pipeline.Period
		notBefore, deadline string // UTC
		lastInTime          string // UTC, of trigger_within
	}{
		{"2026-03-07", "2026-03-08T09:00:00Z", "2026-03-08T14:00:00Z", "2026-03-11T05:00:00Z"},
		{"2026-03-08", "2026-03-09T09:00:00Z", "2026-03-09T14:00:00Z", "2026-03-12T04:00:00Z"},
		{"2026-10-31", "2026-11-01T10:00:00Z", "2026-11-01T15:00:00Z", "2026-11-04T04:00:00Z"},
		{"2026-11-01", "2026-11-02T10:00:00Z", "2026-11-02T15:00:00Z", "2026-11-05T05:00:00Z"},
	} {
		t.Run(string(tc.period), func(t *testing.T) {
			utc := func(s string) time.Time {
				at, err := time.Parse(time.RFC3339, s)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			tr := nba(t)
			in := input(t, tr, "overnight", "", "", nil)
			in.Period = tc.period
			expect := func(what string, state State, next time.Time) {
				t.Helper()
				if got := Decide(in); got.State != state || !got.NextCheck.Equal(next) {
					t.Errorf("%s: %s until %s, want %s until %s", what, got.State, got.NextCheck, state, next)
				}
			}
			deadline, notBefore, last := utc(tc.deadline), utc(tc.notBefore), utc(tc.lastInTime)
			in.Now = deadline.Add(-time.Second)
			expect("before the deadline", Waiting, deadline)
			in.Now = deadline
			expect("at the deadline", Overdue, time.Time{})

			over := tr.Calendar().End(tc.period)
			for _, name := range []string{pgs, tdef, toff, upg, utg} {
				r := run(name, "2026-02-04 01:00")
				r.EventTime = over
				in.Runs = append(in.Runs, r)
			}
			in.Now = notBefore.Add(-time.Second)
			expect("complete at night", Waiting, notBefore)
			in.Now = notBefore
			expect("complete in the morning", Ready, time.Time{})

			in.Now, in.Runs[0].EventTime = last.Add(time.Hour), last
			expect("complete at the last moment", Ready, time.Time{})
			in.Runs[0].EventTime = last.Add(time.Microsecond)
			expect("complete too late", Overdue, time.Time{})
		})
	}
}
