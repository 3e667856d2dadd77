package cycle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// settledWorld has a number of hourly periods that were handed over two hours ago, and a relay has
// marked all of them.
func settledWorld(t *testing.T, periods int) (w *world, last pipeline.Period) {
	t.Helper()
	return settledOn(t, "memory", periods)
}

func settledOn(t *testing.T, driver string, periods int) (w *world, last pipeline.Period) {
	t.Helper()
	w = newWorldOf(t, driver, hourlies(t, 1)[0])
	w.clock.set(time.Date(2026, 2, 4, 6, 10, 0, 0, time.UTC))
	last = w.tr.Calendar().Add(w.tr.Calendar().At(w.clock.now()), -1)
	w.relay() // the deployment's first
	for n := range periods {
		handOver(t, w.engine, w.tr, w.tr.Calendar().Add(last, n-periods+1), w.clock.now())
	}
	w.pass(2 * time.Hour)
	w.relay()
	for n := range periods {
		if p := w.tr.Calendar().Add(last, n-periods+1); !w.marked(p) {
			t.Fatalf("%s is not marked", p)
		}
	}
	return w, last
}

func (w *world) marked(p pipeline.Period) bool {
	settled, _ := marked(w.tr, w.engine.Version, w.doc(periodsCollection, w.key(p).stored()))
	return settled
}

// secondRun is another run of a processor, which is handed over again.
func secondRun(w *world, p pipeline.Period) wire.Completion {
	name, rows := w.tr.Order[0], int64(7)
	return wire.Completion{RecordCount: &rows, Processor: name, Reported: name, Period: p, Status: wire.StatusSuccess, EventTime: w.clock.now(), ExecutionID: "again", CorrelationID: "x"}
}

