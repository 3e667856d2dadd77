package lease

import (
	"context"
	"errors"
	"time"
)

// Keep renews the lease at a third of its time until stop is called, and returns the
// context of the work: it ends with ctx, and with cause [ErrLost] as soon as the lease
// cannot be relied upon. The end of ctx does not end renewing: what is being stopped
// may still write. Call stop when the work has come to its end, then Release.
func (l *Lease) Keep(ctx context.Context) (work context.Context, stop func()) {
	inner, cancel := context.WithCancelCause(ctx)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if err := l.keep(context.WithoutCancel(ctx), quit); err != nil {
			cancel(err)
		}
	}()
	return &trusted{inner, l, cancel}, func() {
		select {
		case <-quit:
		default:
			close(quit)
		}
		<-done
		cancel(nil)
	}
}

// keep renews until quit is closed or the lock is lost. It looks at the clocks ten times
// as often: a machine that slept may have woken.
func (l *Lease) keep(ctx context.Context, quit <-chan struct{}) error {
	tick := l.locks.Lease / 30
	for {
		l.mu.Lock()
		left := l.left()
		l.mu.Unlock()
		select {
		case <-quit:
			return nil
		case <-time.After(max(min(tick, left), 0)):
		}
		err := l.Check()
		l.mu.Lock()
		left = l.left()
		l.mu.Unlock()
		if err == nil && left <= l.locks.Lease*9/10-l.locks.Lease/3 {
			err = l.renewFor(ctx, left)
		}
		switch {
		case errors.Is(err, ErrLost):
			return err
		case errors.Is(err, errReleased):
			return nil
		}
		if err != nil {
			l.locks.Log.WarnContext(ctx, "the lock could not be renewed, trying again: "+err.Error(), "lock", l.key.String(), "execution_id", l.execution)
		}
	}
}

// renewFor renews within what is left of the trust, and a tenth of the lease: a call
// that hangs must leave time for another.
func (l *Lease) renewFor(ctx context.Context, left time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, min(left, l.locks.Lease/10))
	defer cancel()
	return l.Renew(ctx)
}

// trusted is the context of work under a lease. Whoever asks it, as every call to a
// service does, is told by the clocks and not by a timer: a process that wakes from a
// long sleep must not take a step before its timers come to their turn.
type trusted struct {
	context.Context
	lease  *Lease
	cancel context.CancelCauseFunc
}

func (t *trusted) look() {
	if err := t.lease.Check(); errors.Is(err, ErrLost) {
		t.cancel(err)
	}
}

// Done implements context.Context.
func (t *trusted) Done() <-chan struct{} { t.look(); return t.Context.Done() }

// Err implements context.Context.
func (t *trusted) Err() error { t.look(); return t.Context.Err() }
