package cycle

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// The caller of a hand-over has gone, for example because its request timed out. The next
// caller must not send again what the broker has accepted.
func TestConfirm_WritesTheBrokersIDsAfterTheCallerHasGone(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	ctx, leave := context.WithCancel(context.Background())
	send := w.engine.Publish
	w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
		defer leave()
		return send(ctx, topic, msgs)
	}
	if _, err := w.engine.Converge(ctx, w.key("2026-02-03"), "m"); err == nil {
		t.Error("Converge returned no error after its caller had gone")
	}
	doc := w.doc("phase_triggers", overnightOne)
	for name, m := range doc.Data["messages"].(map[string]any) {
		if m.(map[string]any)["id"] == "" {
			t.Errorf("%s was accepted, and its id is not written", name)
		}
	}
	if doc.Data["state"] != "published" {
		t.Errorf("the batch is %v", doc.Data["state"])
	}
	w.pass(2 * time.Minute)
	w.engine.Publish = send
	w.converge("2026-02-03")
	if n := len(w.broker.got); n != 5 {
		t.Errorf("%d messages for 5 processors", n)
	}
}

// wideNight converges 300 processors whose runs name 80 entities each and as many bytes
// more, and returns the size of the batch.
func wideNight(t *testing.T, more int) (w *world, size int) {
	t.Helper()
	w = newWorld(t, "memory")
	w.tr = wide(t, 300)
	w.clock.set(at("2026-02-04 06:00"))
	w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
		out := w.broker.publish(ctx, topic, msgs)
		for i := range out {
			out[i].ID = strings.Repeat("9", 20) + fmt.Sprintf("%03d", i)
		}
		return out
	}
	for i := range 300 {
		names := make([]string, 80)
		for n := range names {
			names[n] = fmt.Sprintf("player-number-%02d", n)
		}
		for part := more / (300 - i); part > 0; {
			n := min(part, 250) // of which 3 are quotes and a comma
			if rest := part - n; rest > 0 && rest < 10 {
				n -= 10
			}
			names = append(names, fmt.Sprintf("%0*d", max(n-3, 4), len(names)))
			part, more = part-n, more-n
		}
		w.record(run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00", entities(names...)))
	}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err != nil {
		t.Fatal(err)
	}
	doc := w.doc("phase_triggers", "phase3_to_phase4_2026-02-03_overnight~1")
	return w, store.Size(doc.Ref, doc.Data)
}

// Payloads that fill a document leave no room for the broker's ids: the messages would be sent,
// and never confirmed. Here the document has room for half of the ids. So the payloads are in parts.
func TestFreeze_KeepsRoomForTheBrokersIDs(t *testing.T) {
	const ids = 300 * 23
	w, size := wideNight(t, 0)
	if !w.broker.got[0].Incremental {
		t.Fatalf("a batch of %d bytes was made smaller", size)
	}
	w, size = wideNight(t, store.MaxDocumentBytes-size+ids/2)
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 300 {
		t.Errorf("%s, %d messages for 300 processors", st.State, len(w.broker.got))
	}
	if !w.broker.got[0].Incremental || size > 64<<10 {
		t.Errorf("a batch of %d bytes: incremental %t", size, w.broker.got[0].Incremental)
	}
	parts := (&fields{doc: w.doc("phase_triggers", "phase3_to_phase4_2026-02-03_overnight~1")}).strings("parts")
	if len(parts) != 2 {
		t.Errorf("%d parts", len(parts))
	}
	for _, id := range parts {
		if doc := w.doc("phase_trigger_parts", id); store.Size(doc.Ref, doc.Data) > maxPayloads+64<<10 {
			t.Errorf("%s has %d bytes", id, store.Size(doc.Ref, doc.Data))
		}
	}
}

// No document could hold the message of a processor that ran again and again, with all its entities.
func TestFreeze_LeavesOutTheEntitiesOfOneMessageThatFitsNowhere(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:00"))
	for _, c := range overnight()[1:] {
		w.record(c)
	}
	for i := range 16 {
		names := make([]string, 195)
		for n := range names {
			names[n] = fmt.Sprintf("%0240d", 1000*i+n)
		}
		w.record(run(overnight()[0].Processor, "2026-02-04 06:00", execution(fmt.Sprint(i)), entities(names...)))
	}
	w.clock.set(at("2026-02-04 06:30"))
	if _, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m"); err != nil {
		t.Fatal(err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
		t.Fatalf("%s, %d messages", st.State, len(w.broker.got))
	}
	for _, m := range w.broker.got {
		if m.SourceTable == overnight()[0].Processor && (m.Incremental || len(m.EntitiesChanged) > 0) {
			t.Errorf("%s: incremental %t", m.SourceTable, m.Incremental)
		}
	}
}

