package local

import (
	"errors"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
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
