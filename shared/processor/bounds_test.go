package processor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// players are the names of n entities.
func players(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("lebronjames%06d", i)
	}
	return out
}

// some makes two rows and names these entities.
func some(entities []string) Work {
	return func(ctx context.Context, run Run) (Output, error) {
		return Output{Rows: rows(run.Period, start, 10, 2), Entities: entities}, nil
	}
}

// stored reads the history from the document.
func (w *world) stored() (b history, size int) {
	w.t.Helper()
	text, _ := w.doc(collection, "PlayerGameSummaryProcessor_"+string(night)).Data["history"].(string)
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		w.t.Fatal(err)
	}
	return b, len(text)
}

// trigger records the last published completion next to those of the other processors, and
// returns what the next phase is sent for it.
func (w *world) trigger() wire.Trigger {
	w.t.Helper()
	var sent []wire.Trigger
	tr := w.pipeline.Transitions[0]
	engine := cycle.New(cycle.Config{Store: w.mem, Check: cycle.Unchecked, Now: w.time, NewID: rand.Text, Claim: time.Minute, Prefix: rand.Text(), Log: slog.New(slog.DiscardHandler),
		Publish: func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
			out := make([]cycle.Published, len(msgs))
			for i, m := range msgs {
				t, err := wire.DecodeTrigger(m.Data)
				if err != nil {
					w.t.Error(err)
				}
				sent, out[i].ID = append(sent, t), fmt.Sprint("t", len(sent))
			}
			return out
		}})
	key := cycle.Key{Transition: tr, Period: night}
	last := w.published[len(w.published)-1]
	for _, name := range tr.Order {
		report := last
		if name != report.ProcessorName {
			report.ProcessorName, report.OutputTable, report.ExecutionID, report.Metadata = name, name, "of-"+name, wire.ReportMetadata{}
		}
		data, err := report.Encode()
		if err != nil {
			w.t.Fatal(err)
		}
		c, warnings, err := wire.DecodeCompletion(wire.Envelope{MessageID: "m", PublishTime: w.time(), Data: data}, tr)
		if err != nil || len(warnings) > 0 {
			w.t.Fatal(warnings, err)
		}
		if err := engine.Record(w.t.Context(), key, c); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := engine.Converge(w.t.Context(), key, "m"); err != nil {
		w.t.Fatal(err)
	}
	for _, t := range sent {
		if t.SourceTable == last.ProcessorName {
			return t
		}
	}
	w.t.Fatalf("no trigger for %s in %v", last.ProcessorName, sent)
	return wire.Trigger{}
}

func TestReport_OfMoreEntitiesThanFitIsHandedOverAsAFullOne(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name        string
		entities    []string
		incremental bool
		kept        int
		more        bool
	}{
		{"200", players(200), true, 200, false},
		{"201", players(201), false, 200, true},
		{"a_name_that_no_reader_takes", append(players(2), strings.Repeat("x", 257)), false, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := w.machine().run(night, Request{}, some(c.entities)); err != nil {
				t.Fatal(err)
			}
			trigger := w.trigger()
			if trigger.Incremental != c.incremental || c.incremental != (len(trigger.EntitiesChanged["players"]) == c.kept) {
				t.Errorf("is_incremental is %t, with %d players", trigger.Incremental, len(trigger.EntitiesChanged["players"]))
			}
			b, _ := w.stored()
			if s := b.Successes[len(b.Successes)-1]; s.Entities == nil || len(s.Entities) != c.kept || s.More != c.more {
				t.Errorf("%d entities are stored, others too: %t", len(s.Entities), s.More)
			}
		})
	}
}

// When the success of the first run filled the document, the second run wrote its rows and
// could neither record nor publish its completion.
func TestRecord_HoldsHoweverManyEntitiesRunsName(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		out, err := w.machine().run(night, Request{TriggerID: fmt.Sprint("t/", i)}, some(players(20_000)))
		if err != nil || out.Status != wire.StatusSuccess {
			t.Fatalf("run %d: %+v, %v", i, out, err)
		}
	}
	if got := w.statuses(night); got != "success success" {
		t.Errorf("published %s", got)
	}
	if b, size := w.stored(); len(b.Served) != 2 || len(b.Outbox) != 0 || size > 20_000 {
		t.Errorf("%d served, %d to publish, %d bytes", len(b.Served), len(b.Outbox), size)
	}
}

