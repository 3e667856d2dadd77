package delivery_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
	"github.com/phasegate/phasegate/shared/wire"
)

func postTo(h http.Handler, path string, body []byte) int {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body))))
	return rec.Code
}

// A subscription with a wrong ?shadow= is at fault, not its messages.
func TestIntake_AWrongShadowQuarantinesNothing(t *testing.T) {
	w := apptest.New(t, now)
	handled := 0
	f := function(w, func(wire.Envelope) error { handled++; return nil })
	for _, value := range []string{"0", "true", "yes", "11"} {
		if code := postTo(f, "/?shadow="+value, envelope("1", "{}")); code != 503 {
			t.Errorf("?shadow=%s: answered %d, want 503", value, code)
		}
	}
	if handled != 0 || w.Doc(t, "quarantine", "1").Exists || w.Doc(t, "shadow_quarantine", "1").Exists {
		t.Errorf("handled %d times, or in quarantine", handled)
	}
}

func TestQuarantine_OfAShadowPublishesAndNotifiesNothing(t *testing.T) {
	w, slack := apptest.New(t, now), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	for id, data := range map[string]string{"small": "{}", "large": strings.Repeat("x", 2<<20)} {
		if code := postTo(function(w, refuse), "/?shadow=1", envelope(id, data)); code != 202 {
			t.Errorf("%s: answered %d", id, code)
		}
		if !w.Doc(t, "shadow_quarantine", id).Exists {
			t.Errorf("%s is not in the shadow's quarantine", id)
		}
	}
	if n := len(w.PubSub.Messages()); n != 0 {
		t.Errorf("%d messages published", n)
	}
	if got := slack.Take(); len(got) != 0 {
		t.Errorf("notified: %q", got)
	}
}

// Message ids are unique within a topic only.
func TestQuarantine_KeepsTheSameBytesOfTwoTopicsApart(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	for _, topic := range []string{"a", "b", "a", "b"} {
		f.Source = from(topic)
		if code := postTo(f, "/", envelope("1", "{}")); code != 202 {
			t.Fatalf("answered %d", code)
		}
	}
	topics := map[string]int{}
	for q, err := range delivery.ListQuarantine(t.Context(), w.App) {
		if err != nil {
			t.Fatal(err)
		}
		topics[q.Topic]++
	}
	if len(topics) != 2 || topics["a"] != 1 || topics["b"] != 1 {
		t.Errorf("kept by topic: %v", topics)
	}
}

// The answer to the first commit is lost, and the replay is recorded again with the same
// record.
func TestMarkReplayed_TakesALostAnswerForDone(t *testing.T) {
	w := apptest.New(t, now)
	postTo(function(w, refuse), "/", envelope("1", "{}"))
	record, id := audit.Record{Action: "quarantine_replay", Actor: "ada", Reason: "fixed", Detail: "message 1"}, rand.Text()
	for range 2 {
		if err := delivery.MarkReplayed(t.Context(), w.App, "1", record, id); err != nil {
			t.Errorf("%v", err)
		}
	}
	if q, err := delivery.GetQuarantined(t.Context(), w.App, "1"); err != nil || q.ReplayedBy != "ada" {
		t.Errorf("%+v: %v", q, err)
	}
}
