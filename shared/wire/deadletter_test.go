package wire

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOriginal_RestoresDeadLetter(t *testing.T) {
	when := time.Date(2026, 2, 4, 11, 3, 12, 500_000_000, time.UTC)
	dead := time.Date(2026, 2, 5, 9, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		attributes map[string]string
		want       Envelope
	}{
		"given_up_by_the_broker": {
			map[string]string{"CloudPubSubDeadLetterSourceDeliveryCount": "100", "CloudPubSubDeadLetterSourceSubscription": "s",
				"CloudPubSubDeadLetterSourceSubscriptionProject": "p", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-02-04T06:03:12.5-05:00", "origin": "python"},
			Envelope{MessageID: "dead-1", PublishTime: when, Attributes: map[string]string{"origin": "python"}},
		},
		"too_large_for_quarantine": {
			map[string]string{"phasegate_message_id": "4711", "phasegate_publish_time": "2026-02-04T11:03:12.5Z", "phasegate_quarantine": "quarantine/4711"},
			Envelope{MessageID: "4711", PublishTime: when},
		},
		"both": { // forwarded by Phasegate, and dead-lettered when it was replayed
			map[string]string{"phasegate_message_id": "4711", "phasegate_publish_time": "2026-02-04T11:03:12.5Z", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-02-05T08:00:00Z"},
			Envelope{MessageID: "4711", PublishTime: when},
		},
		"nothing_added":   {map[string]string{"origin": "python"}, Envelope{MessageID: "dead-1", PublishTime: dead, Attributes: map[string]string{"origin": "python"}}},
		"unreadable_time": {map[string]string{"CloudPubSubDeadLetterSourceTopicPublishTime": "yesterday"}, Envelope{MessageID: "dead-1", PublishTime: dead}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Envelope{MessageID: "dead-1", PublishTime: dead, Attributes: tc.attributes, Data: []byte("x"), DeliveryAttempt: 3}.Original()
			tc.want.Data = []byte("x")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
