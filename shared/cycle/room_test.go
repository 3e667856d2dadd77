package cycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestPeriod_KeepsItsRoomWhateverFloodsIt(t *testing.T) {
	own := func(w *world) store.Ref { return w.engine.periodRef(w.key("2026-02-03")) }
	overflow := func(w *world) store.Ref { return w.engine.overflowRef(w.key("2026-02-03")) }
	many := func(n int, report func(i int) wire.Completion) func(*world) string {
		return func(w *world) string {
			for i := range n {
				w.record(report(i))
			}
			return report(n - 1).ExecutionID
		}
	}
	long := strings.Repeat("x", 900)
	ofPGS := func(i int) wire.Completion { return failed(pgs, i) }
	for name, flood := range map[string]func(*world) (newest string){
		"failed_reports":     many(1600, ofPGS),
		"unexpected_reports": many(1600, stranger),
		"repeated_successes": func(w *world) string {
			n := w.flood(own(w), func(i int) wire.Completion {
				return run(toff, "2026-02-03 22:40", execution(fmt.Sprintf("again-%05d-%s", i, long)))
			})
			for i := range 40 {
				w.record(run(toff, "2026-02-03 22:40", execution(fmt.Sprintf("again-%05d-%s", n+i, long))))
			}
			if got := w.doc("phase_periods", "phase3_to_phase4_2026-02-03~overflow"); got.Exists {
				w.t.Errorf("repetitions stand in the second document: %v", got.Data)
			}
			return ""
		},
		"failed_reports_of_an_older_version": func(w *world) string {
			n := w.flood(own(w), ofPGS)
			n += w.flood(overflow(w), func(i int) wire.Completion { return failed(pgs, n+i) })
			return failed(pgs, n-1).ExecutionID
		},
		"evaluated_failed_reports": func(w *world) string {
			for i := range 100 {
				w.mustDeliver(failed(pgs, i))
				if n := len(w.executions()); n > 2*maxBad {
					w.t.Fatalf("%d reports are kept", n)
				}
			}
			return failed(pgs, 99).ExecutionID
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-03 22:40"))
			newest := flood(w)
			if full, overflows := len(w.full()) > 0, w.doc("phase_periods", "phase3_to_phase4_2026-02-03~overflow").Exists; full != overflows {
				t.Errorf("the relay reports a full period: %t; a second document is there: %t", full, overflows)
			}
			w.alive()
			kept := w.executions()
			if _, there := kept[newest]; newest != "" && !there {
				t.Errorf("%s is not among the %d that are kept", newest, len(kept))
			}
			bad := 0
			for _, s := range kept {
				if s == wire.StatusFailed {
					bad++
				}
			}
			if bad > 3*maxBad {
				t.Errorf("%d failed reports are kept", bad)
			}
		})
	}
}

// A person ends the finding by closing the cycles: nothing can be taken out of a period.
func TestPeriod_IsNotReportedAsFullOnceItsCyclesHaveEnded(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:05"))
	key := w.key("2026-02-03")
	w.flood(w.engine.periodRef(key), func(i int) wire.Completion {
		return run(toff, "2026-02-03 22:40", count(int64(i)), execution(fmt.Sprintf("run-%05d-%s", i, strings.Repeat("x", 900))))
	})
	w.stuff(w.engine.periodRef(key))
	w.record(run(pgs, "2026-02-03 22:50", entities("lebron")))
	if n := len(w.full()); n != 1 {
		t.Errorf("%d findings", n)
	}
	for _, m := range w.tr.Modes {
		if _, err := w.engine.Close(context.Background(), key, m, "ada", "not wanted"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.full()); n != 1 {
		t.Errorf("%d findings, and each cycle of the period is closed", n)
	}
}

// A process that drops reports writes whole groups of them: a report that is recorded meanwhile stays.
func TestPeriod_KeepsWhatIsRecordedWhileOldReportsAreDropped(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	for i := range 3 * maxBad {
		w.record(failed(pgs, i))
	}
	meanwhile := run(pgs, "2026-02-03 22:39")
	calls := 0
	w.engine.Store = &answering{Store: w.store, before: func(n int) error {
		if calls = n; n == 2 { // after the read, before what is dropped is written
			w.record(meanwhile)
		}
		return nil
	}}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), ""); err != nil {
		t.Fatal(err)
	}
	if calls < 3 {
		t.Fatalf("%d calls: nothing was dropped", calls)
	}
	if _, there := w.executions()[meanwhile.ExecutionID]; !there {
		t.Error("the success is not recorded")
	}
	w.relay()
	kept := w.executions()
	if _, there := kept[meanwhile.ExecutionID]; !there || len(kept) > maxBad+1 {
		t.Errorf("the success is recorded: %t, of %d", there, len(kept))
	}
}

