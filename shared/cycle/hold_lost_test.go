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

// A release ends the hold that it found, and not a later one.
func TestRelease_DoesNotEndNewerHold(t *testing.T) {
	for _, mode := range []string{"overnight", ""} {
		w := newWorld(t, "memory")
		w.ready()
		w.hold(mode, time.Hour)
		rival, once := w.newEngine(), false
		w.store.before = func(ws []store.Write) {
			if once || ws[0].Ref.Collection != "audit" {
				return
			}
			once = true
			if _, err := rival.Hold(context.Background(), w.heldKey(mode), mode, 24*time.Hour, "bob", "another reason"); err != nil {
				t.Error(err)
			}
		}
		_, err := w.engine.Release(context.Background(), w.heldKey(mode), mode, actor, "repaired")
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "bob holds it now") || len(w.broker.got) != 0 {
			t.Errorf("%q: %v, %d messages", mode, err, len(w.broker.got))
		}
		w.pass(2 * time.Hour)
		w.relay()
		if st := w.statuses()["overnight"]; st.State != "on_hold" || len(w.audits()) != 2 {
			t.Errorf("%q: %s; %v", mode, st.State, w.audits())
		}
	}
}

// After a release whose hand-over failed, the next release continues.
func TestRelease_FailedReleaseCanBeRepeated(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.hold("overnight", 5*time.Hour)
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	if _, err := w.engine.Release(context.Background(), w.key("2026-02-03"), "overnight", actor, "x"); !errors.Is(err, errBroker) {
		t.Fatal(err)
	}
	w.broker.fail = nil
	w.pass(2 * time.Minute)
	if r := w.release("overnight"); r.Hold != nil || len(w.broker.got) != 5 {
		t.Errorf("%+v, %d messages", r.Hold, len(w.broker.got))
	}
}

// unanswered keeps back the first commit that writes a hold, and returns an error to its caller.
type unanswered struct {
	store.Store
	kept []store.Write
}

func (u *unanswered) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if u.kept == nil {
		u.kept = ws
		return nil, errors.New("unavailable")
	}
	return u.Store.Apply(ctx, ws...)
}

func TestHold_ThatLandsLateChangesNothing(t *testing.T) {
	for driver := range drivers {
		for _, mode := range []string{"overnight", ""} {
			for _, held := range []bool{false, true} { // before the first, too
				for _, later := range []string{"hold", "release"} {
					t.Run(fmt.Sprintf("%s/%s/held_%t/%s", driver, mode, held, later), func(t *testing.T) {
						w := newWorld(t, driver)
						w.ready()
						if held {
							w.hold(mode, time.Hour)
						}
						late := &unanswered{Store: w.engine.Store}
						config := w.engine.Config
						config.Store = late
						if r, err := New(config).Hold(t.Context(), w.heldKey(mode), mode, 5*time.Hour, "ben", "no answer"); err == nil {
							t.Fatal(r)
						}
						var want time.Time
						if later == "hold" {
							want = w.hold(mode, 3*time.Hour).Hold.Until
						} else {
							w.release(mode)
						}
						if _, err := late.Store.Apply(t.Context(), late.kept...); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
							t.Errorf("the late hold: %v", err)
						}
						s, err := w.engine.read(t.Context(), w.key("2026-02-03"), nil)
						if err != nil {
							t.Fatal(err)
						}
						var until time.Time
						if h := s.hold("overnight"); h != nil {
							until = h.Until
						}
						if !until.Equal(want) {
							t.Errorf("held until %s, want %s", until, want)
						}
					})
				}
			}
		}
	}
}

func TestHold_IsMadeOnceAlthoughTheListChangesOrItsAnswerIsLost(t *testing.T) {
	for _, name := range []string{"list_changes", "answer_lost"} {
		for _, mode := range []string{"overnight", ""} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				w := newWorld(t, "memory")
				w.ready()
				w.store.before = func(ws []store.Write) { // only of the first commit
					w.store.before = nil
					if name == "list_changes" {
						ws = []store.Write{w.engine.watch(w.key("2026-01-30"))}
					}
					if _, err := w.store.Store.Apply(t.Context(), ws...); err != nil {
						t.Error(err)
					}
				}
				r := w.hold(mode, time.Hour)
				s, err := w.engine.read(t.Context(), w.key("2026-02-03"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if h := s.hold("overnight"); h == nil || !h.Until.Equal(r.Hold.Until) || r.Replaced != nil {
					t.Errorf("held by %v in place of %v, want until %s", h, r.Replaced, r.Hold.Until)
				}
				if got := w.audits(); len(got) != 1 {
					t.Errorf("audit records %q, want one", got)
				}
			})
		}
	}
}
