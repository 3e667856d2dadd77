//go:build !race

// As with the crash matrix, one goroutine runs all of a case.

package cycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Every call that an operator's action makes fails in every way. Then the action took
// effect once and has one audit record, or it did not and has none. The relay finishes an
// action that took effect. An action that reported success did take effect.
func TestOperatorActions_SurviveFailureOfEveryCall(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(n *night)
		act     func(e *Engine, w *world) error
		done    func(w *world) int // how often it took effect, after the relay
	}{
		"trigger": {
			func(n *night) { n.w.mustDeliver(overnight()...) },
			func(e *Engine, w *world) error {
				_, err := e.Trigger(context.Background(), w.key("2026-02-03"), w.mode("overnight"), Request{Processors: []string{pgs}, Actor: actor, Reason: "again"})
				return err
			},
			func(w *world) int { return published(w, "operator") },
		},
		"trigger_what_waits": {
			func(n *night) { n.w.mustDeliver(overnight()[0], overnight()[2], overnight()[3], overnight()[4]) },
			func(e *Engine, w *world) error {
				_, err := e.Trigger(context.Background(), w.key("2026-02-03"), w.mode("overnight"), Request{Actor: actor, Reason: "now", Force: true})
				return err
			},
			func(w *world) int { return published(w, "operator") },
		},
		"hold": {
			func(n *night) { n.w.ready() },
			func(e *Engine, w *world) error {
				_, err := e.Hold(context.Background(), w.key("2026-02-03"), "overnight", 24*time.Hour, actor, "wait")
				return err
			},
			func(w *world) int { return map[bool]int{true: 1}[w.statuses()["overnight"].State == "on_hold"] },
		},
		"hold_all": {
			func(n *night) { n.w.ready() },
			func(e *Engine, w *world) error {
				_, err := e.Hold(context.Background(), w.key("2026-02-03"), "", 24*time.Hour, actor, "wait")
				return err
			},
			func(w *world) int { return map[bool]int{true: 1}[w.statuses()["overnight"].State == "on_hold"] },
		},
		"close": {
			func(n *night) { n.w.ready() },
			func(e *Engine, w *world) error {
				_, err := e.Close(context.Background(), w.key("2026-02-03"), w.mode("overnight"), actor, "cancelled")
				return err
			},
			func(w *world) int { return map[bool]int{true: 1}[w.statuses()["overnight"].State == "closed"] },
		},
		"release": {
			func(n *night) { n.w.ready(); n.w.hold("overnight", 24*time.Hour) },
			func(e *Engine, w *world) error {
				_, err := e.Release(context.Background(), w.key("2026-02-03"), "overnight", actor, "go on")
				return err
			},
			func(w *world) int { return published(w, "all_complete") },
		},
	} {
		for h, kind := range harms {
			cases, requests := 0, 0
			for k := 1; ; k++ {
				n := &night{t: t, w: newWorld(t, "memory")}
				n.w.clock.set(at("2026-02-02 16:00"))
				tc.prepare(n)
				before := len(n.w.audits())
				p := n.healthy()
				p.at, p.harm = k, h
				err := tc.act(n.engine(p), n.w)
				n.pass(2 * time.Hour) // also beyond the grace period of what was not triggered
				n.relay()
				done, audits := tc.done(n.w), len(n.w.audits())-before
				where := fmt.Sprintf("%s, %s at %d", name, kind, k)
				if done != audits || done > 1 || err == nil && done != 1 {
					t.Errorf("%s: answered %v, done %d times, %d records", where, err, done, audits)
				}
				if h == lost && p.request && err != nil {
					t.Errorf("%s: the request's answer was lost, and the request was not read back: %v", where, err)
				}
				if errors.Is(err, ErrRefused) || err != nil && strings.Contains(err.Error(), "no end") {
					t.Errorf("%s: %v", where, err)
				}
				if st := n.w.statuses()["overnight"]; st.State != "published" && st.State != "on_hold" && (name != "close" || st.State != "closed") {
					t.Errorf("%s: ends as %s (%s)", where, st.State, st.Reason)
				}
				cases++
				if p.request {
					requests++
				}
				if p.calls < k {
					break
				}
			}
			if cases < 3 || strings.HasPrefix(name, "trigger") && requests != 1 {
				t.Errorf("%s, %s: only %d cases, %d of them at the request itself", name, kind, cases, requests)
			}
		}
	}
}

// published counts the batches of a cause, and checks that each was sent at least once.
func published(w *world, cause string) (n int) {
	sent := w.broker.counts()
	for _, b := range w.statuses()["overnight"].Batches {
		if b.Cause != cause {
			continue
		}
		n++
		for table := range b.Messages {
			if b.State != StatePublished || sent[b.ID+"/"+table] == 0 {
				w.t.Errorf("%s of %s is %s and was sent %d times", table, b.ID, b.State, sent[b.ID+"/"+table])
			}
		}
	}
	return n
}
