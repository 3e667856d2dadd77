package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// dispatcher pushes what the broker holds to URLs, as Pub/Sub does for its push
// subscriptions. It delivers at least once, acknowledges by the answer, redelivers with
// exponential backoff, and publishes to the dead-letter topic after the last attempt.
// Backoff and attempts are kept here: the library's server waits in whole seconds,
// counts one message's deliveries over all its subscriptions, and never lets go of
// what it has dead-lettered.
type dispatcher struct {
	topology
	clock  *Clock
	news   *signal // raised when there may be something to deliver
	client *http.Client
	log    func(format string, args ...any)

	mu       sync.Mutex
	inFlight int
	settling int // how many wait for quiet, and pull by themselves meanwhile
	started  int // deliveries ever
	failed   map[delivery]retry
	settled  *sync.Cond
}

// delivery is one message on its way to one subscription.
type delivery struct{ subscription, messageID string }

// retry is what is known of a delivery that has failed.
type retry struct {
	attempts int
	due      time.Time // zero while it is being tried again
	ackID    string
}

// pullAgain is when a pull that failed is tried again.
const pullAgain = 100 * time.Millisecond

func newDispatcher(t topology, clock *Clock, news *signal, log func(string, ...any)) *dispatcher {
	// A transport of its own, so that close can end its connections: a server that
	// drains waits five seconds for one that was opened and never used.
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	d := &dispatcher{topology: t, clock: clock, news: news, log: log, client: &http.Client{Timeout: pipeline.AckDeadline, Transport: transport}, failed: map[delivery]retry{}}
	d.settled = sync.NewCond(&d.mu)
	return d
}

// run delivers a route's messages until ctx ends, then waits for those in flight.
func (d *dispatcher) run(ctx context.Context, r route) {
	d.eachNews(ctx, r.subscription, func() error { return d.round(ctx, r) })
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.inFlight > 0 {
		d.settled.Wait()
	}
}

// eachNews makes a round now, after each news, and when a message in backoff is due,
// until ctx ends.
func (d *dispatcher) eachNews(ctx context.Context, subscription string, round func() error) {
	for ctx.Err() == nil {
		news := d.news.next() // before the round: what comes meanwhile asks for another one
		d.mu.Lock()
		idle := d.settling > 0 // with many routes a pull would always be under way, and the dispatcher never idle
		d.mu.Unlock()
		var err error
		if !idle {
			err = round()
		}
		due, _ := d.nextRetry(subscription)
		if err != nil && ctx.Err() == nil {
			d.log("pull %s: %v", subscription, err)
			due = d.clock.Now().Add(pullAgain)
		}
		if idle {
			due = time.Time{} // the settling caller delivers, and signals the end
		}
		d.clock.wait(ctx, due, news)
	}
}

// close ends what run has left open; call it when every run has returned.
func (d *dispatcher) close() { d.client.CloseIdleConnections() }

// round pulls what is due and starts delivering it.
func (d *dispatcher) round(ctx context.Context, r route) error {
	d.mu.Lock()
	d.inFlight++ // a pull counts: between pull and delivery nothing is settled
	d.mu.Unlock()
	defer d.done()
	if err := d.giveBack(ctx, r); err != nil {
		return err
	}
	for {
		n, err := d.pull(ctx, r)
		if err != nil || n < mostPulled {
			return err
		}
	}
}

// mostPulled is how many messages Pub/Sub gives at most in one answer.
const mostPulled = 1000

// pull starts delivering what the broker gives in one answer, and returns how many these are.
func (d *dispatcher) pull(ctx context.Context, r route) (int, error) {
	req := &pubsubpb.PullRequest{Subscription: d.subscription(r.subscription), MaxMessages: mostPulled}
	//lint:ignore SA1019 without it the broker sits half a second on a message that arrives meanwhile
	req.ReturnImmediately = true
	resp, err := d.topology.client.SubscriptionAdminClient.Pull(ctx, req)
	if err != nil {
		return 0, err
	}
	for _, m := range resp.ReceivedMessages {
		d.mu.Lock()
		d.inFlight++
		d.started++
		d.mu.Unlock()
		go func() {
			defer d.done()
			d.deliver(context.WithoutCancel(ctx), r, m)
		}()
	}
	return len(resp.ReceivedMessages), nil
}

// giveBack lets the broker hand out again what is due after its backoff.
func (d *dispatcher) giveBack(ctx context.Context, r route) error {
	due := map[delivery]retry{}
	var ackIDs []string
	d.mu.Lock()
	now := d.clock.Now()
	for key, f := range d.failed {
		if key.subscription == r.subscription && !f.due.IsZero() && !f.due.After(now) {
			due[key], ackIDs = f, append(ackIDs, f.ackID)
			d.failed[key] = retry{attempts: f.attempts}
		}
	}
	d.mu.Unlock()
	if len(ackIDs) == 0 {
		return nil
	}
	err := d.topology.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: d.subscription(r.subscription), AckIds: ackIDs, AckDeadlineSeconds: 0})
	if err != nil {
		d.mu.Lock()
		maps.Copy(d.failed, due)
		d.mu.Unlock()
	}
	return err
}