// resendingHours is the transition of settledWorld, in which a second run is handed over.
func resendingHours(t *testing.T) *pipeline.Transition {
	t.Helper()
	text := strings.Replace(hourliesText(1), "second_runs: ignore", "second_runs: resend_if_changed", 1)
	p, err := pipeline.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

func TestRelay_CostDoesNotDependOnSettledPeriods(t *testing.T) {
	for _, tc := range []struct {
		driver  string
		periods int
	}{{"memory", 1}, {"memory", 20}, {"memory", 60}, {"sqlite", 3}} {
		periods := tc.periods
		w, _ := settledOn(t, tc.driver, periods)
		docs := &atomic.Int64{}
		w.engine.Store = reading{w.engine.Store, docs}
		calls, writes := w.store.calls.Load(), 0
		w.store.before = func([]store.Write) { writes++ }
		w.relay()
		if n := w.store.calls.Load() - calls; n != 3 || writes != 0 || docs.Load() != int64(3+periods) {
			t.Errorf("%d periods: %d calls, %d writes, %d documents", periods, n, writes, docs.Load())
		}
	}
}

// Each relay reports the cycles until nothing has happened for an hour. So a notification that failed is
// sent by a later relay.
func TestRelay_ReportsPeriodUntilItIsSettled(t *testing.T) {
	w := newWorldOf(t, "memory", hourlies(t, 1)[0])
	w.clock.set(time.Date(2026, 2, 4, 6, 10, 0, 0, time.UTC))
	w.relay()
	p := w.tr.Calendar().Add(w.tr.Calendar().At(w.clock.now()), -1)
	handOver(t, w.engine, w.tr, p, w.clock.now())
	for minutes := 5; minutes <= 90; minutes += 5 {
		w.pass(5 * time.Minute)
		reported := false
		if err := w.engine.Relay(t.Context(), w.tr, "", func(key Key, _ []Status) { reported = reported || key.Period == p }); err != nil {
			t.Fatal(err)
		}
		if want := minutes <= 65; reported != want {
			t.Errorf("after %d minutes: reported: %v", minutes, reported)
		}
	}
}

// The process that recorded the report died, and the message was lost.
func TestRelay_HandsOverAfterAReportInASettledPeriod(t *testing.T) {
	w, last := settledWorld(t, 2)
	w.tr = resendingHours(t)
	w.relay() // marks it for this definition
	w.pass(2 * time.Hour)
	if w.relay(); !w.marked(last) {
		t.Fatal("the period is not marked")
	}
	sent := len(w.broker.got)
	if err := w.engine.Record(t.Context(), w.key(last), secondRun(w, last)); err != nil {
		t.Fatal(err)
	}
	if w.marked(last) {
		t.Error("the mark is valid after a report")
	}
	w.relay()
	if n := len(w.broker.got) - sent; n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// A period that is settled by one definition may have work to do by another.
func TestRelay_EvaluatesSettledPeriodsAgainAfterADeployment(t *testing.T) {
	for name, deploy := range map[string]func(*world){
		"definition": func(w *world) { w.tr = resendingHours(t) },
		"code":       func(w *world) { w.engine.Version = "2" },
	} {
		w, last := settledWorld(t, 2)
		deploy(w)
		if w.marked(last) {
			t.Errorf("%s: the mark is valid", name)
		}
		evaluated := 0
		if err := w.engine.Relay(t.Context(), w.tr, "", func(Key, []Status) { evaluated++ }); err != nil {
			t.Fatal(err)
		}
		if evaluated < 2 {
			t.Errorf("%s: %d periods are evaluated", name, evaluated)
		}
	}
}

// A release is under way. A process with the former definition has read a period before a relay of the new
// one marks it, and wants to write its projection afterwards.
func TestRelay_CorrectsTheProjectionOfAFormerDefinition(t *testing.T) {
	former, err := pipeline.Parse([]byte(pipelinetest.Hourly(1, "a"))) // which waits for one of the two
	if err != nil {
		t.Fatal(err)
	}
	for driver := range drivers {
		w := newWorldOf(t, driver, hourlies(t, 1)[0])
		w.clock.set(time.Date(2026, 2, 4, 6, 10, 0, 0, time.UTC))
		w.relay()
		last := w.tr.Calendar().Add(w.tr.Calendar().At(w.clock.now()), -1)
		handOver(t, w.engine, w.tr, last, w.clock.now())
		w.pass(2 * time.Hour)
		shows := w.engine.projectionRef(w.key(last))
		wrote := 0
		w.store.before = func(writes []store.Write) {
			if writes[0].Ref != shows {
				return
			}
			if wrote++; wrote == 1 {
				if w.relay(); !w.marked(last) {
					t.Fatal("the period is not marked")
				}
			}
		}
		if _, err := w.engine.Converge(t.Context(), Key{Transition: former.Transitions[0], Period: last}, "m"); err != nil {
			t.Fatal(err)
		}
		w.store.before = nil
		if wrote != 2 || w.marked(last) {
			t.Errorf("%s: the former definition wrote its projection %d times; marked: %v", driver, wrote, w.marked(last))
		}
		w.relay()
		if got := w.doc(shows.Collection, shows.ID).Data[completedCount]; got != int64(2) {
			t.Errorf("%s: the projection shows %v complete processors, want 2", driver, got)
		}
	}
}

// A processor with a wrong clock has reported for a period that is ahead for months. The relay puts off its
// end again and again, so that the period does not expire before its time.
func TestRelay_PutsOffTheEndOfASettledPeriodAhead(t *testing.T) {
	w, _ := settledWorld(t, 1)
	cal := w.tr.Calendar()
	ahead := cal.AddDays(cal.At(w.clock.now()), 100)
	handOver(t, w.engine, w.tr, ahead, cal.End(ahead).Add(time.Minute))
	w.pass(2 * time.Hour)
	if w.relay(); !w.marked(ahead) {
		t.Fatal("the period is not marked")
	}
	before, _ := w.doc(periodsCollection, w.key(ahead).stored()).Data[store.ExpiresAt].(time.Time)
	w.pass(fresh)
	w.relay()
	if after, _ := w.doc(periodsCollection, w.key(ahead).stored()).Data[store.ExpiresAt].(time.Time); before.IsZero() || after.Sub(before) < fresh {
		t.Errorf("it expires %s, and %s before", after, before)
	}
}

// State that does not fit into the period's document is in another one.
func TestRelay_EvaluatesMarkedPeriodWithASecondDocument(t *testing.T) {
	w, last := settledWorld(t, 2)
	key := w.key(last)
	batch := batchID(key, "hourly", 2)
	_, err := w.store.Store.Apply(t.Context(), store.Merge(w.engine.controlRef(key), store.F(store.Union(batch), "batches")),
		store.Create(w.engine.batchRef(batch), store.F(2, "n"), store.F("publishing", "state"), store.F([]any{}, "runs"),
			store.F(map[string]any{w.tr.Order[0]: map[string]any{"payload": string(mustPayload(t, w)), "id": ""}}, "messages")))
	if err != nil {
		t.Fatal(err)
	}
	if !w.marked(last) {
		t.Fatal("the mark of the first document is not valid: this test says nothing")
	}
	w.relay()
	if state := w.doc(triggersCollection, batch).Data["state"]; state != "published" {
		t.Errorf("it is %s", state)
	}
}

// mustPayload returns the payload of any message that was sent.
func mustPayload(t *testing.T, w *world) []byte {
	t.Helper()
	for _, m := range w.doc(triggersCollection, batchID(w.key(pipeline.Period(w.broker.got[0].GameDate)), "hourly", 1)).Data["messages"].(map[string]any) {
		return []byte(m.(map[string]any)["payload"].(string))
	}
	t.Fatal("no message was sent")
	return nil
}

// breaking is a store whose scans break off after some documents.
type breaking struct {
	store.Store
	after int
}

func (b breaking) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		n := 0
		for doc, err := range b.Store.Scan(ctx, collection, from, to) {
			if n++; n > b.after {
				yield(store.Doc{}, errAway)
				return
			}
			if !yield(doc, err) {
				return
			}
		}
	}
}

