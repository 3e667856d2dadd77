package firestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/store"
)

// patience bounds the attempts of a caller without a deadline.
const patience = time.Minute

// The pauses between attempts are random between nothing and a bound that doubles
// from firstPause to lastPause, so that rivals who failed together come apart.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// retry calls attempt, each time with a limit of its own, until it succeeds or
// fails for good.
func retry(ctx context.Context, what string, attempt func(context.Context) error) error {
	p := newPacer(ctx, what)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		err := limited(ctx, attempt)
		if err == nil {
			return nil
		}
		if err := p.again(err); err != nil {
			return err
		}
	}
}

func limited(ctx context.Context, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	return attempt(ctx)
}

// pacer decides whether a call that failed is made again, and waits until then.
type pacer struct {
	ctx   context.Context
	what  string
	start time.Time
	pause time.Duration
}

func newPacer(ctx context.Context, what string) *pacer {
	return &pacer{ctx: ctx, what: what, start: time.Now(), pause: firstPause}
}

// again returns nil when it is time for another attempt, else the error to answer.
func (p *pacer) again(err error) error {
	if ended := p.ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w: %w", p.what, ended, err)
	}
	if !passing(err) {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	if _, ok := p.ctx.Deadline(); !ok && time.Since(p.start) > patience {
		return fmt.Errorf("%s: still failing after %v of retries: %w", p.what, patience, err)
	}
	select {
	case <-time.After(rand.N(p.pause)):
		p.pause = min(2*p.pause, lastPause)
		return nil
	case <-p.ctx.Done():
		return fmt.Errorf("%s: %w: %w", p.what, p.ctx.Err(), err)
	}
}

// passing reports whether a failure can pass. The caller's context has not ended,
// so a deadline was that of the attempt or the server's own.
func passing(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch status.Code(err) {
	case codes.Aborted, codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Internal:
		return true
	}
	return false
}

// answer gives a commit's error its meaning in package store, as far as the
// writes can have caused it.
func answer(err error, writes []store.Write) error {
	has := func(ops ...store.Op) bool {
		return slices.ContainsFunc(writes, func(w store.Write) bool { return slices.Contains(ops, w.Op) })
	}
	var meaning error
	switch status.Code(err) {
	case codes.AlreadyExists:
		if has(store.OpCreate) {
			meaning = store.ErrExists
		}
	case codes.FailedPrecondition, codes.NotFound:
		if has(store.OpMergeIf, store.OpDeleteIf) {
			meaning = store.ErrConflict
		}
	case codes.InvalidArgument:
		meaning = invalid(status.Convert(err).Message())
	}
	if meaning == nil {
		return err
	}
	return fmt.Errorf("%w: %w", meaning, err)
}

// invalid tells apart, by the server's words, what has no code of its own.
func invalid(message string) error {
	for words, meaning := range map[string]error{
		"exceeds the maximum allowed size": store.ErrTooLarge, // production, of a document
		"exceeds the maximum size allowed": store.ErrTooLarge, // production, of a document, without its name
		"maximum entity size":              store.ErrTooLarge, // the emulator, of a document
		"longer than 1048487 bytes":        store.ErrTooLarge, // both, of a field
		"Invalid base version":             store.ErrConflict, // the emulator, of a version beyond the document's
	} {
		if strings.Contains(message, words) {
			return meaning
		}
	}
	return store.ErrInvalid
}
