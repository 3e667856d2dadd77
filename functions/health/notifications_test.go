package health_test

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
)

// Health notifies of each change when it happens, and sends a digest once a day.
func TestHealth_NotifiesOfChangesAndSendsDailyDigest(t *testing.T) {
	w, slack := apptest.New(t, now.Add(-2*time.Hour)), notifytest.New(t) // 10:20 in New York
	w.Notifier.Slack, w.App.Config.Slack = slack.Channel, slack.Channel
	look := func(hours int, want, not string) {
		t.Helper()
		w.SetNow(now.Add(time.Duration(hours-2) * time.Hour))
		for job, function := range map[string]string{"relay": "reconcile", "nightly": "reconcile", "sweep": "sweep"} { // which run
			if err := w.Heartbeat(t.Context(), function, job); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the job comes twice
			if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 204 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
		}
		got := slack.Take()
		all := strings.Join(got, "\n")
		if len(got) > 1 || want == "" && len(got) > 0 || !strings.Contains(all, want) || not != "" && strings.Contains(all, not) {
			t.Errorf("after %d hours: %q, want %q and no %q", hours, got, want, not)
		}
	}
	look(0, "", "")                                                  // nothing is known yet, which may be chance
	look(1, "*warning* hand_overs is unknown", "*resolved*")         // and is none; 11:20 is after the time of the digest
	look(2, "", "")                                                  // nothing new
	look(14, "", "")                                                 // 00:20
	look(25, ":information_source: 2026-02-05 unknown: ", "warning") // 11:20 the day after
	if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-04"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	look(27, ":large_orange_circle: *warning* locks is failing", "digest") // and its process died
	if _, err := w.Locks.Break(t.Context(), "PlayerGameSummaryProcessor_2026-02-04", audit.Record{Action: "lock_release", Actor: "ada", Reason: "it died"}); err != nil {
		t.Fatal(err)
	}
	look(28, ":white_check_mark: *resolved* locks is ok", "")
}
