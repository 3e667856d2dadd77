package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

const (
	// maxRaces bounds how often a write is tried that meets another version than was read.
	maxRaces = 10
	// readBackTimeout bounds finding out what became of a write whose answer was lost,
	// once the caller has gone.
	readBackTimeout = 10 * time.Second
)

// Acquire takes the lock for an execution, which must be this run's own id. A
// [*HeldError] says that another run has it. After any other error it is unknown
// whether the lock is free: retry the run later, and do not work without the lock.
//
// Not idempotent: a second Acquire of the same execution is a rival of the first.
func (l *Locks) Acquire(ctx context.Context, key Key, execution string) (*Lease, error) {
	got, err := l.try(ctx, key, execution)
	if held, ok := errors.AsType[*HeldError](err); ok {
		l.logHeld(ctx, key, execution, held)
	}
	return got, err
}

func (l *Locks) logHeld(ctx context.Context, key Key, execution string, held *HeldError) {
	l.Log.InfoContext(ctx, held.Error(), "event", telemetry.LockHeld, "collection", l.lockRef("").Collection, "lock", key.String(),
		"processor", key.Class, "period", string(key.Period), "execution_id", execution, "holder", held.State.Execution)
}

func (l *Locks) try(ctx context.Context, key Key, execution string) (*Lease, error) {
	if key.Class == "" || key.Period == "" || execution == "" {
		return nil, fmt.Errorf("acquire %s: class %q, period %q and execution %q are required", key, key.Class, key.Period, execution)
	}
	for range maxRaces {
		got, err := l.attempt(ctx, key, execution)
		switch {
		case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict): // a rival was faster
		case err != nil:
			return nil, err
		default:
			return l.begin(ctx, got)
		}
	}
	return nil, fmt.Errorf("acquire %s: no end after %d conflicts", key, maxRaces)
}

// attempt reads, and writes what it takes to hold the lock if it is free.
func (l *Locks) attempt(ctx context.Context, key Key, execution string) (*Lease, error) {
	got := &Lease{locks: l, key: key, execution: execution, token: Token{Nonce: l.NewID()}, confirmed: l.Now()}
	snap, err := l.Store.Get(ctx, l.lockRef(key.String()), l.tokensRef(key.String()))
	if err != nil {
		return nil, fmt.Errorf("acquire %s: %w", key, err)
	}
	s, exists := parse(snap.Docs[0])
	if exists && !s.Expired(snap.ReadTime) {
		return nil, &HeldError{s, snap.ReadTime}
	}
	if got.others, err = outstanding(snap.Docs[1]); err != nil {
		return nil, fmt.Errorf("acquire %s: %w", key, err)
	}
	fields := l.acquisition(key, execution, got.token.Nonce)
	lock := store.Create(snap.Docs[0].Ref, fields...)
	if exists {
		lock = store.MergeIf(snap.Docs[0].Ref, s.version, fields...)
	}
	versions, err := l.Store.Apply(ctx, lock, l.listing(snap.Docs[1], got.others, got.token.Nonce))
	if err == nil {
		got.version, got.token.At = versions[0], versions[0]
		return got, nil
	}
	return got, l.recognise(ctx, got, fmt.Errorf("acquire %s: %w", key, err))
}

// recognise finds out whether a failed acquisition was written. An answer can be lost, also
// between the store and its driver, which then conflicts with its own write.
func (l *Locks) recognise(ctx context.Context, got *Lease, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	snap, err := l.Store.Get(ctx, l.lockRef(got.key.String()))
	if err != nil {
		return fmt.Errorf("%v; cannot read whether it was written: %w", failure, err) // and not a rival's doing
	}
	s, ok := parse(snap.Docs[0])
	if !ok || !got.owns(s) {
		return failure
	}
	got.version, got.token.At = s.version, s.version
	return nil
}

// begin hands an acquired lease to its caller, if that is still there.
func (l *Locks) begin(ctx context.Context, got *Lease) (*Lease, error) {
	err := ctx.Err()
	if err == nil && got.remaining() <= 0 { // it slept: whether it is ours still is asked, not assumed
		err = got.renew(ctx)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("acquire %s: %w", got.key, err), got.Release(ctx))
	}
	l.Log.InfoContext(ctx, "lock acquired", append(l.attributes(telemetry.LockAcquired, got, got.token), "outstanding", len(got.others))...)
	return got, nil
}

const (
	firstPause = 5 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Wait repeats Acquire until the lock is acquired or ctx ends. It tries less often the longer
// the present holder has had the lock, and more often the longer it waits itself, so that no
// waiter is left behind. Errors of the store are logged, and retried.
func (l *Locks) Wait(ctx context.Context, key Key, execution string) (*Lease, error) {
	holder, last := "", error(nil)
	for tries := 1; ; tries++ {
		got, err := l.try(ctx, key, execution)
		if err == nil {
			return got, nil
		}
		held := (*HeldError)(nil)
		if ctx.Err() != nil && !errors.As(err, &held) && last != nil {
			return nil, last
		}
		last = fmt.Errorf("wait for %s: %w", key, err)
		pause := lastPause
		if errors.As(err, &held) {
			if holder != held.State.Execution {
				holder = held.State.Execution
				l.logHeld(ctx, key, execution, held)
			}
			pause = between(held.At.Sub(held.State.Since)/8, tries)
		} else {
			l.Log.WarnContext(ctx, "the lock cannot be acquired, trying again: "+err.Error(), "lock", key.String(), "execution_id", execution)
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(pause):
		}
	}
}

// between spreads waiters over half and one and a half of a pause.
func between(pause time.Duration, tries int) time.Duration {
	pause = min(max(pause, firstPause), lastPause)
	pause = max(pause/time.Duration(min(1+tries/8, 4)), firstPause)
	return pause/2 + rand.N(pause)
}
