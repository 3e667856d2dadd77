package cycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// confirmTimeout bounds writing down the broker's ids once the caller has gone.
const confirmTimeout = 10 * time.Second

// publish sends the messages that have no id yet and writes down what the broker
// answers. It sends nothing once the claim has no safe remaining time, and gives the claim
// back in the write that ends its work.
func (c *convergence) publish(ctx context.Context, a action) error {
	if len(a.batch.Parts) > 0 {
		return c.publishParts(ctx, a.batch)
	}
	if c.safeRemaining(a.batch.Holder) <= 0 {
		return nil // slept since the claim was taken: look again whose it is now
	}
	ids := c.send(ctx, a.batch, a.batch.Messages)
	// What the broker has accepted is written down even if our caller has gone.
	confirmCtx, cancelConfirm := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
	defer cancelConfirm()
	return c.confirm(confirmCtx, a.batch, ids)
}

// send publishes those of a batch's messages that have no id yet, for as long as the claim is safe, and
// returns the broker's ids. What failed is noted.
func (c *convergence) send(ctx context.Context, b *batch, messages map[string]sent) map[string]string {
	var names []string
	var msgs []wire.Outgoing
	for _, name := range messageOrder(c.key.Transition, messages) {
		m := messages[name]
		if m.ID != "" {
			continue
		}
		names = append(names, name)
		msgs = append(msgs, outgoing(b, name, m.Payload))
	}
	if len(msgs) == 0 {
		return nil
	}
	sendCtx, cancel := context.WithTimeout(ctx, c.safeRemaining(b.Holder))
	answers := c.Publish(sendCtx, c.Prefix+c.key.Transition.DownstreamTopic, msgs)
	cancel()
	ids, errs := map[string]string{}, []error(nil)
	for i, name := range names {
		switch {
		case answers[i].Err != nil:
			errs = append(errs, fmt.Errorf("publish %s: %w", name, answers[i].Err))
		case answers[i].ID == "":
			errs = append(errs, fmt.Errorf("publish %s: %w", name, ErrUnconfirmed))
		default:
			ids[name] = answers[i].ID
		}
	}
	if len(errs) > 0 {
		c.failed[b.ID] = errors.Join(append(errs[:min(len(errs), policy.MostNames)], c.failed[b.ID])...)
	}
	return ids
}

// messageOrder puts the names of frozen messages into the definition's order; those
// that the definition has dropped since come last: they were promised.
func messageOrder(t *pipeline.Transition, messages map[string]sent) []string {
	return slices.SortedFunc(maps.Keys(messages), func(a, b string) int {
		return cmp.Or(t.Place(t.Present(a))-t.Place(t.Present(b)), strings.Compare(a, b))
	})
}

// withIDs returns the fields by which messages get the broker's ids, and whether all of them have one
// then. The first id that was written stays, another one is kept among the copies.
func withIDs(messages map[string]sent, ids map[string]string) (fields []store.Field, complete bool) {
	complete = true
	for name, m := range messages {
		switch id := ids[name]; {
		case id == "":
			complete = complete && m.ID != ""
		case m.ID == "":
			fields = append(fields, store.F(id, "messages", name, "id"))
		case m.ID != id:
			fields = append(fields, store.F(store.Union(id), "messages", name, "copies"))
		}
	}
	return fields, complete
}

// confirm writes the broker's ids, and published with the last one. A rival that took
// the batch over meanwhile may have ids of its own: whichever was written first
// stays, the other is kept among the copies.
func (c *convergence) confirm(ctx context.Context, b *batch, ids map[string]string) error {
	for {
		fields, complete := withIDs(b.Messages, ids)
		if complete && b.State != StatePublished {
			fields = append(fields, store.F(string(StatePublished), "state"), store.F(store.ServerTime, "published_at"))
		}
		if c.mine(b) || complete {
			fields = append(fields, store.F("", "holder"))
		}
		if len(fields) == 0 {
			return nil
		}
		err := c.apply(ctx, store.MergeIf(c.batchRef(b.ID), b.Version, fields...))
		if err == nil && complete && b.State != StatePublished {
			c.published[b.ID] = true
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		got, err := c.Store.Get(ctx, c.batchRef(b.ID))
		if err != nil {
			return err
		}
		if !got.Docs[0].Exists {
			return fmt.Errorf("%s was deleted while it was published", c.batchRef(b.ID))
		}
		if _, b, err = parseBatch(c.key, got.Docs[0]); err != nil {
			return err
		}
	}
}
