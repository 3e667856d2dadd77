package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// messagePublished is the type of the CloudEvent that carries a Pub/Sub message.
const messagePublished = "google.cloud.pubsub.topic.v1.messagePublished"

// eventHeaders are the headers of a binary CloudEvent that are read. The others stay
// outside: an extension with an odd name must not cost the message.
var eventHeaders = []string{"Content-Type", "Ce-Specversion", "Ce-Id", "Ce-Type", "Ce-Source", "Ce-Time"}

// isCloudEvent reports whether a request says of itself that it is a CloudEvent.
func isCloudEvent(header http.Header) bool {
	structured := strings.HasPrefix(strings.ToLower(header.Get("Content-Type")), "application/cloudevents")
	return structured || header.Get("Ce-Specversion") != ""
}

// readCloudEvent decodes an event. A time that is none must not cost the message, which has
// its own publish time: the event is read once more without.
func readCloudEvent(header http.Header, body []byte) (*event.Event, error) {
	ev, err := decodeCloudEvent(header, body)
	if err == nil {
		return ev, nil
	}
	header = header.Clone()
	header.Del("Ce-Time")
	if all, structuredErr := decodeObject("body", body); structuredErr == nil && all["specversion"] != nil {
		delete(all, "time")
		if without, marshalErr := json.Marshal(all); marshalErr == nil {
			body = without
		}
	}
	if ev, withoutErr := decodeCloudEvent(header, body); withoutErr == nil {
		return ev, nil
	}
	return nil, err
}

// decodeCloudEvent decodes with the SDK's HTTP binding. The SDK's receiver would hang
// for ever after one cancelled request.
func decodeCloudEvent(header http.Header, body []byte) (ev *event.Event, err error) {
	// The SDK's decoder panics on some malformed events (data_base64 with a number);
	// unrecovered that would be a redelivery without end.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoding it panics: %v", p)
		}
	}()
	r := &http.Request{Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
	for _, name := range eventHeaders {
		if value := header.Get(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	return cehttp.NewEventFromHTTPRequest(r)
}
