package main

import (
	"context"
	"errors"
	"time"
)

// wait lets time pass, or says that the command was interrupted.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errWaited says that something has not happened in time.
var errWaited = errors.New("waited in vain")

// awaitFor asks whether something has happened, at growing intervals: the store that is
// asked is remote and has no signal.
func awaitFor(ctx context.Context, limit time.Duration, done func(context.Context) (bool, error)) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		ok, err := done(within)
		switch {
		case ok && err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case within.Err() != nil:
			return errWaited
		case err != nil:
			return err
		}
		_ = wait(within, pause) // its end is seen above
	}
}