func TestPeriod_OfAUsualNightIsNotFull(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 16:00"))
	w.mustDeliver(overnight()...)
	for i := range maxBad {
		w.mustDeliver(failed(pgs, i), stranger(i))
	}
	if lines := w.full(); len(lines) > 0 {
		t.Errorf("%v", lines[0])
	}
	if n := len(w.executions()); n != len(overnight())+maxBad {
		t.Errorf("%d executions are recorded", n) // a stranger's have the failed ones' names
	}
}

// Two documents are full of different successes: none of them is dropped. Operators' actions
// have their own room, and a report that cannot be kept is not acknowledged.
func TestPeriod_FullOfSuccessesLosesNone(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	key := w.key("2026-02-03")
	different := func(i int) wire.Completion {
		return run(five[i%5], "2026-02-03 22:40", count(int64(i)), execution(fmt.Sprintf("run-%05d-%s", i, strings.Repeat("x", 900))))
	}
	n := w.flood(w.engine.periodRef(key), different)
	n += w.flood(w.engine.overflowRef(key), func(i int) wire.Completion { return different(n + i) })
	w.stuff(w.engine.periodRef(key))
	w.stuff(w.engine.overflowRef(key))
	ctx := context.Background()
	if err := w.engine.Record(ctx, key, different(n)); !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), "~overflow") {
		t.Errorf("one success more: %v", err)
	}
	w.record(failed(pgs, 1), stranger(2))
	if _, err := w.engine.Hold(ctx, key, "overnight", 12*time.Hour, "ada", "wait"); err != nil {
		t.Error("hold:", err)
	}
	if err := w.engine.Repair(ctx, key, Repair{Completions: []wire.Completion{run(upg, "2026-02-04 05:59", count(7))}, Actor: "nightly", Reason: "missing"}); err != nil {
		t.Error("repair:", err)
	}
	w.engine.Expected = func(context.Context, Key) (int64, error) { return 10, nil }
	w.clock.set(at("2026-02-04 06:05"))
	if _, err := w.engine.Release(ctx, key, "overnight", "ada", "go on"); err != nil {
		t.Error("release:", err)
	}
	if st := w.statuses()["overnight"]; st.State != "published" || len(st.Batches) != 1 || len(st.Batches[0].Messages) != 5 {
		t.Errorf("%s with %+v: %s", st.State, st.Batches, st.Reason)
	}
	if got := len(w.snapshot().runs); got != n+1 {
		t.Errorf("%d runs are recorded, want %d", got, n+1)
	}
	if len(w.full()) == 0 {
		t.Error("the relay does not report a full period")
	}
}

// A report that cannot count makes room for itself by one compare-and-set. If that write
// fails or its answer is lost, the next delivery still records the report once.
func TestPeriod_ThatIsFullRecordsAReportOnceWhateverGoesWrong(t *testing.T) {
	for name, disturb := range map[string]func(w *world, fail func(n int) error) store.Store{
		"answer_lost": func(w *world, fail func(int) error) store.Store { return &answering{Store: w.store, after: fail} },
		"refused":     func(w *world, fail func(int) error) store.Store { return &answering{Store: w.store, before: fail} },
	} {
		for at := 1; at <= 3; at++ {
			t.Run(fmt.Sprintf("%s_at_%d", name, at), func(t *testing.T) {
				w := newWorld(t, "memory")
				n := w.flood(w.engine.periodRef(w.key("2026-02-03")), func(i int) wire.Completion { return failed(pgs, i) })
				calls := 0
				w.engine.Store = disturb(w, func(int) error {
					if calls++; calls == at {
						return errLost
					}
					return nil
				})
				last := failed(pgs, n)
				if err := w.engine.Record(context.Background(), w.key(last.Period), last); (err != nil) != (calls >= at) {
					t.Errorf("%d calls: %v", calls, err)
				}
				w.engine.Store = w.store
				w.record(last)
				w.record(last)
				found := 0
				for _, r := range w.snapshot().runs {
					if r.ExecutionID == last.ExecutionID {
						found++
					}
				}
				if found != 1 {
					t.Errorf("the report is recorded %d times", found)
				}
			})
		}
	}
}

