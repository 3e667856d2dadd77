package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// month is a pipeline that is lived through, hour by hour, with everything around it.
type month struct {
	*apptest.World
	t     *testing.T
	check *Checker
	start pipeline.Period

	slices  map[string]map[pipeline.Period]warehouse.Slice // by table
	scraped []warehouse.FirstRun
	runs    []warehouse.ProcessorRun
	dead    int64
	away    map[string]bool // tables and sources that cannot be read

	// The present faults.
	late, relayDead, unlocked bool
	silent                    map[string]bool // processors that do not report
	idle                      bool            // the next phase writes nothing
	serving                   string          // revision of all services
	executions                int
}

// quiet are the days without games.
var quiet = []pipeline.Period{"2026-02-13", "2026-02-14", "2026-02-15"}

func newMonth(t *testing.T, start pipeline.Period) *month {
	m := &month{t: t, start: start, serving: "r-7", slices: map[string]map[pipeline.Period]warehouse.Slice{}, away: map[string]bool{}, silent: map[string]bool{}}
	m.World = apptest.New(t, at(m.start, 0, 30))
	config := m.Engine.Config
	config.Expected = func(_ context.Context, key cycle.Key) (int64, error) { return m.games(key.Period), nil }
	publish := config.Publish
	config.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		for _, out := range msgs {
			var trigger struct {
				Period pipeline.Period `json:"analysis_date"`
			}
			if err := json.Unmarshal(out.Data, &trigger); err != nil {
				t.Error(err)
			}
			if !m.idle {
				m.nextPhase(trigger.Period)
			}
		}
		return publish(ctx, topic, msgs)
	}
	m.App.Engine = cycle.New(config)
	m.App.Config.Slack, m.Notifier.Slack = channel(), channel()
	for _, phase := range m.Pipeline.Phases {
		for _, p := range phase.Processors {
			m.slices[p.Table] = map[pipeline.Period]warehouse.Slice{}
		}
	}
	// The four weeks before define the usual time of each morning.
	for d := -28; d < 0; d++ {
		m.scrape(m.Pipeline.Calendar.Add(m.start, d), 6)
	}
	m.check = m.checker()
	return m
}

func (m *month) checker() *Checker {
	c := New(m.App)
	c.Reconcile.Contents = func(_ context.Context, ps []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range ps {
			out[p.Table] = warehouse.Contents{Slices: m.slices[p.Table]}
			if m.away[p.Table] {
				out[p.Table] = warehouse.Contents{Problem: "it is gone"}
			}
		}
		return out
	}
	c.Reconcile.Expected = func(_ context.Context, _ *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		out := map[pipeline.Period]int64{}
		for p := from; p <= to; p = m.Pipeline.Calendar.Add(p, 1) {
			out[p] = m.games(p)
		}
		return out, nil
	}
	c.FirstRuns = func(context.Context, pipeline.Period, pipeline.Period) ([]warehouse.FirstRun, error) {
		if m.away["scrapers"] {
			return nil, errors.New("the log is gone")
		}
		return m.scraped, nil
	}
	c.Runs = func(_ context.Context, from, _ pipeline.Period) (out []warehouse.ProcessorRun, err error) {
		for _, r := range m.runs {
			if m.Pipeline.Calendar.At(r.Began) >= from {
				out = append(out, r)
			}
		}
		return out, nil
	}
	c.Services = func(context.Context) (map[string]deployed.Service, error) {
		out := map[string]deployed.Service{}
		for _, name := range append(c.ownServices(), m.Pipeline.Phases[0].Service, m.Pipeline.Phases[1].Service) {
			out[name] = deployed.Service{Created: "r-7", Ready: "r-7", Commit: "4f2a", Traffic: []deployed.Target{{Revision: m.serving, Latest: m.serving == "r-7", Percent: 100}}}
		}
		return out, nil
	}
	c.Dead = func(context.Context) (map[string]int64, error) {
		out := map[string]int64{}
		for _, name := range deadLetters(m.Pipeline, "") {
			out[name] = 0
		}
		out["nba-phase3-analytics-complete-dead-letter"] = m.dead
		return out, nil
	}
	return c
}

func (m *month) games(p pipeline.Period) int64 {
	if slices.Contains(quiet, p) {
		return 0
	}
	return 7
}

