package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

var errStore = errors.New("store is down")

// flaky fails the first calls. With lost it fails after it has written.
type flaky struct {
	store.Store
	left *atomic.Int64
	lost bool
}

func (f flaky) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if f.left.Add(-1) >= 0 {
		return store.Snapshot{}, errStore
	}
	return f.Store.Get(ctx, refs...)
}

func (f flaky) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if f.left.Add(-1) < 0 {
		return f.Store.Apply(ctx, ws...)
	}
	if f.lost {
		_, _ = f.Store.Apply(ctx, ws...) // the commit succeeds, and its answer is lost
	}
	return nil, errStore
}

// Close is the store's own, which embedding the interface hides.
func (f flaky) Close() error {
	if c, ok := f.Store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// failing makes the environment's store fail its first k calls.
func failing(k int, lost bool) func(*Options) {
	return func(o *Options) {
		stores, left := o.Stores, new(atomic.Int64)
		left.Store(int64(k))
		o.Stores = func(now func() time.Time) app.Stores {
			open := stores(now)
			return func(ctx context.Context, c app.Config) (store.Store, error) {
				s, err := open(ctx, c)
				return flaky{s, left, lost}, err
			}
		}
	}
}

func TestRedelivery_RecoversFromFailingStore(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for _, k := range []int{1, 2, 4, 7, 12, 20} {
			t.Run(fmt.Sprintf("first_%d_calls_lost_%t", k, lost), func(t *testing.T) {
				onEachStore(t, func(t *testing.T, kind string) {
					w := newWorld(t, kind, failing(k, lost))
					w.atTime("2026-02-04 06:05", morning()...)
					if n := w.exhaust(); n == 0 {
						t.Error("nothing was redelivered")
					}
					w.wantHandedOver("overnight", five...)
					w.wantPublishedOnce("overnight")
				})
			})
		}
	}
}

func TestConsumer_RefusedMessagesAreRedeliveredWithBackoff(t *testing.T) {
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusBadRequest} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "memory")
			w.phase4.answer = func(_ int, r received) int {
				if r.Trigger.SourceTable == pgs && r.Attempt <= 3 {
					return status
				}
				return http.StatusNoContent
			}
			w.atTime("2026-02-04 06:05", morning()...)
			if n := len(w.phase4.accepted()); n != 4 {
				t.Errorf("%d messages taken at first, want the other 4", n)
			}
			if n := w.exhaust(); n < 3 {
				t.Errorf("%d backoffs, want 3", n)
			}
			w.wantHandedOver("overnight", five...)
			var attempts []int
			var ids []string
			for _, r := range w.phase4.deliveries() {
				if r.Trigger.SourceTable == pgs {
					attempts, ids = append(attempts, r.Attempt), append(ids, r.MessageID)
				}
			}
			if diff := cmp.Diff([]int{1, 2, 3, 4}, attempts); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			for _, id := range ids {
				if id != ids[0] {
					t.Errorf("message ids %q, want one", ids)
				}
			}
		})
	}
}

func TestF46_APermanentErrorIsQuarantinedOnceAndNeverRetried(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		broken := done(pgs, "2026-02-04 06:03", with("game_date", "YESTERDAY"))
		w.atTime("2026-02-04 06:05", append(morning(), broken)...)
		w.exhaust()
		w.wantHandedOver("overnight", five...) // the invalid message does not delay the others

		docs := w.documents("quarantine")
		if len(docs) != 1 || docs[0].Data["field"] != "game_date" || !strings.Contains(docs[0].Data["envelope"].(string), `"data"`) {
			t.Fatalf("quarantine holds %+v, want the one message", docs)
		}
		id := docs[0].Data["message_id"].(string)
		if m := w.pubsub.inner.Message(id); m.Deliveries != 1 || m.Acks != 1 {
			t.Errorf("%d deliveries, %d acknowledgements, want one of each", m.Deliveries, m.Acks)
		}
		// The broker may redeliver a message that is acknowledged.
		for attempt := 2; attempt <= 4; attempt++ {
			data, err := json.Marshal(broken)
			if err != nil {
				t.Fatal(err)
			}
			e := wire.Envelope{MessageID: id, PublishTime: w.Clock.Now(), Data: data}
			if got := post(t, w.Functions["transition"]+"?transition="+w.tr.ID, string(e.Push())); got != http.StatusAccepted {
				t.Errorf("delivery %d: %d, want 202", attempt, got)
			}
		}
		if diff := cmp.Diff(docs, w.documents("quarantine")); diff != "" {
			t.Errorf("quarantine (-before +after):\n%s", diff)
		}
		if n := w.logs.count("completion_quarantined"); n != 1 {
			t.Errorf("%d log lines, want 1", n)
		}
	})
}

