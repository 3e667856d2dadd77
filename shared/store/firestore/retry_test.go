package firestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/store"
)

var busy = status.Error(codes.Aborted, "too much contention")

func TestRetry_ContinuesUntilSuccess(t *testing.T) {
	for _, code := range []codes.Code{
		codes.Aborted, codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Internal,
	} {
		synctest.Test(t, func(t *testing.T) {
			attempts := 0
			err := retry(t.Context(), "apply", func(context.Context) error {
				if attempts++; attempts < 6 {
					return status.Error(code, "passes")
				}
				return nil
			})
			if err != nil || attempts != 6 {
				t.Errorf("%v: %d attempts, %v", code, attempts, err)
			}
		})
	}
}

func TestRetry_StopsAtFinalResponse(t *testing.T) {
	for _, answer := range []error{
		store.ErrExists, store.ErrConflict, store.ErrTooLarge, store.ErrInvalid,
		status.Error(codes.PermissionDenied, "no"), status.Error(codes.Unauthenticated, "who"), status.Error(codes.NotFound, "no database"),
		errors.New("anything else"),
	} {
		synctest.Test(t, func(t *testing.T) {
			attempts, start := 0, time.Now()
			err := retry(t.Context(), "apply c/doc", func(context.Context) error { attempts++; return answer })
			if !errors.Is(err, answer) || attempts != 1 || time.Since(start) != 0 {
				t.Errorf("%v: %d attempts in %v, %v", answer, attempts, time.Since(start), err)
			}
			if !strings.Contains(err.Error(), "apply c/doc") {
				t.Errorf("error %q does not say what was being done", err)
			}
		})
	}
}

func TestRetry_EndsWithCallerContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 7 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		start, attempts := time.Now(), 0
		err := retry(ctx, "apply", func(context.Context) error { attempts++; return busy })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, busy) {
			t.Errorf("error %v, want the deadline and the last failure", err)
		}
		if took := time.Since(start); took != limit || attempts < 5 {
			t.Errorf("%d attempts in %v, want several in %v", attempts, took, limit)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := retry(ctx, "apply", func(context.Context) error { cancel(); return busy })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want canceled", err)
		}
		err = retry(ctx, "apply", func(context.Context) error { t.Error("attempt after the end"); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want canceled", err)
		}
	})
}

func TestRetry_StopsAfterDefaultTimeWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := retry(t.Context(), "apply", func(context.Context) error { return busy })
		if !errors.Is(err, busy) {
			t.Errorf("error %v, want the last failure", err)
		}
		if took := time.Since(start); took < patience || took > patience+lastPause {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestRetry_EndsAttemptWithoutResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		attempts := 0
		err := retry(ctx, "get", func(ctx context.Context) error {
			if attempts++; attempts < 3 {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			return nil
		})
		if err != nil || attempts != 3 {
			t.Errorf("%d attempts, %v", attempts, err)
		}
	})
}

func TestRetry_PausesGrowAndDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sums [10]time.Duration
		const rounds = 200
		for range rounds {
			p := newPacer(t.Context(), "apply")
			for i, bound := 0, firstPause; i < len(sums); i, bound = i+1, min(2*bound, lastPause) {
				start := time.Now()
				if err := p.again(busy); err != nil {
					t.Fatal(err)
				}
				pause := time.Since(start)
				if pause >= bound {
					t.Fatalf("pause %d of %v, bound %v", i, pause, bound)
				}
				sums[i] += pause
			}
		}
		// Full jitter: half the bound in the mean.
		for i, bound := 0, firstPause; i < len(sums); i, bound = i+1, min(2*bound, lastPause) {
			if mean := sums[i] / rounds; mean < bound/3 || mean > 2*bound/3 {
				t.Errorf("pause %d: mean %v of bound %v", i, mean, bound)
			}
		}
	})
}

func TestErrors_MatchTheirStatus(t *testing.T) {
	ref := store.Ref{Collection: "c", ID: "doc"}
	create, merge := store.Create(ref), store.Merge(ref)
	mergeIf, deleteIf := store.MergeIf(ref, 1), store.DeleteIf(ref, 1)
	meanings := []error{store.ErrExists, store.ErrConflict, store.ErrTooLarge, store.ErrInvalid}
	for _, c := range []struct {
		code    codes.Code
		message string
		writes  []store.Write
		want    error
	}{
		{codes.AlreadyExists, "", []store.Write{merge, create}, store.ErrExists},
		{codes.AlreadyExists, "", []store.Write{merge}, nil},
		{codes.FailedPrecondition, "", []store.Write{mergeIf}, store.ErrConflict},
		{codes.FailedPrecondition, "", []store.Write{create, deleteIf}, store.ErrConflict},
		{codes.FailedPrecondition, "the database is in another mode", []store.Write{create, merge}, nil},
		{codes.NotFound, "", []store.Write{mergeIf}, store.ErrConflict},
		{codes.NotFound, "no database", []store.Write{create, merge}, nil},
		{codes.InvalidArgument, "Document 'c/doc' cannot be written because its size (1,048,605 bytes) exceeds the maximum allowed size of 1,048,576 bytes.", []store.Write{merge}, store.ErrTooLarge},
		{codes.InvalidArgument, "maximum entity size is 1048576 bytes", []store.Write{merge}, store.ErrTooLarge},
		{codes.InvalidArgument, `The value of property "m" is longer than 1048487 bytes.`, []store.Write{merge}, store.ErrTooLarge},
		{codes.InvalidArgument, "property path is longer than 1500 bytes.", []store.Write{merge}, store.ErrInvalid},
		{codes.InvalidArgument, "Invalid base version, it is greater than the stored version", []store.Write{mergeIf}, store.ErrConflict},
		{codes.PermissionDenied, "", []store.Write{create, mergeIf}, nil},
		{codes.Aborted, "", []store.Write{create, mergeIf}, nil},
	} {
		failure := status.Error(c.code, c.message)
		err := answer(failure, c.writes)
		i := slices.IndexFunc(meanings, func(m error) bool { return errors.Is(err, m) })
		if c.want == nil && i >= 0 || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%v for %s: %v, want %v", failure, describe(c.writes), err, c.want)
		}
		if status.Code(err) != c.code {
			t.Errorf("%v lost its code", err)
		}
	}
	if err := answer(nil, []store.Write{create}); err != nil {
		t.Error(fmt.Errorf("success became %w", err))
	}
}
