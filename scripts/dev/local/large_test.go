package local

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestPubSub_TakesMessagesOfTenMegabytesAndNoLargerOnes(t *testing.T) {
	t.Parallel()
	c := newConsumer()
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = c })
	data := make([]byte, app.MaxPublish-100)
	w.send("orders", wire.Outgoing{Data: data})
	if got := c.wait(t, 1); len(got[0].Data) != len(data) {
		t.Errorf("%d bytes, want %d", len(got[0].Data), len(data))
	}
	larger := make([]byte, app.MaxPublish)
	if sent := w.App.Broker.Publish(t.Context(), "orders", []wire.Outgoing{{Data: larger}}); !errors.Is(sent[0].Err, app.ErrTooLarge) {
		t.Errorf("through the broker: %v", sent[0].Err)
	}
	_, err := w.App.Broker.Client.TopicAdminClient.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: "projects/test/topics/orders", Messages: []*pubsubpb.PubsubMessage{{Data: larger}}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("past it: %v", err)
	}
}

// Pub/Sub gives 1,000 messages at most in one answer, and takes no more in one request.
func TestDispatcher_DeliversMoreMessagesThanOneAnswerHolds(t *testing.T) {
	t.Parallel()
	clock := NewClock(time.Time{})
	server, err := servePubSub(0, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	broker, err := app.NewBroker(t.Context(), "test", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	var received atomic.Int64
	consumer := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { received.Add(1) }))
	defer consumer.Close()
	top := topology{client: broker.Client, project: "test"}
	r := route{"orders", "orders-consumer", consumer.URL, pipeline.MinBackoff}
	if err := top.createRoute(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	const n = 2*app.MaxMessages + 500
	for _, sent := range broker.Publish(t.Context(), "orders", make([]wire.Outgoing, n)) {
		if sent.Err != nil {
			t.Fatal(sent.Err)
		}
	}
	d := newDispatcher(top, clock, newSignal(), t.Logf)
	defer d.close()
	if err := d.round(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	for d.inFlight > 0 {
		d.settled.Wait()
	}
	d.mu.Unlock()
	if got := received.Load(); got != n {
		t.Errorf("%d of %d messages delivered", got, n)
	}
	_, err = broker.Client.TopicAdminClient.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: top.topic("orders"), Messages: make([]*pubsubpb.PubsubMessage, app.MaxMessages+1)})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("%d messages in one request: %v", app.MaxMessages+1, err)
	}
}