func TestF05_AnEndpointThatAlwaysFailsEndsInTheDeadLetter(t *testing.T) {
	t.Parallel()
	down := newConsumer()
	down.answer = func(int, received) int { return http.StatusServiceUnavailable }
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = down })
	published := w.Clock.Now()
	want := wire.Outgoing{Data: []byte("\x00\xff not JSON"), Attributes: map[string]string{"key": "value"}}
	w.send("orders", want)
	// On a slow machine a backoff can end in real time, so exhaust may count fewer.
	if n := w.exhaust(); n > pipeline.MaxAttempts-1 {
		t.Errorf("%d backoffs, want %d", n, pipeline.MaxAttempts-1)
	}
	if got := down.deliveries(); len(got) != pipeline.MaxAttempts || got[pipeline.MaxAttempts-1].Attempt != pipeline.MaxAttempts {
		t.Errorf("%d deliveries, want %d", len(got), pipeline.MaxAttempts)
	}
	w.Clock.AdvanceTo(w.Clock.Now().AddDate(0, 0, 1)) // a dead letter does not expire
	w.settle()

	admin := w.App.Broker.Client.SubscriptionAdminClient
	req := &pubsubpb.PullRequest{Subscription: "projects/test/subscriptions/orders-dead-letter", MaxMessages: 10}
	got, err := admin.Pull(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.ReceivedMessages) != 1 {
		t.Fatalf("%d dead letters, want 1", len(got.ReceivedMessages))
	}
	m := got.ReceivedMessages[0].Message
	first, err := time.Parse(time.RFC3339Nano, m.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"])
	if err != nil || first.Before(published) || first.After(published.Add(time.Minute)) {
		t.Errorf("first published %s (%v), want %s", first, err, published)
	}
	delete(m.Attributes, "CloudPubSubDeadLetterSourceTopicPublishTime")
	attributes := map[string]string{
		"key": "value", "CloudPubSubDeadLetterSourceDeliveryCount": "100",
		"CloudPubSubDeadLetterSourceSubscription":        "orders-consumer",
		"CloudPubSubDeadLetterSourceSubscriptionProject": "test",
	}
	if string(m.Data) != string(want.Data) || !cmp.Equal(attributes, m.Attributes) {
		t.Errorf("%q %v, want %q %v", m.Data, m.Attributes, want.Data, attributes)
	}
	// After the acknowledgement the dead letter is not redelivered.
	err = admin.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: req.Subscription, AckIds: []string{got.ReceivedMessages[0].AckId}})
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	//lint:ignore SA1019 nothing is expected
	req.ReturnImmediately = true
	if got, err = admin.Pull(t.Context(), req); err != nil || len(got.ReceivedMessages) > 0 {
		t.Errorf("after acknowledging: %v, %v", got, err)
	}
}

func TestTransition_MessageForUnknownTransitionIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory")
	data, err := json.Marshal(done(pgs, "2026-02-03 12:00"))
	if err != nil {
		t.Fatal(err)
	}
	e := wire.Envelope{MessageID: "1", PublishTime: w.Clock.Now(), Data: data}
	for path, want := range map[string]int{"?transition=phase2_to_phase3": 503, "?transition=" + w.tr.ID: 204, "": 204} {
		if got := post(t, w.Functions["transition"]+path, string(e.Push())); got != want {
			t.Errorf("%q: %d, want %d", path, got, want)
		}
	}
	if docs := w.documents("quarantine"); len(docs) > 0 {
		t.Errorf("quarantine holds %+v, want nothing", docs)
	}
}

// post returns the status that an URL answers with.
func post(t *testing.T, url, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
