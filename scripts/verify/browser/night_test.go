package browser

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	players    = "player_game_summary"
	defense    = "team_defense_game_summary"
	offense    = "team_offense_game_summary"
	nextPlayer = "upcoming_player_game_context"
	nextTeam   = "upcoming_team_game_context"
)

const ok = wire.StatusSuccess

// newNight is the NBA pipeline in the morning after a bad night: one cycle is overdue, one is
// blocked, one is on hold since after the health report. The weeks before were good.
func newNight(t *testing.T, stranger string) *world {
	w := newWorld(t, "", time.Date(2026, 1, 5, 17, 0, 0, 0, time.UTC))
	tr, cal := w.Pipeline.Transitions[0], w.Pipeline.Calendar
	w.on("2026-01-05 12:00", w.relay)
	for day := pipeline.Period("2026-01-06"); day <= "2026-02-04"; day = cal.Add(day, 1) {
		before, next := string(cal.Add(day, -1)), string(cal.Add(day, 1))
		if day < "2026-02-04" && day != "2026-01-12" {
			w.on(before+" 17:04", func() { w.report(tr, run{day, ok, 240, 189, ""}, nextPlayer, nextTeam) })
		}
		if day < "2026-02-04" {
			w.on(string(day)+" 10:36", func() { w.report(tr, run{day, ok, 210, 80, ""}, nextPlayer, nextTeam) })
		}
		if day < "2026-02-03" && day != "2026-01-27" {
			w.on(next+" 05:30", func() { w.report(tr, run{day, ok, 348, 527, ""}, players, offense, defense, nextPlayer, nextTeam) })
		}
	}
	w.on("2026-01-28 10:12", func() {
		w.report(tr, run{"2026-01-27", ok, 348, 600, ""}, players, offense, defense, nextPlayer, nextTeam)
	})

	// The night of February 3.
	const night, today = pipeline.Period("2026-02-03"), pipeline.Period("2026-02-04")
	w.on("2026-02-03 17:32", func() {
		w.report(tr, run{today, wire.StatusFailed, 0, 64, "Quota exceeded: bytes scanned, by " + stranger}, nextPlayer)
	})
	w.on("2026-02-04 01:12", func() { w.report(tr, run{night, ok, 16, 242, ""}, offense) })
	w.on("2026-02-04 01:31", func() {
		w.report(tr, run{night, wire.StatusFailed, 0, 418, "Custom quota exceeded: Your usage exceeded the custom quota for QueryUsagePerDay"}, players)
	})
	w.on("2026-02-04 04:10", func() { w.report(tr, run{night, ok, 280, 527, ""}, players, nextPlayer, nextTeam) })
	w.on("2026-02-04 05:05", w.relay)
	w.on("2026-02-04 05:31", w.relay)
	key := cycle.Key{Transition: tr, Period: night}
	mode, _ := tr.Mode("overnight")
	w.on("2026-02-04 05:45", func() {
		_, err := w.Engine.Hold(t.Context(), key, "overnight", 6*time.Hour, "ada", "two box scores are being corrected")
		w.must(err)
	})
	w.on("2026-02-04 06:50", func() {
		_, err := w.Engine.Release(t.Context(), key, "overnight", "ada", "corrected")
		w.must(err)
	})
	w.on("2026-02-04 07:20", func() {
		_, err := w.Engine.Trigger(t.Context(), key, mode, cycle.Request{Actor: "bob", Reason: "Phase 4 lost its tables", Force: true})
		w.must(err)
	})
	w.on("2026-02-04 08:42", func() { w.report(tr, run{night, ok, 16, 351, ""}, defense) })
	w.on("2026-02-04 09:25", func() {
		w.values["minutes_coverage_pct"] = 71.3
		w.report(tr, run{night, ok, 348, 664, ""}, players)
	})
	w.on("2026-02-04 09:30", func() { w.report(tr, run{night, ok, 9, 5, ""}, stranger) })
	w.on("2026-02-04 11:25", func() { w.report(tr, run{today, ok, 210, 80, ""}, nextPlayer) })
	w.on("2026-02-04 10:41", func() {
		_, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-that-died")
		w.must(err)
		w.sweep("20260204t155000-4w6avzz7~player_game_summary_2026-02-03")
		w.quarantined(stranger)
		w.lost(stranger)
	})
	w.on("2026-02-04 11:04", func() {
		for _, s := range w.Pipeline.Schedules {
			w.must(w.Heartbeat(t.Context(), s.Function, s.Job))
		}
	})
	w.on("2026-02-04 11:05", func() {
		c := w.checker()
		w.must(c.Remember(t.Context(), c.Run(t.Context())))
	})
	w.on("2026-02-04 11:20", func() {
		_, err := w.Engine.Hold(t.Context(), cycle.Key{Transition: tr, Period: today}, "same_day", 4*time.Hour, "ada", "two box scores are wrong; seen with "+stranger)
		w.must(err)
	})
	w.on("2026-02-04 11:30", w.relay)
	w.play()
	w.at("2026-02-04 11:32")
	return w
}

