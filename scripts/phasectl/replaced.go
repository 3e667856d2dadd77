package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// deletedTopic is the topic of a subscription whose own was deleted:
// https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions
const deletedTopic = "_deleted-topic_"

// eventarc begins the names of subscriptions that Eventarc makes for a trigger. It changes them
// when the trigger is deployed again: https://cloud.google.com/eventarc/docs/troubleshooting
const eventarc = "eventarc-"

// replaced asks whether the orchestrators that a pipeline's transitions take over from are
// still fed: two that are both active hand over twice. It warns of push subscriptions that the
// pipeline file does not name. A shadow may run next to them.
func replaced(ctx context.Context, c app.Config, p *pipeline.Pipeline) ([]warehouse.Verification, error) {
	named := slices.ContainsFunc(p.Transitions, func(t *pipeline.Transition) bool { return len(t.Replaces) > 0 })
	if c.Shadow != "" || !named && c.PubSubHost == "" && (c.Local || c.BigQueryHost != "") {
		return nil, nil
	}
	broker, err := app.NewBroker(ctx, c.Project, c.PubSubHost)
	if err != nil {
		return nil, unknown(err)
	}
	defer broker.Close()
	var out []warehouse.Verification
	for _, t := range p.Transitions {
		f := &feeds{broker: broker, project: c.Project, topic: c.Prefix + t.UpstreamTopic, own: c.Prefix + t.Subscription()}
		f.list(ctx)
		for _, pattern := range t.Replaces {
			out = append(out, f.replaces(ctx, pattern))
		}
		out = append(out, f.others(ctx, t.Replaces)...)
	}
	return out, nil
}

// feeds are the subscriptions of a transition's topic.
type feeds struct {
	broker              *app.Broker
	project, topic, own string
	names               []string // projects/PROJECT/subscriptions/NAME
	err                 error
}

func (f *feeds) list(ctx context.Context) {
	it := f.broker.Client.TopicAdminClient.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: "projects/" + f.project + "/topics/" + f.topic})
	for {
		name, err := it.Next()
		switch {
		case errors.Is(err, iterator.Done), status.Code(err) == codes.NotFound: // no such topic yet
			return
		case err != nil:
			f.err = err
			return
		}
		f.names = append(f.names, name)
	}
}

// replaces says which subscriptions of a name or pattern still feed an orchestrator.
func (f *feeds) replaces(ctx context.Context, pattern string) warehouse.Verification {
	v := warehouse.Verification{Name: "replaces " + pattern}
	names := slices.DeleteFunc(slices.Clone(f.names), func(name string) bool {
		return path.Base(name) == f.own || !pipeline.MatchesSubscription(pattern, path.Base(name))
	})
	if exact := "projects/" + f.project + "/subscriptions/" + pattern; !strings.Contains(pattern, "*") && !slices.Contains(names, exact) {
		names = append(names, exact)
	} else if f.err != nil {
		v.Unknown, v.Problem = true, fmt.Sprintf("the subscriptions of topic %s cannot be listed: %v", f.topic, f.err)
		return v
	}
	var feeding []string
	for _, name := range names {
		sub, err := f.get(ctx, name)
		switch {
		case err != nil:
			v.Unknown, v.Problem = true, fmt.Sprintf("cannot determine whether it still exists: %v", err)
			return v
		case sub == nil:
		case strings.HasPrefix(path.Base(name), eventarc) && sub.PushConfig.GetPushEndpoint() == "": // stopped: Eventarc only pushes
		default:
			feeding = append(feeding, path.Base(name))
		}
	}
	if len(feeding) == 0 {
		return v
	}
	what := ""
	if !slices.Equal(feeding, []string{pattern}) {
		what = " through " + strings.Join(feeding, ", ")
	}
	v.Problem = fmt.Sprintf("it still feeds the previous orchestrator%s, and both would hand over: keep the output of `gcloud pubsub subscriptions describe %s`, and delete it, or deploy with shadow = true",
		what, feeding[0])
	if strings.HasPrefix(feeding[0], eventarc) {
		v.Problem = fmt.Sprintf("it still feeds the orchestrator before%s, and both would hand over: stop it with `gcloud pubsub subscriptions modify-push-config %s --push-endpoint=`, or deploy with shadow = true",
			what, feeding[0])
	}
	return v
}

// others warns of push subscriptions that are neither ours nor named: each may feed another
// orchestrator.
func (f *feeds) others(ctx context.Context, replaces []string) (out []warehouse.Verification) {
	if f.err != nil {
		return []warehouse.Verification{{Name: "subscriptions of " + f.topic, Warning: fmt.Sprintf("cannot determine whether another orchestrator is fed: %v", f.err)}}
	}
	for _, name := range f.names {
		if path.Base(name) == f.own || slices.ContainsFunc(replaces, func(pattern string) bool { return pipeline.MatchesSubscription(pattern, path.Base(name)) }) {
			continue
		}
		sub, err := f.get(ctx, name)
		if err == nil && (sub == nil || sub.PushConfig.GetPushEndpoint() == "") {
			continue // pulled, or gone
		}
		to := fmt.Sprint(err)
		if err == nil {
			to = "it pushes to " + sub.PushConfig.GetPushEndpoint()
		}
		out = append(out, warehouse.Verification{Name: "subscription " + path.Base(name),
			Warning: fmt.Sprintf("%s: if that is an orchestrator, name the subscription in upstream.replaces of topic %s", to, f.topic)})
	}
	return out
}

// get returns a subscription, nil if it is not there or gets no messages.
func (f *feeds) get(ctx context.Context, name string) (*pubsubpb.Subscription, error) {
	sub, err := f.broker.Client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
	if status.Code(err) == codes.NotFound || err == nil && (sub.Detached || sub.Topic == deletedTopic) {
		return nil, nil
	}
	return sub, err
}
