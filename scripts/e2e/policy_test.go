package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// The clock of the emulators is real, so the definition's times are put where they have
// passed already, or pass in seconds.

const (
	criticalOne, criticalTwo = "player_game_summary", "upcoming_player_game_context"
	optional                 = "team_defense_game_summary"
)

// overnight returns the definition with one line more in the overnight mode.
func overnight(line string) string {
	const second = "        second_runs: resend_if_changed\n"
	return strings.Replace(definition(), second, second+"        "+line+"\n", 1)
}

// without leaves a processor's completion out of a night.
func (w *world) without(p pipeline.Period, processor string) (all [][]byte) {
	for _, name := range w.tr.Order {
		if name != processor {
			all = append(all, w.report(name, p, 1))
		}
	}
	return all
}

// awaitState waits until the first batch of a period has a state.
func (w *world) awaitState(p pipeline.Period, state string) batch {
	w.t.Helper()
	var b batch
	w.await(limit, func() string {
		bs := w.read(p)[p].batches
		if len(bs) == 0 {
			return "no batch yet"
		}
		if b = bs[0]; b.state != state || b.holder != "" {
			return fmt.Sprintf("%s is %s, held by %q; want %s", b.id, b.state, b.holder, state)
		}
		return ""
	})
	return b
}

func TestGraceEndsInTheRelay(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, strings.Replace(definition(), "after: 30m", "after: 2s", 1), maxAttempts)
	p := w.period(1)
	w.publish(w.tr.UpstreamTopic, w.without(p, optional)...)
	w.awaitState(p, "grace")
	w.await(limit, func() string { // relays, as often as the scheduler is allowed to send them
		w.relay()
		if b := w.read(p)[p].batches[0]; b.state != "published" {
			return b.id + " is " + b.state
		}
		return ""
	})
	if out := w.operate(0, "explain", string(p), "overnight"); !strings.Contains(out, "critical_plus_majority_80pct by engine") ||
		!strings.Contains(out, "4 of 5, grace ended ") || !strings.Contains(out, "missing "+optional) {
		t.Errorf("%s", out)
	}
	w.publish(w.tr.UpstreamTopic, w.report(optional, p, 1))
	w.awaitHandedOver(map[pipeline.Period]int{p: 5})
	w.audit(map[pipeline.Period]int{p: 5})
}

func TestADeadlineHandsOverOrHolds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ line, state string }{
		"hand_over": {"deadline: \"+1d 00:00\"\n        at_deadline: hand_over", "published"},
		"hold":      {"deadline: \"+1d 00:00\"", "held"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, overnight(tc.line), maxAttempts)
			p := w.period(1) // yesterday, whose deadline was at midnight
			w.publish(w.tr.UpstreamTopic, w.report(criticalOne, p, 1), w.report(criticalTwo, p, 1))
			w.await(limit, func() string {
				if n := len(w.read(p)[p].runs); n != 2 {
					return fmt.Sprintf("%d runs", n)
				}
				return ""
			})
			w.await(limit, func() string {
				if out := w.operate(0, "status", "--date", string(p)); !strings.Contains(out, "overnight  "+tc.state) {
					return out
				}
				return ""
			})
			for _, processor := range w.tr.Order {
				if processor != criticalOne && processor != criticalTwo {
					w.publish(w.tr.UpstreamTopic, w.report(processor, p, 1))
				}
			}
			w.awaitHandedOver(map[pipeline.Period]int{p: 5})
			w.audit(map[pipeline.Period]int{p: 5})
		})
	}
}

func TestAnOperatorHoldsReleasesAndSendsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.period(1)
	cycle := []string{string(p), "overnight"}
	w.operate(0, append([]string{"hold", "--for", "1h", "--reason", "the source is being corrected"}, cycle...)...)
	w.publish(w.tr.UpstreamTopic, w.night(p)...)
	w.await(limit, func() string {
		b := w.read(p)[p]
		if out := w.operate(0, append([]string{"explain"}, cycle...)...); len(b.runs) != 5 || !strings.Contains(out, "5 of 5 complete") {
			return fmt.Sprintf("%d runs: %s", len(b.runs), out)
		}
		return ""
	})
	w.relay()
	w.await(limit, func() string { // the relay has been here
		if !w.doc("function_status", "reconcile").Exists {
			return "no heartbeat"
		}
		return ""
	})
	if n := len(w.phase4.messages()); n != 0 {
		t.Fatalf("%d messages during the hold", n)
	}
	w.operate(0, append([]string{"release", "--reason", "corrected"}, cycle...)...)
	w.awaitHandedOver(map[pipeline.Period]int{p: 5})
	w.audit(map[pipeline.Period]int{p: 5})

	out := w.operate(0, "trigger", "--date", cycle[0], "--mode", cycle[1], "--processor", criticalOne, "--reason", "tables lost")
	if !strings.Contains(out, "batch 2 of "+criticalOne+" published") {
		t.Errorf("%s", out)
	}
	again := w.tr.ID + "_" + cycle[0] + "_overnight~2/" + criticalOne
	w.await(limit, func() string {
		for _, m := range w.phase4.messages() {
			if m.trigger.TriggerID == again && m.attributes["trigger_id"] == again && m.trigger.TriggerSource == "operator" {
				return ""
			}
		}
		return again + " has not arrived"
	})
	actions := map[string]int{}
	for d, err := range w.store.Scan(t.Context(), "audit", "!", "~") {
		if err != nil {
			t.Fatal(err)
		}
		actions[text(d.Data["action"])]++
	}
	if actions["hold"] != 1 || actions["release"] != 1 || actions["trigger"] != 1 {
		t.Errorf("audit records %v", actions)
	}
}

func TestWhatWasGivenUpOrSetAsideIsHandedOverAgain(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, definition(), minAttempts)
	p := w.period(1)
	night := w.night(p)
	down := true
	w.front.answering(func(d delivery) int {
		if down && strings.HasPrefix(d.path, "/transition") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	w.publish(w.tr.UpstreamTopic, night[:4]...)
	given := func() string { return w.operate(0, "dead-letter", "list", "--topic", w.tr.UpstreamTopic) }
	w.await(2*limit, func() string {
		if out := given(); strings.Count(out, "after 5 attempts") != 4 {
			return out
		}
		return ""
	})
	w.front.mu.Lock()
	down = false
	w.front.mu.Unlock()
	out := w.operate(0, "dead-letter", "replay", "--all", "--topic", w.tr.UpstreamTopic, "--reason", "the store is back")
	if strings.Count(out, ": taken") != 4 {
		t.Errorf("%s", out)
	}
	if out := given(); out != "nothing was given up\n" {
		t.Errorf("%s", out)
	}

	// The fifth names its date in a way that nobody knows.
	w.publish(w.tr.UpstreamTopic, []byte(strings.Replace(string(night[4]), `"game_date":"`+string(p), `"game_date":"YESTERDAY`, 1)))
	w.await(limit, func() string {
		if out := w.operate(0, "quarantine", "list"); !strings.Contains(out, "YESTERDAY") {
			return out
		}
		return ""
	})
	w.operate(1, "quarantine", "replay", "--all", "--reason", "try")
	w.publish(w.tr.UpstreamTopic, night[4])
	w.awaitHandedOver(map[pipeline.Period]int{p: 5})
	w.audit(map[pipeline.Period]int{p: 5})
}
