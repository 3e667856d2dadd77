package main

import (
	"context"
	"fmt"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// deletedTopic is the topic of a subscription whose own was deleted:
// https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions
const deletedTopic = "_deleted-topic_"

// replaced asks whether the orchestrators that a pipeline's transitions take over from are
// still fed: two that are both active hand over twice. A shadow may run beside them.
func replaced(ctx context.Context, c app.Config, p *pipeline.Pipeline) ([]warehouse.Verification, error) {
	if c.Shadow != "" {
		return nil, nil
	}
	var names []string
	for _, t := range p.Transitions {
		names = append(names, t.Replaces...)
	}
	if len(names) == 0 {
		return nil, nil
	}
	broker, err := app.NewBroker(ctx, c.Project, c.PubSubHost)
	if err != nil {
		return nil, exitError{exitUnknown, err}
	}
	defer broker.Close()
	var out []warehouse.Verification
	for _, name := range names {
		v := warehouse.Verification{Name: "replaces " + name}
		sub, err := broker.Client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{
			Subscription: "projects/" + c.Project + "/subscriptions/" + name})
		switch {
		case status.Code(err) == codes.NotFound:
		case err != nil:
			v.Unknown, v.Problem = true, fmt.Sprintf("whether it is still there cannot be told: %v", err)
		case sub.Detached, sub.Topic == deletedTopic:
		default:
			v.Problem = fmt.Sprintf("it still feeds the orchestrator before, and both would hand over: keep what `gcloud pubsub subscriptions describe %s` says, "+
				"and delete it, or deploy with shadow = true", name)
		}
		out = append(out, v)
	}
	return out, nil
}