// A function's instance lives for days: the runs that it has decoded do not fill its memory.
func TestDecodedRuns_AreForgottenWhenThereAreMany(t *testing.T) {
	var seen seenRuns
	names := make([]string, 200)
	for i := range names {
		names[i] = fmt.Sprintf("%0240d", i)
	}
	for i := range 3*maxSeen/(200*240) + 10 {
		_, text := run(pgs, "2026-02-04 06:03", execution(fmt.Sprint(i)), entities(names...)).Record()
		c, err := seen.parse(text)
		if err != nil || c.ExecutionID != fmt.Sprint(i) {
			t.Fatalf("%+v, %v", c, err)
		}
		if again, err := seen.parse(text); err != nil || again != c {
			t.Fatalf("run %d is decoded again", i)
		}
		bytes := 0
		for text := range seen.runs {
			bytes += len(text)
		}
		if bytes > maxSeen || bytes != seen.bytes {
			t.Fatalf("%d bytes of runs are kept, counted are %d, at most %d", bytes, seen.bytes, maxSeen)
		}
	}
}

// The collections are read one after the other, and a batch is created meanwhile. The period
// that was read before does not list it: the states leave it out.
func TestBooks_LeaveOutABatchThatThePeriodDoesNotList(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	inner := w.store.Store
	w.engine.Store = &between{Store: inner, scanned: func(collection string) {
		if collection == periodsCollection { // the periods are read: now the next batch is created
			e := w.newEngine()
			again := run(pgs, "2026-02-04 07:10", count(348))
			w.clock.set(again.EventTime)
			if err := e.Record(context.Background(), w.key(again.Period), again); err != nil {
				t.Error(err)
			}
			if _, err := e.Converge(context.Background(), w.key(again.Period), "again"); err != nil {
				t.Error(err)
			}
		}
	}}
	books, err := w.engine.PeriodStates(context.Background(), w.tr, "2026-02-03", "2026-02-03")
	if err != nil || books[0].Problem != nil {
		t.Fatal(err, books[0].Problem)
	}
	st := books[0].Cycles[2]
	if len(st.Batches) != 1 || st.State != "published" {
		t.Errorf("%s with the batches %+v", st.State, st.Batches)
	}
	if now := w.statuses()["overnight"]; len(now.Batches) != 2 {
		t.Errorf("%d batches are recorded", len(now.Batches))
	}
}

// between acts once a collection has been scanned.
type between struct {
	store.Store
	scanned func(collection string)
}

func (b *between) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		b.Store.Scan(ctx, collection, from, to)(yield)
		b.scanned(collection)
	}
}

// A field in a later document of a period counts like one in the first document.
func TestPeriod_ReadsEveryFieldOfItsLaterDocuments(t *testing.T) {
	for _, id := range []string{"phase3_to_phase4_2026-02-03~overflow", "phase3_to_phase4_2026-02-03~control"} {
		t.Run(id, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			w.converge("2026-02-03")
			w.mustDeliver(run(pgs, "2026-02-04 07:10", count(348)))
			hold := map[string]any{"id": "h", "until": at("2026-02-04 12:00"), "since": at("2026-02-04 07:00"), "actor": "ada", "reason": "wait"}
			schedule := map[string]any{"tried": at("2026-02-04 07:00"), "at": at("2026-02-04 07:00"), "units": int64(7), "problem": ""}
			late := run(toff, "2026-02-04 07:20", count(9))
			key, text := late.Record()
			first := w.doc("phase_periods", "phase3_to_phase4_2026-02-03")
			move := []store.Field{store.F(first.Data["batches"], "batches"), store.F(first.Data["handed"], "handed"),
				store.F(hold, "holds", "overnight"), store.F(schedule, "schedule"), store.F("2026-02-04T12:00:00Z", "repaired_at"), store.F(text, "runs", toff, key)}
			_, err := w.store.Apply(context.Background(), store.Merge(store.Ref{Collection: "phase_periods", ID: id}, move...),
				store.Merge(first.Ref, store.F(nil, "batches"), store.F(nil, "handed")))
			if err != nil {
				t.Fatal(err)
			}
			s := w.snapshot()
			if h := s.hold("overnight"); h == nil || h.Reason != "wait" {
				t.Errorf("hold %+v", h)
			}
			if s.schedule.Units != 7 || s.repaired != "2026-02-04T12:00:00Z" || s.handed["overnight"].N != 2 {
				t.Errorf("schedule %+v, repaired %q, handed over %+v", s.schedule, s.repaired, s.handed)
			}
			if len(s.listed) < 2 || !slices.ContainsFunc(s.runs, func(r policy.Run) bool { return r.ExecutionID == late.ExecutionID }) {
				t.Errorf("lists %q", s.listed)
			}
			w.clock.set(at("2026-02-04 07:30"))
			w.converge("2026-02-03") // held
			if n := len(w.statuses()["overnight"].Batches); n != 2 {
				t.Errorf("%d batches while it is on hold", n)
			}
			w.clock.set(at("2026-02-04 12:01"))
			w.converge("2026-02-03")
			if got := described(w.statuses()["overnight"]); len(got) != 3 || got[2] != "3 second_run published ["+toff+"]" {
				t.Errorf("%q", got)
			}
			if p := w.projection(); p["_reconciliation_fix"] != "2026-02-04T12:00:00Z" {
				t.Errorf("projection %v", p)
			}
		})
	}
}