func (m *month) scrape(day pipeline.Period, hour int) {
	for i, name := range []string{"nbac_gamebook", "bdl_box_scores"} {
		m.scraped = append(m.scraped, warehouse.FirstRun{Source: name, Day: day, At: at(day, hour, 3+i)})
	}
}

// run has processors make rows under their locks and report.
func (m *month) run(period pipeline.Period, names ...string) {
	m.t.Helper()
	tr := m.Pipeline.Transitions[0]
	for _, name := range names {
		_, p, _ := m.Pipeline.Processor(name)
		m.executions++
		id := fmt.Sprint("run-", m.executions)
		if !m.unlocked {
			held, err := m.Locks.Acquire(m.t.Context(), lease.Key{Class: p.Class, Period: period}, id)
			if err != nil {
				m.t.Fatal(err)
			}
			if err := held.Release(m.t.Context()); err != nil {
				m.t.Fatal(err)
			}
		}
		m.write(name, period)
		m.runs = append(m.runs, warehouse.ProcessorRun{Processor: p.Class, Period: period, ID: id, Began: m.Now(), Ended: m.Now().Add(30 * time.Second)})
		if m.silent[name] {
			continue
		}
		rows := int64(100)
		c := wire.Completion{Processor: name, Reported: name, Period: period, Status: wire.StatusSuccess, EventTime: m.Now(), ExecutionID: id, CorrelationID: id, RecordCount: &rows}
		key := cycle.Key{Transition: tr, Period: period}
		if err := m.Engine.Record(m.t.Context(), key, c); err != nil {
			m.t.Fatal(err)
		}
		if _, err := m.Engine.Converge(m.t.Context(), key, id); err != nil {
			m.t.Fatal(err)
		}
	}
}

// write has a processor of the first phase, or the next one, write what it has to.
func (m *month) write(name string, period pipeline.Period) {
	_, p, _ := m.Pipeline.Processor(name)
	m.slices[p.Table][period] = warehouse.Slice{Rows: 100, Oldest: m.Now(), Newest: m.Now()}
}

// nextPhase does its work about a period.
func (m *month) nextPhase(period pipeline.Period) {
	for _, p := range m.Pipeline.Phases[1].Processors {
		m.write(p.Name, period)
	}
}

// hour lets what happens in an hour happen, and returns what health says at its end.
func (m *month) hour(day pipeline.Period, hour int) Report {
	m.t.Helper()
	cal, yesterday := m.Pipeline.Calendar, m.Pipeline.Calendar.Add(day, -1)
	m.SetNow(at(day, hour, 10))
	order := m.Pipeline.Transitions[0].Order
	switch {
	case hour == 6 && m.games(yesterday) > 0 && !m.late, hour == 14 && m.late:
		m.scrape(day, hour)
	case hour == 7 && m.games(yesterday) > 0 && yesterday >= m.start:
		m.run(yesterday, order...)
	case hour == 10 && m.games(day) > 0:
		m.SetNow(at(day, 10, 40))
		m.run(day, "upcoming_player_game_context", "upcoming_team_game_context")
	case hour == 17 && m.games(cal.Add(day, 1)) > 0:
		m.run(cal.Add(day, 1), "upcoming_player_game_context", "upcoming_team_game_context")
	}
	m.SetNow(at(day, hour, 58))
	beat := func(function, job string) {
		if err := m.Heartbeat(m.t.Context(), function, job); err != nil {
			m.t.Fatal(err)
		}
	}
	if !m.relayDead {
		if err := m.Engine.Relay(m.t.Context(), m.Pipeline.Transitions[0], "relay", nil); err != nil {
			m.t.Fatal(err)
		}
		beat("reconcile", "relay")
	}
	if hour == 10 {
		beat("reconcile", "nightly")
		beat("sweep", "sweep")
	}
	m.SetNow(at(day, hour, 59))
	r := m.check.Run(m.t.Context())
	if err := m.check.Remember(m.t.Context(), r); err != nil {
		m.t.Fatal(err)
	}
	beat("health", "health")
	return r
}

// bad are the checks that are not ok.
func (r Report) bad() (out []string) {
	for _, c := range r.Checks {
		if c.State != OK {
			out = append(out, c.ID+" "+string(c.State))
		}
	}
	sort.Strings(out)
	return out
}
