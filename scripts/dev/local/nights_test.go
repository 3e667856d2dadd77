package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// relay sends the scheduler's job at a local time, and lets it be done.
func (w *world) relay(when string) {
	w.t.Helper()
	w.Clock.AdvanceTo(at(when))
	w.send("phasegate-reconcile", wire.Outgoing{Data: []byte(`{"job":"relay"}`)})
	w.settle()
}

// of returns a processor's completion for a period.
func of(period, processor, when string) report {
	return done(processor, when, with("game_date", period))
}

// cycleOf returns the overnight cycle of a period.
func (w *world) cycleOf(period string) cycle.Status {
	w.t.Helper()
	ss, err := w.App.Engine.Status(w.t.Context(), cycle.Key{Transition: w.tr, Period: pipeline.Period(period)})
	if err != nil {
		w.t.Fatal(err)
	}
	return ss[slices.IndexFunc(ss, func(s cycle.Status) bool { return s.Mode == "overnight" })]
}

// In the second night the clock is set forward, in the third one back. The local times of the
// definition stay the same, and a grace period is measured in elapsed time.
func TestNights_GracePeriodAcrossClockChanges(t *testing.T) {
	for _, tc := range []struct{ period, morning string }{
		{"2026-02-03", "2026-02-04"}, {"2026-03-07", "2026-03-08"}, {"2026-10-31", "2026-11-01"},
	} {
		t.Run(tc.period, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, kind string) {
				w := newWorld(t, kind)
				hour := func(clock string) string { return tc.morning + " " + clock }
				// Four of five.
				w.atTime(hour("05:40"), of(tc.period, pgs, hour("05:40")), of(tc.period, upg, hour("05:40")), of(tc.period, toff, hour("05:40")), of(tc.period, utg, hour("05:40")))
				w.exhaust()
				st := w.cycleOf(tc.period)
				if st.State != "grace" {
					t.Fatalf("%s: %s", st.State, st.Reason)
				}
				w.relay(hour("06:05"))
				w.wantHandedOver("overnight")
				w.relay(hour("06:15"))
				w.wantHandedOver("overnight", pgs, upg, toff, utg)
				if st := w.cycleOf(tc.period); st.State != "published" || !strings.Contains(st.Reason, "grace ended") || !strings.Contains(st.Reason, "missing team_defense_game_summary") {
					t.Errorf("%s: %s", st.State, st.Reason)
				}
				w.atTime(hour("06:40"), of(tc.period, tdef, hour("06:40")))
				w.wantHandedOver("overnight", five...)

			})
		})
	}
}

func TestNights_IncompleteCycleIsOverdueAtDeadline(t *testing.T) {
	for _, tc := range []struct{ period, morning, deadline string }{
		{"2026-02-03", "2026-02-04", "2026-02-04T15:00:00Z"},
		{"2026-03-07", "2026-03-08", "2026-03-08T14:00:00Z"},
		{"2026-10-31", "2026-11-01", "2026-11-01T15:00:00Z"},
	} {
		t.Run(tc.period, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, kind string) {
				deadline, err := time.Parse(time.RFC3339, tc.deadline)
				if err != nil {
					t.Fatal(err)
				}
				w := newWorld(t, kind)
				w.atTime(tc.morning+" 06:00", of(tc.period, pgs, tc.morning+" 06:00"))
				overdue := `"event":"cycle_overdue","transition":"phase3_to_phase4","period":"` + tc.period + `","mode":"overnight"`
				for _, at := range []struct {
					time  time.Time
					state string
				}{{deadline.Add(-time.Minute), "waiting"}, {deadline, "overdue"}} {
					w.Clock.AdvanceTo(at.time)
					w.send("phasegate-reconcile", wire.Outgoing{Data: []byte(`{"job":"relay"}`)})
					w.settle()
					if st := w.cycleOf(tc.period); st.State != at.state || (w.logs.count(overdue) > 0) != (at.state == "overdue") {
						t.Errorf("%s: %s (%s), said overdue %d times; want %s", at.time, st.State, st.Reason, w.logs.count(overdue), at.state)
					}
				}
				w.wantHandedOver("overnight")
			})
		})
	}
}

// degrading writes a definition whose overnight cycle goes at its deadline.
func degrading(t *testing.T) func(*Options) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	definition := strings.Replace(string(pipeline.Default()), `deadline: "+1d 10:00"`, "deadline: \"+1d 10:00\"\n        at_deadline: hand_over", 1)
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *Options) { o.Config.PipelineFile = file }
}

func TestDeadline_HandsOverIncompleteCycle(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind, degrading(t))
		w.atTime("2026-02-04 06:00", done(pgs, "2026-02-04 06:00"), done(upg, "2026-02-04 06:00"))
		w.exhaust()
		w.relay("2026-02-04 09:55")
		w.wantHandedOver("overnight")
		w.relay("2026-02-04 10:00")
		w.wantHandedOver("overnight", pgs, upg)
		for _, r := range w.phase4.accepted() {
			if r.Trigger.TriggerReason != "critical_plus_majority_40pct" || r.Trigger.FreshnessChecked {
				t.Errorf("%+v", r.Trigger)
			}
		}
	})
}

