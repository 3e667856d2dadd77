package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/message"
)

// dispatcher pushes what the broker holds to URLs, as Pub/Sub does for its push
// subscriptions: at least once, acknowledged by the answer, redelivered with
// exponential backoff. Attempts and dead-lettering are the broker's own.
type dispatcher struct {
	topology
	clock  *Clock
	client *http.Client
	log    func(format string, args ...any)

	mu       sync.Mutex
	inFlight int
	started  int                  // deliveries ever
	retries  map[string]time.Time // message in backoff → when it is due
	settled  *sync.Cond
}

// pollInterval is how often an idle subscription is looked at. The broker has no
// signal for a lone pull, and its streams keep their own time.
const pollInterval = 5 * time.Millisecond

func newDispatcher(t topology, clock *Clock, log func(string, ...any)) *dispatcher {
	d := &dispatcher{topology: t, clock: clock, log: log, client: &http.Client{Timeout: ackDeadline}, retries: map[string]time.Time{}}
	d.settled = sync.NewCond(&d.mu)
	return d
}

// run delivers a route's messages until ctx ends, then waits for those in flight.
func (d *dispatcher) run(ctx context.Context, r route) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if err := d.round(ctx, r); err != nil && ctx.Err() == nil {
			d.log("pull %s: %v", r.subscription, err)
		}
		select {
		case <-ctx.Done():
			d.mu.Lock()
			for d.inFlight > 0 {
				d.settled.Wait()
			}
			d.mu.Unlock()
			return
		case <-tick.C:
		}
	}
}

// round pulls what is due and starts delivering it.
func (d *dispatcher) round(ctx context.Context, r route) error {
	d.mu.Lock()
	d.inFlight++ // a pull counts: between pull and delivery nothing is settled
	d.mu.Unlock()
	defer d.done()
	req := &pubsubpb.PullRequest{Subscription: d.subscription(r.subscription), MaxMessages: 1000}
	//lint:ignore SA1019 without it the broker sits half a second on a message that arrives meanwhile
	req.ReturnImmediately = true
	resp, err := d.topology.client.SubscriptionAdminClient.Pull(ctx, req)
	if err != nil {
		return err
	}
	for _, m := range resp.ReceivedMessages {
		d.mu.Lock()
		d.inFlight++
		d.started++
		delete(d.retries, r.subscription+m.Message.MessageId)
		d.mu.Unlock()
		go func() {
			defer d.done()
			d.deliver(context.WithoutCancel(ctx), r, m)
		}()
	}
	return nil
}

func (d *dispatcher) done() {
	d.mu.Lock()
	d.inFlight--
	d.settled.Broadcast()
	d.mu.Unlock()
}

// deliver pushes one message and tells the broker the outcome.
func (d *dispatcher) deliver(ctx context.Context, r route, m *pubsubpb.ReceivedMessage) {
	if d.push(ctx, r, m) {
		err := d.topology.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{
			Subscription: d.subscription(r.subscription), AckIds: []string{m.AckId}})
		if err != nil {
			d.log("acknowledge %s: %v", m.Message.MessageId, err)
		}
		return
	}
	wait := backoff(int(m.DeliveryAttempt))
	d.mu.Lock()
	d.retries[r.subscription+m.Message.MessageId] = d.clock.Now().Add(wait)
	d.mu.Unlock()
	err := d.topology.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: d.subscription(r.subscription), AckIds: []string{m.AckId}, AckDeadlineSeconds: int32(wait / time.Second)})
	if err != nil {
		d.log("back off %s: %v", m.Message.MessageId, err)
	}
}

func backoff(attempt int) time.Duration {
	return min(minBackoff<<min(max(attempt-1, 0), 10), maxBackoff)
}

// push reports whether the endpoint took the message.
func (d *dispatcher) push(ctx context.Context, r route, m *pubsubpb.ReceivedMessage) bool {
	e := message.Envelope{
		MessageID: m.Message.MessageId, PublishTime: m.Message.PublishTime.AsTime(),
		Attributes: m.Message.Attributes, Data: m.Message.Data, Subscription: d.subscription(r.subscription),
	}
	var body map[string]any
	if err := json.Unmarshal(e.Push(), &body); err != nil {
		d.log("envelope of %s: %v", e.MessageID, err)
		return false
	}
	body["deliveryAttempt"] = m.DeliveryAttempt
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
		d.log("push %s to %s: %v", e.MessageID, r.url, err)
		return false
	}
	defer resp.Body.Close()
	switch resp.StatusCode { // https://cloud.google.com/pubsub/docs/push#receive_push
	case 102, 200, 201, 202, 204:
		return true
	}
	return false
}

// settle waits until nothing is in flight and no subscription has anything to give
// at the clock's present time; messages in backoff are left to their time.
func (d *dispatcher) settle(ctx context.Context, rs []route) error {
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

// nextRetry returns when the next message in backoff is due.
func (d *dispatcher) nextRetry() (due time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.retries {
		if !ok || t.Before(due) {
			due, ok = t, true
		}
	}
	return due, ok
}
