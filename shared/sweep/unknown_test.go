package sweep

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The rows were removed, and the process died. Until they can be read again it is not known.
func TestRun_LeavesARemovalUnfinishedWhileItsRowsCannotBeRead(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	_, next := w.afterRemovalAndDeath()
	next.quota = func(body []byte) bool { return bytes.Contains(body, []byte("SELECT 0, f.*")) }
	got := next.sweep(order(all))
	next.wantPart(got, Unknown, 0, 0, "Quota exceeded")
	if states := w.states(); states != "archived" || !got.Again() {
		t.Errorf("the removal is %q while nothing can be read, and is tried again: %t", states, got.Again())
	}
	w.advance(11 * time.Minute)
	last := w.process()
	last.wantPart(last.sweep(order(all)), Clean, 0, 0, "the duplicates no longer exist")
	if states := w.states(); states != "applied" {
		t.Errorf("the removal is %q", states)
	}
}

// Rows are counted twice: to find the periods, and again under the lock.
func TestRun_TakesNoFailedCountForNoDuplicates(t *testing.T) {
	for name, count := range map[string]int{"at_first": 1, "under_the_lock": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withScores(t, scores, twice()...)
			before := w.json("nba_analytics.player_game_summary")
			p := w.process()
			counts := 0
			p.quota = func(body []byte) bool {
				if bytes.Contains(body, []byte("COUNTIF(n \\u003e 1)")) || bytes.Contains(body, []byte("COUNTIF(n > 1)")) {
					counts++
					return counts == count
				}
				return false
			}
			got := p.sweep(order(all))
			if got.State != Unknown || !got.Again() || !strings.Contains(got.Problem, "Quota exceeded") || counts != count {
				t.Errorf("after %d counts %+v", counts, got)
			}
			w.want("nba_analytics.player_game_summary", before)
			w.advance(11 * time.Minute)
			next := w.process()
			next.wantPart(next.sweep(order(all)), Removed, 1, 1, "")
		})
	}
}

// commits is a store that keeps what was written together.
type commits struct {
	store.Store
	all *[][]store.Write
}

func (s commits) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	*s.all = append(*s.all, ws)
	return s.Store.Apply(ctx, ws...)
}

// A process that dies after it has put rows back must not have done so unnamed.
func TestUndo_IsRecordedInTheCommitThatBeginsIt(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	id := p.sweep(order(all)).ID
	var all [][]store.Write
	p.Sweeper.Store = commits{p.Sweeper.Store, &all}
	if _, err := p.Undo(t.Context(), id, "grace", "the wrong one stayed"); err != nil {
		t.Fatal(err)
	}
	begins := func(x store.Write) bool {
		return x.Ref.ID == id && slices.ContainsFunc(x.Fields, func(f store.Field) bool { return f.Value == undoing })
	}
	i := slices.IndexFunc(all, func(ws []store.Write) bool { return slices.ContainsFunc(ws, begins) })
	if i < 0 {
		t.Fatal("no commit begins the undo")
	}
	recorded := map[string]any{}
	for _, x := range all[i] {
		if x.Ref.Collection == "audit" {
			for _, f := range x.Fields {
				recorded[strings.Join(f.Path, ".")] = f.Value
			}
		}
	}
	if detail, _ := recorded["detail"].(string); recorded["action"] != "sweep_undo" || recorded["actor"] != "grace" || recorded["reason"] != "the wrong one stayed" || !strings.Contains(detail, id) {
		t.Errorf("the commit that begins the undo records %v", recorded)
	}
}

// An unfinished removal is shown until it has ended, however old it is.
func TestList_ShowsAnUnfinishedRemovalHoweverOldItIs(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	ended := p.sweep(order(all)).ID
	w.insert(row("d", "1", "45"))
	w.advance(time.Second)
	p.diesAt("MERGE")
	_, _ = p.Run(context.Background(), order(all))
	if !p.dead {
		t.Fatal("alive")
	}
	for after, want := range map[time.Duration]string{29 * 24 * time.Hour: "applied archived", 31 * 24 * time.Hour: "archived"} {
		was := w.time()
		w.advance(after)
		if got := w.states(); got != want {
			t.Errorf("%v later the removals are %q, want %q; %s has ended", after, got, want, ended)
		}
		w.advance(was.Sub(w.time()))
	}
}