func TestHold_EndsByReleaseOrExpiry(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		key := cycle.Key{Transition: w.tr, Period: night}
		w.Clock.AdvanceTo(at("2026-02-04 06:00"))
		if _, err := w.App.Engine.Hold(t.Context(), key, "overnight", 2*time.Hour, "ada", "wait"); err != nil {
			t.Fatal(err)
		}
		w.publish(morning()...)
		w.settle()
		w.exhaust()
		w.relay("2026-02-04 07:55")
		w.wantHandedOver("overnight")
		w.relay("2026-02-04 08:01")
		w.wantHandedOver("overnight", five...)
		w.wantPublishedOnce("overnight")
	})
}

func TestTrigger_OperatorHandOverReachesNextPhase(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.phase4.answer = strict
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust()
		m, _ := w.tr.Mode("overnight")
		key := cycle.Key{Transition: w.tr, Period: night}
		if _, err := w.App.Engine.Trigger(t.Context(), key, m, cycle.Request{Processors: []string{pgs}, Actor: "ada", Reason: "again"}); err != nil {
			t.Fatal(err)
		}
		w.settle()
		w.wantHandedOver("overnight", append([]string{pgs}, five...)...)
		if _, err := w.App.Engine.Trigger(t.Context(), cycle.Key{Transition: w.tr, Period: "2026-02-01"}, m, cycle.Request{Actor: "ada", Reason: "again"}); !errors.Is(err, cycle.ErrRefused) {
			t.Errorf("no completion is recorded, and the trigger was not refused: %v", err)
		}
	})
}

// A store that fails for good makes each delivery fail. The load must not grow: each message
// is delivered a bounded number of times, with growing backoff. It ends in the dead-letter
// topic, where an operator finds it.
func TestF47_ALoopOfRedeliveriesEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory", failing(1<<40, false))
	w.publish(morning()...)
	deliveries := func() int { return w.logs.count("store is down") }
	start := w.Clock.Now()
	for w.Clock.Now().Before(start.Add(24 * time.Hour)) {
		w.settle()
		due, ok := w.NextRetry()
		if !ok {
			break
		}
		w.Clock.AdvanceTo(due)
	}
	day := deliveries()
	if most := len(five) * pipeline.MaxAttempts; day == 0 || day > most {
		t.Errorf("%d failed deliveries in a day, want some and at most %d", day, most)
	}
	if n := w.exhaust(); n > pipeline.MaxAttempts {
		t.Errorf("%d more backoffs", n)
	}
	if n := deliveries(); n != len(five)*pipeline.MaxAttempts {
		t.Errorf("%d failed deliveries in all, want %d of each of 5 messages", n, pipeline.MaxAttempts)
	}
	if n := len(w.phase4.deliveries()); n != 0 {
		t.Errorf("%d messages to the next phase", n)
	}
	dead := 0
	for _, m := range w.pubsub.inner.Messages() {
		if strings.HasSuffix(m.Topic, "nba-phase3-analytics-complete-dead-letter") {
			dead++
		}
	}
	if dead != len(five) {
		t.Errorf("%d dead letters, want %d", dead, len(five))
	}
}

// A failed relay is not retried by redelivery: the next scheduled relay is its retry. So a relay
// that always fails runs once an interval.
func TestRelay_ThatAlwaysFailsRunsOnceAnInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory", failing(1<<40, false))
	const jobs = 24 * 60 / 5
	start := at("2026-02-04 00:00")
	for i := range jobs {
		tick := start.Add(time.Duration(i) * 5 * time.Minute)
		for due, ok := w.NextRetry(); ok && due.Before(tick); due, ok = w.NextRetry() {
			w.Clock.AdvanceTo(due)
			w.settle()
		}
		w.Clock.AdvanceTo(tick)
		w.send("phasegate-reconcile", wire.Outgoing{Data: []byte(`{"job":"relay"}`)})
		w.settle()
	}
	w.exhaust()
	if n := w.logs.count(`"severity":"ERROR"`); n != jobs {
		t.Errorf("%d runs failed, want %d", n, jobs)
	}
	if n := w.logs.count(`"event":"job_superseded"`); n != jobs {
		t.Errorf("%d jobs superseded, want %d", n, jobs)
	}
	for _, m := range w.pubsub.inner.Messages() {
		if strings.HasSuffix(m.Topic, "-dead-letter") {
			t.Fatalf("%s is on %s", m.Data, m.Topic)
		}
	}
}

// Each relay writes a heartbeat with the time of the environment's clock, and changes no document
// of a finished cycle. The very first relay also records since when Phasegate manages periods.
func TestRelay_OnlyAddsHeartbeatToFinishedCycle(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.atTime("2026-02-04 06:05", morning()...)
		w.exhaust()
		w.relay("2026-02-04 06:55")
		versions := func() (out []string) {
			for _, c := range []string{"phase_periods", "phase_triggers", "phase3_completion"} {
				for _, d := range w.documents(c) {
					out = append(out, fmt.Sprint(d.Ref, d.Version))
				}
			}
			return out
		}
		before := versions()
		for i := range 3 {
			when := fmt.Sprintf("2026-02-04 07:%02d", 5*i)
			w.relay(when)
			got, err := w.App.Store.Get(t.Context(), store.Ref{Collection: "function_status", ID: "reconcile"})
			if err != nil {
				t.Fatal(err)
			}
			beats, _ := got.Docs[0].Data["heartbeats"].(map[string]any)
			if beat, _ := beats["relay"].(time.Time); beat.Before(at(when)) || beat.After(at(when).Add(time.Minute)) {
				t.Errorf("heartbeat at %s, want %s", beat, at(when))
			}
		}
		if after := versions(); !slices.Equal(before, after) {
			t.Errorf("before %v\nafter %v", before, after)
		}
	})
}
