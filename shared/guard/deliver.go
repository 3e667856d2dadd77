package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/safetime"
	"github.com/phasegate/phasegate/shared/telemetry"
)

const (
	// recordFor is how long the guard tries to record a success before it answers. An answer
	// without a record would let a copy work again, and so would an error.
	recordFor = time.Minute
	// releaseFor bounds a release; the claim expires by itself otherwise.
	releaseFor = 10 * time.Second
	// claimFor bounds a claim with its retries, well within an ack deadline of a minute.
	claimFor = 30 * time.Second
	// lateFor is how long the guard waits for what it may not have seen yet.
	lateFor = time.Second
)

// result is what became of a forwarded request.
type result int

const (
	succeeded result = iota
	failed           // the service has answered that the work was not done
	notSent          // the service has never seen the request
	unknown          // the connection broke, or the time was over: the service may be at work
	killed           // the service had not answered, and its process has ended
)

// answer is the answer to a delivery.
type answer struct {
	result result
	status int
	header http.Header
	body   []byte
	err    error // why, in words
}

// deliver works one delivery at most once. send forwards it to the service; its context ends
// when the guard no longer waits for the result.
func (g *Guard) deliver(ctx context.Context, d receipt.Delivery, send func(context.Context) answer) answer {
	ctx = context.WithoutCancel(ctx) // a client that hangs up must not end the work
	log := g.Log.With("scope", d.Scope, "route", d.Route, "key", d.Key, "message_id", d.MessageID, "receipt", d.ID(), "collection", g.Receipts.Collection())
	claim, refusal := g.claim(ctx, log, d)
	if claim == nil {
		return refusal
	}
	lost := make(chan error, 1)
	stop := claim.Keep(ctx, lost)
	locks, err := g.lock(ctx, d, lost)
	d.Data = nil // not kept during the run; the body has it
	if err == nil {
		err = claim.Check() // immediately before forwarding
	}
	if err != nil {
		stop()
		g.unlock(ctx, log, locks, true)
		g.release(ctx, log, claim, 0)
		if _, ok := errors.AsType[*lease.HeldError](err); ok {
			log.InfoContext(ctx, err.Error(), "event", telemetry.GuardRefused)
			return retryLater(err)
		}
		log.WarnContext(ctx, err.Error(), "event", telemetry.GuardReleased)
		return refuse(http.StatusServiceUnavailable, err)
	}
	a := g.forward(ctx, log, send, lost)
	stop()
	// The service's own lock may outlast a run that did not end well. Then ours is left to
	// expire, and lasts as long as a claim.
	g.unlock(ctx, log, locks, a.result == succeeded || a.result == notSent || a.result == failed && !g.Cooldown)
	return g.settle(ctx, log, claim, a)
}

// claim returns the claim of a delivery, or the answer to one that must not be worked.
func (g *Guard) claim(ctx context.Context, log *slog.Logger, d receipt.Delivery) (*receipt.Claim, answer) {
	ctx, cancel := context.WithTimeout(ctx, claimFor)
	defer cancel()
	claim, err := g.Receipts.Claim(ctx, d)
	live := (*receipt.LiveError)(nil)
	switch {
	case err == nil && claim.TakenFrom() != "":
		log.WarnContext(ctx, "the claim of "+claim.TakenFrom()+" was not renewed", "event", telemetry.GuardTakenOver, "attempt", claim.Attempt())
	case err == nil:
		log.InfoContext(ctx, "claimed", "event", telemetry.GuardClaimed, "attempt", claim.Attempt())
	case errors.Is(err, receipt.ErrDone):
		log.InfoContext(ctx, err.Error(), "event", telemetry.GuardReplayed)
		return nil, answer{status: http.StatusNoContent}
	case errors.As(err, &live):
		log.InfoContext(ctx, err.Error(), "event", telemetry.GuardRefused)
		return nil, retryLater(err)
	case errors.Is(err, receipt.ErrReused):
		log.ErrorContext(ctx, err.Error(), "event", telemetry.GuardKeyReused)
		return nil, refuse(http.StatusConflict, err)
	default:
		log.WarnContext(ctx, err.Error())
		return nil, refuse(http.StatusServiceUnavailable, err)
	}
	return claim, answer{}
}

