// Package lease keeps two runs of one processor for one period apart. A run holds a lock
// for a limited time and renews it while it works; the lock of a dead run expires.
//
// # Documents
//
//	processing_locks/{class}_{period}   the holder; other languages know four of its fields
//	lock_tokens/{class}_{period}        the outstanding fencing tokens: not yet revoked
//
// Acquiring a lock writes both in one commit. There is no transaction and no waiting for
// a rival: creation is create-if-absent, every other write is compare-and-set.
//
// # States of a lock
//
//	free ── acquire ──> held ── renew ──> held
//	  ^                  │ │
//	  ├──── release ─────┘ └─ no renewal ─> expired: free for the next run
//	  └── expires after [Foreign] ── foreign: written by a processor in another language
//
// A document is of this package if it has the nonce and the execution id of one
// acquisition. Others take a lock over by overwriting the four fields that they know.
//
// # Guarantees
//
//   - At most one [Lease] is valid at a time. Its safe remaining time counts from the start
//     of the successful attempt, ends a tenth before the lease, and uses the stricter of the
//     monotonic and the wall clock: only one of them moves while a machine sleeps.
//   - Each acquisition has a [Token]. The server's commit time orders tokens, across
//     releases, deletes and holders.
//   - Release deletes only this holder's version of the lock.
//   - The context of [Lease.Keep] ends with the safe remaining time.
//
// A run that lost its lock may still write: it may have sent a write before it slept. Its
// successor revokes the outstanding tokens first. A foreign processor takes a lock over
// after 10 minutes; the next renewal detects that.
//
// # Failures
//
//   - A lost answer is read back: the nonce shows which acquisition wrote the document.
//   - If the store is not available, acquiring fails, and renewing retries in the safe time.
//   - [HeldError] names the rival holder; the work is redelivered later.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/safetime"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

const (
	// Max is the longest lease: processors in other languages treat a lock as stale that was
	// not renewed for so long.
	Max = 10 * time.Minute
	// Foreign is the time after which a foreign lock expires. Its holder does not renew, so
	// it gets twice the time.
	Foreign = 2 * Max
)

// Config is what Locks stand on. All fields are required but Prefix.
type Config struct {
	Store    store.Store
	Now      func() time.Time // this machine's clock, for the safe remaining time only
	NewID    func() string    // unique and unguessable; letters and digits
	Lease    time.Duration    // how long a lock lasts unless renewed; Max at most if processors in other languages take it
	Prefix   string           // of collections
	Instance string           // this process, for people
	Log      *slog.Logger
}

// Locks is safe for concurrent use.
type Locks struct{ Config }

// New returns the locks kept in a store.
func New(c Config) *Locks { return &Locks{c} }

// Key names a lock.
type Key struct {
	Class  string // of the processor, as other languages name it
	Period pipeline.Period
}

func (k Key) String() string { return k.Class + "_" + string(k.Period) }

// Token is a fencing token: the token with the later At was acquired later.
type Token struct {
	Nonce string // unique; letters and digits
	At    store.Version
}

// HeldError means that another run holds the lock. Retry later; do not acknowledge the work
// as done.
type HeldError struct {
	State State
	At    time.Time // of the read, by the server's clock
}

func (e *HeldError) Error() string {
	s := e.State
	unless := ""
	if !s.Foreign {
		unless = " unless it is renewed"
	}
	return fmt.Sprintf("%s is locked by execution %q on %q since %s, until %s%s", s.Key, s.Execution, s.Instance,
		s.Since.Format(time.RFC3339), s.Until.Format(time.RFC3339), unless)
}

// ErrLost is the error of a lease that can no longer be relied upon.
var ErrLost = errors.New("lock lost")

// errReleased is the error of a lease that was given back.
var errReleased = errors.New("lock released")

// Lease is a lock that was acquired. It is safe for concurrent use.
type Lease struct {
	locks     *Locks
	key       Key
	execution string
	others    []string

	call sync.Mutex // one call to the store at a time

	mu        sync.Mutex
	token     Token
	former    []string      // nonces that this lease has had, or tried to have
	version   store.Version // of the document, as far as known
	confirmed time.Time     // start of the attempt that the server last confirmed
	ended     error
	logged    bool  // the loss is in the log
	trouble   error // of the last renewal that failed
}

// Key returns the lock's name.
func (l *Lease) Key() Key { return l.key }

// Token returns the fencing token of this acquisition.
func (l *Lease) Token() Token { l.mu.Lock(); defer l.mu.Unlock(); return l.token }

// Outstanding returns the nonces of other acquisitions under which something may
// still be written, oldest first, as of the commit that acquired this lease.
func (l *Lease) Outstanding() []string { return l.others }

// Check returns nil as long as no other run can have the lock, else an [ErrLost]. It makes no
// call. Call it before each step that cannot be undone.
func (l *Lease) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil && l.left() <= 0 {
		why := "it could not be renewed since " + l.confirmed.UTC().Format(time.RFC3339)
		if l.trouble != nil {
			why += ": " + l.trouble.Error()
		}
		l.end(why)
	}
	return l.ended
}

// remaining is left for those who do not hold l.mu.
func (l *Lease) remaining() time.Duration { l.mu.Lock(); defer l.mu.Unlock(); return l.left() }

// left returns for how long the lease may still be relied upon; l.mu is held.
func (l *Lease) left() time.Duration {
	return safetime.Left(l.locks.Lease, l.confirmed, l.locks.Now())
}

// Grace returns the time in which work under a lost lease must end: half of the rest of the
// lease after its safe remaining time, by the stricter clock.
func (l *Lease) Grace() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, min(l.left()+l.locks.Lease/20, l.locks.Lease/20))
}

