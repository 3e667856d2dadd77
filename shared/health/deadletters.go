package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/monitoring/v3"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

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

// DeadLetters returns how many messages wait in each dead-letter subscription of a deployment, by
// its name. Cloud Monitoring counts them, so none has to be pulled. It has no time series of a
// subscription that stays empty ("the Pubsub subscription is empty": no data is returned,
// https://github.com/kedacore/keda/issues/5896). So a subscription without one has 0 messages if
// Pub/Sub knows it, and is missing in the result otherwise. One call, and one more for each
// subscription without a time series. Counts that are known come with an error about the others.
func DeadLetters(ctx context.Context, a *app.App, opts ...option.ClientOption) (map[string]int64, error) {
	service, err := monitoring.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Monitoring: %w", err)
	}
	names := deadLetters(a.Pipeline, a.Config.Prefix)
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, strconv.Quote(name))
	}
	out := map[string]int64{}
	now := a.Now()
	err = service.Projects.TimeSeries.List("projects/"+a.Config.Project).
		Filter(fmt.Sprintf(`metric.type = %q AND resource.labels.subscription_id = one_of(%s)`, undelivered, strings.Join(quoted, ", "))).
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
	return out, addEmpty(ctx, a, names, out)
}

// addEmpty adds a count of 0 for each subscription without a count that exists.
func addEmpty(ctx context.Context, a *app.App, names []string, counts map[string]int64) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	uncounted := slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := counts[name]; return ok })
	for _, name := range uncounted { // the map is written from here on
		wg.Go(func() {
			_, err := a.Broker.Client.SubscriptionAdminClient.GetSubscription(ctx,
				&pubsubpb.GetSubscriptionRequest{Subscription: "projects/" + a.Config.Project + "/subscriptions/" + name})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				counts[name] = 0
			case grpcstatus.Code(err) != codes.NotFound:
				failed = append(failed, fmt.Errorf("dead letters: read subscription %s: %w", name, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// deadLetters are the names of all dead-letter subscriptions, each once.
func deadLetters(p *pipeline.Pipeline, prefix string) (out []string) {
	for _, s := range p.PushSubscriptions() {
		out = append(out, prefix+s.DeadLetter())
	}
	return out
}

// deadLettersCheck reports dead-lettered messages.
func deadLettersCheck(f *facts) Check {
	v := verdict{action: "phasectl dead-letter list", whenUnknown: "phasectl dead-letter list"}
	if f.deadErr != nil {
		v.notKnown("%v", f.deadErr)
	}
	for _, name := range f.deadNames {
		switch n, known := f.dead[name]; {
		case n > 0:
			v.failing("%s in %s", pipeline.Count(n, "message waits", "messages wait"), name)
		case !known && f.deadErr == nil:
			v.failing("the subscription %s does not exist: its topic's dead letters are lost; deploy again", name)
		}
	}
	v.ok("none in %s", pipeline.Count(len(f.deadNames), "subscription", "subscriptions"))
	return v.check()
}
