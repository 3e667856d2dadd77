package browser

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// newHours is the retail pipeline, by the hour in two transitions, after some days. Of one hour
// both cycles are overdue.
func newHours(t *testing.T) *world {
	w := newWorld(t, "../../dev/demo/retail.yaml", time.Date(2026, 10, 22, 22, 0, 0, 0, time.UTC))
	first, second := w.Pipeline.Transitions[0], w.Pipeline.Transitions[1]
	cal := w.Pipeline.Calendar
	at := func(p pipeline.Period, minutes int, do func()) {
		w.later = append(w.later, event{cal.End(p).Add(time.Duration(minutes) * time.Minute), do})
	}
	const bad, last = pipeline.Period("2026-10-27T06"), pipeline.Period("2026-10-27T08")
	for p := pipeline.Period("2026-10-22T22"); p <= last; p = cal.Add(p, 1) {
		names := first.Order
		if p == bad {
			names = names[1:]
			at(p, 12, func() {
				w.report(first, run{p, wire.StatusFailed, 0, 31, "503 from orders-api"}, first.Order[0])
			})
		}
		at(p, 6, func() { w.report(first, run{p, ok, 40, 31, ""}, names...) })
		if p != bad {
			at(p, 15, func() { w.report(second, run{p, ok, 10, 22, ""}, second.Order...) })
		}
	}
	at("2026-10-22T22", 1, w.relay)
	at(last, 42, func() {
		for _, s := range w.Pipeline.Schedules {
			w.must(w.Heartbeat(t.Context(), s.Function, s.Job))
		}
	})
	w.play()
	w.clock = time.Date(2026, 10, 27, 9, 43, 0, 0, time.UTC)
	return w
}

// newChange is the NBA pipeline after the nights in which the clock goes on, and back.
func newChange(t *testing.T) *world {
	w := newWorld(t, "", time.Date(2026, 3, 7, 20, 0, 0, 0, time.UTC))
	tr := w.Pipeline.Transitions[0]
	for day, next := range map[pipeline.Period]string{"2026-03-07": "2026-03-08", "2026-10-31": "2026-11-01"} {
		w.on(string(day)+" 19:00", func() { w.report(tr, run{day, ok, 16, 242, ""}, offense) })
		w.on(next+" 00:40", func() { w.report(tr, run{day, ok, 16, 242, ""}, defense) })
		w.on(next+" 03:30", func() { w.report(tr, run{day, ok, 348, 5400, ""}, players, nextPlayer, nextTeam) })
		w.on(next+" 05:05", w.relay)
	}
	w.play()
	w.at("2026-11-01 09:00")
	return w
}
