package delivery_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/wire"
)

var now = time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)

// function answers as handle says, on a world.
func function(w *apptest.World, handle func(wire.Envelope) error) delivery.Function {
	return delivery.Function{
		Name: "transition", Timeout: time.Minute,
		Open:   func(context.Context) (*app.App, error) { return w.App, nil },
		Source: from("nba-phase3-analytics-complete"),
		Handle: func(_ context.Context, r delivery.Request) ([]notify.Notification, error) {
			return nil, handle(r.Envelope)
		},
	}
}

func from(topic string) func(*app.App, url.Values) (delivery.Source, error) {
	return func(*app.App, url.Values) (delivery.Source, error) { return delivery.Source{Topic: topic}, nil }
}

func refuse(wire.Envelope) error {
	return &wire.PermanentError{Field: "game_date", Value: "TODAY", Problem: "is no date"}
}

func envelope(id string, data string) []byte {
	return wire.Envelope{MessageID: id, PublishTime: now.Add(-time.Minute), Data: []byte(data),
		Attributes: map[string]string{"origin": "python"}, Subscription: "projects/test/subscriptions/s"}.Push()
}

func post(h http.Handler, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(rec, r)
	return rec
}

func TestErrors_MatchTheirStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		status int
		errors int // lines of severity ERROR
	}{
		"done":               {nil, 204, 0},
		"permanent":          {refuse(wire.Envelope{}), 202, 1},
		"wrapped_permanent":  {errors.Join(errors.New("while decoding"), refuse(wire.Envelope{})), 202, 1},
		"transient":          {errors.New("store unavailable"), 503, 1},
		"deadline":           {context.DeadlineExceeded, 503, 1},
		"an_earlier_try_has": {delivery.ErrBusy, 429, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			rec := post(function(w, func(wire.Envelope) error { return tc.err }), string(envelope("1", "{}")))
			if rec.Code != tc.status {
				t.Errorf("answered %d, want %d: %s", rec.Code, tc.status, rec.Body)
			}
			if n := len(w.Logs.Lines("severity", "ERROR")); n != tc.errors {
				t.Errorf("%d ERROR lines, want %d", n, tc.errors)
			}
		})
	}
}

// A person who posts by hand, or reads the request's log, sees why the message was set aside and where it is.
func TestAccepted_BodySaysWhyAndWhere(t *testing.T) {
	w := apptest.New(t, now)
	rec := post(function(w, refuse), string(envelope("4711", "{}")))
	var got map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Code != 202 || rec.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %q: %v", rec.Code, rec.Body, err)
	}
	doc := w.Doc(t, "quarantine", got["quarantine"])
	if got["state"] != "quarantined" || got["message_id"] != "4711" || got["reason"] != doc.Data["reason"] || got["reason"] == "" || got["field"] != doc.Data["field"] ||
		got["help"] != "phasectl quarantine show "+doc.Ref.ID {
		t.Errorf("%v, document %v", got, doc.Data)
	}
}

func TestGet_ReportsNameVersionAndSourceHash(t *testing.T) {
	w := apptest.New(t, now)
	rec := httptest.NewRecorder()
	function(w, refuse).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	var got map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Code != 200 {
		t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
	}
	want := map[string]string{"name": "transition", "version": app.Version, "source_hash": app.SourceHash}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFunction_RefusesOtherMethods(t *testing.T) {
	w := apptest.New(t, now)
	rec := httptest.NewRecorder()
	function(w, refuse).ServeHTTP(rec, httptest.NewRequest(http.MethodDelete, "/", nil))
	if rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("%d, Allow %q", rec.Code, rec.Header().Get("Allow"))
	}
}

func TestFunction_FailedStartIsRetriedByNextRequest(t *testing.T) {
	w := apptest.New(t, now)
	tries := 0
	lazy := &app.Lazy{Open: func(context.Context) (*app.App, error) {
		if tries++; tries == 1 {
			return nil, errors.New("metadata server not reachable")
		}
		return w.App, nil
	}}
	f := function(w, func(wire.Envelope) error { return nil })
	f.Open = lazy.Get
	var got []int
	for range 3 {
		got = append(got, post(f, string(envelope("1", "{}"))).Code)
	}
	if diff := cmp.Diff([]int{503, 204, 204}, got); diff != "" || tries != 2 {
		t.Errorf("answers (-want +got):\n%s%d tries, want 2", diff, tries)
	}
}

