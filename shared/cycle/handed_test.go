package cycle

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// again is the i-th further run of a processor, with another count each time, a second
// after the one before.
func again(i int) wire.Completion {
	c := run(pgs, "2026-02-04 07:10", count(int64(1000+i)), execution(fmt.Sprintf("again-%04d", i)))
	c.EventTime = c.EventTime.Add(time.Duration(i) * time.Second)
	return c
}

func TestSecondRuns_AreCollectedForTheirInterval(t *testing.T) {
	for _, driver := range []string{"memory", "sqlite"} {
		t.Run(driver, func(t *testing.T) {
			w := newWorld(t, driver)
			w.ready()
			w.converge("2026-02-03")
			const reports = 300 // within five minutes
			for i := range reports {
				w.mustDeliver(again(i))
			}
			st := w.statuses()["overnight"]
			if n := len(st.Batches); n != 4 { // the first, and one every two minutes from 07:10:00 on
				t.Errorf("%d batches for %d reports", n, reports)
			}
			if st.State != "waiting" || !st.Since.IsZero() || !st.NextCheck.Equal(at("2026-02-04 07:16:00")) || st.Reason != "ran again: player_game_summary; collected until 07:16:00" {
				t.Errorf("%s since %s until %s: %s", st.State, st.Since, st.NextCheck, st.Reason)
			}
			w.clock.set(at("2026-02-04 07:15:59"))
			w.relay()
			if n := len(w.statuses()["overnight"].Batches); n != 4 {
				t.Errorf("%d batches before the interval has passed", n)
			}
			w.clock.set(at("2026-02-04 07:16:00"))
			w.relay()
			st = w.statuses()["overnight"]
			last := st.Batches[len(st.Batches)-1]
			if st.State != "published" || len(st.Batches) != 5 || !last.DueAt.Equal(at("2026-02-04 07:16:00")) {
				t.Errorf("%s with %d batches, the last due at %s: %s", st.State, len(st.Batches), last.DueAt, st.Reason)
			}
			if got := w.broker.got[len(w.broker.got)-1].ParentExecution; got != again(reports-1).ExecutionID {
				t.Errorf("the last message is about %s", got)
			}
			w.eachRunOnce()
		})
	}
}

func TestSecondRuns_OfOneProcessorDoNotKeepAnotherWaiting(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.mustDeliver(again(0), again(1), run(tdef, "2026-02-04 07:10:02", count(7)), run(utg, "2026-02-04 07:10:03", count(7)))
	want := []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]",
		"3 second_run published [" + tdef + "]", "4 second_run published [" + utg + "]"}
	if got := described(w.statuses()["overnight"]); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSecondRuns_FollowTheIntervalOfThePipelineFile(t *testing.T) {
	w := newWorldOf(t, "memory", changed(t, "second_runs: resend_if_changed", "second_runs: resend_if_changed\n        second_runs_every: 10s"))
	w.ready()
	w.converge("2026-02-03")
	for i := range 20 {
		w.mustDeliver(again(i))
	}
	if n := len(w.statuses()["overnight"].Batches); n != 3 {
		t.Errorf("%d batches", n)
	}
}

// A request of a person does not wait for the interval, and the next second run waits a whole one after it.
func TestSecondRuns_ThatAPersonAsksForDoNotWait(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.mustDeliver(again(0), again(1))
	m, _ := w.tr.Mode("overnight")
	b, err := w.engine.Trigger(context.Background(), w.key("2026-02-03"), m, Request{Processors: []string{pgs}, Actor: "ada", Reason: "now"})
	if err != nil || b.State != StatePublished {
		t.Errorf("%+v, %v", b, err)
	}
	w.mustDeliver(again(2))
	if st := w.statuses()["overnight"]; st.State != "waiting" || len(st.Batches) != 3 {
		t.Errorf("%s with %d batches: %s", st.State, len(st.Batches), st.Reason)
	}
}

// measuredReads counts what evaluations read.
type measuredReads struct {
	store.Store
	calls, docs, bytes int
	batches            []string
}

func (m *measuredReads) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s, err := m.Store.Get(ctx, refs...)
	m.calls++
	for _, doc := range s.Docs {
		m.docs++
		if doc.Exists {
			m.bytes += store.Size(doc.Ref, doc.Data)
		}
		if doc.Exists && doc.Ref.Collection == triggersCollection {
			m.batches = append(m.batches, doc.Ref.ID)
		}
	}
	return s, err
}

