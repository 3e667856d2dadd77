package lease

import (
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

const (
	locksCollection  = "processing_locks"
	tokensCollection = "lock_tokens"
)

func (l *Locks) lockRef(id string) store.Ref {
	return store.Ref{Collection: l.Prefix + locksCollection, ID: id}
}

func (l *Locks) tokensRef(id string) store.Ref {
	return store.Ref{Collection: l.Prefix + tokensCollection, ID: id}
}

// State is what a lock's document says. Times are the server's, in UTC.
type State struct {
	Key       string // the document's id, {class}_{period}
	Execution string // of the run that holds it
	Instance  string // on which it runs
	Foreign   bool   // not ours: see the package's comment
	Since     time.Time
	Renewed   time.Time
	Until     time.Time // it is free after that, unless it is renewed

	nonce   string
	version store.Version
}

// Expired reports whether the lock is free at a time of the server's clock.
func (s State) Expired(at time.Time) bool { return s.Until.Before(at) }

// Leaked reports whether the lock expired two leases ago and no run has asked for it since:
// its holder died, and no run has repeated its work.
func (s State) Leaked(at time.Time) bool {
	if s.Foreign {
		return s.Renewed.Add(3 * Max).Before(at)
	}
	return s.Renewed.Add(3 * s.Until.Sub(s.Renewed)).Before(at)
}

// isOf reports whether this is the lock as one acquisition made it. Others take a
// lock over by setting their execution id, and may leave our nonce standing.
func (s State) isOf(execution, nonce string) bool {
	return !s.Foreign && s.Execution == execution && s.nonce == nonce
}

// parse reads a lock's document; false: there is none.
func parse(doc store.Doc) (State, bool) {
	if !doc.Exists {
		return State{}, false
	}
	s := State{Key: doc.Ref.ID, version: doc.Version}
	s.Execution, _ = doc.Data["execution_id"].(string)
	s.Instance, _ = doc.Data["instance"].(string)
	s.nonce, _ = doc.Data["nonce"].(string)
	owner, _ := doc.Data["owner"].(string)
	ms, _ := doc.Data["lease_ms"].(int64)
	acquired, stamped := doc.Data["acquired_at"].(time.Time)
	since, _ := doc.Data["since"].(time.Time)
	if s.nonce != "" && owner == s.Execution && ms > 0 && stamped && !since.IsZero() {
		s.Since, s.Renewed, s.Until = since, acquired, acquired.Add(time.Duration(ms)*time.Millisecond)
		return s, true
	}
	// A foreign writer has its own clock and time format: only the commit time is reliable.
	s.Foreign, s.Renewed = true, doc.Version.Time()
	s.Since, s.Until = s.Renewed, s.Renewed.Add(Foreign)
	return s, true
}

// acquisition is what a holder writes: the four fields that other languages know,
// which take acquired_at for the time of the last sign of life, and our own.
func (l *Locks) acquisition(k Key, execution, nonce string) []store.Field {
	return append(renewal(),
		store.F(execution, "execution_id"), store.F(l.Instance, "instance"), store.F(k.Class, "processor"),
		store.F(execution, "owner"), store.F(nonce, "nonce"), store.F(l.Lease.Milliseconds(), "lease_ms"),
		store.F(store.ServerTime, "since"))
}

// renewal moves acquired_at forward, so that others do not take a run that goes on for
// stale.
func renewal() []store.Field { return []store.Field{store.F(store.ServerTime, "acquired_at")} }

// outstanding reads the tokens' document. What cannot be read is not taken for none.
func outstanding(doc store.Doc) ([]string, error) {
	if !doc.Exists {
		return nil, nil
	}
	list, ok := doc.Data["nonces"].([]any)
	if !ok {
		return nil, fmt.Errorf("%s: nonces: %v is no list", doc.Ref, doc.Data["nonces"])
	}
	var out []string
	for i, v := range list {
		nonce, ok := v.(string)
		if !ok || nonce == "" {
			return nil, fmt.Errorf("%s: nonces[%d]: %v is no nonce", doc.Ref, i, v)
		}
		out = append(out, nonce)
	}
	return out, nil
}

// listing adds a nonce to those that are outstanding, if they still are what was read.
func (l *Locks) listing(doc store.Doc, others []string, nonce string) store.Write {
	var all []any
	for _, n := range append(slices.Clone(others), nonce) {
		all = append(all, n)
	}
	return store.IfUnchanged(doc, store.F(all, "nonces"), store.Stays())
}
