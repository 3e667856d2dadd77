package local

import (
	"context"
	"net/http"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"

	"github.com/phasegate/phasegate/shared/wire"
)

// live are the subscriptions for which the library's server wakes every 10 ms.
func (w *world) live() (names []string) {
	w.t.Helper()
	got, err := w.pubsub.GServer.ListSubscriptions(w.t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/test"})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range got.Subscriptions {
		names = append(names, s.Name)
	}
	return names
}

func TestPubSub_KeepsNoSubscriptionBusyWithoutMessages(t *testing.T) {
	t.Parallel()
	c := newConsumer()
	fails := true
	c.answer = func(int, received) int {
		if fails {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	}
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = c })
	w.settle()
	if got := w.live(); len(got) != 0 {
		t.Errorf("at first: %q", got)
	}
	w.send("orders", wire.Outgoing{Data: []byte("x")})
	w.settle()
	if got := w.live(); len(got) != 1 || got[0] != "projects/test/subscriptions/orders-consumer" {
		t.Errorf("with a message in backoff: %q", got)
	}
	fails = false
	due, _ := w.NextRetry()
	w.Clock.AdvanceTo(due)
	w.settle()
	if got := w.live(); len(got) != 0 || len(c.wait(t, 2)) != 2 {
		t.Errorf("after it: %q", got)
	}
	client := w.App.Broker.Client.SubscriptionAdminClient
	s, err := client.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: "projects/test/subscriptions/orders-consumer"})
	if err != nil || s.Topic != "projects/test/topics/orders" || s.PushConfig.PushEndpoint == "" || s.AckDeadlineSeconds != 600 {
		t.Errorf("a client sees %v, error %v", s, err)
	}
	if err := client.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: s.Name}); err != nil {
		t.Error(err)
	}
	if _, err := client.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: s.Name}); err == nil {
		t.Error("it is not deleted")
	}
}

// A client that is not part of the environment, such as a service under development, can stream messages.
func TestPubSub_StreamsToClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory")
	client := w.App.Broker.Client
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/test/topics/mine"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: "projects/test/subscriptions/mine", Topic: "projects/test/topics/mine", AckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	w.send("mine", wire.Outgoing{Data: []byte("before")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := client.SubscriptionAdminClient.StreamingPull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: "projects/test/subscriptions/mine", StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	receive := func(want string) {
		t.Helper()
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		m := got.ReceivedMessages[0]
		if string(m.Message.Data) != want || m.Message.PublishTime == nil {
			t.Errorf("%v, want %s", m.Message, want)
		}
		if err := stream.Send(&pubsubpb.StreamingPullRequest{AckIds: []string{m.AckId}}); err != nil {
			t.Fatal(err)
		}
	}
	receive("before")
	w.send("mine", wire.Outgoing{Data: []byte("while it streams")})
	receive("while it streams")
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if got := w.live(); len(got) != 0 {
		t.Errorf("after the stream: %q", got)
	}
}

// Neither server waits for its calls, so a call may end or begin after Close.
func TestPubSub_CallThatOutlivesTheServerParksNothing(t *testing.T) {
	t.Parallel()
	s, err := servePubSub(0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	const topic, used, parked = "projects/test/topics/t", "projects/test/subscriptions/used", "projects/test/subscriptions/parked"
	if _, err := s.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/google.pubsub.v1.Subscriber/CreateSubscription"}
	for _, name := range []string{used, parked} {
		_, err = s.administer(t.Context(), &pubsubpb.Subscription{Name: name, Topic: topic}, info, func(ctx context.Context, req any) (any, error) {
			return s.CreateSubscription(ctx, req.(*pubsubpb.Subscription))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	done := s.use(used) // as Pull does
	s.Close()
	done() // a second stop of the subscription would panic in the library
	s.use(parked)
	if s.subscriptions[parked].parked == nil {
		t.Error("a call after Close started a subscription, and no later call stops it")
	}
}
