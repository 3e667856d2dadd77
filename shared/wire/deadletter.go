package wire

import (
	"maps"
	"strings"
	"time"
)

// Attributes that a message gets on its way to a dead-letter topic: the broker's
// (https://cloud.google.com/pubsub/docs/handling-failures#track-delivery-attempts),
// and ours, of a hopeless message that is too large for a quarantine document.
const (
	deadLetterPrefix = "CloudPubSubDeadLetterSource"
	ownPrefix        = "phasegate_"

	DeadLetterAttempts            = deadLetterPrefix + "DeliveryCount"
	DeadLetterSubscription        = deadLetterPrefix + "Subscription"
	DeadLetterSubscriptionProject = deadLetterPrefix + "SubscriptionProject"
	DeadLetterPublishTime         = deadLetterPrefix + "TopicPublishTime"

	OriginalMessageID   = ownPrefix + "message_id"
	OriginalPublishTime = ownPrefix + "publish_time"
	QuarantineDocument  = ownPrefix + "quarantine" // collection/id
)

// Original returns a dead letter as it was before it became one: its time, and its
// attributes without those that the way added. Its id is the original one where that
// was kept; the broker itself does not, so that what it gave up comes back under the
// dead letter's id.
func (e Envelope) Original() Envelope {
	for _, name := range []string{DeadLetterPublishTime, OriginalPublishTime} {
		if t, err := time.Parse(time.RFC3339Nano, e.Attributes[name]); err == nil {
			e.PublishTime = t.UTC()
		}
	}
	if id := e.Attributes[OriginalMessageID]; id != "" {
		e.MessageID = id
	}
	attributes := maps.Clone(e.Attributes)
	maps.DeleteFunc(attributes, func(name, _ string) bool {
		return strings.HasPrefix(name, deadLetterPrefix) || strings.HasPrefix(name, ownPrefix)
	})
	if len(attributes) == 0 {
		attributes = nil
	}
	e.Attributes, e.DeliveryAttempt = attributes, 0
	return e
}
