package cycle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// frozen is a world in which a batch of a snapshot's runs is claimed, and ready to be frozen.
type frozen struct {
	*world
	s *snapshot
	c *convergence
	b *batch
}

func newFrozen(t *testing.T, s *snapshot) *frozen {
	t.Helper()
	w := newWorld(t, "memory")
	w.tr = s.key.Transition
	w.clock.set(s.now)
	f := &frozen{world: w, s: s, c: w.engine.convergence(s.key, "m")}
	m := s.key.Transition.Modes[0]
	ref := w.engine.batchRef(batchID(s.key, m.Name, 1))
	fields := append(f.c.claimFields(), store.F(1, "n"), store.F(string(StateChecking), "state"))
	if _, err := w.store.Apply(t.Context(), store.Create(ref, fields...), store.Merge(w.engine.periodRef(s.key), store.F(store.Union(ref.ID), "batches"))); err != nil {
		t.Fatal(err)
	}
	f.reread()
	return f
}

func (f *frozen) reread() {
	f.t.Helper()
	_, b, err := parseBatch(f.s.key, f.doc(triggersCollection, batchID(f.s.key, f.s.key.Transition.Modes[0].Name, 1)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.b = b
}

func (f *frozen) freeze() error {
	m := f.s.key.Transition.Modes[0]
	return f.c.freeze(context.Background(), f.s, action{do: freeze, mode: m, batch: f.b, handing: f.s.handing(m, nil)})
}

// Every document stays below 1 MiB, with the longest names, an id and a copy of each message, and room
// for more.
func TestParts_EachDocumentFits(t *testing.T) {
	const n = 10_000
	tr := wideNamed(t, n, strings.Repeat("n", 47)) // 52 bytes each: the 512 KiB that a definition may have
	s := many(t, tr, n, entities(players(60)...))
	f := newFrozen(t, s)
	f.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
		out := make([]Published, len(msgs))
		for i := range out {
			out[i] = Published{ID: strings.Repeat("9", 20) + fmt.Sprint(i)}
		}
		return out
	}
	f.c.Engine = f.engine
	if err := f.freeze(); err != nil {
		t.Fatal(err)
	}
	f.reread()
	if err := f.c.publish(context.Background(), action{batch: f.b}); err != nil || len(f.c.failed) > 0 {
		t.Fatal(err, f.c.failed)
	}
	f.reread()
	if f.b.State != StatePublished || len(f.b.Runs) != 2*n || len(f.b.Expects) != n || len(f.b.Messages) != 0 {
		t.Errorf("%s with %d runs, %d expected, %d messages", f.b.State, len(f.b.Runs), len(f.b.Expects), len(f.b.Messages))
	}
	messages, largest := 0, 0
	for _, id := range f.b.Parts {
		doc := f.doc(partsCollection, id)
		in := doc.Data["messages"].(map[string]any)
		size := store.Size(doc.Ref, doc.Data) + len(in)*26 // of a rival's copies
		messages, largest = messages+len(in), max(largest, size)
		if len(in) > maxPart || size > store.MaxDocumentBytes-64<<10 {
			t.Errorf("%s has %d messages and %d bytes", id, len(in), size)
		}
		if _, ends := doc.Data[store.ExpiresAt].(time.Time); ends {
			t.Errorf("%s expires while its batch is open", id)
		}
	}
	doc := f.doc(triggersCollection, f.b.ID)
	size := store.Size(doc.Ref, doc.Data)
	if messages != n || size > store.MaxDocumentBytes-128<<10 {
		t.Errorf("%d messages, a batch of %d bytes", messages, size)
	}
	t.Logf("%d parts, the largest has %d bytes; the batch has %d", len(f.b.Parts), largest, size)

	// The summary goes into the period's document.
	s.batches[tr.Modes[0].Name] = []*batch{f.b}
	for _, id := range f.b.Parts {
		part := fields{doc: f.doc(partsCollection, id)}
		part.messages(f.b.Messages)
	}
	sums, _ := s.sums()
	text, _ := sums[0].Value.(string)
	t.Logf("a summary of %d bytes", len(text))
	if len(sums) != 1 || len(text) > 900<<10 {
		t.Errorf("%d summaries, %d bytes", len(sums), len(text))
	}
}

// The short text of a summary leaves out only what follows from the rest.
func TestHanded_ShortTextSaysTheSame(t *testing.T) {
	at := at("2026-02-04 06:00")
	for name, h := range map[string]handed{
		"all":                {N: 1, Runs: []string{"00000000000000ff", "ffffffffffffffff"}, Expects: []string{"a", "b"}, Again: map[string]time.Time{"a": {}, "b": {}}},
		"one again":          {N: 2, Runs: []string{"0123456789abcdef"}, Expects: []string{"a", "b"}, Again: map[string]time.Time{"a": at, "b": {}}},
		"without one":        {N: 1, Runs: []string{"0123456789abcdef"}, Expects: []string{"a", "b"}, Again: map[string]time.Time{"b": {}}},
		"one of another day": {N: 1, Runs: []string{"0123456789abcdef"}, Expects: []string{"a"}, Again: map[string]time.Time{"a": {}, "c": {}, "d": at}},
		"not begun":          {N: 1, Runs: []string{"0123456789abcdef"}, Again: map[string]time.Time{"c": {}, "d": at}},
		"none":               {N: 1, Again: map[string]time.Time{}},
	} {
		got, err := h.short().whole()
		if err != nil || encode(got) != encode(h) {
			t.Errorf("%s: %s, %v; want %s", name, encode(got), err, encode(h))
		}
	}
	if _, err := (handed{Keys: "?"}).whole(); err == nil {
		t.Error("no error")
	}
}

// Run keys that are stored as numbers are read as the same keys.
func TestRunKeys_AreReadAsTheyWere(t *testing.T) {
	keys := []string{"0000000000000000", "00000000000000ff", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff"}
	for _, parts := range []bool{false, true} {
		doc := store.Doc{Data: map[string]any{"runs": runKeys(keys, parts)}}
		f := fields{doc: doc}
		if got := f.keys("runs"); !slices.Equal(got, keys) || f.err != nil {
			t.Errorf("parts %v: %v, %v", parts, got, f.err)
		}
	}
}

// A batch with parts is read as one without: by people, by a comparison, and by the next evaluation.
func TestParts_AreReadWhereMessagesAre(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.inline, w.engine.part = 2, 2
	w.ready()
	w.converge("2026-02-03")
	st := w.statuses()["overnight"]
	if st.State != "published" || len(st.Batches) != 1 || len(st.Batches[0].Messages) != 5 || slices.Contains(slices.Collect(maps.Values(st.Batches[0].Messages)), "") {
		t.Errorf("%+v", st)
	}
	// A list of many cycles leaves the messages out: those of 10,000 processors are 14 MB a batch.
	cycles, err := w.engine.Cycles(t.Context(), w.tr, "2026-02-03", "2026-02-03")
	if i := slices.IndexFunc(cycles, func(st Status) bool { return st.Mode == "overnight" }); err != nil || i < 0 || cycles[i].State != "published" || len(cycles[i].Batches[0].Messages) != 0 || len(cycles[i].Batches[0].Runs) != 5 {
		t.Errorf("%+v, %v", cycles, err)
	}
	states, err := w.engine.PeriodStates(t.Context(), w.tr, "2026-02-03", "2026-02-03")
	if err != nil || states[0].Problem != nil || len(states[0].Wrong) > 0 {
		t.Errorf("%+v, %v", states, err)
	}
	batch := w.doc(triggersCollection, "phase3_to_phase4_2026-02-03_overnight~1")
	parts := (&fields{doc: batch}).strings("parts")
	if len(parts) != 3 || batch.Data["messages"] != nil {
		t.Fatalf("%v", batch.Data)
	}
	batchEnds, ok := batch.Data[store.ExpiresAt].(time.Time)
	for _, id := range parts {
		if ends, _ := w.doc(partsCollection, id).Data[store.ExpiresAt].(time.Time); !ok || !ends.Equal(batchEnds) {
			t.Errorf("%s ends at %s, its batch at %s", id, ends, batchEnds)
		}
	}

	// The platform deletes each document by itself.
	part := w.doc(partsCollection, parts[0])
	if _, err := w.store.Apply(t.Context(), store.DeleteIf(part.Ref, part.Version)); err != nil {
		t.Fatal(err)
	}
	w.mustDeliver(run(pgs, "2026-02-04 07:10", count(348)))
	if st := w.statuses()["overnight"]; len(st.Batches) != 2 || len(st.Batches[0].Messages) != 3 || st.State != "published" {
		t.Errorf("%+v", st)
	}
}

// A part that is missing before a summary has its batch is damage: the engine decides nothing.
func TestParts_NothingIsDecidedWithoutOne(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.inline, w.engine.part = 2, 2
	w.ready()
	w.broker.fail = func(i int, _ wire.Trigger) error { return errLost }
	if _, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m"); err == nil {
		t.Fatal("no error")
	}
	batch := w.doc(triggersCollection, "phase3_to_phase4_2026-02-03_overnight~1")
	part := w.doc(partsCollection, (&fields{doc: batch}).strings("parts")[1])
	if _, err := w.store.Apply(t.Context(), store.DeleteIf(part.Ref, part.Version)); err != nil {
		t.Fatal(err)
	}
	w.broker.fail = nil
	_, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m")
	if err == nil || !strings.Contains(err.Error(), part.Ref.ID) {
		t.Errorf("%v", err)
	}
	if st := w.doc(triggersCollection, batch.Ref.ID).Data["state"]; st != "publishing" {
		t.Errorf("%v", st)
	}
}