// After a scan that failed, the relay does not know which of the remaining periods have documents.
func TestRelay_ReadsPeriodsThatCouldNotBeScanned(t *testing.T) {
	w, last := settledWorld(t, 3)
	w.tr = resendingHours(t)
	if err := w.engine.Record(t.Context(), w.key(last), secondRun(w, last)); err != nil {
		t.Fatal(err)
	}
	sent := len(w.broker.got)
	w.engine.Store = breaking{w.engine.Store, 1}
	if err := w.engine.Relay(t.Context(), w.tr, "", nil); !errors.Is(err, errAway) {
		t.Errorf("%v", err)
	}
	if n := len(w.broker.got) - sent; n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// A period without documents costs no read, and is overdue like any other.
func TestRelay_ReadsNoPeriodWithoutDocuments(t *testing.T) {
	w, last := settledWorld(t, 2)
	w.pass(5 * time.Hour)
	w.log.reset()
	calls := w.store.calls.Load()
	w.relay()
	var want []string
	for n := 1; n <= 6; n++ {
		want = append(want, fmt.Sprint(w.tr.Calendar().Add(last, n), " hourly"))
	}
	if got := w.overdue(); !slices.Equal(got, want) {
		t.Errorf("overdue are %v, want %v", got, want)
	}
	if n := w.store.calls.Load() - calls; n != 3 {
		t.Errorf("%d calls", n)
	}
}

// A schedule that hangs for an old period does not delay the hand-overs of newer periods.
func TestRelay_AsksTheScheduleAfterWhatIsDueInNewerPeriods(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-01-31 17:00"))
	w.relay()
	w.mustDeliver(run("roster_history", "2026-01-31 17:00", func(c *wire.Completion) { c.Period = "2026-01-31" })) // the first managed period
	w.clock.set(at("2026-02-04 06:30"))
	w.relay()
	w.nights("2026-02-03")
	var order []string
	w.engine.Expected = func(_ context.Context, key Key) (int64, error) {
		order = append(order, "asks about "+string(key.Period))
		return 0, errors.New("BigQuery does not answer")
	}
	publish := w.engine.Publish
	w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
		order = append(order, "publishes")
		return publish(ctx, topic, msgs)
	}
	w.clock.set(at("2026-02-04 10:30"))
	w.relay()
	due, older := slices.Index(order, "publishes"), slices.Index(order, "asks about 2026-02-02")
	if due < 0 || older < due {
		t.Errorf("%v", order)
	}
}

// A mark is made from a document that was read by its id, and compared with one that a scan has read.
func TestMark_IsValidInADocumentThatAScanReads(t *testing.T) {
	for _, driver := range []string{"memory", "sqlite", "firestore"} {
		t.Run(driver, func(t *testing.T) {
			w := newWorldOf(t, driver, hourlies(t, 1)[0])
			now := time.Now()
			w.clock.set(now)
			p := w.tr.Calendar().Add(w.tr.Calendar().At(now), -1)
			handOver(t, w.engine, w.tr, p, now)
			ref := w.engine.periodRef(w.key(p))
			write := func(fields ...store.Field) {
				t.Helper()
				if _, err := w.store.Apply(t.Context(), store.Merge(ref, fields...)); err != nil {
					t.Fatal(err)
				}
			}
			write(store.F(map[string]any{"at": now, "n": 7, "x": 0.1, "none": nil, "no": false, "list": []any{"a", int64(1), now}}, "others"), store.F("é<>&\u2028", "text"))
			doc := w.doc(periodsCollection, ref.ID)
			write(store.F(mark(w.tr, "", doc), settledField))
			found, err := w.engine.scan(t.Context(), w.tr, w.tr.Calendar().At(now), now)
			if err != nil || !found.of[p].settled {
				t.Errorf("%+v, %v", found.of[p], err)
			}
		})
	}
}
