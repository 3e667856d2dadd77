package sweep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// collection holds one document a removal, before the prefix.
const collection = "sweeps"

// The states of a removal, in the order in which it goes through them.
const (
	planned   = "planned"  // nothing is removed
	archived  = "archived" // it may have happened: the rows tell
	applied   = "applied"
	undoing   = "undoing" // the rows tell whether it was undone
	undone    = "undone"
	abandoned = "abandoned" // it did not happen, or its rows were written anew since
)

// record is sweeps/{id}.
type record struct {
	ID      string // {sweep}~{processor}_{period}; a sweep's id begins with its time
	Table   string
	Period  pipeline.Period
	State   string
	Actor   string
	Reason  string
	Forced  bool
	Keys    int64
	Surplus int64
	Before  warehouse.Fingerprint // of the rows of these keys
	After   warehouse.Fingerprint
	// Archive is the table, dataset.table, with all rows of these keys.
	Archive string
	At      time.Time // of the plan, the server's, UTC
	Ended   time.Time // of the last step

	version store.Version
}

func (r *record) removal(cal pipeline.Calendar, p pipeline.Processor) warehouse.Removal {
	return warehouse.Removal{Target: warehouse.Target{Processor: p, Period: r.Period, Calendar: cal}, Archive: r.Archive, Before: r.Before, After: r.After}
}

// ended reports whether nothing of it is under way any more.
func (r *record) ended() bool {
	return r.State == applied || r.State == undone || r.State == abandoned
}

func newID() string { return strings.ToLower(rand.Text()) }

// idTime begins the id of a sweep: ids sort by it.
const idTime = "20060102t150405"

// newSweep is the id of a sweep that begins now.
func (s *Sweeper) newSweep() string {
	return s.Now().UTC().Format(idTime) + "-" + s.NewID()[:8]
}

var notInTableNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// tableName names the archive table of a removal.
func tableName(id string) string { return "sweep_" + notInTableNames.ReplaceAllString(id, "_") }

func (s *Sweeper) ref(id string) store.Ref {
	return store.Ref{Collection: s.Prefix + collection, ID: id}
}

func fingerprintField(f warehouse.Fingerprint) map[string]any {
	return map[string]any{"rows": f.Rows, "a": f.A, "b": f.B}
}

// create writes a plan down, with a record of who wants it.
func (s *Sweeper) create(ctx context.Context, r *record) error {
	act := audit.Record{Action: "sweep", Actor: r.Actor, Reason: r.Reason, Period: string(r.Period), Detail: fmt.Sprintf("removes %s from %s: %s", pipeline.Count(r.Surplus, "row", "rows"), r.Table, r.ID)}
	versions, err := s.Store.Apply(ctx, store.Create(s.ref(r.ID), store.F(r.Table, "table"), store.F(string(r.Period), "period"), store.F(r.State, "state"),
		store.F(r.Actor, "actor"), store.F(r.Reason, "reason"), store.F(r.Forced, "forced"), store.F(r.Keys, "keys"), store.F(r.Surplus, "surplus"),
		store.F(fingerprintField(r.Before), "before"), store.F(fingerprintField(r.After), "after"), store.F(r.Archive, "archive"),
		store.F(store.ServerTime, "planned_at"), store.F(store.ServerTime, "changed_at"), store.Stays()), act.Write(s.Prefix, s.Now(), s.NewID()))
	if err != nil {
		return fmt.Errorf("sweep %s: %w", r.ID, err) // if it was written, the next sweep finds it, and that nothing came of it
	}
	r.version = versions[0]
	act.Log(ctx, s.Log)
	return nil
}

// step takes a record to another state, if it still is as it was read. with is written in
// the same commit.
func (s *Sweeper) step(ctx context.Context, r *record, state string, with ...store.Write) error {
	end := store.Stays()
	if (&record{State: state}).ended() { // long after the archive, and with it the time in which it can be undone
		end = store.Expires(s.Now())
	}
	writes := append([]store.Write{store.MergeIf(s.ref(r.ID), r.version, store.F(state, "state"), store.F(store.ServerTime, "changed_at"), end)}, with...)
	versions, err := s.Store.Apply(ctx, writes...)
	if err != nil {
		// Its answer may be lost, and the driver may have met its own write.
		now, readErr := s.record(ctx, r.ID)
		if readErr != nil || now.State != state {
			return fmt.Errorf("sweep %s: %s: %w", r.ID, state, errors.Join(err, readErr))
		}
		*r = *now
		return nil
	}
	r.State, r.version = state, versions[0]
	return nil
}

