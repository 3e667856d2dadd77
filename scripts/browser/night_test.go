package browser

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// night is a pipeline in the morning after a night in which some things went wrong.
type night struct {
	*apptest.World
	t        *testing.T
	url      string
	stranger string // as a processor calls itself that the pipeline does not know
}

func newNight(t *testing.T, stranger string) *night {
	n := &night{World: apptest.New(t, morning), t: t, stranger: stranger}
	s := httptest.NewServer(health.New(func(context.Context) (*app.App, error) { return n.App, nil }))
	t.Cleanup(s.Close)
	n.url = s.URL
	n.App.Config.Slack = notifytest.New(t).Channel
	return n
}

func (n *night) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// at sets the clock to a local time.
func (n *night) at(local string) time.Time {
	at, err := time.ParseInLocation("2006-01-02 15:04", local, n.Pipeline.Calendar.Zone())
	n.must(err)
	n.SetNow(at.UTC())
	return at.UTC()
}

func (n *night) report(period pipeline.Period, local, status string, names ...string) {
	n.t.Helper()
	tr, at := n.Pipeline.Transitions[0], n.at(local)
	key := cycle.Key{Transition: tr, Period: period}
	for _, name := range names {
		c := wire.Completion{Processor: name, Reported: name, Period: period, Status: wire.Status(status), EventTime: at, ExecutionID: "run-" + name, CorrelationID: "night"}
		if !tr.Expects(name) {
			c.Processor = ""
		}
		n.must(n.Engine.Record(n.t.Context(), key, c))
	}
	_, err := n.Engine.Converge(n.t.Context(), key, "m-"+local)
	n.must(err)
}

// plant is the morning of the pictures.
func (n *night) plant() {
	const players, defense, offense, nextPlayer, nextTeam = "player_game_summary", "team_defense_game_summary", "team_offense_game_summary", "upcoming_player_game_context", "upcoming_team_game_context"
	type event struct {
		period pipeline.Period
		at     string
		names  []string
	}
	var events []event
	for day := pipeline.Period("2026-01-31"); day <= "2026-02-02"; day = n.Pipeline.Calendar.Add(day, 1) { // good nights
		before, next := string(n.Pipeline.Calendar.Add(day, -1)), string(n.Pipeline.Calendar.Add(day, 1))
		events = append(events, event{day, before + " 17:05", []string{nextPlayer, nextTeam}}, event{day, string(day) + " 10:36", []string{nextPlayer, nextTeam}},
			event{day, next + " 06:03", []string{players, defense, offense, nextPlayer, nextTeam}})
	}
	events = append(events, event{"2026-02-03", "2026-02-02 17:05", []string{nextPlayer}})
	slices.SortStableFunc(events, func(a, b event) int { return strings.Compare(a.at, b.at) })
	for _, e := range events {
		n.report(e.period, e.at, "success", e.names...)
	}
	n.report("2026-02-03", "2026-02-03 10:40", "failed", nextPlayer)
	n.report("2026-02-03", "2026-02-04 06:03", "success", players, offense, nextPlayer)
	n.report("2026-02-03", "2026-02-04 06:05", "failed", defense)
	n.report("2026-02-03", "2026-02-04 06:40", "success", n.stranger) // the grace period is over
	n.at("2026-02-04 09:30")
	_, err := n.Engine.Hold(n.t.Context(), cycle.Key{Transition: n.Pipeline.Transitions[0], Period: "2026-02-04"}, "same_day", 6*time.Hour, "ada", "two box scores are wrong; "+n.stranger)
	n.must(err)
	n.report("2026-02-04", "2026-02-04 10:36", "success", nextPlayer)
	n.at("2026-02-04 10:41")
	_, err = n.Locks.Acquire(n.t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-that-died")
	n.must(err)
	n.sweep("20260204t155000-4w6avzz7~player_game_summary_2026-02-03")
	for _, s := range n.Pipeline.Schedules {
		n.must(n.Heartbeat(n.t.Context(), s.Function, s.Job))
	}
	n.at("2026-02-04 11:20")
	n.must(n.Heartbeat(n.t.Context(), "reconcile", "relay"))
	c := n.checker()
	r := c.Run(n.t.Context())
	n.must(c.Remember(n.t.Context(), r))
	n.at("2026-02-04 11:32")
}

// checker has tables, games and scrapers to look at: of one of them a run has not reported.
func (n *night) checker() *checks.Checker {
	c := checks.New(n.App)
	c.Reconcile.Contents = func(_ context.Context, ps []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range ps {
			slices := map[pipeline.Period]warehouse.Slice{}
			for day := pipeline.Period("2026-01-31"); day <= "2026-02-03"; day = n.Pipeline.Calendar.Add(day, 1) {
				slices[day] = warehouse.Slice{Rows: 200, Oldest: morning.Add(-time.Hour), Newest: morning.Add(-time.Hour)}
			}
			out[p.Table] = warehouse.Contents{Slices: slices}
		}
		return out
	}
	c.Reconcile.Expected = func(_ context.Context, _ *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		out := map[pipeline.Period]int64{}
		for p := from; p <= to; p = n.Pipeline.Calendar.Add(p, 1) {
			out[p] = 8
		}
		return out, nil
	}
	c.FirstRuns = func(_ context.Context, from, to pipeline.Period) (out []warehouse.FirstRun, err error) {
		for day := from; day < to; day = n.Pipeline.Calendar.Add(day, 1) {
			out = append(out, warehouse.FirstRun{Source: "nbac_gamebook", Day: day, At: n.Pipeline.Calendar.End(day).Add(-18 * time.Hour)})
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

func (n *night) sweep(id string) {
	print := map[string]any{"rows": 144, "a": 1, "b": 2}
	_, err := n.Store.Apply(n.t.Context(), store.Merge(store.Ref{Collection: "sweeps", ID: id}, store.F("nba_analytics.player_game_summary", "table"), store.F("2026-02-03", "period"),
		store.F("applied", "state"), store.F("nightly", "actor"), store.F("two runs 18 seconds apart", "reason"), store.F(72, "keys"), store.F(72, "surplus"),
		store.F(print, "before"), store.F(print, "after"), store.F("phasegate_sweep_archive.sweep_x", "archive"), store.F(store.ServerTime, "planned_at")))
	n.must(err)
}