// answering fails calls before or after their effect.
type answering struct {
	store.Store
	n             int
	before, after func(n int) error
}

func (a *answering) Get(ctx context.Context, refs ...store.Ref) (s store.Snapshot, err error) {
	err = a.call(func() (err error) { s, err = a.Store.Get(ctx, refs...); return err })
	return s, err
}

func (a *answering) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	err = a.call(func() (err error) { vs, err = a.Store.Apply(ctx, ws...); return err })
	return vs, err
}

func (a *answering) call(do func() error) error {
	a.n++
	if a.before != nil {
		if err := a.before(a.n); err != nil {
			return err
		}
	}
	err := do()
	if a.after != nil && err == nil {
		err = a.after(a.n)
	}
	return err
}

func TestPeriod_ThatIsFullTakesReportsOfManyAtOnce(t *testing.T) {
	w := newWorld(t, "memory")
	n := w.flood(w.engine.periodRef(w.key("2026-02-03")), func(i int) wire.Completion { return failed(pgs, i) })
	const many = 10
	errs := make([]error, many)
	atOnce(many, func(i int) {
		errs[i] = w.engine.Record(context.Background(), w.key("2026-02-03"), failed(pgs, n+i))
	})
	kept := w.executions()
	for i, err := range errs {
		if _, there := kept[failed(pgs, n+i).ExecutionID]; err != nil || !there {
			t.Errorf("report %d: %v, recorded %t", i, err, there)
		}
	}
}

// A run that was recorded without its entities is redelivered when the first document has
// room again.
func TestPeriod_CountsARunOnceThatIsInBothDocuments(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	c := run(pgs, "2026-02-04 06:04", entities("lebronjames"))
	if _, err := w.store.Apply(context.Background(), overflown(w, c)); err != nil {
		t.Fatal(err)
	}
	w.converge("2026-02-03")
	w.mustDeliver(c)
	if got := described(w.statuses()["overnight"]); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func overflown(w *world, c wire.Completion) store.Write {
	id, text := c.WithoutEntities().Record()
	return store.Merge(w.engine.overflowRef(w.key(c.Period)), store.F(text, "runs", c.Processor, id))
}

func TestRecord_TakesOneCallForAnyReport(t *testing.T) {
	w := newWorld(t, "memory")
	for _, c := range []wire.Completion{run(pgs, "2026-02-04 06:03"), failed(pgs, 1), stranger(2)} {
		w.store.calls.Store(0)
		w.record(c)
		if n := w.store.calls.Load(); n != 1 {
			t.Errorf("%s %s: %d calls", c.Reported, c.Status, n)
		}
	}
}

// The numbers of room.go: the control document has room for everything that the runs of two
// full documents can cause.
func TestRoom_OfTheControlDocumentIsEnough(t *testing.T) {
	const smallest, modes = 190, 2
	runs := 2 * store.MaxDocumentBytes / smallest
	ref := store.Ref{Collection: periodsCollection, ID: "phase3_to_phase4_2026-02-03~control"}
	key := Key{Transition: nba(t), Period: "2026-02-03"}
	listed, keys := make([]any, runs), make([]string, runs)
	for i := range runs {
		listed[i], keys[i] = batchID(key, "overnight", i+1), fmt.Sprintf("%016x", i)
	}
	sums := map[string]any{}
	for i := range modes {
		sums[fmt.Sprint("mode", i)] = encode(handed{N: runs, Runs: keys})
	}
	size := store.Size(ref, map[string]any{"batches": listed, "handed": sums})
	if left := store.MaxDocumentBytes - size; left < 64<<10 {
		t.Errorf("%d runs leave %d bytes", runs, left)
	}
	c := run("p", "2026-02-04 06:03", execution("1"))
	if id, text := c.Record(); len(id)+len(text)+2 < smallest {
		t.Errorf("a run takes %d bytes", len(id)+len(text)+2)
	}
}
