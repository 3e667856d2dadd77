package cycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// failed is the i-th failed report of a processor, with 1 KB of error text.
func failed(processor string, i int) wire.Completion {
	c := run(processor, "2026-02-03 22:40", status(wire.StatusFailed), execution(fmt.Sprintf("failed-%05d", i)))
	c.EventTime = c.EventTime.Add(time.Duration(i) * time.Second)
	c.RecordCount, c.ErrorType, c.ErrorMessage = nil, "Timeout", strings.Repeat("x", 1024)
	return c
}

// stranger is the i-th report of a processor that the pipeline does not know.
func stranger(i int) wire.Completion {
	c := failed("", i)
	c.Reported, c.Status = "RosterHistoryProcessor", wire.StatusSuccess
	return c
}

func (w *world) record(cs ...wire.Completion) {
	w.t.Helper()
	for _, c := range cs {
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			w.t.Fatalf("%s %s: %v", c.Processor, c.ExecutionID, err)
		}
	}
}

func (w *world) snapshot() *snapshot {
	w.t.Helper()
	s, err := w.engine.read(context.Background(), w.key("2026-02-03"), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// executions returns the status of each recorded execution.
func (w *world) executions() map[string]wire.Status {
	out := map[string]wire.Status{}
	for _, r := range w.snapshot().runs {
		out[r.ExecutionID] = r.Status
	}
	return out
}

// flood puts reports into a document, as an older version did, until it is full.
func (w *world) flood(ref store.Ref, report func(i int) wire.Completion) (n int) {
	w.t.Helper()
	for many := 200; many > 0; {
		var fields []store.Field
		for i := range many {
			c := report(n + i)
			id, text := c.Record()
			path := []string{"runs", c.Processor, id}
			if c.Processor == "" {
				path = []string{"unexpected", id}
			}
			fields = append(fields, store.F(text, path...))
		}
		_, err := w.store.Store.Apply(context.Background(), store.Merge(ref, fields...))
		switch {
		case errors.Is(err, store.ErrTooLarge):
			many /= 2
		case err != nil:
			w.t.Fatal(err)
		default:
			n += many
		}
	}
	return n
}

// stuff fills a document to its last byte.
func (w *world) stuff(ref store.Ref) { w.leave(ref, 0) }

// leave fills a document but for some bytes.
func (w *world) leave(ref store.Ref, room int) {
	w.t.Helper()
	doc := w.doc(ref.Collection, ref.ID)
	data := store.Clone(doc.Data)
	data["junk"] = ""
	free := store.MaxDocumentBytes - store.Size(doc.Ref, data) - room
	if _, err := w.store.Store.Apply(context.Background(), store.Merge(ref, store.F(strings.Repeat("x", free), "junk"))); err != nil {
		w.t.Fatal(err)
	}
}

// alive performs every action that a full period must still accept.
func (w *world) alive() {
	w.t.Helper()
	ctx, key := context.Background(), w.key("2026-02-03")
	overnight, _ := w.tr.Mode("overnight")
	if _, err := w.engine.Hold(ctx, key, "overnight", 12*time.Hour, "ada", "wait"); err != nil {
		w.t.Fatal("hold:", err)
	}
	w.clock.set(at("2026-02-04 06:05"))
	for _, name := range five[:4] {
		w.mustDeliver(run(name, "2026-02-04 06:03"))
	}
	found := run(five[4], "2026-02-04 06:03")
	if err := w.engine.Repair(ctx, key, Repair{Completions: []wire.Completion{found}, Actor: "nightly", Reason: "missing"}); err != nil {
		w.t.Fatal("repair:", err)
	}
	if st := w.statuses()["overnight"]; st.Hold == nil || len(st.Satisfied) != 5 || len(w.broker.got) != 0 {
		w.t.Fatalf("%s with %v satisfied, hold %v: %s", st.State, st.Satisfied, st.Hold, st.Reason)
	}
	if _, err := w.engine.Release(ctx, key, "overnight", "ada", "go on"); err != nil {
		w.t.Fatal("release:", err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		w.t.Fatalf("%s: %s", st.State, st.Reason)
	}
	w.mustDeliver(run(pgs, "2026-02-04 07:10", count(348)))
	if _, err := w.engine.Trigger(ctx, key, overnight, Request{Actor: "ada", Reason: "again"}); err != nil {
		w.t.Fatal("trigger:", err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" || len(st.Batches) != 3 {
		w.t.Fatalf("%s with %d batches: %s", st.State, len(st.Batches), st.Reason)
	}
}

// full returns the lines by which the relay says that a period is full.
func (w *world) full() []map[string]any {
	w.t.Helper()
	if err := w.engine.Relay(context.Background(), w.tr, "", nil); err != nil {
		w.t.Fatal(err)
	}
	return w.lines("type", PeriodFull)
}
