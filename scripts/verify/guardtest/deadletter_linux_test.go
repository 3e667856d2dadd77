package guardtest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2"

	"github.com/phasegate/phasegate/shared/wire"
)

// A replayed dead letter comes from another subscription, as another message.
func TestDeadLetter_ReplayWorksWhatFailedAndNotWhatWasDoneMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push("triggers", 600, 5)
	w.push("replays", 600, 5)
	w.publish("triggers", order{Key: "fails", Fails: 5})
	const seconds = 32 // more than a claim lasts: it has to be renewed
	long := w.publish("triggers", order{Key: "long", Seconds: seconds})
	w.await(limit, func() string {
		if len(runs(t, w.log)) == 0 || len(w.front.of("long")) == 0 {
			return "the long run has not begun"
		}
		return ""
	})
	w.publish("triggers", order{Key: "long", Seconds: seconds}) // a copy, which is refused until it is dead-lettered
	dead := w.deadLetters("triggers-dead", 2)
	if left := w.front.unacknowledged([]string{long}); len(left) == 0 {
		t.Error("the long run had ended before its copy was dead-lettered")
	}
	w.awaitAcknowledged(limit, []string{long})
	var ids []string
	for _, m := range dead {
		sent := w.broker.Publish(t.Context(), "replays", []wire.Outgoing{m})
		if sent[0].Err != nil {
			t.Fatal(sent[0].Err)
		}
		ids = append(ids, sent[0].ID)
	}
	w.awaitAcknowledged(limit, ids)
	w.stop()
	v := judge(t, []string{"fails", "long"}, runs(t, w.log), w.front.of(""), nil)
	if got := fmt.Sprint(v.runs, v.failures); got != "7 5" {
		t.Errorf("runs and failures: %s, want 7 5", got)
	}
}

// deadLetters takes messages from the subscription of a dead letter.
func (w *world) deadLetters(subscription string, n int) (out []wire.Outgoing) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	var mu sync.Mutex
	err := w.broker.Client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		m.Ack()
		mu.Lock()
		defer mu.Unlock()
		attributes := map[string]string{"trigger_id": m.Attributes["trigger_id"]}
		if out = append(out, wire.Outgoing{Data: m.Data, Attributes: attributes}); len(out) == n {
			cancel()
		}
	})
	if err != nil || len(out) != n {
		w.t.Fatalf("%d of %d dead letters: %v", len(out), n, err)
	}
	return out
}
