package sweep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"regexp"
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
	planned     = "planned"     // nothing is removed
	quarantined = "quarantined" // it may have happened: the rows tell
	applied     = "applied"
	undone      = "undone"
	abandoned   = "abandoned" // it did not happen, or its rows were written anew since
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
	// Quarantine is the table, dataset.table, with all rows of these keys.
	Quarantine string
	At         time.Time // of the plan, the server's, UTC
	Ended      time.Time // of the last step

	version store.Version
}

func (r *record) removal(p pipeline.Processor) warehouse.Removal {
	return warehouse.Removal{Target: warehouse.Target{Processor: p, Period: r.Period}, Quarantine: r.Quarantine, Before: r.Before, After: r.After}
}

func newID() string { return strings.ToLower(rand.Text()) }

// idTime begins the id of a sweep: ids sort by it.
const idTime = "20060102t150405"

// newSweep is the id of a sweep that begins now.
func (s *Sweeper) newSweep() string {
	return s.Now().UTC().Format(idTime) + "-" + s.NewID()[:8]
}

var notInTableNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// tableName names the quarantine table of a removal.
func tableName(id string) string { return "sweep_" + notInTableNames.ReplaceAllString(id, "_") }

func (s *Sweeper) ref(id string) store.Ref {
	return store.Ref{Collection: s.Prefix + collection, ID: id}
}

func fingerprintField(f warehouse.Fingerprint) map[string]any {
	return map[string]any{"rows": f.Rows, "a": f.A, "b": f.B}
}

// create writes a plan down, with a record of who wants it.
func (s *Sweeper) create(ctx context.Context, r *record) error {
	act := audit.Record{Action: "sweep", Actor: r.Actor, Reason: r.Reason, Period: string(r.Period), Detail: fmt.Sprintf("removes %d rows from %s: %s", r.Surplus, r.Table, r.ID)}
	versions, err := s.Store.Apply(ctx, store.Create(s.ref(r.ID), store.F(r.Table, "table"), store.F(string(r.Period), "period"), store.F(r.State, "state"),
		store.F(r.Actor, "actor"), store.F(r.Reason, "reason"), store.F(r.Forced, "forced"), store.F(r.Keys, "keys"), store.F(r.Surplus, "surplus"),
		store.F(fingerprintField(r.Before), "before"), store.F(fingerprintField(r.After), "after"), store.F(r.Quarantine, "quarantine"),
		store.F(store.ServerTime, "planned_at"), store.F(store.ServerTime, "changed_at")), act.Write(s.Prefix, s.Now(), s.NewID()))
	if err != nil {
		return fmt.Errorf("sweep %s: %w", r.ID, err) // if it is there, whoever comes next finds it, and that nothing came of it
	}
	r.version = versions[0]
	act.Log(ctx, s.Log)
	return nil
}

// step takes a record to another state, if it still is as it was read. with is written in
// the same commit.
func (s *Sweeper) step(ctx context.Context, r *record, state string, with ...store.Write) error {
	writes := append([]store.Write{store.MergeIf(s.ref(r.ID), r.version, store.F(state, "state"), store.F(store.ServerTime, "changed_at"))}, with...)
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
	return read(snap.Docs[0])
}

// records yields the removals of sweeps that began after a time, oldest first.
func (s *Sweeper) records(ctx context.Context, since time.Time) iter.Seq2[*record, error] {
	return s.scan(ctx, since.UTC().Format(idTime), "9")
}

func (s *Sweeper) scan(ctx context.Context, from, to string) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		for doc, err := range s.Store.Scan(ctx, s.Prefix+collection, from, to) {
			var r *record
			if err == nil {
				r, err = read(doc)
			}
			if err != nil {
				yield(nil, fmt.Errorf("sweeps: %w", err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// read reads a document. What cannot be read is not taken for nothing.
func read(doc store.Doc) (*record, error) {
	r := &record{ID: doc.Ref.ID, version: doc.Version, Ended: doc.Version.Time()}
	var ok bool
	for name, into := range map[string]*string{"table": &r.Table, "period": (*string)(&r.Period), "state": &r.State, "actor": &r.Actor, "reason": &r.Reason, "quarantine": &r.Quarantine} {
		if *into, ok = doc.Data[name].(string); !ok {
			return nil, fmt.Errorf("%s: %s: %v is no text", doc.Ref, name, doc.Data[name])
		}
	}
	for name, into := range map[string]*int64{"keys": &r.Keys, "surplus": &r.Surplus} {
		if *into, ok = doc.Data[name].(int64); !ok {
			return nil, fmt.Errorf("%s: %s: %v is no number", doc.Ref, name, doc.Data[name])
		}
	}
	for name, into := range map[string]*warehouse.Fingerprint{"before": &r.Before, "after": &r.After} {
		m, _ := doc.Data[name].(map[string]any)
		rows, okRows := m["rows"].(int64)
		a, okA := m["a"].(int64)
		b, okB := m["b"].(int64)
		if !okRows || !okA || !okB {
			return nil, fmt.Errorf("%s: %s: %v is no fingerprint", doc.Ref, name, doc.Data[name])
		}
		*into = warehouse.Fingerprint{Rows: rows, A: a, B: b}
	}
	r.Forced, _ = doc.Data["forced"].(bool)
	r.At, _ = doc.Data["planned_at"].(time.Time)
	return r, nil
}
