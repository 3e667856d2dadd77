package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// settled is when the month has begun so far that everything has been seen once.
const settled = 2

// Thirty days, three of them without games, are evaluated 24 times each: no evaluation raises
// a false alarm.
func TestAMonthInWhichNothingIsWrongRaisesNoAlarm(t *testing.T) {
	m := newMonth(t, "2026-02-01")
	looks := 0
	for d := range 30 {
		day := m.Pipeline.Calendar.Add(m.start, d)
		for hour := range 24 {
			r := m.hour(day, hour)
			if d < settled {
				continue
			}
			looks++
			if bad := r.bad(); len(bad) > 0 {
				t.Fatalf("%s %d:59: %q: %+v", day, hour, bad, r.Checks)
			}
		}
	}
	if looks != 28*24 {
		t.Errorf("%d evaluations", looks)
	}
}

// fault is a fault of one day of the month, and its repair.
type fault struct {
	plant, mend func(*month)
	check       string
	state       State
	within      int // hours after 05:00 of the day on which it is planted
	also        []string
}

// Each fault of a month is found in time by its own check, and by no others than those in
// also. It is resolved after its repair.
func TestEachFaultOfAMonthIsFoundAndEnds(t *testing.T) {
	const day = pipeline.Period("2026-02-09")
	players := "nba_analytics.player_game_summary"
	doubled := func(n int64) func(*month) {
		return func(m *month) {
			s := m.slices[players]["2026-02-07"]
			s.Rows, s.Surplus = 100+n, n
			m.slices[players]["2026-02-07"] = s
		}
	}
	for name, f := range map[string]fault{
		"a_scraper_eight_hours_late": {func(m *month) { m.late = true }, func(m *month) { m.late = false }, LateUpstream, Failing, 6, nil},
		"rows_that_are_gone":         {func(m *month) { delete(m.slices[players], "2026-02-07") }, func(m *month) { m.write("player_game_summary", "2026-02-07") }, Reconciliation, Failing, 1, nil},
		"rows_that_nobody_reported": {func(m *month) { m.silent["team_offense_game_summary"] = true }, func(m *month) {
			m.silent = map[string]bool{}
			m.run("2026-02-08", "team_offense_game_summary")
		}, TrackingAccuracy, Failing, 3, []string{HandOvers, Reconciliation}},
		"72_duplicates":     {doubled(72), doubled(0), Duplicates, Failing, 1, nil},
		"the_relay_is_dead": {func(m *month) { m.relayDead = true }, func(m *month) { m.relayDead = false }, Heartbeats, Failing, 1, nil},
		"a_dead_letter":     {func(m *month) { m.dead = 1 }, func(m *month) { m.dead = 0 }, DeadLetterMessages, Failing, 1, nil},
		"a_table_is_gone":   {func(m *month) { m.away[players] = true }, func(m *month) { m.away = map[string]bool{} }, TrackingAccuracy, Unknown, 1, []string{Duplicates, NextPhase, Reconciliation}},
		"the_scrapers_log":  {func(m *month) { m.away["scrapers"] = true }, func(m *month) { m.away = map[string]bool{} }, LateUpstream, Unknown, 1, nil},
		"no_channel":        {func(m *month) { m.App.Config.Slack = noChannel }, func(m *month) { m.App.Config.Slack = channel() }, Configuration, Failing, 2, nil},
		"the_next_phase_is_idle": {func(m *month) { m.idle = true }, func(m *month) {
			m.idle = false
			m.nextPhase("2026-02-08")
			m.nextPhase("2026-02-09")
			m.nextPhase("2026-02-10")
		}, NextPhase, Failing, 5, nil},
		"two_runs_at_once": {func(m *month) {
			for i := range 2 {
				m.runs = append(m.runs, warehouse.ProcessorRun{Processor: "PlayerGameSummaryProcessor", Period: "2026-02-08", ID: fmt.Sprint("twin-", i), Began: m.Now().Add(time.Duration(18*i) * time.Second), Ended: m.Now().Add(time.Minute)})
			}
		}, func(m *month) {
			m.runs = slices.DeleteFunc(m.runs, func(r warehouse.ProcessorRun) bool { return strings.HasPrefix(r.ID, "twin") })
		}, LockingActive, Failing, 1, nil},
		"nobody_locks_any_more": {func(m *month) { m.unlocked = true }, func(m *month) { m.unlocked = false }, LockingActive, Failing, 24, nil},
		"a_lock_is_left": {func(m *month) {
			if _, err := m.Locks.Acquire(m.t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-05"}, "dies"); err != nil {
				m.t.Fatal(err)
			}
		}, func(m *month) {
			if _, err := m.Locks.Break(m.t.Context(), "PlayerGameSummaryProcessor_2026-02-05", audit.Record{Action: "x", Actor: "ada"}); err != nil {
				m.t.Fatal(err)
			}
		}, Locks, Failing, 2, nil},
		"a_message_is_put_aside": {func(m *month) { m.aside(store.F(nil, "replayed_at")) }, func(m *month) { m.aside(store.F(store.ServerTime, "replayed_at")) }, Quarantine, Failing, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMonth(t, "2026-02-07")
			found := false
			for d := range 6 {
				today := m.Pipeline.Calendar.Add(m.start, d)
				for hour := range 24 {
					if today == day && hour == 5 {
						f.plant(m)
					}
					if today == m.Pipeline.Calendar.Add(day, 1) && hour == 5 {
						if !found {
							t.Fatalf("not found in a day")
						}
						f.mend(m)
					}
					r := m.hour(today, hour)
					if d < settled {
						continue
					}
					since := 24*int(at(today, 0, 0).Sub(at(day, 0, 0)).Hours()/24) + hour - 5 // hours since it was planted
					bad := r.bad()
					own := slices.Contains(bad, f.check+" "+string(f.state))
					found = found || own
					others := slices.DeleteFunc(slices.Clone(bad), func(s string) bool {
						id, _, _ := strings.Cut(s, " ")
						return id == f.check || slices.Contains(f.also, id)
					})
					switch {
					case since < 0 && len(bad) > 0:
						t.Fatalf("%s %d:59, before it: %q", today, hour, bad)
					case since >= f.within && since < 24 && !found:
						t.Fatalf("%s %d:59: not found: %q", today, hour, bad)
					case len(others) > 0:
						t.Fatalf("%s %d:59: others find it: %q: %+v", today, hour, others, r.Checks)
					case since >= 48 && len(bad) > 0:
						t.Fatalf("%s %d:59: it was repaired a day ago: %q: %+v", today, hour, bad, r.Checks)
					}
				}
			}
		})
	}
}

