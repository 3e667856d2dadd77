package wire

import (
	"encoding/json"
	"errors"
	"net/http"
)

// What a push with payload unwrapping says of its message, if its subscription writes
// metadata: https://cloud.google.com/pubsub/docs/payload-unwrapping. The message's
// attributes are headers too, under their own names, so nothing tells them from others.
const (
	unwrappedID           = "X-Goog-Pubsub-Message-Id"
	unwrappedPublishTime  = "X-Goog-Pubsub-Publish-Time"
	unwrappedSubscription = "X-Goog-Pubsub-Subscription-Name"
)

// readUnwrapped reads a message whose data is the request's body.
func readUnwrapped(header http.Header, body []byte) (Envelope, error) {
	e := Envelope{Data: body, Subscription: header.Get(unwrappedSubscription)}
	said := fields{}
	for key, name := range map[string]string{"messageId": unwrappedID, "publishTime": unwrappedPublishTime} {
		value, err := json.Marshal(header.Get(name))
		if err != nil {
			return e, permanent(name, []byte(header.Get(name)), "is no text: %v", err)
		}
		said[key] = value
	}
	err := e.readID(said)
	if timeErr := e.readPublishTime(said); err == nil {
		err = namedAs(timeErr, unwrappedPublishTime)
	} else {
		err = namedAs(err, unwrappedID)
	}
	return e, err
}

// namedAs gives a permanent error another field's name.
func namedAs(err error, field string) error {
	if p, ok := errors.AsType[*PermanentError](err); ok {
		p.Field = field
	}
	return err
}

// noMessage makes the error for a body that has no message, with the likely cause.
func noMessage(outer fields, body []byte) error {
	_, context := outer["context"]
	_, id := outer["eventId"]
	if _, data := outer["data"]; data && (context || id) {
		return permanent("body", body, "is an event of a 1st-generation function, which is not taken: deliver by a push subscription")
	}
	err := missing("message")
	err.Problem += " in a push envelope; a subscription with payload unwrapping has to write metadata (--push-no-wrapper-write-metadata)"
	return err
}
