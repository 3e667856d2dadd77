package wire

import (
	"maps"
	"strings"
	"time"
)

// Attributes of a message on a dead-letter topic: those of the broker
// (https://cloud.google.com/pubsub/docs/handling-failures#track-delivery-attempts), and those of Phasegate, for an invalid message that is too large for a quarantine document.
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
// was kept; the broker itself does not keep it, so its dead letters have a new id.
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