// ErrNoSweep says that there is no removal of that name.
var ErrNoSweep = errors.New("no such sweep")

func (s *Sweeper) record(ctx context.Context, id string) (*record, error) {
	snap, err := s.Store.Get(ctx, s.ref(id))
	if err != nil {
		return nil, fmt.Errorf("sweep %s: %w", id, err)
	}
	if !snap.Docs[0].Exists {
		return nil, fmt.Errorf("%w: %s", ErrNoSweep, id)
	}
	r, err := read(snap.Docs[0])
	if _, none := s.Pipeline.Calendar.Parse(string(r.Period)); err == nil && none != nil {
		err = fmt.Errorf("%w: %s: period: %w", errBroken, s.ref(id), none)
	}
	return r, err
}

// errBroken says that a record cannot be read. That does not pass by itself.
var errBroken = errors.New("the record cannot be read")

// scan yields the removals with ids from one to another, in order: oldest first. One that
// cannot be read comes with what can be, and an errBroken.
func (s *Sweeper) scan(ctx context.Context, from, to string) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		for doc, err := range s.Store.Scan(ctx, s.Prefix+collection, from, to) {
			if err != nil {
				yield(nil, fmt.Errorf("sweeps: %w", err))
				return
			}
			if !yield(read(doc)) {
				return
			}
		}
	}
}

// Ids of all sweeps lie between these, by any clock.
const firstID, lastID = "0", "9~"

// place is one period of a table.
type place struct {
	table  string
	period pipeline.Period
}

// unfinished are the ids of the removals and undoings that came to no end, oldest first.
func (s *Sweeper) unfinished(ctx context.Context) (map[place][]string, error) {
	out := map[place][]string{}
	for r, err := range s.scan(ctx, firstID, lastID) {
		switch {
		case errors.Is(err, errBroken): // its readers get the error
			s.Log.WarnContext(ctx, err.Error())
		case err != nil:
			return nil, err
		}
		if !r.ended() {
			at := place{r.Table, r.Period}
			out[at] = append(out[at], r.ID)
		}
	}
	return out, nil
}

// read reads a document. What cannot be read is not taken for nothing.
func read(doc store.Doc) (*record, error) {
	r := &record{ID: doc.Ref.ID, version: doc.Version, Ended: doc.Version.Time()}
	var problems []error
	broken := func(name, what string) {
		problems = append(problems, fmt.Errorf("%w: %s: %s: %v is no %s", errBroken, doc.Ref, name, doc.Data[name], what))
	}
	var ok bool
	for name, into := range map[string]*string{"table": &r.Table, "period": (*string)(&r.Period), "state": &r.State, "actor": &r.Actor, "reason": &r.Reason, "archive": &r.Archive} {
		if *into, ok = doc.Data[name].(string); !ok {
			broken(name, "text")
		}
	}
	for name, into := range map[string]*int64{"keys": &r.Keys, "surplus": &r.Surplus} {
		if *into, ok = doc.Data[name].(int64); !ok {
			broken(name, "number")
		}
	}
	for name, into := range map[string]*warehouse.Fingerprint{"before": &r.Before, "after": &r.After} {
		m, _ := doc.Data[name].(map[string]any)
		rows, okRows := m["rows"].(int64)
		a, okA := m["a"].(int64)
		b, okB := m["b"].(int64)
		if !okRows || !okA || !okB {
			broken(name, "fingerprint")
		}
		*into = warehouse.Fingerprint{Rows: rows, A: a, B: b}
	}
	r.Forced, _ = doc.Data["forced"].(bool)
	r.At, _ = doc.Data["planned_at"].(time.Time)
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return r, errors.Join(problems...)
}
