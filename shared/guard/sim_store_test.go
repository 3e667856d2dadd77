//go:build !race

package guard

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

var errAway = errors.New("the store is away")

// simStore is the store as one try sees it.
type simStore struct {
	t *try
}

func (s simStore) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	part := partGuard + refs[0].Collection
	s.t.begins(part)
	switch {
	case s.t.w.fault(40):
		s.t.die()
	case s.t.w.fault(40):
		return store.Snapshot{}, errAway
	}
	s.t.alive(part)
	snap, err := s.t.w.store.Get(ctx, refs...)
	s.t.answers()
	s.t.alive(part)
	return snap, err
}

func (s simStore) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	t, w := s.t, s.t.w
	part := partGuard + writes[0].Ref.Collection
	began := t.begins(part)
	switch {
	case w.fault(30):
		t.die()
	case w.fault(30):
		w.note("%s: the store is away", t.name)
		return nil, errAway
	case w.fault(30):
		d := w.upTo(2 * simTTL)
		w.note("%s: a write lands %s later", t.name, d.Round(time.Second))
		go func() {
			time.Sleep(d)
			if v, err := w.store.Apply(context.Background(), writes...); err == nil {
				t.applied(writes, v, time.Time{})
				w.listed(t.m)
			}
		}()
		return nil, errAway
	}
	t.alive(part)
	versions, err := w.store.Apply(ctx, writes...)
	if err == nil && w.fault(20) {
		t.applied(writes, versions, time.Time{})
		if w.either() {
			t.die()
			t.alive(part)
		}
		w.note("%s: an answer is lost", t.name)
		return nil, errAway
	}
	if err == nil {
		t.applied(writes, versions, began)
		w.listed(t.m)
	}
	t.answers()
	t.alive(part)
	return versions, err
}

func (s simStore) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.t.w.store.Scan(ctx, collection, from, to)
}

// applied is what the oracle learns from a write. began is when the attempt was made, zero if
// its answer was lost.
func (t *try) applied(writes []store.Write, versions []store.Version, began time.Time) {
	for i, write := range writes {
		if write.Ref.Collection != "receipts" {
			continue
		}
		for _, f := range write.Fields {
			switch {
			case f.Path[0] == "state" && f.Value == receipt.Working:
				t.claimedAt, t.epoch = int(versions[i]), t.w.forgets
				if began.IsZero() {
					began = time.Now().Add(-20 * time.Millisecond)
				}
				t.trust = began.Add(simTTL * 9 / 10)
				t.w.note("%s has the claim of %s", t.name, t.m.key)
			case f.Path[0] == "renewed" && len(write.Fields) == 1 && !began.IsZero():
				t.trust = began.Add(simTTL * 9 / 10)
				t.w.note("%s renews", t.name)
			case f.Path[0] == "state" && f.Value == receipt.Done:
				t.recorded, t.doneAt = true, int(versions[i])
				t.w.note("%s records %s as done", t.name, t.m.key)
			case f.Path[0] == "state" && f.Value == receipt.Released:
				t.w.note("%s releases %s", t.name, t.m.key)
			}
		}
	}
}

// slow is the store as an operator sees it: much happens between two calls.
type slow struct{ w *world }

func (s slow) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s.turn()
	return s.w.store.Get(context.Background(), refs...)
}

func (s slow) turn() {
	if s.w.path != nil {
		s.w.path.wait(s.w, "operator")
	} else {
		s.w.pause(simTTL / 4)
	}
}

func (s slow) Apply(_ context.Context, writes ...store.Write) ([]store.Version, error) {
	s.turn()
	return s.w.store.Apply(context.Background(), writes...)
}

func (s slow) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.w.store.Scan(ctx, collection, from, to)
}

// receiptOf reads the receipt of a message as it is.
func (w *world) receiptOf(m *message) store.Doc {
	snap, err := w.store.Get(context.Background(), store.Ref{Collection: "receipts", ID: delivery(m).ID()})
	if err != nil {
		panic(err)
	}
	return snap.Docs[0]
}

// events notes what a guard logs.
type events struct {
	slog.Handler
	t *try
}

func (e events) Enabled(context.Context, slog.Level) bool { return true }

func (e events) WithAttrs([]slog.Attr) slog.Handler { return e }

func (e events) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		e.t.unrecorded = e.t.unrecorded || a.Key == "event" && a.Value.String() == telemetry.GuardUnrecorded
		e.t.cut = e.t.cut || a.Key == "event" && a.Value.String() == telemetry.GuardUnknown
		return true
	})
	return nil
}
