package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"google.golang.org/api/pubsub/v1"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// fewestAttempts is how many a subscription to a guarded service needs: a run of an hour uses 11
// with a retry policy.
const fewestAttempts = 20

// guarded checks the subscriptions that push triggers to guarded services. Their owners make them.
func (d *doctor) guarded(ctx context.Context) (out []check) {
	for _, ph := range d.pipeline.Phases {
		for _, t := range d.pipeline.Transitions {
			if ph.Guard != nil && t.DownstreamPhase == ph.Name {
				out = append(out, d.pushes(ctx, ph, d.config.Prefix+t.DownstreamTopic)...)
			}
		}
	}
	return out
}

// pushes checks those of a topic that push to a path of the guard.
func (d *doctor) pushes(ctx context.Context, ph pipeline.Phase, topic string) (out []check) {
	const role = "roles/pubsub.viewer"
	id := "subscriptions of guarded " + ph.Guard.Scope
	var names []string
	err := d.pubsub.Projects.Topics.Subscriptions.List("projects/"+d.config.Project+"/topics/"+topic).Pages(ctx, func(page *pubsub.ListTopicSubscriptionsResponse) error {
		names = append(names, page.Subscriptions...)
		return nil
	})
	switch {
	case codeOf(err) == http.StatusNotFound, disabled(err):
		return []check{d.byDeploying(check{ID: id, Evidence: "topic " + topic + " does not exist"})}
	case err != nil:
		return []check{d.unread(id, err, role)}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "_") { // of a subscription that was deleted
			continue
		}
		s, err := d.pubsub.Projects.Subscriptions.Get(name).Context(ctx).Do()
		if err != nil {
			out = append(out, d.unread("subscription "+path.Base(name), err, role))
			continue
		}
		if s.PushConfig == nil || s.PushConfig.PushEndpoint == "" {
			continue
		}
		endpoint, err := url.Parse(s.PushConfig.PushEndpoint)
		if err != nil {
			continue // another's
		}
		if at := "/" + strings.TrimPrefix(endpoint.EscapedPath(), "/"); slices.Contains(ph.Guard.Paths, at) {
			out = append(out, d.outlasts(path.Base(name), s))
		}
	}
	if len(out) == 0 {
		return []check{{ID: id, State: checkOK, Evidence: fmt.Sprintf("topic %s has none yet that pushes to %s", topic, strings.Join(ph.Guard.Paths, ", "))}}
	}
	return out
}

// outlasts checks that a message is not dead-lettered while a run of an hour works on it.
func (d *doctor) outlasts(name string, s *pubsub.Subscription) check {
	c := check{ID: "subscription " + name, State: checkFailing}
	var problems []string
	if s.RetryPolicy == nil {
		problems = append(problems, "it has no retry policy, so a run of an hour uses 60 attempts")
	}
	if p := s.DeadLetterPolicy; p != nil && p.MaxDeliveryAttempts < fewestAttempts {
		problems = append(problems, fmt.Sprintf("it dead-letters after %d attempts, which a long run uses: %d are needed", p.MaxDeliveryAttempts, fewestAttempts))
	}
	if s.AckDeadlineSeconds < 600 {
		problems = append(problems, fmt.Sprintf("its ack deadline is %d s, so copies of a run come more often than each 600 s", s.AckDeadlineSeconds))
	}
	if len(problems) == 0 {
		return check{ID: c.ID, State: checkOK, Evidence: "a message is not dead-lettered during a run of an hour"}
	}
	c.Evidence = strings.Join(problems, "; ")
	c.Action = "gcloud pubsub subscriptions update " + name + " --ack-deadline=600 --min-retry-delay=10s --max-retry-delay=600s --project=" + d.config.Project
	if s.DeadLetterPolicy != nil {
		c.Action += " --max-delivery-attempts=100"
	}
	return c
}
