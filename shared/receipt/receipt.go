// Package receipt records that a delivery took effect, so that a copy of it has none. A
// process claims the receipt of a delivery, works, and records the result.
//
// # Document
//
//	receipts/{scope}~{sha256 of route and key}       the state
//	open_receipts/{scope}~{sha256 of route and key}  exists as long as a run may be at work
//
// The scope is the service that works the delivery, the route its path and query. The
// subscription is no part of it: a replayed dead letter comes from another one. Both documents
// change in one commit. So [Problems] reads the few open receipts, and not all of 62 days.
//
// # States
//
//	absent ── claim ──> working ── done ──> done: a copy is answered without work
//	                      │  ^                │
//	            release ──┤  └── claim        └── forget ──> released
//	                      │                                      │
//	                      ├──> released ── claim ──> working <───┘
//	                      └──> no renewal for ttl: the next delivery claims it
//
// An operator forgets a receipt with phasectl receipt forget. An epoch begins with the document and with each forget. Done absorbs another's claim or release
// of its own epoch, because the work was done. It leaves another epoch alone, because an
// operator has asked for a new run since.
//
// # Guarantees
//
//   - At most one [Claim] of a receipt is within its safe remaining time.
//   - No claim is granted on a receipt that is done, in the same epoch.
//   - Server times alone decide whether a claim is live; local clocks end the safe time early.
//
// # Failures
//
//   - Every write but the creation is compare-and-set. After any error the document is read
//     back, and the nonce shows whose write it has.
//   - If a process dies between the effect of its work and the commit of done, a copy works
//     again. Only a service that writes the receipt together with its effect closes that window.
//   - Receipts expire after [Keep]. A copy that comes later works again.
package receipt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

const (
	collection     = "receipts"
	openCollection = "open_receipts"

	// Keep is how long a receipt is kept after its last claim or forget. A subscription keeps
	// a message for 7 days, a dead-letter subscription for 31, and a replayed message is kept for 7 more
	// (https://cloud.google.com/pubsub/docs/subscription-properties): 45, and 17 to spare.
	Keep = 62 * 24 * time.Hour
	// MaxRun is the longest run of a request on Cloud Run
	// (https://cloud.google.com/run/docs/configuring/request-timeout).
	MaxRun = time.Hour
	// MinTTL leaves time for three renewals of some seconds each.
	MinTTL = 30 * time.Second
)

// Config is what Receipts stand on. All fields are required but Prefix.
type Config struct {
	Store    store.Store
	Now      func() time.Time // this machine's clock, for the safe remaining time only
	NewID    func() string    // unique and unguessable
	TTL      time.Duration    // how long a claim lasts unless it is renewed; [MinTTL] at least
	Prefix   string           // of collections
	Instance string           // this process, for people
	Log      *slog.Logger
}

// Receipts is safe for concurrent use.
type Receipts struct{ Config }

// New returns the receipts kept in a store.
func New(c Config) *Receipts { return &Receipts{c} }

// Delivery is one delivery of a message to a service.
type Delivery struct {
	Scope     string // the service; letters, digits, "-", "_" and "."
	Route     string // path and query of the request
	Key       string // the message's trigger_id, or its subscription and id
	MessageID string // for people
	Data      []byte // of the message; two messages with one key must have the same
}

// ID returns the id of the delivery's receipt.
func (d Delivery) ID() string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(d.Route), d.Route, d.Key) // no two pairs have one text
	return d.Scope + "~" + hex.EncodeToString(h.Sum(nil))
}

func (r *Receipts) ref(id string) store.Ref {
	return store.Ref{Collection: r.Prefix + collection, ID: id}
}

// Collection returns the name of the collection of receipts, which names the environment.
func (r *Receipts) Collection() string { return r.Prefix + collection }

// open returns the reference of the document that exists as long as a run may be at work.
func (r *Receipts) open(id string) store.Ref {
	return store.Ref{Collection: r.Prefix + openCollection, ID: id}
}

