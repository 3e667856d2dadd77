package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

const nbaDeadline = `deadline: "+1d 10:00"`

// handOver is the NBA pipeline with an overnight cycle that goes at its deadline.
func handOver(t *testing.T, replace ...string) *pipeline.Transition {
	t.Helper()
	return nba(t, append([]string{nbaDeadline, nbaDeadline + "\n        at_deadline: hand_over"}, replace...)...)
}

func TestDeadline_HandsOverCompleteProcessorsIfCriticalOnesAreComplete(t *testing.T) {
	critical := runs("2026-02-04 06:10", pgs, upg) // 40 %: no quorum
	degraded := func(v Verdict) Verdict {
		v.Satisfied, v.Missing = names(pgs, upg), names(tdef, toff, utg)
		return v
	}
	const missing = "; missing team_defense_game_summary, team_offense_game_summary and upcoming_team_game_context (optional)"
	check(t, handOver(t), []decision{{
		name: "waits_until_then", mode: "overnight", now: "2026-02-04 09:59:59", runs: critical,
		want: degraded(Verdict{State: Waiting, NextCheck: at("2026-02-04 10:00"),
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5" + missing}),
	}, {
		name: "goes_then", mode: "overnight", now: "2026-02-04 10:00", runs: critical,
		want: degraded(Verdict{State: Ready, Cause: "critical_plus_majority_40pct", Since: at("2026-02-04 10:00"),
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5, deadline 2026-02-04 10:00 EST passed: handed over without the rest" + missing}),
	}, {
		name: "goes_as_soon_as_a_critical_one_comes_after_it", mode: "overnight", now: "2026-02-04 10:40",
		runs: append(runs("2026-02-04 10:35", upg), runs("2026-02-04 06:10", pgs)...),
		want: degraded(Verdict{State: Ready, Cause: "critical_plus_majority_40pct", Since: at("2026-02-04 10:35"),
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5, deadline 2026-02-04 10:00 EST passed: handed over without the rest" + missing}),
	}, {
		name: "is_overdue_without_a_critical_one", mode: "overnight", now: "2026-02-04 10:00", runs: runs("2026-02-04 06:10", pgs, tdef, toff, utg),
		want: Verdict{State: Overdue, Satisfied: names(pgs, tdef, toff, utg), Missing: names(upg),
			Reason: "deadline 2026-02-04 10:00 EST passed: player_game_summary complete, 4 of 5, not every critical one; missing upcoming_player_game_context (critical)"},
	}, {
		name: "is_overdue_when_the_critical_ones_came_too_late_to_be_handed_over", mode: "overnight", now: "2026-02-09 12:00",
		runs: append(runs("2026-02-09 11:00", upg), runs("2026-02-04 06:10", pgs)...),
		want: degraded(Verdict{State: Overdue, TooLate: true,
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5, but only at 2026-02-09 11:00 EST, more than 72h after the period: not handed over automatically" + missing}),
	}})
}

func TestDeadline_HandOverPolicyEndsGracePeriod(t *testing.T) {
	three := runs("2026-02-04 09:40", pgs, upg, utg)
	sets := func(v Verdict) Verdict {
		v.Satisfied, v.Missing = names(pgs, upg, utg), names(tdef, toff)
		return v
	}
	const sum, missing = "player_game_summary and upcoming_player_game_context complete, 3 of 5", "; missing team_defense_game_summary and team_offense_game_summary (optional)"
	check(t, handOver(t), []decision{{
		name: "begins", mode: "overnight", now: "2026-02-04 09:45", runs: three,
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 10:00"), Reason: sum + ", grace of 30m begins" + missing}),
	}, {
		name: "runs", mode: "overnight", now: "2026-02-04 09:50", graceStart: "2026-02-04 09:45", runs: three,
		want: sets(Verdict{State: Grace, NextCheck: at("2026-02-04 10:00"), Reason: sum + ", grace until 2026-02-04 10:00 EST" + missing}),
	}, {
		name: "ends", mode: "overnight", now: "2026-02-04 10:00", graceStart: "2026-02-04 09:45", runs: three,
		want: sets(Verdict{State: Ready, Cause: "critical_plus_majority_60pct", Since: at("2026-02-04 10:00"),
			Reason: sum + ", deadline 2026-02-04 10:00 EST passed: handed over without the rest" + missing}),
	}, {
		name: "ended_before", mode: "overnight", now: "2026-02-04 10:00", graceStart: "2026-02-04 09:20", runs: three,
		want: sets(Verdict{State: Ready, Cause: "critical_plus_majority_60pct", Since: at("2026-02-04 09:50"),
			Reason: sum + ", grace ended 2026-02-04 09:50 EST" + missing}),
	}})
	// The parser refuses a not_before after the deadline. Decide must not rely on that.
	late := handOver(t)
	late.Modes[2].NotBefore = &pipeline.Offset{Periods: 1, Minute: 11 * 60}
	check(t, late, []decision{{
		name: "is_not_before_the_hour", mode: "overnight", now: "2026-02-04 10:30", runs: runs("2026-02-04 06:10", pgs, upg),
		want: Verdict{State: Waiting, NextCheck: at("2026-02-04 11:00"), Satisfied: names(pgs, upg), Missing: names(tdef, toff, utg),
			Reason: "player_game_summary and upcoming_player_game_context complete, 2 of 5; missing team_defense_game_summary, team_offense_game_summary and upcoming_team_game_context (optional)"},
	}})
}

// Games end around midnight in New York, five hours into the next day of UTC. A
// deadline that was anchored on midnight UTC of the game date passed before tip-off.
func TestF44_DeadlinesLieAfterTheGamesInLocalTime(t *testing.T) {
	for _, tc := range []struct{ period, deadline string }{ // UTC
		{"2026-02-03", "2026-02-04T15:00:00Z"},
		{"2026-03-07", "2026-03-08T14:00:00Z"}, // the clock goes forward in that night
		{"2026-10-31", "2026-11-01T15:00:00Z"}, // and back in this one
	} {
		deadline, err := time.Parse(time.RFC3339, tc.deadline)
		if err != nil {
			t.Fatal(err)
		}
		in := input(t, nba(t), "overnight", "", "", nil)
		in.Period = pipeline.Period(tc.period)
		for _, now := range []time.Time{in.Transition.Calendar().Start(in.Period), in.Transition.Calendar().End(in.Period), deadline.Add(-time.Microsecond)} {
			in.Now = now
			if v := Decide(in); v.State != Waiting || !v.NextCheck.Equal(deadline) {
				t.Errorf("%s at %s: %s, next check %s", tc.period, now, v.State, v.NextCheck)
			}
		}
		in.Now = deadline
		if v := Decide(in); v.State != Overdue {
			t.Errorf("%s at its deadline: %s", tc.period, v.State)
		}
	}
}

// A processor that the definition gains after the first hand-over reopens nothing; one
// that was expected then, and had not come, is late.
func TestPending_LateProcessorsDependOnFirstHandOver(t *testing.T) {
	rs := runs("2026-02-04 05:10", pgs, tdef, toff, upg, utg)
	in := input(t, nba(t), "overnight", "2026-02-04 07:00", "", rs)
	covered := coveredBy(rs[0], rs[3])
	for _, tc := range []struct {
		began []string
		want  []string
	}{
		{nil, names(tdef, toff, utg)},
		{names(pgs, tdef, toff, upg, utg), names(tdef, toff, utg)},
		{names(pgs, upg, utg), names(utg)},
		{names(pgs, upg), nil},
		{names(), nil},
	} {
		in.Began = tc.began
		got, late := Pending(in, covered)
		var of []string
		for _, r := range got {
			of = append(of, r.Processor)
		}
		if !slices.Equal(of, tc.want) || late != (len(tc.want) > 0) {
			t.Errorf("began with %q: pending %q, late %v; want %q", tc.began, of, late, tc.want)
		}
	}
}

// The person on call wants to see a failure before any deadline.
func TestVerdict_NamesFailedCriticalProcessorBeforeDeadline(t *testing.T) {
	in := input(t, nba(t), "overnight", "2026-02-04 06:05", "", []Run{
		run(pgs, "2026-02-04 06:02", failed("DataQualityError")), run(utg, "2026-02-04 06:01", status("no_data")),
		run(tdef, "2026-02-04 06:00", failed("Timeout")), run(tdef, "2026-02-04 06:04")})
	v := Decide(in)
	if v.State != Waiting || !slices.Equal(v.Failed, names(pgs)) {
		t.Errorf("%s, failed %q; want waiting, failed %s", v.State, v.Failed, pgs)
	}
}
