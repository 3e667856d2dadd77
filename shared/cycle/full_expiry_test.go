package cycle

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// The first document expires and is full, so that the next batch or hold goes to ~control. The
// process dies after any call, or loses the answer: nothing open is ever in a period that expires.
func TestPeriod_ThatIsFullStaysFromTheCommitThatOpensSomething(t *testing.T) {
	ctx := context.Background()
	for name, do := range map[string]func(w *world) error{
		"second_run": func(w *world) error {
			_, err := w.deliver(run(pgs, "2026-02-04 06:20", count(7)))
			return err
		},
		"request": func(w *world) error {
			overnight, _ := w.tr.Mode("overnight")
			_, err := w.engine.Trigger(ctx, w.key("2026-02-03"), overnight, Request{Actor: "ada", Reason: "again", Force: true})
			return err
		},
		"hold": func(w *world) error {
			_, err := w.engine.Hold(ctx, w.key("2026-02-03"), "overnight", time.Hour, "ada", "look")
			return err
		},
	} {
		for lost := range 12 {
			t.Run(fmt.Sprintf("%s_%d", name, lost), func(t *testing.T) {
				w := newWorld(t, "memory")
				w.ready()
				w.converge("2026-02-03")
				w.clock.set(at("2026-02-04 06:21"))
				w.stuff(w.engine.periodRef(w.key("2026-02-03")))
				if !w.ends(periodsCollection, thePeriod) {
					t.Fatal("the first document does not expire")
				}
				opened := false
				w.engine.Store = &answering{Store: w.store, after: func(n int) error {
					s, err := w.plain().read(ctx, w.key("2026-02-03"), nil)
					if err != nil {
						t.Fatal(err)
					}
					open := s.hold("overnight") != nil
					for _, b := range s.batches["overnight"] {
						open = open || b.State != StatePublished
					}
					if opened = opened || open; open && w.ends(periodsCollection, thePeriod) {
						t.Errorf("call %d: something is open, and the period expires", n)
					}
					if n == lost {
						return errLost
					}
					return nil
				}}
				if err := do(w); err != nil && lost == 0 {
					t.Error(err)
				}
				if !opened && lost == 0 {
					t.Error("nothing was open")
				}
			})
		}
	}
}

// plain is an engine on the same store, whose calls are not watched.
func (w *world) plain() *Engine {
	c := w.engine.Config
	c.Store = w.store
	return New(c)
}

// Without room for expires_at each evaluation would try in vain to write it.
func TestPeriod_WithoutRoomStaysAndIsNotWritten(t *testing.T) {
	w := newWorld(t, "memory")
	w.record(stranger(1)) // nothing is open, and no evaluation has set the end
	period := w.engine.periodRef(w.key("2026-02-03"))
	converge := func(room, calls int, expires bool) {
		t.Helper()
		w.leave(period, room)
		w.store.calls.Store(0)
		w.converge("2026-02-03")
		if n := int(w.store.calls.Load()); n != calls {
			t.Errorf("%d bytes are left: %d calls, want %d", room, n, calls)
		}
		if got := w.ends(periodsCollection, thePeriod); got != expires {
			t.Errorf("%d bytes are left: the period expires: %t", room, got)
		}
	}
	shrink := func() { // takes out the field that fills the document
		t.Helper()
		if _, err := w.store.Apply(context.Background(), store.Merge(period, store.F("", "junk"))); err != nil {
			t.Fatal(err)
		}
	}
	end := len(store.ExpiresAt) + 1 + 8 // bytes of the field
	for _, room := range []int{0, 11, 12, 18, 19, end + endRoom - 1} {
		converge(room, 1, false)
		shrink()
	}
	converge(end+endRoom, 2, true)
	shrink()
	converge(endRoom, 1, true)
	shrink()
	converge(10, 2, false) // reports have filled it since
	shrink()
	converge(10, 1, false)
}