// States of a receipt.
const (
	Working  = "working"
	Released = "released"
	Done     = "done"
)

// Receipt is a receipt as read. Times are the server's, UTC.
type Receipt struct {
	ID        string
	State     string
	Scope     string
	Route     string
	Key       string
	MessageID string
	Instance  string    // of the latest claim
	Attempt   int64     // how many claims there were
	Overlap   bool      // a run was recorded as done while another one had the claim
	Status    int64     // the HTTP status of the last answer, 0 for none
	ClaimedAt time.Time // of the latest claim
	Until     time.Time // when the claim expires unless it is renewed; zero if not working
	Finished  time.Time // zero if not done

	holder, epoch, data string
	renewed             int64
	version, open       store.Version // of both documents; open is 0 if there is no such document
}

// Live reports whether a claim lasts at a time of the server.
func (r Receipt) Live(at time.Time) bool { return r.State == Working && at.Before(r.Until) }

// Errors of a claim. Any other error means that the state is unknown.
var (
	// ErrDone: the work of this delivery was done before.
	ErrDone = errors.New("this delivery was done before")
	// ErrReused: another message has the same key and other data.
	ErrReused = errors.New("another message with other data has the same key")
)

// LiveError means that another worker has the claim: the delivery is to be retried.
type LiveError struct {
	Receipt Receipt
	At      time.Time // of the read, by the server's clock
}

func (e *LiveError) Error() string {
	return fmt.Sprintf("%s is worked by %s since %s; its claim lasts until %s unless it is renewed", e.Receipt.Key, e.Receipt.Instance,
		e.Receipt.ClaimedAt.Format(time.RFC3339), e.Receipt.Until.Format(time.RFC3339))
}

// errLost is the error of a claim that was taken, deleted, or settled by another.
var errLost = errors.New("claim lost")

// Claim is a receipt that this process has claimed. It is safe for concurrent use.
type Claim struct {
	receipts *Receipts
	id, key  string
	nonce    string
	epoch    string
	attempt  int64
	taken    string // the instance whose claim had expired, "" if none

	call sync.Mutex // one call of the store at a time

	mu        sync.Mutex
	version   store.Version // of the receipt, as far as known
	open      store.Version // of its open document; 0 for none
	renewed   int64
	confirmed time.Time // start of the attempt that the server last confirmed
	lost      error
}

// parse reads a document. A document that it cannot read is an error: nothing is concluded from it.
func parse(d store.Doc) (Receipt, error) {
	r := Receipt{ID: d.Ref.ID, version: d.Version}
	var ttl int64
	var wrong []string
	text := func(name string) string {
		s, ok := d.Data[name].(string)
		if !ok {
			wrong = append(wrong, name)
		}
		return s
	}
	number := func(name string) int64 {
		n, ok := d.Data[name].(int64)
		if !ok {
			wrong = append(wrong, name)
		}
		return n
	}
	r.State, r.holder, r.epoch, r.data = text("state"), text("holder"), text("epoch"), text("data_sha256")
	r.Scope, r.Route, r.Key, r.MessageID, r.Instance = text("scope"), text("route"), text("key"), text("message_id"), text("instance")
	r.Attempt, r.renewed, r.Status, ttl = number("attempt"), number("renewed"), number("status"), number("ttl_ms")
	r.Overlap, _ = d.Data["overlap"].(bool)
	r.ClaimedAt, _ = d.Data["claimed_at"].(time.Time)
	r.Finished, _ = d.Data["finished_at"].(time.Time)
	switch {
	case len(wrong) > 0:
		return r, fmt.Errorf("%s: the document has no valid %s", d.Ref, strings.Join(wrong, ", "))
	case r.State != Working && r.State != Released && r.State != Done:
		return r, fmt.Errorf("%s: unknown state %q", d.Ref, r.State)
	}
	if r.State == Working {
		r.Until = d.Version.Time().Add(time.Duration(ttl) * time.Millisecond)
	}
	return r, nil
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