func (d *dispatcher) done() {
	d.mu.Lock()
	d.inFlight--
	d.settled.Broadcast()
	d.mu.Unlock()
}

// deliver pushes one message. It ends with an acknowledgement, a dead letter or a
// time to try again.
func (d *dispatcher) deliver(ctx context.Context, r route, m *pubsubpb.ReceivedMessage) {
	key := delivery{r.subscription, m.Message.MessageId}
	d.mu.Lock()
	attempt := d.failed[key].attempts + 1
	d.mu.Unlock()
	finished := d.push(ctx, r, m.Message, attempt) || attempt >= pipeline.MaxAttempts && d.deadLetter(ctx, r, m.Message, attempt)
	if finished {
		err := d.topology.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{
			Subscription: d.subscription(r.subscription), AckIds: []string{m.AckId}})
		if err != nil {
			d.log("acknowledge %s: %v", m.Message.MessageId, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if finished {
		delete(d.failed, key)
		return
	}
	d.failed[key] = retry{attempts: attempt, due: d.clock.Now().Add(backoff(r.minBackoff, attempt)), ackID: m.AckId}
	d.news.raise() // the route has to know when it is due
}

// deadLetter reports whether a message that used up its attempts is on the
// dead-letter topic, with what Pub/Sub adds to it there
// (https://cloud.google.com/pubsub/docs/handling-failures#track-delivery-attempts).
func (d *dispatcher) deadLetter(ctx context.Context, r route, m *pubsubpb.PubsubMessage, attempts int) bool {
	attributes := map[string]string{}
	maps.Copy(attributes, m.Attributes)
	maps.Copy(attributes, map[string]string{ // over those of an earlier dead letter that was replayed
		wire.DeadLetterAttempts:            strconv.Itoa(attempts),
		wire.DeadLetterSubscription:        r.subscription,
		wire.DeadLetterSubscriptionProject: d.project,
		wire.DeadLetterPublishTime:         m.PublishTime.AsTime().Format(time.RFC3339Nano),
	})
	_, err := d.topology.client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic:    d.topic(pipeline.DeadLetterTopic(r.topic)),
		Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: attributes}},
	})
	if err != nil {
		d.log("dead-letter %s: %v", m.MessageId, err)
	}
	return err == nil
}

func backoff(least time.Duration, attempt int) time.Duration {
	return min(least<<min(max(attempt-1, 0), 10), pipeline.MaxBackoff)
}

// push reports whether the endpoint took the message.
func (d *dispatcher) push(ctx context.Context, r route, m *pubsubpb.PubsubMessage, attempt int) bool {
	e := wire.Envelope{
		MessageID: m.MessageId, PublishTime: m.PublishTime.AsTime(),
		Attributes: m.Attributes, Data: m.Data, Subscription: d.subscription(r.subscription),
	}
	var body map[string]any
	if err := json.Unmarshal(e.Push(), &body); err != nil {
		d.log("envelope of %s: %v", e.MessageID, err)
		return false
	}
	body["deliveryAttempt"] = attempt
	data, err := json.Marshal(body)
	if err != nil {
		d.log("envelope of %s: %v", e.MessageID, err)
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(data))
	if err != nil {
		d.log("push to %s: %v", r.url, err)
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.client.Do(req)
	if err != nil {
		if broken, ok := errors.AsType[*url.Error](err); ok { // says the URL again
			err = broken.Err
		}
		d.log("push of %s to %s broke off: %v", e.MessageID, req.URL.Path, err)
		return false
	}
	defer resp.Body.Close()
	return slices.Contains(pipeline.Acknowledged(), resp.StatusCode)
}

// settle waits until nothing is in flight and no subscription has anything to give
// at the clock's present time; messages in backoff are left to their time.
func (d *dispatcher) settle(ctx context.Context, rs []route) error {
	d.mu.Lock()
	d.settling++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.settling--
		d.mu.Unlock()
		d.news.raise() // what came last is for the routes
	}()
	for {
		d.mu.Lock()
		for d.inFlight > 0 && ctx.Err() == nil {
			d.settled.Wait()
		}
		before := d.started
		d.mu.Unlock()
		for _, r := range rs {
			if err := d.round(ctx, r); err != nil {
				return fmt.Errorf("settle %s: %w", r.subscription, err)
			}
		}
		d.mu.Lock()
		quiet := d.started == before && d.inFlight == 0
		d.mu.Unlock()
		if quiet {
			return nil
		}
	}
}

// nextRetry returns when the next message in backoff is due, of one subscription or, "",
// of all.
func (d *dispatcher) nextRetry(subscription string) (due time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, f := range d.failed {
		if (subscription == "" || key.subscription == subscription) && !f.due.IsZero() && (!ok || f.due.Before(due)) {
			due, ok = f.due, true
		}
	}
	return due, ok
}
