package guardtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/wire"
)

// limit bounds the wait for anything remote: ten times what a quiet machine needs.
const limit = 3 * time.Minute

// world is a project in both emulators, with two instances of one service: a guard that
// started its service, and one that runs next to it.
type world struct {
	t           *testing.T
	project     string
	broker      *app.Broker
	front       *front
	slots       []*slot
	folder      string // of the service
	log         string // of its runs
	environment []string
}

// newWorld starts both instances; namespace is in front of the guard of the first one.
func newWorld(t *testing.T, namespace ...string) *world {
	t.Helper()
	emulatortest.Firestore(t)
	emulatortest.PubSub(t)
	emulatortest.Packages(t, requirements...)
	w := &world{t: t, project: "guard-" + strings.ToLower(rand.Text()[:20]), folder: t.TempDir()}
	w.log = filepath.Join(w.folder, "runs")
	failures := filepath.Join(w.folder, "failures")
	source, err := os.ReadFile("service.py")
	if err == nil {
		err = os.WriteFile(filepath.Join(w.folder, "service.py"), source, 0o600)
	}
	if err == nil {
		err = os.Mkdir(failures, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.environment = []string{"GOOGLE_CLOUD_PROJECT=" + w.project, "PHASEGATE_STORE=firestore", "PHASEGATE_PREFIX=", "LOG_LEVEL=info",
		"RUNS=" + w.log, "FAILURES=" + failures, "PYTHONDONTWRITEBYTECODE=1"}
	if w.broker, err = app.NewBroker(t.Context(), w.project, os.Getenv("PUBSUB_EMULATOR_HOST")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.broker.Close() })
	w.front = newFront(t, 2)
	w.slots = []*slot{newSlot(t, "parent", false, w.folder, "service:app", w.environment), newSlot(t, "sidecar", true, w.folder, "service:app", w.environment)}
	w.slots[0].namespace = namespace
	t.Cleanup(func() {
		for _, s := range w.slots {
			if t.Failed() && s.guard != nil {
				t.Logf("the guard of the %s said last:\n%s", s.name, s.guard.tail())
			}
		}
	})
	for i := range w.slots {
		w.start(i)
	}
	return w
}

func (w *world) start(i int) {
	w.t.Helper()
	w.slots[i].start()
	w.front.to(i, w.slots[i].guard.url)
}

func (w *world) name(kind, name string) string {
	return "projects/" + w.project + "/" + kind + "/" + name
}

func (w *world) topic(name string) {
	w.t.Helper()
	if _, err := w.broker.Client.TopicAdminClient.CreateTopic(w.t.Context(), &pubsubpb.Topic{Name: w.name("topics", name)}); err != nil {
		w.t.Fatal(err)
	}
}

// subscribe makes a subscription of a topic, which ends with the test: else the emulator pushes for ever.
func (w *world) subscribe(topic string, s *pubsubpb.Subscription) {
	w.t.Helper()
	s.Name, s.Topic = w.name("subscriptions", s.Name), w.name("topics", topic)
	if _, err := w.broker.Client.SubscriptionAdminClient.CreateSubscription(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := w.broker.Client.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.Name}); err != nil {
			w.t.Error(err)
		}
	})
}

// push makes a topic with a push subscription to the guards and a dead letter. The subscription
// has no retry policy: with one, the emulator forgets messages that fail at once.
func (w *world) push(topic string, ackDeadline, attempts int32) {
	w.t.Helper()
	w.topic(topic)
	w.topic(topic + "-dead")
	w.subscribe(topic+"-dead", &pubsubpb.Subscription{Name: topic + "-dead", AckDeadlineSeconds: 600})
	w.subscribe(topic, &pubsubpb.Subscription{
		Name: topic, PushConfig: &pubsubpb.PushConfig{PushEndpoint: w.front.server.URL}, AckDeadlineSeconds: ackDeadline,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: w.name("topics", topic+"-dead"), MaxDeliveryAttempts: attempts},
	})
}

// order is what the service is asked to do.
type order struct {
	Key     string  `json:"key"`
	Seconds float64 `json:"seconds,omitempty"` // before the effect
	Tail    float64 `json:"tail,omitempty"`    // after it
	Fails   int     `json:"fails,omitempty"`   // so many runs fail, in all instances together
}

// publish sends an order with its key as trigger_id, and returns the message's id.
func (w *world) publish(topic string, o order) string {
	w.t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	sent := w.broker.Publish(w.t.Context(), topic, []wire.Outgoing{{Data: data, Attributes: map[string]string{"trigger_id": o.Key}}})
	if sent[0].Err != nil {
		w.t.Fatal(sent[0].Err)
	}
	return sent[0].ID
}

// await polls what is remote and cannot signal; wrong says what is still missing.
func (w *world) await(within time.Duration, wrong func() string) {
	w.t.Helper()
	emulatortest.Await(w.t, within, wrong)
}

// awaitAcknowledged waits until the guards have acknowledged the messages.
func (w *world) awaitAcknowledged(within time.Duration, ids []string) {
	w.t.Helper()
	w.await(within, func() string {
		if left := w.front.unacknowledged(ids); len(left) > 0 {
			return fmt.Sprintf("%d of %d messages are not acknowledged, such as %s", len(left), len(ids), left[0])
		}
		return ""
	})
}

// stop ends all instances, so that nothing writes any more.
func (w *world) stop() {
	for _, s := range w.slots {
		s.stop()
	}
}
