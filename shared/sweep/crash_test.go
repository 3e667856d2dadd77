package sweep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// eachDeath does something to a world of its own by a process that dies after each of its
// changes, as many as there are, and once by one that lives.
func eachDeath(t *testing.T, do func(p *process), then func(t *testing.T, w *world, before []string)) {
	t.Helper()
	lives := withScores(t, scores, twice()...).process()
	do(lives)
	if lives.writes < 5 {
		t.Fatalf("%d changes", lives.writes)
	}
	for dies := range lives.writes + 1 {
		t.Run(fmt.Sprint("dies_after_", dies), func(t *testing.T) { // 0: never
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p := w.process()
			p.dies = dies
			do(p)
			if p.dead != (dies > 0) {
				t.Errorf("it is dead: %t", p.dead)
			}
			w.advance(11 * time.Minute)
			then(t, w, before)
		})
	}
}

// A sweeper dies after each of its changes, and the next sweep completes its removal. The
// table has the surviving rows, the recorded state is true, and the removal can be undone.
func TestF31_ACrashAfterEachStep(t *testing.T) {
	sweep := func(p *process) {
		if _, err := p.Run(context.Background(), order(all)); err != nil {
			t.Error(err)
		}
	}
	eachDeath(t, sweep, func(t *testing.T, w *world, before []string) {
		p := w.process()
		got := p.sweep(order(all))
		if got.State != Removed && got.State != Clean {
			t.Errorf("%+v", got)
		}
		w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
		// If the rows were removed but that was not recorded, Undo detects it.
		undos, states := 0, w.states()
		listed, err := p.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listed {
			if _, err := p.Undo(t.Context(), l.ID, "ada", ""); err == nil {
				undos++
			} else if !errors.Is(err, errNotUndone) {
				t.Error(err)
			}
		}
		if undos != 1 {
			t.Errorf("%d of %d removals could be undone: they were %s", undos, len(listed), states)
		}
		w.want("nba_analytics.player_game_summary", before)
	})
}

// A sweep is interrupted before each of its changes. The same command can follow at once: no lock is left,
// the removal is completed and recorded, and it can be undone.
func TestSweep_InterruptedIsCompletedByTheNext(t *testing.T) {
	lives := withScores(t, scores, twice()...).process()
	lives.sweep(order(all))
	for n := 1; n <= lives.writes; n++ {
		t.Run(fmt.Sprint("before_change_", n), func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p := w.process()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			p.stops, p.stop = n, stop
			r, err := p.Run(ctx, order(all))
			if ctx.Err() == nil {
				t.Fatalf("it was not interrupted: %d changes", p.writes)
			}
			if err == nil && len(w.json("nba_analytics.player_game_summary")) == len(before) && r.Unknown() != 1 {
				t.Errorf("nothing was removed, and the report says %+v", r.Tables[0])
			}
			next := w.process()
			if got := next.sweep(order(all)); got.State != Removed && got.State != Clean {
				t.Errorf("the next sweep: %+v", got)
			}
			w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
			listed, err := next.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			last := slices.IndexFunc(listed, func(l Listed) bool { return l.State == "applied" })
			if last < 0 {
				t.Fatalf("no removal is recorded: %s", w.states())
			}
			if _, err := next.Undo(t.Context(), listed[last].ID, "ada", ""); err != nil {
				t.Error(err)
			}
			w.want("nba_analytics.player_game_summary", before)
		})
	}
}

// diesAt makes a process die right after the request to the warehouse that has a word in it.
func (p *process) diesAt(word string) {
	p.before[word] = func() { p.life.Lock(); p.dies = p.writes + 1; p.life.Unlock() }
}

// afterRemovalAndDeath returns a process that removed the rows of a sweep and died before it recorded
// that, and the next one. The locks have expired.
func (w *world) afterRemovalAndDeath() (p, next *process) {
	w.t.Helper()
	p = w.process()
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	if !p.dead {
		w.t.Fatal("alive")
	}
	w.advance(11 * time.Minute)
	return p, w.process()
}

// The sweeper removed the rows and died before it recorded that. The next sweep finds no
// duplicates, and must record the removal nevertheless.
func TestSweep_RecordsRemovalAfterCrash(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p, next := w.afterRemovalAndDeath()
	next.sweep(order(all))
	if n := len(w.json("nba_analytics.player_game_summary")); n != 4 {
		t.Fatalf("%d rows", n)
	}
	if got := w.states(); got != "applied" {
		t.Errorf("the rows are gone, and after the next sweep the removal is recorded as %q", got)
	}
	if !strings.Contains(p.logs.String()+next.logs.String(), `"event":"duplicates_removed"`) {
		t.Error("no process logged duplicates_removed")
	}
}

// The sweep that records the removal of a dead sweeper logs it, too.
func TestSweep_LateRecordedRemovalIsNotified(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	w.advance(11 * time.Minute)
	w.insert(row("a", "1", "30"))
	next := w.process()
	next.sweep(order(all))
	if got := w.states(); got != "applied applied" {
		t.Errorf("%q", got)
	}
	if n := strings.Count(p.logs.String()+next.logs.String(), `"event":"duplicates_removed"`); n != 2 {
		t.Errorf("two removals, but duplicates_removed was logged %d times", n)
	}
}

// The undoing dies right after its statement, and a sweep comes next.
func TestSweep_RecordsUndoAfterCrash(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	id := p.sweep(order(all)).ID
	p.diesAt("MERGE")
	_, _ = p.Undo(context.Background(), id, "ada", "the wrong one stayed")
	if !p.dead {
		t.Fatal("alive")
	}
	w.advance(11 * time.Minute)
	next := w.process()
	next.sweep(order(all))
	if got := w.states(); got != "undone applied" {
		t.Errorf("the removals are recorded as %q: one row is removed, by one of two removals that are both applied", got)
	}
}

// lossy loses the answer of the n-th change, once.
type lossy struct {
	store.Store
	n  *int
	at int
}

func (s lossy) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	vs, err := s.Store.Apply(ctx, ws...)
	if *s.n++; *s.n == s.at {
		return nil, errors.New("the answer is lost")
	}
	return vs, err
}

func (w *world) lossy(at int) (*process, *int) {
	p := w.process()
	n := new(int)
	log, _ := telemetry.New(&p.logs, "info")
	st := lossy{w.mem, n, at}
	p.Sweeper.Store = st
	p.Sweeper.Locks = lease.New(lease.Config{Store: st, Now: w.time, NewID: rand.Text, Lease: lease.Max, Instance: "p", Log: log})
	p.Sweeper.Warehouse = w.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		forward()
		if r.Method != http.MethodGet {
			if *n++; *n == at {
				return errors.New("the answer is lost")
			}
		}
		return nil
	})
	return p, n
}

func TestSweep_SurvivesLossOfEachResponse(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p, n := w.lossy(0)
	p.wantPart(p.sweep(order(all)), Removed, 1, 1, "")
	total := *n
	for at := 1; at <= total; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p, _ := w.lossy(at)
			first := p.sweep(order(all))
			rows := len(w.json("nba_analytics.player_game_summary"))
			if (first.State == Removed) != (rows == 4) && first.State != Unknown {
				t.Errorf("untrue: %s, %d rows", first.State, rows)
			}
			w.advance(11 * time.Minute)
			next := w.process()
			got := next.sweep(order(all))
			if got.State != Removed && got.State != Clean {
				t.Errorf("%+v", got)
			}
			w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
			if s := w.states(); s != "applied" && s != "abandoned applied" {
				t.Errorf("removals recorded as %q", s)
			}
		})
	}
}