// end records that the lock is lost; l.mu is held. logLoss logs it later, because a log that
// stalls must not delay the end of the work.
func (l *Lease) end(why string) {
	l.ended = fmt.Errorf("%w: %s: %s", ErrLost, l.key, why)
}

func (l *Lease) lost(why string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.end(why)
	}
	return l.ended
}

// logLoss logs once that the lock is lost.
func (l *Lease) logLoss() {
	l.mu.Lock()
	ended, token := l.ended, l.token
	first := errors.Is(ended, ErrLost) && !l.logged
	l.logged = l.logged || first
	l.mu.Unlock()
	if first {
		l.locks.Log.Error(ended.Error(), l.locks.attributes(telemetry.LockLost, l, token)...)
	}
}

func (l *Locks) attributes(event string, of *Lease, token Token) []any {
	return []any{"event", event, "collection", l.lockRef("").Collection, "lock", of.key.String(), "processor", of.key.Class,
		"period", string(of.key.Period), "execution_id", of.execution, "token", token.Nonce}
}

// Renew makes the lease last for its full time from now on. An [ErrLost] is final;
// after any other error it may have been renewed, and calling again is right.
func (l *Lease) Renew(ctx context.Context) error {
	defer l.logLoss()
	return l.renewInTurn(ctx)
}

// renewInTurn is Renew without telling of a loss.
func (l *Lease) renewInTurn(ctx context.Context) error {
	l.call.Lock()
	defer l.call.Unlock()
	if err := l.Check(); err != nil {
		return err
	}
	return l.renew(ctx)
}

func (l *Lease) renew(ctx context.Context) error {
	ref := l.locks.lockRef(l.key.String())
	for range maxRaces {
		began := l.locks.Now()
		versions, err := l.locks.Store.Apply(ctx, store.MergeIf(ref, l.version, renewal()...))
		if err == nil {
			l.mu.Lock()
			l.version, l.confirmed = versions[0], began
			l.mu.Unlock()
			l.locks.Log.DebugContext(ctx, "lock renewed", l.locks.attributes(telemetry.LockRenewed, l, l.Token())...)
			return l.Check() // the answer may have taken longer than the lease
		}
		if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("renew %s: %w", l.key, err)
		}
		// A rival's write, or one of ours whose answer was lost. Trust does not grow by
		// that one: when it was sent is not known any more.
		if err := l.readBack(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("renew %s: no end after %d conflicts", l.key, maxRaces)
}

// readBack takes the version of the document when it is ours, else the lock is lost.
func (l *Lease) readBack(ctx context.Context) error {
	snap, err := l.locks.Store.Get(ctx, l.locks.lockRef(l.key.String()))
	if err != nil {
		return fmt.Errorf("read back %s: %w", l.key, err)
	}
	s, ok := parse(snap.Docs[0])
	switch {
	case !ok:
		return l.lost("another process deleted it")
	case !l.owns(s):
		return l.lost(fmt.Sprintf("execution %q on %q has it since %s", s.Execution, s.Instance, s.Since.Format(time.RFC3339)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version = s.version
	if s.nonce != l.token.Nonce { // a new token whose answer was lost
		l.former = append(l.former, l.token.Nonce)
		l.token = Token{Nonce: s.nonce, At: s.version}
	}
	return nil
}

// owns reports whether a lock is this lease's, under its token or another that it took.
func (l *Lease) owns(s State) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.isOf(l.execution, l.token.Nonce) || slices.ContainsFunc(l.former, func(nonce string) bool { return s.isOf(l.execution, nonce) })
}

// Release ends the lock; the work must have ended. It never changes the lock of another
// holder. Idempotent. An [ErrLost] means that the lock was lost while the work went on;
// after any other error the lock expires.
func (l *Lease) Release(ctx context.Context) error {
	defer l.logLoss()
	l.call.Lock()
	defer l.call.Unlock()
	lost := l.Check()
	if errors.Is(lost, errReleased) {
		return nil
	}
	err := l.delete(ctx, lost != nil)
	if err != nil && !errors.Is(err, ErrLost) {
		return errors.Join(lost, fmt.Errorf("release %s: %w", l.key, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = fmt.Errorf("%w: %s", errReleased, l.key)
		return nil
	}
	return l.ended
}

// delete deletes the document if it is ours. known: it is lost, and not found out again.
func (l *Lease) delete(ctx context.Context, known bool) error {
	var err error
	for range maxRaces {
		if _, err = l.locks.Store.Apply(ctx, store.DeleteIf(l.locks.lockRef(l.key.String()), l.version)); err == nil {
			return nil
		}
		known = known || !errors.Is(err, store.ErrConflict)
		err = l.readBackDeleted(ctx, known)
		if err == nil || errors.Is(err, ErrLost) {
			return err
		}
	}
	return err
}

var errStillThere = errors.New("it is still there")

// readBackDeleted returns nil when the lock is not ours any more, as it should be, and
// an ErrLost when it cannot be by our own doing.
func (l *Lease) readBackDeleted(ctx context.Context, known bool) error {
	snap, err := l.locks.Store.Get(ctx, l.locks.lockRef(l.key.String()))
	if err != nil {
		return err
	}
	s, ok := parse(snap.Docs[0])
	mine := ok && l.owns(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case mine:
		l.version = s.version
		return errStillThere
	case known:
		return nil
	case !ok:
		// Another process deleted it, or the first attempt of the driver whose answer was lost.
		// The two look the same, so no alert fires.
		l.end("it was gone before it was released")
		l.logged = true
		l.locks.Log.WarnContext(ctx, l.ended.Error(), "lock", l.key.String(), "execution_id", l.execution)
	default:
		l.end(fmt.Sprintf("execution %q on %q had it before it was released", s.Execution, s.Instance))
	}
	return l.ended
}
