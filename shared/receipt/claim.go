package receipt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/safetime"
	"github.com/phasegate/phasegate/shared/store"
)

const (
	// maxRaces bounds how often a write is tried that meets another version than was read.
	maxRaces = 6
	// callTimeout bounds one call of the store: one that hangs must leave time for another.
	callTimeout = 10 * time.Second
)

// Claim takes the receipt of a delivery for this process. [ErrDone], [ErrReused] and
// [*LiveError] say why it may not work. After any other error it is unknown whether the
// delivery was worked: have it redelivered, and do not work it.
//
// Not idempotent: a second Claim of the same delivery is a rival of the first.
func (r *Receipts) Claim(ctx context.Context, d Delivery) (*Claim, error) {
	c := &Claim{receipts: r, id: d.ID(), key: d.Key, nonce: r.NewID()}
	var last error
	for range maxRaces {
		done, err := r.attempt(ctx, c, d)
		switch {
		case done:
			return c, nil
		case err != nil && !errors.Is(err, errUnclear):
			return nil, err
		}
		last = err // the next read tells whose claim it is
	}
	return nil, fmt.Errorf("claim %s: no end after %d attempts: %w", d.Key, maxRaces, last)
}

// errUnclear: a write has failed, and may have been applied.
var errUnclear = errors.New("the claim may have been written")

func (r *Receipts) attempt(ctx context.Context, c *Claim, d Delivery) (bool, error) {
	snap, err := r.get(ctx, c.id)
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", d.Key, err)
	}
	doc, open := snap.Docs[0], snap.Docs[1]
	began, readAt := r.Now(), snap.ReadTime
	fields := []store.Field{store.F(Working, "state"), store.F(c.nonce, "holder"), store.F(r.Instance, "instance"),
		store.F(r.TTL.Milliseconds(), "ttl_ms"), store.F(0, "renewed"), store.F(store.ServerTime, "claimed_at"),
		store.F(d.MessageID, "message_id"), store.F(false, "overlap"), store.F(0, "status"), store.F(readAt.Add(Keep), "expires_at")}
	var write store.Write
	if !doc.Exists {
		c.epoch, c.attempt = c.nonce, 1
		write = store.Create(doc.Ref, append(fields, store.F(c.epoch, "epoch"), store.F(1, "attempt"), store.F(d.Scope, "scope"),
			store.F(d.Route, "route"), store.F(d.Key, "key"), store.F(hash(d.Data), "data_sha256"))...)
	} else {
		found, err := parse(doc)
		switch {
		case err != nil:
			return false, fmt.Errorf("claim %s: %w", d.Key, err)
		case found.data != hash(d.Data):
			return false, fmt.Errorf("%w: %s", ErrReused, d.Key)
		case found.State == Done:
			return false, fmt.Errorf("%w: %s", ErrDone, d.Key)
		case found.State == Working && found.holder == c.nonce: // ours, and its answer was lost
			c.version, c.open, c.epoch, c.attempt = found.version, open.Version, found.epoch, found.Attempt
			return true, nil
		case found.Live(readAt):
			return false, &LiveError{found, readAt}
		}
		c.epoch, c.attempt, c.taken = found.epoch, found.Attempt+1, ""
		if found.State == Working {
			c.taken = found.Instance
		}
		write = store.MergeIf(doc.Ref, found.version, append(fields, store.F(c.attempt, "attempt"))...)
	}
	// The safe time counts from the first attempt: which one the server has applied may stay unknown.
	if c.confirmed.IsZero() {
		c.confirmed = began
	}
	versions, err := r.apply(ctx, write, store.Merge(open.Ref, store.F(c.nonce, "holder"), store.F("", "unknown"), store.F(readAt.Add(Keep), "expires_at")))
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnclear, err)
	}
	c.version, c.open = versions[0], versions[1]
	return true, nil
}

// get reads both documents of a receipt, the open one last.
func (r *Receipts) get(ctx context.Context, id string) (store.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.Store.Get(ctx, r.ref(id), r.open(id))
}

func (r *Receipts) apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.Store.Apply(ctx, writes...)
}

// Check returns nil as long as no other process can have the claim, else an error that wraps
// [errLost]. It makes no call. Call it immediately before the work begins.
func (c *Claim) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lost != nil:
		return c.lost
	case safetime.Left(c.receipts.TTL, c.confirmed, c.receipts.Now()) <= 0:
		return fmt.Errorf("%w: %s could not be renewed since %s", errLost, c.key, c.confirmed.UTC().Format(time.RFC3339))
	}
	return nil
}

// Attempt returns how often the receipt was claimed, this claim included.
func (c *Claim) Attempt() int64 { return c.attempt }

// TakenFrom returns the instance whose claim had expired, "" if there was none.
func (c *Claim) TakenFrom() string { return c.taken }

// Renew makes the claim last for its full time from now on. An [errLost] is final. After any
// other error it may have been renewed, and calling again is right. A claim whose time is over
// can be renewed as long as no other process has taken it.
func (c *Claim) Renew(ctx context.Context) error {
	c.call.Lock()
	defer c.call.Unlock()
	for range maxRaces {
		c.mu.Lock()
		lost, version, next := c.lost, c.version, c.renewed+1
		c.mu.Unlock()
		if lost != nil {
			return lost
		}
		began := c.receipts.Now()
		versions, err := c.receipts.apply(ctx, store.MergeIf(c.receipts.ref(c.id), version, store.F(next, "renewed")))
		if err == nil {
			c.mu.Lock()
			c.version, c.renewed, c.confirmed = versions[0], next, began
			c.mu.Unlock()
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("renew the claim of %s: %w", c.key, err)
		}
		found, exists, err := c.read(ctx)
		if err != nil {
			return fmt.Errorf("renew the claim of %s: %w", c.key, err)
		}
		if !exists || found.State != Working || found.holder != c.nonce {
			return c.end(found, exists)
		}
		// An earlier renewal of ours whose answer was lost. The safe time stays as it is.
		c.mu.Lock()
		c.version, c.renewed = found.version, found.renewed
		c.mu.Unlock()
	}
	return fmt.Errorf("renew the claim of %s: no end after %d conflicts", c.key, maxRaces)
}

func (c *Claim) end(found Receipt, exists bool) error {
	why := "its document was deleted"
	if exists {
		why = fmt.Sprintf("it is %s, by %s", found.State, found.Instance)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = fmt.Errorf("%w: %s: %s", errLost, c.key, why)
	return c.lost
}

func (c *Claim) read(ctx context.Context) (Receipt, bool, error) {
	snap, err := c.receipts.get(ctx, c.id)
	if err != nil || !snap.Docs[0].Exists {
		return Receipt{}, false, err
	}
	found, err := parse(snap.Docs[0])
	found.open = snap.Docs[1].Version
	return found, true, err
}

// Keep renews the claim at a third of its time until stop is called. If the claim is lost, it
// sends the error without waiting, and renews no more. An error of the store is retried: the safe time
// ends meanwhile, and another process may take the claim.
func (c *Claim) Keep(ctx context.Context, lost chan<- error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pause := c.receipts.TTL / 3
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			err := c.Renew(ctx)
			if errors.Is(err, errLost) {
				select {
				case lost <- err:
				default:
				}
				return
			}
			if pause = c.receipts.TTL / 3; err != nil {
				pause = c.receipts.TTL / 30
			}
		}
	}()
	return func() {
		cancel() // a renewal that hangs is not waited for
		<-done
	}
}