// retryLater refuses a delivery that another worker has. Cloud Run counts a 429 as no error.
func retryLater(err error) answer {
	a := refuse(http.StatusTooManyRequests, err)
	a.header = http.Header{"Retry-After": {"60"}}
	return a
}

func refuse(status int, err error) answer {
	return answer{result: failed, status: status, err: err, body: []byte(err.Error() + "\n")}
}

// forward sends the request and waits for its result. If the claim is lost meanwhile, the
// service works on, or is ended if the definition says so.
func (g *Guard) forward(ctx context.Context, log *slog.Logger, send func(context.Context) answer, lost <-chan error) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan answer, 1)
	go func() { results <- send(ctx) }()
	limit := time.NewTimer(g.Limit)
	defer limit.Stop()
	var why error
	for why == nil {
		select {
		case a := <-results:
			if a.result != unknown {
				return a
			}
			results, why = nil, a.err
		case err := <-lost:
			log.ErrorContext(ctx, err.Error(), "event", telemetry.GuardLost)
			if g.Kill != nil {
				why = err
			}
		case <-limit.C:
			why = fmt.Errorf("the service has not answered within %s", g.Limit)
		case <-g.ended:
			why = errors.New("this instance stops, and the service has not answered")
		}
	}
	if a, ok := g.late(results); ok {
		return a
	}
	if g.Kill != nil {
		g.Kill()
	}
	if g.Kill != nil || g.serviceEnded.Load() {
		return answer{result: killed, err: why}
	}
	return answer{result: unknown, err: why}
}

// late waits for a moment. A process that was suspended sees that its time is over before it
// sees an answer that came meanwhile. A service that has ended breaks its connections first.
func (g *Guard) late(results <-chan answer) (answer, bool) {
	ended := g.ended
	for wait := time.After(lateFor); ; {
		select {
		case a := <-results:
			if a.result != unknown {
				return a, true
			}
			results = nil
		case <-ended:
			if results == nil {
				return answer{}, false
			}
			ended = nil // its answer may be there
		case <-wait:
			return answer{}, false
		}
	}
}

// settle records the result in the receipt, and returns the answer to the delivery.
func (g *Guard) settle(ctx context.Context, log *slog.Logger, claim *receipt.Claim, a answer) answer {
	switch a.result {
	case succeeded:
		g.record(ctx, log, claim, a.status)
		return a
	case failed:
		log.WarnContext(ctx, fmt.Sprintf("the service has failed: %v", a.err), "event", telemetry.GuardReleased, "status", a.status)
		if g.Cooldown { // the claim expires by itself
			return notAcknowledged(a)
		}
	case notSent:
		log.WarnContext(ctx, fmt.Sprintf("the service was not reached: %v", a.err), "event", telemetry.GuardReleased)
		a = refuse(http.StatusServiceUnavailable, a.err)
	default:
		log.ErrorContext(ctx, a.err.Error(), "event", telemetry.GuardUnknown)
		unsure := a.result == unknown
		a = refuse(http.StatusServiceUnavailable, a.err)
		if unsure { // the service may be at work: the claim expires by itself
			g.note(ctx, log, claim, a.err)
			return a
		}
	}
	if g.release(ctx, log, claim, a.status) {
		return answer{status: http.StatusNoContent}
	}
	return notAcknowledged(a)
}

