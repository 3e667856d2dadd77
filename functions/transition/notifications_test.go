package transition_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
)

// one returns the only message that Slack got, "" if it got none.
func one(t *testing.T, s *notifytest.Server) string {
	t.Helper()
	got := s.Take()
	if len(got) > 1 {
		t.Errorf("%d messages: %q", len(got), got)
	}
	return strings.Join(got, "")
}

func TestNotification_IsSentAtOnceAndOnlyOnce(t *testing.T) {
	w, slack := apptest.New(t, now), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	h := handler(w)
	post := func(id string, completion map[string]any, code int, want string) {
		t.Helper()
		if rec := deliver(h, "/", id, completion); rec.Code != code {
			t.Fatalf("%s: %d %s", id, rec.Code, rec.Body)
		}
		if got := one(t, slack); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: sent %q, want %q", id, got, want)
		}
	}
	failed := completed(five[0])
	failed["status"], failed["execution_id"] = "failed", "broken"
	const word = ":red_circle: *critical* 2026-02-03 overnight waits for player_game_summary, which failed"
	post("1", failed, 204, word)
	post("1", failed, 204, "") // it is redelivered
	optional := completed(five[1])
	optional["status"], optional["execution_id"] = "failed", "broken"
	post("2", optional, 204, "") // a failed optional processor sends no notification
	hopeless := completed(five[0])
	hopeless["game_date"] = "YESTERDAY"
	post("3", hopeless, 202, `*warning* a message for transition was put in quarantine: game_date: is no period`)
	post("4", hopeless, 202, "") // no second notification within the hour
	w.SetNow(now.Add(time.Minute))
	for _, name := range five[:4] {
		post("ok"+name, completed(name), 204, "")
	}
	post("ok", completed(five[4]), 204, ":white_check_mark: *resolved* 2026-02-03 overnight is handed over")
	post("ok", completed(five[4]), 204, "")
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published", n)
	}
}

// A hand-over neither waits for Slack nor fails with it.
func TestHandOver_DoesNotDependOnSlack(t *testing.T) {
	var published int
	w := apptest.New(t, now)
	ill := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		published = len(w.PubSub.Messages())
		rw.WriteHeader(http.StatusBadRequest)
	}))
	t.Cleanup(ill.Close)
	w.Notifier.Slack = notify.FromEnv(func(name string) string {
		return map[string]string{"SLACK_WEBHOOK_URL": ill.URL + "/hush"}[name]
	})
	h := handler(w)
	for _, name := range five {
		if rec := deliver(h, "/", name, completed(name)); rec.Code != 204 {
			t.Fatalf("%s: %d", name, rec.Code)
		}
	}
	if rec := deliver(h, "/", "bad", map[string]any{"processor_name": "x"}); rec.Code != 202 || published != 5 {
		t.Errorf("%d, Slack was called after %d were published", rec.Code, published)
	}
	lines := w.Logs.Lines("event", "notify_failed")
	if len(lines) != 1 || strings.Contains(lines[0]["message"].(string), "hush") || !strings.Contains(lines[0]["message"].(string), "Slack refused the message: 400") {
		t.Errorf("%v", lines)
	}
}

func TestShadow_SendsNoCycleNotifications(t *testing.T) {
	w, slack := apptest.New(t, now), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	failed := completed(five[0])
	failed["status"] = "failed"
	if rec := deliver(handler(w), "/?shadow=1", "1", failed); rec.Code != 204 {
		t.Fatal(rec.Code)
	}
	if got := slack.Take(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
