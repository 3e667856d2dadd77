package receipt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/store"
)

// ErrNoReceipt says that there is no receipt of an id.
var ErrNoReceipt = errors.New("no receipt")

// Show returns a receipt, and the server's time of the read. [ErrNoReceipt] if there is none.
func (r *Receipts) Show(ctx context.Context, id string) (Receipt, time.Time, error) {
	snap, err := r.get(ctx, id)
	if err != nil {
		return Receipt{}, time.Time{}, err
	}
	if !snap.Docs[0].Exists {
		return Receipt{}, snap.ReadTime, fmt.Errorf("%w %s", ErrNoReceipt, id)
	}
	found, err := parse(snap.Docs[0])
	found.open = snap.Docs[1].Version
	return found, snap.ReadTime, err
}

// List yields the receipts of a scope in the order of their ids, those after an id if there is
// one; of a document that cannot be read, an error. It reads a page at a time, as far as the
// caller takes them.
func (r *Receipts) List(ctx context.Context, scope, after string) iter.Seq2[Receipt, error] {
	from := scope + "~"
	if after != "" {
		from = after + "!" // ids have one length
	}
	return func(yield func(Receipt, error) bool) {
		for doc, err := range r.Store.Scan(ctx, r.Prefix+collection, from, scope+"~~") {
			found := Receipt{}
			if err == nil {
				found, err = parse(doc)
			}
			if !yield(found, err) {
				return
			}
		}
	}
}

// Forgettable returns why a receipt cannot be forgotten at a time of the server, nil if it can.
// It cannot while a claim is live, and while a second run may be at work after an overlap.
func (r Receipt) Forgettable(at time.Time) error {
	if r.Live(at) {
		return &LiveError{r, at}
	}
	if until := r.Finished.Add(MaxRun); r.Overlap && at.Before(until) {
		return fmt.Errorf("%s: a second run had the claim when it was recorded as done, and may be at work until %s", r.Key, until.Format(time.RFC3339))
	}
	return nil
}

// Forget lets the next delivery of a receipt work again. It begins a new epoch, so that a run
// that is still at work cannot record itself as the new one. It is refused with the error of
// [Receipt.Forgettable]. Idempotent: a receipt that is released stays so, under another epoch.
func (r *Receipts) Forget(ctx context.Context, id, actor, reason string) error {
	if reason == "" {
		return errors.New("forget a receipt: a reason is required")
	}
	found, at, err := r.Show(ctx, id)
	if err != nil {
		return err
	}
	if err := found.Forgettable(at); err != nil {
		return err
	}
	act := audit.Record{Action: "receipt_forget", Actor: actor, Reason: reason,
		Detail: fmt.Sprintf("the next delivery of %s to %s %s works again; the receipt was %s", found.Key, found.Scope, found.Route, found.State)}
	epoch := r.NewID()
	writes := []store.Write{store.MergeIf(r.ref(id), found.version, store.F(Released, "state"), store.F("", "holder"), store.F(epoch, "epoch"),
		store.F(false, "overlap"), store.F(at.Add(Keep), "expires_at")), act.Write(r.Prefix, r.Now(), epoch)}
	if found.open != 0 {
		writes = append(writes, store.DeleteIf(r.open(id), found.open))
	}
	if _, err = r.apply(ctx, writes...); err != nil { // its answer may have been lost
		if after, _, readErr := r.Show(ctx, id); readErr != nil || after.epoch != epoch {
			return errors.Join(fmt.Errorf("forget %s: %w", found.Key, err), readErr)
		}
	}
	act.Log(ctx, r.Log)
	return nil
}
