package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
)

// State of a batch; see the package comment.
type State string

// The states of a batch. A cycle without a batch is waiting, overdue or closed.
const (
	StateGrace      State = "grace"
	StateChecking   State = "checking"
	StateBlocked    State = "blocked"
	StatePublishing State = "publishing"
	StatePublished  State = "published"
)

// StateOnHold is the state of a cycle that a person keeps from being handed over for a while.
const StateOnHold State = "on_hold"

// batch is one hand-over as stored.
type batch struct {
	ID            string
	N             int
	Version       store.Version
	State         State
	Cause         string
	Actor         string
	Reason        string
	CreatedAt     time.Time
	GraceSince    time.Time // when the grace period of this definition began; zero while there is none
	GraceUpdated  bool      // the quorum was seen not to hold under this definition
	FrozenAt      time.Time // no message was sent before
	PublishedAt   time.Time
	DueAt         time.Time // when the policy came to be met, or the last of the runs completed
	NextAttempt   time.Time // of blocked
	Attempts      int       // failed readiness checks
	Checked       string    // what the last of them was about: a fingerprint of the runs
	Holder        string
	ClaimedAt     time.Time
	Claim         time.Duration
	ClaimMessages []string        // those that the holder handles
	Runs          []string        // keys of the frozen runs; of a batch of selected runs from its creation on
	Selected      bool            // an operator selected the runs, not the policy
	Force         bool            // of a batch of selected runs: neither a hold nor a readiness check stops it
	Request       string          // of a batch of selected runs: which request made it
	Expects       []string        // of the batch that began its cycle: what the mode expected then
	Messages      map[string]sent // with parts: those of the parts that were read
	Parts         []string        // documents that have the messages; nil: the batch has them
	partVersions  map[store.Ref]store.Version
	Readiness     Readiness // of the last check; its Outcome is "" before that
}

// unfrozen reports whether runs and payloads can still change.
func (b *batch) unfrozen() bool { return b.State != StatePublishing && b.State != StatePublished }

// sent is one message of a batch: frozen payload, and the broker's id once known.
type sent struct {
	Payload string
	ID      string
}

// live reports whether a claim is still valid by the server's clock.
func (b *batch) live(now time.Time) bool {
	return b.Holder != "" && !b.ClaimedAt.Add(b.Claim).Before(now)
}

// snapshot is everything about the cycles of one period, as of one instant, under one definition. It
// has no clients: what is decided ([snapshot.next]) and what is described ([snapshot.status]) are
// its methods, and depend on nothing else but an [attempt].
type snapshot struct {
	key     Key
	now     time.Time // the server's
	runs    []policy.Run
	batches map[string][]*batch    // by mode, ascending by n; of an evaluation, those that no summary has
	handed  map[string]handed      // by mode: the summary of its published batches
	former  map[string]former      // by mode: what others have handed over in its place
	listed  []string               // ids of the batches that the period lists
	holds   map[string]*Hold       // by mode; "" is the whole transition's
	heldIn  map[string][]store.Doc // by mode: where a hold is written down, in force or not
	closed  map[string]*Closing    // by mode
	compat  store.Doc
	periods []store.Doc // the period's documents
	sharded []string    // the shards that they list
	shards  []store.Doc // of these, those that are there
	lost    bool        // others have expired, or had before they were written again
	tallies []tally     // of each document with reports

	schedule schedule // the newest look-up
	repaired string   // when reconciliation has repaired the period, "" if never
}

// recorded reports whether anything was ever written down for the period. The hold of a
// whole transition is about none.
func (s *snapshot) recorded() bool {
	held := len(s.heldIn)
	if s.heldIn[""] != nil {
		held--
	}
	return len(s.runs)+len(s.listed)+len(s.closed)+held > 0
}

// hold returns what holds a mode's cycle at the snapshot's time, nil when nothing does.
func (s *snapshot) hold(mode string) *Hold {
	for _, h := range []*Hold{s.holds[""], s.holds[mode]} {
		if h != nil && s.now.Before(h.Until) {
			return h
		}
	}
	return nil
}

// began returns the names that the mode expected when its cycle's first hand-over was
// frozen, nil while there is none. A hand-over that an operator asked for begins a cycle
// only with the last of the critical processors.
func (s *snapshot) began(mode string) []string {
	if names := s.handed[mode].Expects; len(names) > 0 {
		return names
	}
	for _, b := range s.batches[mode] {
		if len(b.Expects) > 0 {
			return b.Expects
		}
	}
	return s.former[mode].Expects
}

// covered returns the keys of the runs that batches of a mode have taken.
func (s *snapshot) covered(mode string) map[string]bool {
	keys := map[string]bool{}
	for _, k := range slices.Concat(s.former[mode].Runs, s.handed[mode].Runs) {
		keys[k] = true
	}
	for _, b := range s.batches[mode] {
		for _, k := range b.Runs {
			keys[k] = true
		}
	}
	return keys
}

// read takes one snapshot with every batch, for people. The process that commits last sees all.
func (e *Engine) read(ctx context.Context, key Key, last *snapshot) (*snapshot, error) {
	return e.readBatches(ctx, key, last, true, func(*snapshot, string) bool { return true })
}

// evaluate takes one snapshot with the batches that are open or in no summary yet. last is
// what the caller read before, if it did: it saves asking twice for batches. Those that
// the caller needs as a whole are kept.
func (e *Engine) evaluate(ctx context.Context, key Key, last *snapshot, keep map[string]bool) (*snapshot, error) {
	return e.readBatches(ctx, key, last, false, func(s *snapshot, id string) bool { return keep[id] || !s.summed(id) })
}

// errUnanswered means that the store did not answer.
var errUnanswered = errors.New("read")

