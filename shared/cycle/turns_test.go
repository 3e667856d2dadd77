package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// nights records complete nights, of which nothing was evaluated yet.
func (w *world) nights(periods ...pipeline.Period) {
	w.t.Helper()
	for _, p := range periods {
		for _, name := range five {
			c := run(name, "2026-02-04 06:03")
			c.Period, c.EventTime = p, w.tr.Calendar().End(p).Add(6*time.Hour)
			if err := w.engine.Record(context.Background(), w.key(p), c); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// state returns the state of a night.
func (w *world) state(p pipeline.Period) string {
	w.t.Helper()
	ss, err := w.engine.Status(context.Background(), w.key(p))
	if err != nil {
		w.t.Fatal(err)
	}
	return ss[slices.IndexFunc(ss, func(st Status) bool { return st.Mode == "overnight" })].State
}

// Readiness checks of six nights hang for as long as their claim is good; those of the
// seventh, the newest or the oldest, are answered at once. The function has five minutes.
func TestRelay_HangingChecksKeepNoPeriodFromItsTurn(t *testing.T) {
	all := []pipeline.Period{"2026-01-28", "2026-01-29", "2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"}
	for _, sound := range []pipeline.Period{"2026-02-03", "2026-01-28"} {
		t.Run(string(sound), func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:30"))
			w.nights(all...)
			checked := map[pipeline.Period]int{}
			var end time.Time // of the function's time
			var cancel context.CancelFunc
			relay := func() {
				var ctx context.Context
				ctx, cancel = context.WithCancel(context.Background())
				defer cancel()
				end = w.clock.now().Add(5 * time.Minute)
				if err := w.engine.Relay(ctx, w.tr, "relay", nil); err != nil {
					t.Fatalf("%v; checked: %v", err, checked)
				}
				w.pass(2 * time.Minute)
			}
			w.engine.Check = func(_ context.Context, key Key, _ string, _ []string) Readiness {
				if checked[key.Period]++; key.Period == sound {
					return Readiness{Outcome: Passed}
				}
				if w.pass(54 * time.Second); w.clock.now().After(end) {
					cancel()
				}
				return Readiness{Outcome: Unknown, Reasons: []string{"BigQuery does not answer"}}
			}
			for n := 1; w.state(sound) != "published"; n++ {
				if n > 5 || n > 1 && sound == "2026-02-03" {
					t.Fatalf("the %d. relay has not handed %s over; checked: %v", n-1, sound, checked)
				}
				relay()
			}
			for range 4 {
				relay()
			}
			for _, p := range all {
				if checked[p] == 0 {
					t.Errorf("%s was never checked: %v", p, checked)
				}
			}
			if n := len(w.lines("type", checkDeferred)); n == 0 {
				t.Error("the checks that had to wait are not logged")
			}
		})
	}
}

// A frozen batch needs no check: the relay publishes it even if the checks of other periods hang.
func TestRelay_PublishesWhatIsFrozenWhenItsTimeForChecksIsOver(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:30"))
	w.nights("2026-01-29")
	back := w.engine.Publish
	w.engine.Publish = func(context.Context, string, []wire.Outgoing) []Published { return make([]Published, 5) }
	if _, err := w.engine.Converge(context.Background(), w.key("2026-01-29"), ""); err == nil {
		t.Fatal("the broker has given no id")
	}
	w.engine.Publish = back
	w.nights("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03")
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		w.pass(40 * time.Second)
		return Readiness{Outcome: Unknown}
	}
	w.pass(2 * time.Minute)
	w.relay()
	if got := w.state("2026-01-29"); got != "published" {
		t.Errorf("it is %s", got)
	}
}

func TestRelay_APanicIsOnePeriodsFaultAlone(t *testing.T) {
	all := []pipeline.Period{"2026-02-01", "2026-02-02", "2026-02-03"}
	for _, bad := range all {
		w := newWorld(t, "memory")
		w.clock.set(at("2026-02-04 06:30"))
		w.nights(all...)
		w.engine.Check = func(_ context.Context, key Key, _ string, _ []string) Readiness {
			if key.Period == bad {
				panic("nil map")
			}
			return Readiness{Outcome: Passed}
		}
		err := w.engine.Relay(context.Background(), w.tr, "relay", nil)
		if err == nil || !strings.Contains(err.Error(), string(bad)) || !strings.Contains(err.Error(), "nil map") {
			t.Errorf("%s: %v", bad, err)
		}
		for _, p := range all {
			if got := w.state(p); (got == "published") == (p == bad) {
				t.Errorf("%s panics, and %s is %s", bad, p, got)
			}
		}
		lines := w.lines("type", evaluationPanicked)
		if len(lines) != 1 || lines[0]["period"] != string(bad) || !strings.Contains(fmt.Sprint(lines[0]["stack"]), "turns_test.go") {
			t.Errorf("%s: %v", bad, lines)
		}
	}
}

// brokenAt is a store that panics when the documents of one period are read.
type brokenAt struct {
	store.Store
	period string
}

func (b brokenAt) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if strings.HasSuffix(refs[0].ID, b.period) {
		panic("nil map")
	}
	return b.Store.Get(ctx, refs...)
}

// The relay names periods that it no longer acts on after it has acted on the others. A fault of
// one period does not keep others from being named.
func TestRelay_APanicInAnOldPeriodStopsNothing(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:30"))
	w.nights("2026-01-23", "2026-02-03")
	w.exists("2026-01-22")
	w.engine.Store = brokenAt{w.engine.Store, "2026-01-22"}
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); err != nil {
		t.Error(err)
	}
	if got := w.state("2026-02-03"); got != "published" {
		t.Errorf("2026-02-03 is %s", got)
	}
	if lines := w.lines("type", evaluationPanicked); len(lines) != 1 || lines[0]["period"] != "2026-01-22" {
		t.Errorf("panics: %v", lines)
	}
	if lines := w.lines("type", "untriggered"); len(lines) != 1 || lines[0]["period"] != "2026-01-23" {
		t.Errorf("untriggered: %v", lines)
	}
}

// An older period with an operator's action stays watched until its readiness could be checked. This
// is so even if other periods take the time of several relays.
func TestRelay_WatchesWhatWaitsForACheck(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:30"))
	w.nights("2026-01-20", "2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03")
	old := w.key("2026-01-20")
	if _, err := w.engine.Hold(context.Background(), old, "overnight", time.Hour, "ada", "wait"); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour) // nothing was done under the hold, and now it is due
	watched := func() []pipeline.Period {
		_, periods, err := w.engine.watched(context.Background(), w.tr)
		if err != nil {
			t.Fatal(err)
		}
		return periods
	}
	checked := false
	w.engine.Check = func(_ context.Context, key Key, _ string, _ []string) Readiness {
		checked = checked || key.Period == "2026-01-20"
		w.pass(50 * time.Second)
		return Readiness{Outcome: Unknown, Reasons: []string{"BigQuery does not answer"}}
	}
	if w.relay(); checked {
		t.Fatal("its turn for a check came: this test says nothing")
	}
	if got := watched(); !slices.Equal(got, []pipeline.Period{"2026-01-20"}) {
		t.Errorf("watched are %v", got)
	}
}