func TestQuarantine_KeepsMessageUnchanged(t *testing.T) {
	w := apptest.New(t, now)
	body := envelope("4711", `{"game_date":"TODAY"}`)
	post(function(w, refuse), string(body))
	doc := w.Doc(t, "quarantine", "4711")
	if doc.Data["field"] != "game_date" || doc.Data["value"] != "TODAY" || doc.Data["reason"] != "game_date: is no date (TODAY)" ||
		doc.Data["function"] != "transition" || doc.Data["topic"] != "nba-phase3-analytics-complete" {
		t.Errorf("document: %v", doc.Data)
	}
	// Replaying it is posting it again: same id, same time, same attributes.
	kept, err := wire.FromRequest(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(doc.Data["envelope"].(string))))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := wire.FromRequest(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body))))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, kept); diff != "" {
		t.Errorf("(-sent +kept):\n%s", diff)
	}
}

func TestQuarantine_RedeliveredInvalidMessageIsKeptOnce(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	for range 3 {
		if rec := post(f, string(envelope("4711", "{}"))); rec.Code != 202 {
			t.Fatalf("answered %d", rec.Code)
		}
		w.SetNow(w.Now().Add(time.Minute))
	}
	if doc := w.Doc(t, "quarantine", "4711"); !doc.Data["received_at"].(time.Time).Equal(now) {
		t.Errorf("first received at %v, the document says %v", now, doc.Data["received_at"])
	}
	if n := len(w.Logs.Lines("event", "completion_quarantined")); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

func TestQuarantine_ReasonIsThatOfLastRefusal(t *testing.T) {
	w := apptest.New(t, now)
	for _, problem := range []string{"is no date", "is too old"} {
		post(function(w, func(wire.Envelope) error {
			return &wire.PermanentError{Field: "game_date", Value: "x", Problem: problem}
		}), string(envelope("4711", "{}")))
	}
	if doc := w.Doc(t, "quarantine", "4711"); doc.Data["reason"] != "game_date: is too old (x)" || !doc.Data["received_at"].(time.Time).Equal(now) {
		t.Errorf("%v", doc.Data)
	}
}

func TestQuarantine_KeepsTwoMessagesWithSameID(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	for range 2 {
		for _, data := range []string{"first", "second"} { // ids are unique within a topic only
			if rec := post(f, string(envelope("1", data))); rec.Code != 202 {
				t.Fatalf("answered %d", rec.Code)
			}
		}
	}
	lines := w.Logs.Lines("event", "completion_quarantined")
	if len(lines) != 2 || lines[0]["document"] != "quarantine/1" || !strings.HasPrefix(lines[1]["document"].(string), "quarantine/1-") {
		t.Errorf("%d lines: %v", len(lines), lines)
	}
}

func TestQuarantine_FailedStoreWriteIsNotAcknowledged(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	w.SetDown(true)
	if rec := post(f, string(envelope("1", "{}"))); rec.Code != 503 {
		t.Errorf("store down: answered %d", rec.Code)
	}
	w.SetDown(false)
	if rec := post(f, string(envelope("1", "{}"))); rec.Code != 202 {
		t.Errorf("store back: answered %d", rec.Code)
	}
}

func TestQuarantine_InvalidEnvelopeIsKeptUnderItsHash(t *testing.T) {
	for _, body := range []string{"", "not json", `{"message":{}}`, `{"message":{"messageId":"../../x","publishTime":"2026-02-04T11:00:00Z","data":"???"}}`} {
		w := apptest.New(t, now)
		f := function(w, func(wire.Envelope) error { t.Error("handled"); return nil })
		if rec := post(f, body); rec.Code != 202 {
			t.Errorf("%q: answered %d %s", body, rec.Code, rec.Body)
		}
		lines := w.Logs.Lines("event", "completion_quarantined")
		if len(lines) != 1 || !strings.HasPrefix(lines[0]["document"].(string), "quarantine/sha256-") {
			t.Errorf("%q: %v", body, lines)
		}
	}
}

func TestQuarantine_OversizedMessageIsDeadLetteredOnce(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	data := `{"game_date":"TODAY","padding":"` + strings.Repeat("x", 2<<20) + `"}`
	for range 2 { // delivered, redelivered
		if rec := post(f, string(envelope("9", data))); rec.Code != 202 {
			t.Fatalf("answered %d %s", rec.Code, rec.Body)
		}
	}
	doc := w.Doc(t, "quarantine", "9")
	sum := sha256.Sum256([]byte(data))
	if doc.Data["sha256"] != hex.EncodeToString(sum[:]) || doc.Data["bytes"] != int64(len(data)) || doc.Data["envelope"] != nil ||
		!strings.HasPrefix(data, doc.Data["head"].(string)) || len(doc.Data["head"].(string)) != 64<<10 {
		t.Errorf("document: %d bytes, sha256 %v, head of %d", doc.Data["bytes"], doc.Data["sha256"], len(doc.Data["head"].(string)))
	}
	sent := w.PubSub.Messages()
	if len(sent) != 1 || string(sent[0].Data) != data || sent[0].Topic != "projects/test/topics/nba-phase3-analytics-complete-dead-letter" {
		t.Fatalf("%d messages on the dead-letter topic", len(sent))
	}
	if a := sent[0].Attributes; a["origin"] != "python" || a["phasegate_message_id"] != "9" || a["phasegate_publish_time"] != "2026-02-04T11:04:00Z" {
		t.Errorf("attributes %v", a)
	}
	if sent[0].ID != doc.Data["dead_letter_id"] {
		t.Errorf("dead_letter_id %v, sent as %s", doc.Data["dead_letter_id"], sent[0].ID)
	}
}

func TestQuarantine_OversizedMessageIsPublishedBeforeAck(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	data := strings.Repeat("x", 1<<20)
	f.Source = from("missing")
	if rec := post(f, string(envelope("9", data))); rec.Code != 503 {
		t.Errorf("dead-letter topic missing: answered %d", rec.Code)
	}
	f.Source = function(w, refuse).Source
	if rec := post(f, string(envelope("9", data))); rec.Code != 202 || len(w.PubSub.Messages()) != 1 {
		t.Errorf("topic there: answered %d, %d messages", rec.Code, len(w.PubSub.Messages()))
	}
}

func TestFunction_LogLinesCarryRequestTrace(t *testing.T) {
	w := apptest.New(t, now)
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(envelope("1", "{}"))))
	r.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	function(w, refuse).ServeHTTP(httptest.NewRecorder(), r)
	if n := len(w.Logs.Lines("logging.googleapis.com/trace", "projects/test/traces/4bf92f3577b34da6a3ce929d0e0e4736")); n == 0 {
		t.Error("no line carries the trace")
	}
}

