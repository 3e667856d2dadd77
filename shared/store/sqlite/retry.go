package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// patience bounds the attempts of a caller without a deadline.
const patience = 30 * time.Second

// The pauses between attempts are random between nothing and a bound that doubles
// from firstPause to lastPause.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// retry calls attempt until it does anything but fail on a locked file. Nothing
// has been written by an attempt that failed so.
func retry(ctx context.Context, what string, attempt func(context.Context) error) error {
	giveUp := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		giveUp, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
			return fmt.Errorf("%s: %w: %w", what, ended, err)
		}
		if !locked(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-time.After(rand.N(pause)):
		case <-giveUp.Done():
			return fmt.Errorf("%s: %w: %w", what, giveUp.Err(), err)
		}
	}
}

// locked reports whether another connection's lock was in the way.
func locked(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	primary := e.Code() & 0xff // without the extended part
	return primary == lib.SQLITE_BUSY || primary == lib.SQLITE_LOCKED
}
