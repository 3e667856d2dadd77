package health

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app/apptest"
)

// monitoringOf answers as Cloud Monitoring does.
func monitoringOf(t *testing.T, status int, pages ...string) (option.ClientOption, *[]string) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if status != http.StatusOK {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":{"code":403,"message":"Permission monitoring.timeSeries.list denied"}}`)
			return
		}
		asked = append(asked, r.URL.Path+" "+r.URL.Query().Get("filter"))
		fmt.Fprint(w, pages[len(asked)-1])
	}))
	t.Cleanup(s.Close)
	return option.WithEndpoint(s.URL), &asked
}

func series(name string, points ...int) string {
	var out []string
	for _, n := range points {
		out = append(out, fmt.Sprintf(`{"interval":{"endTime":"2026-02-04T17:19:00Z"},"value":{"int64Value":"%d"}}`, n))
	}
	return fmt.Sprintf(`{"metric":{"type":%q},"resource":{"type":"pubsub_subscription","labels":{"project_id":"test","subscription_id":%q}},"points":[%s]}`, undelivered, name, strings.Join(out, ","))
}

// subscribed makes dead-letter subscriptions of topics that exist.
func subscribed(t *testing.T, w *apptest.World, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := w.Broker.Client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: "projects/test/subscriptions/" + name, Topic: "projects/test/topics/phasegate-sweep"})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadLetters_AreCountedByCloudMonitoring(t *testing.T) {
	w, _ := checker(t)
	const completions, relays, sweeps = "nba-phase3-analytics-complete-dead-letter", "phasegate-reconcile-dead-letter", "phasegate-sweep-dead-letter"
	subscribed(t, w, completions, relays, sweeps)
	endpoint, asked := monitoringOf(t, 200, `{"timeSeries":[`+series(completions, 3, 2)+`],"nextPageToken":"x"}`, `{"timeSeries":[`+series(relays, 0)+`,`+series(sweeps)+`]}`)
	got, err := DeadLetters(t.Context(), w.App, endpoint, option.WithoutAuthentication())
	want := map[string]int64{completions: 3, relays: 0, sweeps: 0}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if len(*asked) != 2 || !strings.HasPrefix((*asked)[0], "/v3/projects/test/timeSeries ") || !strings.Contains((*asked)[0], `"phasegate-health-dead-letter"`) {
		t.Errorf("%q", *asked)
	}
	endpoint, _ = monitoringOf(t, http.StatusForbidden)
	if got, err := DeadLetters(t.Context(), w.App, endpoint, option.WithoutAuthentication()); err == nil || got != nil || !strings.Contains(err.Error(), "denied") {
		t.Errorf("%v, %v", got, err)
	}
}

// Cloud Monitoring has no time series of a subscription that was always empty.
func TestDeadLetters_SubscriptionWithoutTimeSeriesIsEmptyIfItExists(t *testing.T) {
	w, c := checker(t)
	names := deadLetters(w.Pipeline, "")
	subscribed(t, w, names...)
	gone := names[0]
	c.Dead = func(ctx context.Context) (map[string]int64, error) {
		endpoint, _ := monitoringOf(t, 200, `{}`)
		return DeadLetters(ctx, w.App, endpoint, option.WithoutAuthentication())
	}
	if got := by(c.Run(t.Context()))[DeadLetterMessages]; got.State != OK || got.Evidence[0] != fmt.Sprintf("none in %d subscriptions", len(names)) {
		t.Errorf("all are empty: %+v", got)
	}
	if err := w.Broker.Client.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: "projects/test/subscriptions/" + gone}); err != nil {
		t.Fatal(err)
	}
	if got := by(c.Run(t.Context()))[DeadLetterMessages]; got.State != Failing || !strings.Contains(got.Evidence[0], "the subscription "+gone+" does not exist") {
		t.Errorf("one does not exist: %+v", got)
	}
	if err := w.Broker.Close(); err != nil { // every call fails
		t.Fatal(err)
	}
	if got := by(c.Run(t.Context()))[DeadLetterMessages]; got.State != Unknown || !strings.Contains(got.Evidence[0], "read subscription ") {
		t.Errorf("Pub/Sub does not answer: %+v", got)
	}
}