// handedOver returns a period with a number of published batches. Its second runs are three
// minutes apart, and their number does not depend on that of the batches.
func handedOver(t testing.TB, batches, runs int) *world {
	w := &world{tr: nba(t), clock: &clock{t: at("2026-02-04 06:05")}, broker: &broker{}, log: &syncBuffer{}}
	w.store = &counting{Store: drivers["memory"](nil, w.clock.now)}
	w.engine = New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: w.clock.now, NewID: rand.Text, Claim: time.Minute, Log: brokenLog(t)})
	ctx := context.Background()
	key := Key{Transition: w.tr, Period: "2026-02-03"}
	do := func(c wire.Completion, converge bool) {
		err := w.engine.Record(ctx, key, c)
		if err == nil && converge {
			_, err = w.engine.Converge(ctx, key, "m")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range five {
		do(run(name, "2026-02-04 06:03"), true)
	}
	for i := range runs {
		w.clock.set(w.clock.now().Add(3 * time.Minute))
		do(again(i), i%(runs/(batches-1)) == 0)
	}
	return w
}

func TestEvaluation_ReadsOpenBatchesAndASummaryOfTheRest(t *testing.T) {
	cost := func(batches int) *measuredReads {
		w := handedOver(t, batches, 299)
		m := &measuredReads{Store: w.store.Store}
		e := New(Config{Store: m, Publish: w.broker.publish, Check: Unchecked, Now: w.clock.now, NewID: rand.Text, Claim: time.Minute, Log: brokenLog(t)})
		w.engine = e
		if _, err := e.Converge(context.Background(), Key{Transition: w.tr, Period: "2026-02-03"}, "m"); err != nil {
			t.Fatal(err)
		}
		first := *m
		st, err := e.Status(context.Background(), Key{Transition: w.tr, Period: "2026-02-03"})
		if err != nil || len(st[2].Batches) < batches {
			t.Fatalf("%d batches, %v", len(st[2].Batches), err)
		}
		t.Logf("%d batches: %d calls, %d documents, %d bytes", batches, first.calls, first.docs, first.bytes)
		return &first
	}
	few, many := cost(3), cost(300)
	if few.calls != 1 || many.calls != 1 || many.docs != few.docs {
		t.Errorf("3 batches: %d calls, %d documents; 300 batches: %d calls, %d documents", few.calls, few.docs, many.calls, many.docs)
	}
	for _, id := range many.batches {
		if _, n, _ := cutBatchID(Key{Transition: nba(t), Period: "2026-02-03"}, id); n != 1 { // asked for before the period is read
			t.Errorf("the published batch %s is read", id)
		}
	}
	// The other 297 batches add only the name of each.
	if most := few.bytes + 300*len("phase3_to_phase4_2026-02-03_overnight~300") + 2<<10; many.bytes > most {
		t.Errorf("3 batches: %d bytes, 300 batches: %d bytes, want at most %d", few.bytes, many.bytes, most)
	}
}

// The documents of an older version have no summary. The next evaluation reads all of its
// published batches once, and writes the summary.
func TestEvaluation_SumsUpWhatAnOlderVersionPublished(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	w.mustDeliver(again(0))
	ref := w.engine.periodRef(w.key("2026-02-03"))
	if _, err := w.store.Apply(context.Background(), store.Merge(ref, store.F(nil, "handed"))); err != nil {
		t.Fatal(err)
	}
	before := w.broker.tables()
	w.mustDeliver(again(0), run(pgs, "2026-02-04 07:20")) // its count was handed over with the first batch
	w.relay()
	if after := w.broker.tables(); len(after) != len(before)+1 {
		t.Errorf("%d messages more, want one", len(after)-len(before))
	}
	s := w.snapshot()
	if h := s.handed["overnight"]; h.N != 3 || len(h.Runs) != 7 || h.Cause != "all_complete" {
		t.Errorf("summary %+v", h)
	}
}

// A summary that is missing, late, or written by two processes changes no decision.
func TestEvaluation_IsTheSameWithAnyPartOfTheSummary(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	var summaries []any
	ref := w.engine.periodRef(w.key("2026-02-03"))
	for i := range 4 {
		summaries = append(summaries, w.doc(ref.Collection, ref.ID).Data["handed"])
		w.clock.set(at("2026-02-04 07:10").Add(time.Duration(i) * 5 * time.Minute))
		c := again(i)
		c.EventTime = w.clock.now()
		w.mustDeliver(c)
	}
	summaries = append(summaries, nil)
	want := fmt.Sprint(described(w.statuses()["overnight"]))
	for i, sum := range summaries {
		if _, err := w.store.Apply(context.Background(), store.Merge(ref, store.F(sum, "handed"))); err != nil {
			t.Fatal(err)
		}
		w.relay()
		if got := fmt.Sprint(described(w.statuses()["overnight"])); got != want {
			t.Errorf("summary %d: %s, want %s", i, got, want)
		}
		if p := w.projection(); p["_triggered"] != true || p["_trigger_succeeded"] != true || p["_trigger_reason"] != "all_complete" {
			t.Errorf("summary %d: the projection shows %v", i, p)
		}
	}
}

func TestEvaluation_RefusesADamagedSummary(t *testing.T) {
	for name, field := range map[string]store.Field{
		"no_map": store.F("x", "handed"), "no_text": store.F(int64(1), "handed", "overnight"), "no_json": store.F("{", "handed", "overnight"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			ref := w.engine.periodRef(w.key("2026-02-03"))
			if _, err := w.store.Apply(context.Background(), store.Merge(ref, field)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil || len(w.broker.got) > 0 {
				t.Errorf("%v, %d messages", err, len(w.broker.got))
			}
		})
	}
}

// BenchmarkEvaluation measures an evaluation that finds nothing to do, with 300 runs in 3 and
// in 300 batches.
func BenchmarkEvaluation(b *testing.B) {
	for _, batches := range []int{3, 300} {
		b.Run(fmt.Sprintf("batches_%d", batches), func(b *testing.B) {
			w := handedOver(b, batches, 299)
			key := Key{Transition: w.tr, Period: pipeline.Period("2026-02-03")}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.engine.Converge(context.Background(), key, "m"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
