package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/logging/v2"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/store"
)

// loggingAnswers answers as Cloud Logging does: one answer a request, and then the last one again.
func loggingAnswers(t *testing.T, answers ...string) *[]logging.ListLogEntriesRequest {
	t.Helper()
	var asked []logging.ListLogEntriesRequest
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q logging.ListLogEntriesRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v2/entries:list" {
			t.Errorf("%s: %v", r.URL, err)
		}
		answer := answers[min(len(asked), len(answers)-1)]
		asked = append(asked, q)
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(answer, `"error"`) {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	loggingOptions = []option.ClientOption{option.WithEndpoint(s.URL), option.WithoutAuthentication()}
	t.Cleanup(func() { loggingOptions = nil })
	return &asked
}

const oneLine = `{"entries":[{"timestamp":"2026-02-04T12:00:03Z","jsonPayload":{"shadow_event":"finding"}}]}`

func TestDrill_ShowsCheckEventAndNotification(t *testing.T) {
	s, received := runningNow(t)
	asked := loggingAnswers(t, `{}`, oneLine)
	want(t, 0, []string{
		"ok       fault in phase3_to_phase4\n  2000-01-01 overnight, as drill-", ": overdue: deadline 2000-01-02 10:00 EST passed",
		"ok       check\n  hand_overs is failing, as it should be: 2000-01-01 overnight: overdue: deadline 2000-01-02 10:00 EST passed",
		"ok       event\n  in the log since 2026-02-04T12:00:03Z", "ok       notification\n  Slack accepted it",
	}, "drill")
	if len(*asked) != 2 || !strings.Contains((*asked)[0].Filter, `service_name="phasegate-health"`) || (*asked)[0].ResourceNames[0] != "projects/phasegate-local" {
		t.Errorf("%+v", *asked)
	}
	told := s.told()
	if len(told) != 1 || !strings.Contains(told[0], ":information_source: drill, nothing is wrong: hand_overs is failing, as intended\n>2000-01-01 overnight: overdue") {
		t.Errorf("%q", told)
	}
	want(t, 0, []string{"ok       notification"}, "drill") // a drill can be repeated
	if n := len(s.told()); n != 1 {
		t.Errorf("%d messages to Slack, want 1", n)
	}
	// A drill publishes nothing to the next phase and leaves no documents of the pipeline.
	s.settle()
	if received.Load() != 0 {
		t.Error("the next phase received a message")
	}
	for _, collection := range []string{"phase_periods", "phase_triggers", "phase3_completion", "quarantine"} {
		for doc, err := range s.App.Store.Scan(t.Context(), collection, "0", "~") {
			t.Errorf("%s: %v", doc.Ref, err)
		}
	}
	if doc, err := s.App.Store.Get(t.Context(), store.Ref{Collection: "function_status", ID: "health"}); err != nil || doc.Docs[0].Data["report"] != nil {
		t.Errorf("a drill made a report: %v", err)
	}
}

func TestDrill_NamesMissingSignals(t *testing.T) {
	s, _ := runningNow(t)
	// The log lines of a local environment are not in Cloud Logging, so the check is unknown.
	want(t, 2, []string{"unknown  event\n  lines of this machine"}, "drill")
	loggingAnswers(t, `{"error":{"code":403,"message":"Permission denied on logging.logEntries.list"}}`)
	want(t, 2, []string{"unknown  event\n  read the log: ", "Permission denied"}, "drill")
	loggingAnswers(t, `{}`)
	want(t, 1, []string{"failing  event\n  no line of it within 1s", "gcloud logging read 'resource.type="}, "drill", "--timeout", "1s")
	loggingAnswers(t, oneLine)
	s.App.Notifier.Slack = notify.Slack{}
	want(t, 1, []string{"failing  notification\n  no channel: neither SLACK_WEBHOOK_URL nor SLACK_BOT_TOKEN is set"}, "drill")
	// Without its subscription the function health gets no drill message.
	name := "projects/phasegate-local/subscriptions/phasegate-health-health"
	if err := s.App.Broker.Client.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: name}); err != nil {
		t.Fatal(err)
	}
	want(t, 1, []string{"failing  check\n  the function health has not looked within 1s"}, "drill", "--timeout", "1s")
	if d, ok, err := health.LastDrill(t.Context(), s.App); err != nil || !ok || d.Problem == "" {
		t.Errorf("%+v %v", d, err)
	}
}
