package wire_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

// unwrapped returns a push with payload unwrapping that writes metadata; headers come in
// pairs, an empty value removes one.
func unwrapped(body string, headers ...string) *http.Request {
	r := post(body)
	all := append([]string{"Content-Type", "application/json", "X-Goog-Pubsub-Message-Id", "987", "X-Goog-Pubsub-Publish-Time", "2026-02-04T11:03:13.456789123Z",
		"X-Goog-Pubsub-Subscription-Name", "projects/p/subscriptions/s", "K", "v"}, headers...)
	for i := 0; i < len(all); i += 2 {
		r.Header.Set(all[i], all[i+1])
		if all[i+1] == "" {
			r.Header.Del(all[i])
		}
	}
	return r
}

func TestFromRequest_TakesAnUnwrappedPushWithMetadata(t *testing.T) {
	for name, tc := range map[string]struct {
		request      *http.Request
		data         string
		subscription string
	}{
		"whole":                 {unwrapped(`{"a":1}`), `{"a":1}`, "projects/p/subscriptions/s"},
		"no JSON":               {unwrapped("a\xff"), "a\xff", "projects/p/subscriptions/s"},
		"without data":          {unwrapped(""), "", "projects/p/subscriptions/s"},
		"without subscription":  {unwrapped(`{"a":1}`, "X-Goog-Pubsub-Subscription-Name", ""), `{"a":1}`, ""},
		"data with a message":   {unwrapped(`{"message":{}}`), `{"message":{}}`, "projects/p/subscriptions/s"},
		"data that is an event": {unwrapped(`{"a":1}`, "Ce-Specversion", "1.0"), `{"a":1}`, "projects/p/subscriptions/s"},
	} {
		got, err := wire.FromRequest(tc.request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(wire.Envelope{MessageID: "987", PublishTime: published, Data: got.Data, Subscription: tc.subscription}, got); diff != "" || string(got.Data) != tc.data {
			t.Errorf("%s: data %q, (-want +got):\n%s", name, got.Data, diff)
		}
	}
}

func TestFromRequest_NamesTheCauseWhereThereIsNoMessage(t *testing.T) {
	const payload = `{"@type":"type.googleapis.com/google.pubsub.v1.PubsubMessage","attributes":null,"data":"eyJhIjoxfQ=="}`
	for name, tc := range map[string]struct {
		request *http.Request
		field   string
		part    string
		wantID  string // "" means the body's hash
	}{
		"unwrapped without metadata": {post(`{"processor_name":"a"}`), "message", "--push-no-wrapper-write-metadata", ""},
		"unwrapped without a time":   {unwrapped(`{"a":1}`, "X-Goog-Pubsub-Publish-Time", ""), "X-Goog-Pubsub-Publish-Time", "is required", "987"},
		"unwrapped with a bad time":  {unwrapped(`{"a":1}`, "X-Goog-Pubsub-Publish-Time", "noon"), "X-Goog-Pubsub-Publish-Time", "(noon)", "987"},
		"unwrapped with a long id":   {unwrapped(`{"a":1}`, "X-Goog-Pubsub-Message-Id", strings.Repeat("9", 1025)), "X-Goog-Pubsub-Message-Id", "1024", strings.Repeat("9", 1025)},
		"event of a 1st-generation function": {post(`{"context":{"eventId":"987","timestamp":"2026-02-04T11:03:13Z","eventType":"google.pubsub.topic.publish",
			"resource":{"service":"pubsub.googleapis.com"}},"data":` + payload + `}`), "body", "1st-generation", ""},
		"older event of one": {post(`{"eventId":"987","timestamp":"2026-02-04T11:03:13Z","eventType":"providers/cloud.pubsub/eventTypes/topic.publish",
			"resource":"projects/p/topics/t","data":` + payload + `}`), "body", "1st-generation", ""},
		"data alone": {post(`{"data":{}}`), "message", "is required", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.FromRequest(tc.request)
			wantPermanent(t, err, tc.field, tc.part)
			if len(got.Data) == 0 || tc.wantID != got.MessageID && (tc.wantID != "" || !strings.HasPrefix(got.MessageID, "sha256-")) {
				t.Errorf("kept %q of message %q", got.Data, got.MessageID)
			}
		})
	}
}
