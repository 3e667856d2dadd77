package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/monitoring/v3"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// undelivered is the metric of what waits in a subscription, sampled every minute:
// https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub
const undelivered = "pubsub.googleapis.com/subscription/num_undelivered_messages"

// errNotCounted means that an emulator has no counts of dead letters.
var errNotCounted = errors.New("dead letters: Pub/Sub is an emulator here, which has no counts")

// measured is how far back the newest sample is looked for: it may be some minutes late.
const measured = 15 * time.Minute

// DeadLetters returns how many messages wait in each dead-letter subscription of a
// deployment, by its name, as Cloud Monitoring counts them, so that none has to be pulled. A
// subscription without a sample is missing. One call.
func DeadLetters(ctx context.Context, a *app.App, opts ...option.ClientOption) (map[string]int64, error) {
	service, err := monitoring.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Monitoring: %w", err)
	}
	var names []string
	for _, name := range deadLetters(a.Pipeline, a.Config.Prefix) {
		names = append(names, strconv.Quote(name))
	}
	out := map[string]int64{}
	now := a.Now()
	err = service.Projects.TimeSeries.List("projects/"+a.Config.Project).
		Filter(fmt.Sprintf(`metric.type = %q AND resource.labels.subscription_id = one_of(%s)`, undelivered, strings.Join(names, ", "))).
		IntervalStartTime(now.Add(-measured).UTC().Format(time.RFC3339)).IntervalEndTime(now.UTC().Format(time.RFC3339)).
		Pages(ctx, func(page *monitoring.ListTimeSeriesResponse) error {
			for _, series := range page.TimeSeries {
				// The newest point comes first.
				if len(series.Points) == 0 || series.Resource == nil || series.Points[0].Value == nil || series.Points[0].Value.Int64Value == nil {
					continue
				}
				out[series.Resource.Labels["subscription_id"]] += *series.Points[0].Value.Int64Value
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	return out, nil
}

// deadLetters are the names of all dead-letter subscriptions, each once.
func deadLetters(p *pipeline.Pipeline, prefix string) (out []string) {
	add := func(topic string) {
		if name := prefix + pipeline.DeadLetterTopic(topic); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, t := range p.Transitions {
		add(t.UpstreamTopic)
		add(t.ShadowTopic())
	}
	for _, s := range p.Schedules {
		add(s.Topic())
	}
	return out
}

// deadLettersCheck reports dead-lettered messages.
func deadLettersCheck(f *facts) Check {
	v := verdict{action: "phasectl dead-letter list", whenUnknown: "phasectl dead-letter list"}
	if f.deadErr != nil {
		v.notKnown("%v", f.deadErr)
		return v.check()
	}
	for _, name := range f.deadNames {
		switch n, known := f.dead[name]; {
		case !known:
			v.notKnown("%s: Cloud Monitoring has no count of its messages in the last %s", name, measured)
		case n > 0:
			v.failing("%d messages wait in %s", n, name)
		}
	}
	v.ok("none in %d subscriptions", len(f.deadNames))
	return v.check()
}
