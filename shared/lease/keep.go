package lease

import (
	"context"
	"errors"
	"time"
)

// Keep renews the lease at a third of its time until stop is called, and returns the
// context of the work. That context ends with ctx, and with cause [ErrLost] as soon as the lease
// cannot be relied upon. Renewing continues after the end of ctx, because work that
// is being stopped may still write. Call stop when the work has ended, then Release.
func (l *Lease) Keep(ctx context.Context) (work context.Context, stop func()) {
	inner, cancel := context.WithCancelCause(ctx)
	calls, quit := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.keep(calls); err != nil {
			cancel(err)
			l.logLoss()
		}
	}()
	return &trusted{inner, l, cancel}, func() {
		quit() // a renewal that hangs is not waited for
		<-done
		cancel(nil)
	}
}

// keep renews until ctx ends or the lock is lost. It looks at the clocks ten times
// as often: a machine that slept may have woken.
func (l *Lease) keep(ctx context.Context) error {
	tick := l.locks.Lease / 30
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(min(tick, l.remaining()), 0)):
		}
		err := l.Check()
		if left := l.remaining(); err == nil && left <= l.locks.Lease*9/10-l.locks.Lease/3 {
			err = l.renewFor(ctx, left)
		}
		switch {
		case errors.Is(err, ErrLost):
			return err
		case errors.Is(err, errReleased), ctx.Err() != nil:
			return nil
		case err != nil: // told with the loss, if it comes to that
			l.mu.Lock()
			l.trouble = err
			l.mu.Unlock()
		}
	}
}

// renewFor renews within what is left of the safe time, and a tenth of the lease: a call
// that hangs must leave time for another.
func (l *Lease) renewFor(ctx context.Context, left time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, min(left, l.locks.Lease/10))
	defer cancel()
	return l.renewInTurn(ctx)
}

// trusted is the context of work under a lease. It reads the clocks at each use.
// After a long sleep a process must not take a step before its timers fire.
type trusted struct {
	context.Context
	lease  *Lease
	cancel context.CancelCauseFunc
}

func (t *trusted) check() {
	if err := t.lease.Check(); errors.Is(err, ErrLost) {
		t.cancel(err)
	}
}

// Done implements context.Context.
func (t *trusted) Done() <-chan struct{} { t.check(); return t.Context.Done() }

// Err implements context.Context.
func (t *trusted) Err() error { t.check(); return t.Context.Err() }