// A pause that a person has asked for is named at the next evaluation, fails no check, and
// hides nothing once it ends.
func TestMonth_HoldIsNamedAndFailsNoCheck(t *testing.T) {
	m := newMonth(t, "2026-02-07")
	const planted, released = 2*24 + 5, 3*24 + 5 // hours from the start on
	for hours := range 5 * 24 {
		switch hours {
		case planted:
			m.hold()
		case released:
			m.release()
		}
		r := m.hour(m.Pipeline.Calendar.Add(m.start, hours/24), hours%24)
		if hours < settled*24 {
			continue
		}
		if bad := r.bad(); len(bad) > 0 && (hours < planted || hours > released+1) {
			t.Fatalf("hour %d: %q: %+v", hours, bad, r.Checks)
		}
		got := by(r)[HandOvers]
		named := strings.HasPrefix(got.Evidence[0], "phase3_to_phase4 is on hold until ")
		if got.State != OK || named != (hours >= planted && hours < released) {
			t.Fatalf("hour %d: %+v", hours, got)
		}
	}
}

func (m *month) aside(replayed store.Field) {
	ref := store.Ref{Collection: "quarantine", ID: "m-1"}
	if _, err := m.Store.Apply(m.t.Context(), store.Merge(ref, store.F("transition", "function"), store.F("m-1", "message_id"), replayed)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *month) hold() {
	if _, err := m.Engine.Hold(m.t.Context(), cycle.Key{Transition: m.Pipeline.Transitions[0]}, "", 36*time.Hour, "ada", "to look"); err != nil {
		m.t.Fatal(err)
	}
}

func (m *month) release() {
	if _, err := m.Engine.Release(m.t.Context(), cycle.Key{Transition: m.Pipeline.Transitions[0]}, "", "ada", "seen"); err != nil {
		m.t.Fatal(err)
	}
}

func channel() notify.Slack {
	return notify.FromEnv(func(name string) string {
		return map[string]string{"SLACK_BOT_TOKEN": "xoxb", "SLACK_CHANNEL": "#night"}[name]
	})
}

var noChannel notify.Slack