// An earlier version may have filled the document: the oldest entries are dropped.
func TestRecord_FindsRoomInAFullDocument(t *testing.T) {
	w := newWorld(t)
	long := make([]string, wire.MaxEntities)
	for i := range long {
		long[i] = strings.Repeat("x", 250) + fmt.Sprintf("%03d", i)
	}
	var full history
	for i := range keptSuccesses {
		full.Successes = append(full.Successes, success{Execution: fmt.Sprint("old", i), Began: start, Entities: long})
	}
	for i := range keptServed {
		full.Served = append(full.Served, served{TriggerID: fmt.Sprint("old/", i), Execution: "old"})
	}
	full.Successes = full.Successes[:keptSuccesses-1]
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	ref := store.Ref{Collection: collection, ID: "PlayerGameSummaryProcessor_" + string(night)}
	if _, err := w.mem.Apply(t.Context(), store.Create(ref, store.F(string(text), "history"))); err != nil {
		t.Fatal(err)
	}
	out, err := w.machine().run(night, Request{TriggerID: "t/1"}, some(long))
	if err != nil || w.statuses(night) != "success" {
		t.Fatalf("%+v, %v, published %q", out, err, w.statuses(night))
	}
	b, _ := w.stored()
	if len(b.Successes) == 0 || b.Successes[len(b.Successes)-1].Execution != out.Execution || b.Served[len(b.Served)-1].TriggerID != "t/1" {
		t.Errorf("the run is not recorded: %d successes, %d served", len(b.Successes), len(b.Served))
	}
}

// A request that is dropped and redelivered is only run again: its rows are replaced.
func TestRecord_DropsTheOldestServedRequestsOfAFullDocument(t *testing.T) {
	b := history{Successes: []success{{Execution: "new", Began: start}}, Outbox: []outgoing{{Execution: "new", Topic: "t", Payload: "p"}}}
	for i := range 40 {
		b.Served = append(b.Served, served{TriggerID: strings.Repeat("t", maxHistory/20) + fmt.Sprint(i), Execution: "e"})
	}
	text, err := b.text()
	if err != nil || len(text) > maxHistory {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if n := len(b.Served); n < 10 || n >= 20 || !strings.HasSuffix(b.Served[n-1].TriggerID, "t39") || len(b.Successes) != 1 || len(b.Outbox) != 1 {
		t.Errorf("%d served, the last one %.5s, %d successes, %d to publish", n, b.Served[n-1].TriggerID, len(b.Successes), len(b.Outbox))
	}
}

// The request is served once its completion is recorded. Its redelivery publishes what the
// broker refused, and answers nothing before that.
func TestOutbox_IsPublishedBeforeAServedRequestIsAnswered(t *testing.T) {
	w := newWorld(t)
	req := Request{TriggerID: "t/1"}
	w.broken = errors.New("the broker is down")
	for range 2 { // the second one works no more
		if out, err := w.machine().run(night, req, making(10, 3)); err == nil || out.Served {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	if b, _ := w.stored(); len(b.Served) != 1 || len(b.Outbox) != 1 {
		t.Fatalf("%+v", b)
	}
	w.broken = nil
	for range 2 {
		if out, err := w.machine().run(night, req, notAgain(t)); err != nil || !out.Served {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if b, _ := w.stored(); w.statuses(night) != "success" || len(b.Outbox) != 0 || len(b.Served) != 1 {
		t.Errorf("published %q, %+v", w.statuses(night), b)
	}
}

// A run that does not fit into the document is not recorded, but its completion is published.
func TestCompletion_IsPublishedAlthoughTheDocumentIsFull(t *testing.T) {
	w := newWorld(t)
	out, err := w.machine().run(night, Request{TriggerID: strings.Repeat("t", store.MaxDocumentBytes)}, making(10, 3))
	if err != nil || out.Status != wire.StatusSuccess || w.statuses(night) != "success" {
		t.Errorf("%+v, %v, published %q", out, err, w.statuses(night))
	}
}