// checker has tables, games and scrapers. One table has rows of a run that has not reported.
func (w *world) checker() *checks.Checker {
	c := checks.New(w.App)
	cal := w.Pipeline.Calendar
	c.Reconcile.Contents = func(_ context.Context, ps []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range ps {
			slices := map[pipeline.Period]warehouse.Slice{}
			for day := pipeline.Period("2026-01-28"); day <= "2026-02-03"; day = cal.Add(day, 1) {
				at := cal.End(day).Add(9 * time.Hour)
				slices[day] = warehouse.Slice{Rows: 200, Oldest: at, Newest: at}
			}
			out[p.Table] = warehouse.Contents{Slices: slices}
		}
		return out
	}
	c.Reconcile.Expected = func(_ context.Context, _ *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		out := map[pipeline.Period]int64{}
		for p := from; p <= to; p = cal.Add(p, 1) {
			out[p] = 8
		}
		return out, nil
	}
	c.FirstRuns = func(_ context.Context, from, to pipeline.Period) (out []warehouse.FirstRun, err error) {
		for day := from; day < to; day = cal.Add(day, 1) {
			out = append(out, warehouse.FirstRun{Source: "nbac_gamebook", Day: day, At: cal.End(day).Add(-18 * time.Hour)})
		}
		return out, nil
	}
	c.Services = func(context.Context) (map[string]deployed.Service, error) {
		out := map[string]deployed.Service{}
		for _, name := range []string{"phasegate-health", "phasegate-reconcile", "phasegate-sweep", "phasegate-transition", "nba-phase3-analytics-processors", "nba-phase4-precompute-processors"} {
			out[name] = deployed.Service{Created: "r-7", Ready: "r-7", Commit: "4f2ac01", Traffic: []deployed.Target{{Revision: "r-7", Latest: true, Percent: 100}}}
		}
		return out, nil
	}
	c.Runs = func(context.Context, pipeline.Period, pipeline.Period) ([]warehouse.ProcessorRun, error) {
		return nil, nil
	}
	c.Dead = func(context.Context) (map[string]int64, error) {
		return nil, errors.New("dead letters: Permission monitoring.timeSeries.list denied")
	}
	return c
}

func (w *world) sweep(id string) {
	print := map[string]any{"rows": 144, "a": 1, "b": 2}
	_, err := w.Store.Apply(w.t.Context(), store.Merge(store.Ref{Collection: "sweeps", ID: id}, store.F("nba_analytics.player_game_summary", "table"), store.F("2026-02-03", "period"),
		store.F("applied", "state"), store.F("nightly", "actor"), store.F("two runs 18 seconds apart", "reason"), store.F(72, "keys"), store.F(72, "surplus"),
		store.F(print, "before"), store.F(print, "after"), store.F("phasegate_sweep_archive.sweep_x", "archive"), store.F(store.ServerTime, "planned_at")))
	w.must(err)
}

// lost is a delivery whose guard died, and which no other guard has taken over.
func (w *world) lost(stranger string) {
	r := receipt.New(receipt.Config{Store: w.Store, Now: w.Now, NewID: rand.Text, TTL: 2 * time.Minute, Instance: "phase4-00017-abc", Log: w.Log})
	_, err := r.Claim(w.t.Context(), receipt.Delivery{Scope: "nba-phase4-precompute-processors", Route: "/process?of=" + stranger, Key: "phase3_to_phase4_2026-02-03_overnight~1/player_game_summary", MessageID: "1284001", Data: []byte("x")})
	w.must(err)
}

func (w *world) quarantined(stranger string) {
	_, err := w.Store.Apply(w.t.Context(), store.Merge(store.Ref{Collection: "quarantine", ID: "12845077"}, store.F("transition", "function"), store.F("12845077", "message_id"),
		store.F(`game_date: is no period of the pipeline's calendar, such as 2026-02-04 ("YESTERDAY" of `+stranger+")", "reason"), store.F(store.ServerTime, "received_at")))
	w.must(err)
}
