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

// The delivery settings of every push subscription, as they are deployed.
const (
	ackDeadline = 600 * time.Second
	minBackoff  = 10 * time.Second
	jobBackoff  = 300 * time.Second // in place of minBackoff: by then the relay's next job is there
	maxBackoff  = 600 * time.Second
	maxAttempts = 100
)

// route is one push subscription: a topic delivered to an URL, with a dead letter.
type route struct {
	topic, subscription, url string
	minBackoff               time.Duration
}

// Place is where a topic's messages go: a function, and the query it is called with.
type Place struct {
	Topic        string // without prefix
	Subscription string // without prefix
	Function     string
	Query        string // of its URL, with the question mark; "" for none
	MinBackoff   time.Duration
}

// The settings that all push subscriptions have.
const (
	AckDeadline = ackDeadline
	MaxBackoff  = maxBackoff
	MaxAttempts = maxAttempts
)

// Places are the push subscriptions that feed the functions of a pipeline. Each has a
// dead letter.
func Places(p *pipeline.Pipeline) []Place {
	var out []Place
	for _, t := range p.Transitions {
		query := "?transition=" + t.ID
		out = append(out, Place{t.UpstreamTopic, t.Subscription(), "transition", query, minBackoff},
			Place{t.ShadowTopic(), pipeline.Subscription(t.ShadowTopic(), "transition"), "transition", query + "&shadow=1", minBackoff})
	}
	seen := map[string]bool{}
	for _, s := range p.Schedules {
		if !seen[s.Function] {
			seen[s.Function] = true
			out = append(out, Place{s.Topic(), pipeline.Subscription(s.Topic(), s.Function), s.Function, "", jobBackoff})
		}
	}
	return out
}

// routes are the places of a pipeline as they are served under base.
func routes(p *pipeline.Pipeline, prefix, base string) []route {
	var out []route
	for _, pl := range Places(p) {
		out = append(out, route{prefix + pl.Topic, prefix + pl.Subscription, base + "/" + pl.Function + pl.Query, pl.MinBackoff})
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
	if err := t.createSubscription(ctx, &pubsubpb.Subscription{Name: dead, Topic: dead, AckDeadlineSeconds: int32(ackDeadline / time.Second)}); err != nil {
		return err
	}
	return t.createSubscription(ctx, &pubsubpb.Subscription{
		Name: r.subscription, Topic: r.topic,
		PushConfig:         &pubsubpb.PushConfig{PushEndpoint: r.url},
		AckDeadlineSeconds: int32(ackDeadline / time.Second),
		RetryPolicy:        &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(r.minBackoff), MaximumBackoff: durationpb.New(maxBackoff)},
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
