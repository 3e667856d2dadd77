package wire_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

// binary returns a binary CloudEvent; headers come in pairs, an empty value removes one.
func binary(body string, headers ...string) *http.Request {
	r := post(body)
	all := append([]string{
		"Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "event-1",
		"Ce-Type", "google.cloud.pubsub.topic.v1.messagePublished",
		"Ce-Source", "//pubsub.googleapis.com/projects/p/topics/t", "Ce-Time", "2026-02-04T11:00:00.5Z",
	}, headers...)
	for i := 0; i < len(all); i += 2 {
		r.Header[all[i]] = []string{all[i+1]} // as received, not made canonical
		if all[i+1] == "" {
			delete(r.Header, all[i])
		}
	}
	return r
}

// structured returns a structured CloudEvent with the fields of the event replaced.
func structured(t *testing.T, fields map[string]any) *http.Request {
	t.Helper()
	event := map[string]any{
		"specversion": "1.0", "id": "event-1", "type": "google.cloud.pubsub.topic.v1.messagePublished",
		"source": "//pubsub.googleapis.com/projects/p/topics/t", "time": "2026-02-04T11:00:00.5Z",
		"datacontenttype": "application/json", "data": json.RawMessage(push),
	}
	for key, value := range fields {
		event[key] = value
		if value == nil {
			delete(event, key)
		}
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	r := post(string(body))
	r.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	return r
}

func TestCloudEvent_CarriesSameEnvelope(t *testing.T) {
	bare := `{"message":{"data":"eyJhIjoxfQ=="}}`
	byEvent := wire.Envelope{
		MessageID: "event-1", PublishTime: time.Date(2026, 2, 4, 11, 0, 0, 500_000_000, time.UTC), Data: []byte(`{"a":1}`),
	}
	for name, tc := range map[string]struct {
		request *http.Request
		want    wire.Envelope
	}{
		"binary":                              {binary(push), pushed},
		"binary_without_time":                 {binary(push, "Ce-Time", ""), pushed},
		"binary_whose_time_is_none":           {binary(push, "Ce-Time", "yesterday"), pushed},
		"structured_whose_time_is_none":       {structured(t, map[string]any{"time": "yesterday"}), pushed},
		"binary_with_an_odd_extension":        {binary(push, "Ce-Foo-Bar", "x"), pushed},
		"binary_with_an_empty_extension":      {binary(push, "Ce-", "x"), pushed},
		"binary_id_and_time_of_the_event":     {binary(bare), byEvent},
		"structured":                          {structured(t, nil), pushed},
		"structured_base64":                   {structured(t, map[string]any{"data": nil, "data_base64": []byte(push)}), pushed},
		"structured_without_content_type":     {structured(t, map[string]any{"datacontenttype": nil}), pushed},
		"structured_id_and_time_of_the_event": {structured(t, map[string]any{"data": json.RawMessage(bare)}), byEvent},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.FromRequest(tc.request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCloudEvent_MalformedIsPermanent(t *testing.T) {
	batch := post("[" + push + "]")
	batch.Header.Set("Content-Type", "application/cloudevents-batch+json")
	for name, tc := range map[string]struct {
		request *http.Request
		field   string
		part    string
		wantID  string // "" means a hash
	}{
		"another_type":         {binary(push, "Ce-Type", "google.cloud.storage.object.v1.finalized"), "type", "finalized", "event-1"},
		"no_type":              {structured(t, map[string]any{"type": nil}), "type", "messagePublished", "event-1"},
		"unknown_version":      {binary(push, "Ce-Specversion", "9.9"), "body", "is no CloudEvent", ""},
		"bad_time_alone":       {binary(`{"message":{}}`, "Ce-Time", "yesterday"), "message.publishTime", "is required", "event-1"},
		"no_time_anywhere":     {binary(`{"message":{}}`, "Ce-Time", ""), "message.publishTime", "is required", "event-1"},
		"no_data":              {structured(t, map[string]any{"data": nil}), "body", "is required", "event-1"},
		"data_a_string":        {structured(t, map[string]any{"data": push}), "body", "is not a JSON object", "event-1"},
		"data_base64_a_number": {structured(t, map[string]any{"data": nil, "data_base64": 1, "datacontenttype": nil}), "body", "is no CloudEvent", ""},
		"batch":                {batch, "body", "is no CloudEvent", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.FromRequest(tc.request)
			wantPermanent(t, err, tc.field, tc.part)
			if got.MessageID != tc.wantID && (tc.wantID != "" || !strings.HasPrefix(got.MessageID, "sha256-")) {
				t.Errorf("message id %q, want %q", got.MessageID, tc.wantID)
			}
			if len(got.Data) == 0 {
				t.Error("nothing kept for quarantine")
			}
		})
	}
}

func TestCloudEvent_CancelledRequestDoesNotBlockNext(t *testing.T) {
	for range 3 {
		r := binary(push)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := wire.FromRequest(r.WithContext(ctx)); err != nil {
			t.Fatal(err)
		}
	}
}
