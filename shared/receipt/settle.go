package receipt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// Outcome says what the receipt has after the work has ended.
type Outcome int

const (
	// Recorded: the receipt is done.
	Recorded Outcome = iota
	// Overlapped: the receipt is done, and another process had the claim too.
	Overlapped
	// Superseded: an operator has asked for a new run since; the receipt is left to it.
	Superseded
	// Gone: the document was deleted.
	Gone
)

// Done records that the work was done. It tries until ctx ends; an error means that the receipt
// may not be done, so that a copy would work again. Idempotent. Stop [Claim.Keep] first.
func (c *Claim) Done(ctx context.Context, status int) (Outcome, error) {
	c.call.Lock()
	defer c.call.Unlock()
	overlap := false
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		done := store.MergeIf(c.receipts.ref(c.id), c.version, store.F(Done, "state"), store.F(c.nonce, "holder"),
			store.F(c.receipts.Instance, "instance"), store.F(status, "status"), store.F(overlap, "overlap"), store.F(store.ServerTime, "finished_at"))
		var err error
		if overlap { // the other run is still open
			_, err = c.receipts.apply(ctx, done)
		} else {
			_, err = c.receipts.apply(ctx, c.closing(c.open, done)...)
		}
		if err == nil {
			return outcome(overlap), nil
		}
		found, exists, readErr := c.read(ctx)
		switch {
		case readErr != nil:
			err = errors.Join(err, readErr)
		case !exists:
			return Gone, nil
		case found.State == Done && found.holder == c.nonce:
			return outcome(found.Overlap), nil
		case found.epoch != c.epoch:
			return Superseded, nil
		case found.State == Done:
			return c.absorbed(ctx, found), nil
		default: // our own write whose answer was lost, or another's claim or release
			overlap = overlap || found.State == Working && found.holder != c.nonce
			c.version, c.open = found.version, found.open
			if errors.Is(err, store.ErrConflict) {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return Recorded, fmt.Errorf("record %s as done: %w", c.key, err)
		case <-time.After(pause):
		}
	}
}

// closing adds the deletion of the open document, which may be gone already.
func (c *Claim) closing(open store.Version, write store.Write) []store.Write {
	if open == 0 {
		return []store.Write{write}
	}
	return []store.Write{write, store.DeleteIf(c.receipts.open(c.id), open)}
}

func outcome(overlap bool) Outcome {
	if overlap {
		return Overlapped
	}
	return Recorded
}

// absorbed is the end of a run whose receipt another run has recorded as done meanwhile. Both
// have ended now, so an operator may forget the receipt. That write may fail: it only waits for
// [MaxRun] then.
func (c *Claim) absorbed(ctx context.Context, found Receipt) Outcome {
	if found.Overlap {
		_, _ = c.receipts.apply(ctx, c.closing(found.open, store.MergeIf(c.receipts.ref(c.id), found.version, store.F(false, "overlap")))...)
	}
	return Overlapped
}

// Release gives the receipt to the next delivery, because the work has failed or did not
// begin. [ErrDone] says that another run has done the work. After any other error the claim
// expires by itself. Stop [Claim.Keep] first.
func (c *Claim) Release(ctx context.Context, status int) error {
	c.call.Lock()
	defer c.call.Unlock()
	var err error
	for range 3 {
		released := store.MergeIf(c.receipts.ref(c.id), c.version, store.F(Released, "state"), store.F("", "holder"), store.F(status, "status"))
		if _, err = c.receipts.apply(ctx, c.closing(c.open, released)...); err == nil {
			return nil
		}
		found, exists, readErr := c.read(ctx)
		switch {
		case readErr != nil:
			err = errors.Join(err, readErr)
		case exists && found.State == Done:
			if found.epoch == c.epoch {
				c.absorbed(ctx, found)
			}
			return fmt.Errorf("%w: %s", ErrDone, c.key)
		case !exists || found.State != Working || found.holder != c.nonce:
			return nil // released, or another's
		default:
			c.version, c.open = found.version, found.open
		}
	}
	return fmt.Errorf("release %s: %w", c.key, err)
}

// Unknown notes why the result of the run is not known, for [Problems]. The receipt stays as it
// is: the claim expires by itself, because the service may be at work. A note that is lost, or
// that comes after another claim, changes nothing. Stop [Claim.Keep] first.
func (c *Claim) Unknown(ctx context.Context, why string) error {
	c.call.Lock()
	defer c.call.Unlock()
	_, err := c.receipts.apply(ctx, store.MergeIf(c.receipts.open(c.id), c.open, store.F(why, "unknown")))
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("note the unknown result of %s: %w", c.key, err)
	}
	return nil
}