// A body that is too large for Pub/Sub cannot be forwarded, now or later. It came from no
// topic. Only its beginning and its hash are kept.
func TestQuarantine_KeepsTheBeginningOfWhatNoTopicTakes(t *testing.T) {
	w := apptest.New(t, now)
	f := function(w, refuse)
	f.Timeout = 5 * time.Second
	body := "no envelope " + strings.Repeat("x", 14<<20)
	for range 2 { // delivered, redelivered
		if rec := post(f, body); rec.Code != 202 {
			t.Fatalf("answered %d %s", rec.Code, rec.Body)
		}
	}
	var kept []delivery.Quarantined
	for q, err := range delivery.ListQuarantine(t.Context(), w.App) {
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, q)
	}
	if len(kept) != 1 || !kept[0].Cut || kept[0].DeadLetterID != "" || kept[0].Bytes != int64(len(body)) || !strings.HasPrefix(body, kept[0].Head) || len(kept[0].Head) != 64<<10 {
		t.Errorf("%d documents", len(kept))
	}
	if n := len(w.PubSub.Messages()); n != 0 {
		t.Errorf("%d messages published", n)
	}
	var said int
	for _, line := range w.Logs.Lines("severity", "ERROR") {
		if strings.HasPrefix(line["message"].(string), "message is cut: ") && strings.Contains(line["message"].(string), "at most 10000000") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("said %d times that it is cut, want 1", said)
	}
}