// record tries for a while to record a success. Without a record a copy would work again; so
// would the same delivery if the guard answered with an error.
func (g *Guard) record(ctx context.Context, log *slog.Logger, claim *receipt.Claim, status int) {
	ctx, cancel := context.WithTimeout(ctx, recordFor)
	defer cancel()
	outcome, err := claim.Done(ctx, status)
	switch {
	case err != nil:
		log.ErrorContext(ctx, err.Error(), "event", telemetry.GuardUnrecorded)
	case outcome == receipt.Gone:
		log.ErrorContext(ctx, "the receipt was deleted while the service was at work", "event", telemetry.GuardUnrecorded)
	case outcome == receipt.Overlapped:
		log.ErrorContext(ctx, "another run of this delivery had the claim too", "event", telemetry.GuardOverlap)
	case outcome == receipt.Superseded:
		log.WarnContext(ctx, "an operator has asked for a new run since; the receipt is left to it", "event", telemetry.GuardDone)
	default:
		log.InfoContext(ctx, "done", "event", telemetry.GuardDone, "status", status)
	}
}

// release gives the receipt to the next delivery; it reports whether another run has done the work.
func (g *Guard) release(ctx context.Context, log *slog.Logger, claim *receipt.Claim, status int) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	err := claim.Release(ctx, status)
	if err != nil && !errors.Is(err, receipt.ErrDone) {
		log.WarnContext(ctx, "the claim expires by itself: "+err.Error())
	}
	return errors.Is(err, receipt.ErrDone)
}

// note lets people see that the result is unknown.
func (g *Guard) note(ctx context.Context, log *slog.Logger, claim *receipt.Claim, why error) {
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	if err := claim.Unknown(ctx, why.Error()); err != nil {
		log.WarnContext(ctx, err.Error())
	}
}

// acknowledged are the statuses by which Pub/Sub takes a message for done.
var acknowledged = pipeline.Acknowledged()

// notAcknowledged replaces a status by which Pub/Sub would take the message for done.
func notAcknowledged(a answer) answer {
	if slices.Contains(acknowledged, a.status) {
		a.status = http.StatusServiceUnavailable
	}
	return a
}

// held is a lock that is being renewed.
type held struct {
	lease *lease.Lease
	stop  func()
}

// lock takes the locks of the processors that the delivery sets off, all or none. A lock that
// is lost later is reported like a lost claim.
func (g *Guard) lock(ctx context.Context, d receipt.Delivery, lost chan<- error) (locks []held, err error) {
	if g.Serial == nil {
		return nil, nil
	}
	keys, err := g.Serial(d.Data)
	if err != nil {
		return nil, err
	}
	began := g.Locks.Now()
	for _, key := range keys {
		got, err := g.acquire(ctx, key)
		if err != nil {
			return locks, err
		}
		work, stop := got.Keep(ctx)
		context.AfterFunc(work, func() {
			if err := context.Cause(work); errors.Is(err, lease.ErrLost) {
				select {
				case lost <- err:
				default: // one is enough
				}
			}
		})
		locks = append(locks, held{got, stop})
	}
	// The service's own lock begins with its run, and must end before ours does if both die now.
	if freshFor := g.Locks.Lease / 20; safetime.Left(g.Locks.Lease, began, g.Locks.Now()) < g.Locks.Lease*9/10-freshFor {
		return locks, fmt.Errorf("it took more than %s to take the locks", freshFor)
	}
	return locks, nil
}

func (g *Guard) acquire(ctx context.Context, key lease.Key) (*lease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, claimFor)
	defer cancel()
	return g.Locks.Acquire(ctx, key, g.NewID())
}

// unlock ends the renewal of the locks, and gives them back or leaves them to expire. Their
// fencing tokens, and those of guards that died, are settled: no guard writes under them.
func (g *Guard) unlock(ctx context.Context, log *slog.Logger, locks []held, giveBack bool) {
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	for _, l := range locks {
		l.stop()
		if giveBack {
			if err := l.lease.Release(ctx); err != nil {
				log.WarnContext(ctx, "the lock expires by itself: "+err.Error(), "lock", l.lease.Key().String())
			}
		}
		if err := l.lease.Settle(ctx, append(l.lease.Used(), l.lease.Outstanding()...)...); err != nil {
			log.WarnContext(ctx, "the next guard settles the tokens of the lock: "+err.Error(), "lock", l.lease.Key().String())
		}
	}
}
