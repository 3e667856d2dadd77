package message

import (
	"bytes"
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

// readCloudEvent decodes with the SDK's HTTP binding. The SDK's receiver would hang
// for ever after one cancelled request.
func readCloudEvent(header http.Header, body []byte) (ev *event.Event, err error) {
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
