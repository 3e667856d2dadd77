package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// The clock of the emulators is real, so the times of the definition are set into the past or a
// few seconds ahead.

// with returns the subject with one line more in its mode.
func (s subject) with(line string) subject {
	const second = "        second_runs: resend_if_changed\n"
	s.definition = strings.Replace(s.definition, second, second+"        "+line+"\n", 1)
	return s
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

func TestRelay_HandsOverAfterGracePeriod(t *testing.T) { onBoth(t, graceEndsInTheRelay) }

func graceEndsInTheRelay(t *testing.T, s subject) {
	t.Parallel()
	s.definition = regexp.MustCompile(`after: \d+m`).ReplaceAllString(s.definition, "after: 2s")
	w := newWorld(t, s)
	p := w.period(1)
	w.publish(w.tr.UpstreamTopic, w.without(p, w.optional)...)
	w.awaitState(p, "grace")
	w.await(limit, func() string { // relays, as often as the scheduler is allowed to send them
		w.relay()
		if b := w.read(p)[p].batches[0]; b.state != "published" {
			return b.id + " is " + b.state
		}
		return ""
	})
	pct := 100 * (w.processors - 1) / w.processors
	if out := w.operate(0, "explain", "--transition", w.tr.ID, string(p), w.mode); !strings.Contains(out, fmt.Sprintf("critical_plus_majority_%dpct (%d %% were complete, every critical one among them) by engine", pct, pct)) ||
		!strings.Contains(out, fmt.Sprintf("%d of %d, grace ended ", w.processors-1, w.processors)) || !strings.Contains(out, "missing "+w.optional) {
		t.Errorf("%s", out)
	}
	w.publish(w.tr.UpstreamTopic, w.report(w.optional, p, 1))
	w.awaitHandedOver(w.all(p))
	w.audit(w.all(p))
}

func TestDeadline_HandsOverOrMarksOverdue(t *testing.T) { onBoth(t, aDeadlineHandsOverOrHolds) }

func aDeadlineHandsOverOrHolds(t *testing.T, s subject) {
	t.Parallel()
	for name, tc := range map[string]struct{ line, state string }{
		"hand_over": {"deadline: \"" + s.midnight + "\"\n        at_deadline: hand_over", "published"},
		"hold":      {"deadline: \"" + s.midnight + "\"", "overdue"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, s.with(tc.line))
			p := w.period(1) // the last one, whose deadline was its end
			critical := func(name string) bool { return slices.Contains(w.critical, name) }
			for _, processor := range w.critical {
				w.publish(w.tr.UpstreamTopic, w.report(processor, p, 1))
			}
			w.await(limit, func() string {
				if n := len(w.read(p)[p].runs); n != len(w.critical) {
					return fmt.Sprintf("%d runs", n)
				}
				return ""
			})
			w.await(limit, func() string {
				if out := w.operate(0, "status", "--date", string(p)); !regexp.MustCompile(w.mode + " +(of " + w.tr.ID + " +)?" + tc.state).MatchString(out) {
					return out
				}
				return ""
			})
			for _, processor := range w.tr.Order {
				if !critical(processor) {
					w.publish(w.tr.UpstreamTopic, w.report(processor, p, 1))
				}
			}
			w.awaitHandedOver(w.all(p))
			w.audit(w.all(p))
		})
	}
}

func TestOperator_HoldsReleasesAndTriggersAgain(t *testing.T) {
	onBoth(t, anOperatorHoldsReleasesAndSendsAgain)
}

func anOperatorHoldsReleasesAndSendsAgain(t *testing.T, s subject) {
	t.Parallel()
	w := newWorld(t, s)
	p := w.period(1)
	cycle := []string{string(p), w.mode, "--transition", w.tr.ID}
	w.operate(0, append([]string{"hold", "--for", "1h", "--reason", "the source is being corrected"}, cycle...)...)
	w.publish(w.tr.UpstreamTopic, w.night(p)...)
	w.await(limit, func() string {
		b := w.read(p)[p]
		if out := w.operate(0, append([]string{"explain"}, cycle...)...); len(b.runs) != w.processors || !strings.Contains(out, fmt.Sprintf("%d of %[1]d complete", w.processors)) {
			return fmt.Sprintf("%d runs: %s", len(b.runs), out)
		}
		return ""
	})
	w.relay()
	w.await(limit, func() string { // until the relay has run
		if !w.doc("function_status", "reconcile").Exists {
			return "no heartbeat"
		}
		return ""
	})
	if n := len(w.phase4.messages()); n != 0 {
		t.Fatalf("%d messages during the hold", n)
	}
	w.operate(0, append([]string{"release", "--reason", "corrected"}, cycle...)...)
	w.awaitHandedOver(w.all(p))
	w.audit(w.all(p))

	out := w.operate(0, "trigger", "--date", cycle[0], "--mode", cycle[1], "--transition", w.tr.ID, "--processor", w.critical[0], "--reason", "tables lost")
	if !strings.Contains(out, "batch 2 of "+w.critical[0]+" published") {
		t.Errorf("%s", out)
	}
	again := w.tr.ID + "_" + cycle[0] + "_" + w.mode + "~2/" + w.critical[0]
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

func TestReplay_HandsOverDeadLettersAndQuarantine(t *testing.T) {
	onBoth(t, whatWasGivenUpOrSetAsideIsHandedOverAgain)
}

func whatWasGivenUpOrSetAsideIsHandedOverAgain(t *testing.T, s subject) {
	t.Parallel()
	w := newWorldOf(t, s, minAttempts)
	p := w.period(1)
	night, last := w.night(p), w.processors-1
	down := true
	w.front.answering(func(d delivery) int {
		if down && strings.HasPrefix(d.path, "/transition") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	w.publish(w.tr.UpstreamTopic, night[:last]...)
	given := func() string { return w.operate(0, "dead-letter", "list", "--topic", w.tr.UpstreamTopic) }
	w.await(2*limit, func() string {
		if out := given(); strings.Count(out, "after 5 attempts") != last {
			return out
		}
		return ""
	})
	w.front.mu.Lock()
	down = false
	w.front.mu.Unlock()
	out := w.operate(0, "dead-letter", "replay", "--all", "--topic", w.tr.UpstreamTopic, "--reason", "the store is back")
	if strings.Count(out, ": accepted") != last {
		t.Errorf("%s", out)
	}
	if out := given(); !strings.HasSuffix(out, "no dead-lettered messages\n") {
		t.Errorf("%s", out)
	}

	// The last message has a date that the function cannot parse.
	w.publish(w.tr.UpstreamTopic, []byte(strings.Replace(string(night[last]), `"game_date":"`+string(p), `"game_date":"YESTERDAY`, 1)))
	w.await(limit, func() string {
		if out := w.operate(0, "quarantine", "list"); !strings.Contains(out, "YESTERDAY") {
			return out
		}
		return ""
	})
	w.operate(1, "quarantine", "replay", "--all", "--reason", "try")
	w.publish(w.tr.UpstreamTopic, night[last])
	w.awaitHandedOver(w.all(p))
	w.audit(w.all(p))
}
