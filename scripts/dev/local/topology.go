package local

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// route is one push subscription: a topic delivered to an URL, with a dead letter.
type route struct {
	topic, subscription, url string
	minBackoff               time.Duration
}

// routes are the push subscriptions of a pipeline as they are served under base.
func routes(p *pipeline.Pipeline, prefix, base string) []route {
	var out []route
	for _, s := range p.PushSubscriptions() {
		out = append(out, route{prefix + s.Topic, prefix + s.Name, base + "/" + s.Function + s.Query, s.MinBackoff})
	}
	return out
}

// topology makes topics and subscriptions in the broker; what exists stays.
type topology struct {
	client  *pubsub.Client
	project string
}

func (t topology) topic(name string) string { return "projects/" + t.project + "/topics/" + name }
func (t topology) subscription(name string) string {
	return "projects/" + t.project + "/subscriptions/" + name
}

func (t topology) createTopic(ctx context.Context, name string) error {
	_, err := t.client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: t.topic(name)})
	return made(err, "topic", name)
}

// createRoute makes a topic, its dead-letter topic with a subscription that keeps
// what arrives there, and the push subscription between them.
func (t topology) createRoute(ctx context.Context, r route) error {
	dead := pipeline.DeadLetterTopic(r.topic)
	for _, name := range []string{r.topic, dead} {
		if err := t.createTopic(ctx, name); err != nil {
			return err
		}
	}
	if err := t.createSubscription(ctx, &pubsubpb.Subscription{Name: dead, Topic: dead, AckDeadlineSeconds: int32(pipeline.AckDeadline / time.Second)}); err != nil {
		return err
	}
	return t.createSubscription(ctx, &pubsubpb.Subscription{
		Name: r.subscription, Topic: r.topic,
		PushConfig:         &pubsubpb.PushConfig{PushEndpoint: r.url},
		AckDeadlineSeconds: int32(pipeline.AckDeadline / time.Second),
		RetryPolicy:        &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(r.minBackoff), MaximumBackoff: durationpb.New(pipeline.MaxBackoff)},
		// No DeadLetterPolicy: the dispatcher keeps it.
	})
}

func (t topology) createSubscription(ctx context.Context, s *pubsubpb.Subscription) error {
	name := s.Name
	s.Name, s.Topic = t.subscription(s.Name), t.topic(s.Topic)
	_, err := t.client.SubscriptionAdminClient.CreateSubscription(ctx, s)
	return made(err, "subscription", name)
}

func made(err error, what, name string) error {
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("create %s %s: %w", what, name, err)
	}
	return nil
}
