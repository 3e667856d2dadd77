package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
	"github.com/phasegate/phasegate/shared/wire"
)

// The relay notifies of each change that comes with time once, and once when it is resolved.
func TestRelay_NotifiesOfTimeBasedChangesOnce(t *testing.T) {
	w, slack := apptest.New(t, now), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	tr := w.Pipeline.Transitions[0]
	record := func(names ...string) {
		t.Helper()
		for _, name := range names {
			c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-03", Status: wire.StatusSuccess, EventTime: w.Now(), ExecutionID: name, CorrelationID: name}
			if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: c.Period}, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	relay := func(want ...string) {
		t.Helper()
		for range 2 { // the second has nothing new
			if rec := job(w, `{"job":"relay"}`); rec.Code != 204 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
		}
		got := slack.Take()
		all := strings.Join(got, "\n")
		for _, text := range want {
			if !strings.Contains(all, text) {
				t.Errorf("%s: sent %q, want %s", w.Now(), got, text)
			}
		}
		if len(got) > 1 || len(want) == 0 && len(got) > 0 {
			t.Errorf("%s: %d messages: %q", w.Now(), len(got), got)
		}
	}
	at := func(hours float64) { w.SetNow(now.Add(time.Duration(hours * float64(time.Hour)))) }
	at(-24)
	relay() // the deployment's first
	at(0)
	record("player_game_summary", "upcoming_player_game_context", "team_offense_game_summary")
	relay("2026-02-04 tomorrow is overdue") // 06:05: the grace period of the night begins, and no processor has reported for today
	at(0.6)
	relay(":large_orange_circle: *warning* 2026-02-03 overnight was handed over without team_defense_game_summary, upcoming_team_game_context", "`phasectl explain 2026-02-03 overnight`")
	record("team_defense_game_summary")
	relay() // it is still without one
	record("upcoming_team_game_context")
	relay("*resolved* 2026-02-03 overnight is handed over")
	at(8) // 14:05: no processor has reported for today
	relay(":red_circle: *critical* 2026-02-04 same_day is overdue: its deadline has passed", "deadline 13:00 EST passed", "docs/how-to/runbooks/cycle-overdue.md")
	at(30) // 12:05 the day after
	relay("2026-02-04 overnight is overdue")
	at(33)
	relay("2026-02-05 same_day is overdue")
	// The relay sends "resolved" however late: it has sent "overdue" before.
	at(24 + 25)
	for _, name := range tr.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-04", Status: wire.StatusSuccess, EventTime: w.Now(), ExecutionID: name, CorrelationID: name}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: c.Period}, c); err != nil {
			t.Fatal(err)
		}
	}
	at(24 + 33) // 15:05: a day and hours after the deadline of the night of the 4th
	relay("*resolved* 2026-02-04 overnight is handed over")
	at(24 * 5) // health notifies of older periods
	if rec := job(w, `{"job":"relay"}`); rec.Code != 204 || strings.Contains(strings.Join(slack.Take(), ""), "2026-02-05") {
		t.Errorf("%d: the relay notified of an old period", rec.Code)
	}
}