// get reads some documents of a period, which may be none.
func (e *Engine) get(ctx context.Context, key Key, refs []store.Ref) ([]store.Doc, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	got, err := e.Store.Get(ctx, refs...)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", errUnanswered, key, err)
	}
	return got.Docs, nil
}

// readBatches reads the period, the definition's shards, the first batch of each mode and the
// compatibility document in one call. It reads once more if the period lists shards or wanted batches,
// or one of these names needed parts, that were not among them.
func (e *Engine) readBatches(ctx context.Context, key Key, last *snapshot, people bool, wanted func(*snapshot, string) bool) (*snapshot, error) {
	var ids, shards, parts []string
	asked := map[string]bool{}
	ask := func(id string) (added bool) {
		if added = !asked[id]; added {
			ids, asked[id] = append(ids, id), true
		}
		return added
	}
	share := func(names []string) (added bool) {
		for _, name := range names {
			if !slices.Contains(shards, name) {
				shards, added = append(shards, name), true
			}
		}
		return added
	}
	share(e.ownShards(key.Transition))
	if last != nil {
		share(last.sharded)
		for _, id := range last.listed {
			if wanted(last, id) {
				ask(id)
			}
		}
	}
	for _, m := range key.Transition.Modes {
		ask(batchID(key, m.Name, 1))
	}
	for {
		refs := append(e.periodRefs(key), e.projectionRef(key), e.holdRef(key.Transition))
		periods, others := len(refs)-2, len(refs)+len(shards)
		for _, name := range shards {
			refs = append(refs, e.shardRef(key, name))
		}
		for _, id := range ids {
			refs = append(refs, e.batchRef(id))
		}
		for _, id := range parts {
			refs = append(refs, e.partRef(id))
		}
		got, err := e.Store.Get(ctx, refs...)
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", errUnanswered, key, err)
		}
		s, err := e.listing(key, got.ReadTime, got.Docs[:periods], got.Docs[periods])
		if err != nil {
			return nil, err
		}
		missing := share(s.sharded)
		for _, id := range s.listed {
			if wanted(s, id) && ask(id) {
				missing = true
			}
		}
		unwanted := func(d store.Doc) bool { return d.Exists && e.isBatch(d) && !wanted(s, d.Ref.ID) }
		batches := slices.DeleteFunc(slices.Clone(got.Docs[others:]), unwanted)
		for _, id := range e.partsOf(s, batches, people) {
			if !asked[id] {
				parts, asked[id], missing = append(parts, id), true, true
			}
		}
		if missing {
			continue
		}
		if err := e.complete(s, got.Docs[:periods], got.Docs[periods+2:others], got.Docs[periods+1], batches); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// listing begins a snapshot with what a period lists.
func (e *Engine) listing(key Key, now time.Time, periods []store.Doc, compat store.Doc) (*snapshot, error) {
	s := &snapshot{key: key, now: now, compat: compat, batches: map[string][]*batch{}, handed: map[string]handed{}, former: map[string]former{}, holds: map[string]*Hold{}, closed: map[string]*Closing{}, heldIn: map[string][]store.Doc{}}
	for _, doc := range periods {
		f := fields{doc: doc}
		s.listed = append(s.listed, f.strings("batches")...)
		for _, name := range f.strings("shards") {
			if !slices.Contains(s.sharded, name) { // a full period lists it twice
				s.sharded = append(s.sharded, name)
			}
		}
		s.lost = s.lost || f.bool("lost")
		if repaired := f.str("repaired_at"); repaired > s.repaired {
			s.repaired = repaired
		}
		if err := errors.Join(f.err, s.readHanded(doc)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// complete reads the rest of it; shards and batches have all that are listed, and the parts that are
// needed.
func (e *Engine) complete(s *snapshot, periods, shards []store.Doc, hold store.Doc, batches []store.Doc) (err error) {
	key := s.key
	s.periods = periods
	if err := s.readShards(e, shards); err != nil {
		return err
	}
	docs := s.documents()
	s.tallies = make([]tally, len(docs))
	reports := make([][]kept, len(docs))
	for i, doc := range docs {
		s.tallies[i].doc = doc
		if reports[i], err = e.reports(*doc); err != nil {
			return err
		}
		for _, k := range reports[i] {
			s.tallies[i].add(k)
		}
	}
	for _, doc := range periods {
		if err := errors.Join(s.readHolds(doc), s.readClosed(doc), s.readSchedule(doc)); err != nil {
			return err
		}
	}
	for _, of := range withoutCopies(reports) {
		for _, k := range of {
			s.runs = append(s.runs, present(key.Transition, k.run))
		}
	}
	if err := s.readHold(hold); err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, id := range s.listed {
		listed[id] = true
	}
	parts := map[string]store.Doc{}
	for _, doc := range batches {
		if !e.isBatch(doc) {
			parts[doc.Ref.ID] = doc
		}
	}
	for _, doc := range batches {
		switch {
		case !e.isBatch(doc):
			continue
		case !listed[doc.Ref.ID]: // it was asked for before the list was read, or its period has expired
			continue
		case !doc.Exists && e.gone(s, doc.Ref.ID): // the summary has all of it
			continue
		case !doc.Exists:
			return fmt.Errorf("%s is listed in %s and gone: nothing is decided without it", doc.Ref, e.periodRef(key))
		}
		mode, b, err := parseBatch(key, doc)
		if err == nil {
			err = b.readParts(doc, parts)
		}
		if err != nil {
			return err
		}
		s.batches[mode] = append(s.batches[mode], b)
	}
	for _, bs := range s.batches {
		slices.SortFunc(bs, func(a, b *batch) int { return a.N - b.N })
	}
	s.adopt()
	return nil
}
