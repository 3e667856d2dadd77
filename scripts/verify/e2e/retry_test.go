package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/pipeline"
)

func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// A message is redelivered until it is acknowledged. After the last attempt it is dead-lettered,
// so that an operator can find it.
func TestF05_WhatFailsIsRetriedAndThenDeadLettered(t *testing.T) {
	onBoth(t, whatFailsIsRetriedAndThenDeadLettered)
}

func whatFailsIsRetriedAndThenDeadLettered(t *testing.T, s subject) {
	t.Run("failing_for_good", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, s)
		const topic = "failing"
		night := w.night(w.period(1))
		w.push(topic, "failing-sub", w.front.server.URL+"/failing", minAttempts)
		w.front.answering(func(d delivery) int {
			if d.path == "/failing" {
				return http.StatusServiceUnavailable
			}
			return 0
		})
		dead := consume(t, w.broker.Client, pipeline.DeadLetterTopic(topic))
		id := w.publish(topic, night[0])[0]
		w.await(limit, func() string {
			if len(dead.messages()) == 0 {
				return fmt.Sprintf("nothing in the dead letter; deliveries %v", w.front.of("/failing", id))
			}
			return ""
		})
		m := dead.messages()[0]
		if m.data != string(night[0]) {
			t.Errorf("the dead letter is %s", m.data)
		}
		if n := m.attributes["CloudPubSubDeadLetterSourceDeliveryCount"]; n != fmt.Sprint(minAttempts) {
			t.Errorf("attributes %v", m.attributes)
		}
		if n := len(w.front.of("/failing", id)); n != minAttempts {
			t.Errorf("%d deliveries, want %d", n, minAttempts)
		}
	})
	t.Run("failing_for_a_while", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, s)
		p := w.period(1)
		topic := w.name("topics", w.tr.DownstreamTopic)
		if err := w.broker.Client.TopicAdminClient.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		w.publish(w.tr.UpstreamTopic, w.night(p)...)
		w.await(limit, func() string {
			failed := 0
			for _, d := range w.front.of("/transition", "") {
				if d.status == http.StatusServiceUnavailable {
					failed++
				}
			}
			if failed < 3 {
				return fmt.Sprintf("%d deliveries were answered 503", failed)
			}
			return ""
		})
		if b := w.read(p)[p]; len(b.batches) != 1 || b.batches[0].state != "publishing" {
			t.Errorf("nothing was published, and the recorded batches are %+v", b.batches)
		}
		// The topic comes back; the subscription of the old one does not.
		w.topic(w.tr.DownstreamTopic)
		w.subscribe(&pubsubpb.Subscription{Name: "phase4-again", Topic: w.tr.DownstreamTopic})
		w.phase4 = consume(t, w.broker.Client, "phase4-again")
		w.awaitHandedOver(w.all(p))
		w.audit(w.all(p))
	})
}
