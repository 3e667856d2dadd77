package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

const night = pipeline.Period("2026-02-03")

// morning is 11:05 after the night, local time: its deadline has passed.
var morning = time.Date(2026, 2, 4, 16, 5, 0, 0, time.UTC)

// scene is an environment whose warehouse is a map.
type scene struct {
	*apptest.World
	t        *testing.T
	tr       *pipeline.Transition
	rec      *Reconciler
	tables   map[string]warehouse.Contents
	expected map[pipeline.Period]int64
	away     error    // what the schedule answers
	asked    []string // tables and periods that the sweep was asked to look at
	unheard  error    // what asking it answers
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: apptest.New(t, morning), t: t, tables: map[string]warehouse.Contents{}, expected: map[pipeline.Period]int64{}}
	s.tr = s.Pipeline.Transitions[0]
	s.rec = New(s.App)
	s.rec.Contents = func(_ context.Context, processors []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range processors {
			out[p.Table] = s.tables[p.Table]
		}
		return out
	}
	s.rec.Sweep = func(_ context.Context, table string, period pipeline.Period) error {
		s.asked = append(s.asked, table+" "+string(period))
		return s.unheard
	}
	s.rec.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
		return s.expected, s.away
	}
	for _, phase := range s.Pipeline.Phases {
		for _, p := range phase.Processors {
			s.tables[p.Table] = warehouse.Contents{Slices: map[pipeline.Period]warehouse.Slice{}, Strays: map[pipeline.Period]warehouse.Stray{}}
		}
	}
	return s
}

// wrote is when a night's rows were written: 06:03 local time after it.
func wrote(p pipeline.Period) time.Time {
	day, err := time.Parse(time.DateOnly, string(p))
	if err != nil {
		panic(err)
	}
	return day.Add(35*time.Hour + 3*time.Minute)
}

var rowsOf = map[string]int64{"player_game_summary": 348, "team_defense_game_summary": 20, "team_offense_game_summary": 20,
	"upcoming_player_game_context": 300, "upcoming_team_game_context": 20}

func table(name string) string { return "nba_analytics." + name }

func (s *scene) slice(table string, p pipeline.Period, sl warehouse.Slice) {
	if sl.Rows == 0 {
		delete(s.tables[table].Slices, p)
		return
	}
	s.tables[table].Slices[p] = sl
}

// data puts a complete night into the tables, and on the schedule.
func (s *scene) data(p pipeline.Period) {
	for name, rows := range rowsOf {
		s.slice(table(name), p, warehouse.Slice{Rows: rows, Oldest: wrote(p), Newest: wrote(p)})
	}
	s.expected[p] = 10
}

// phase4 lets the next phase run about a night, at a time.
func (s *scene) phase4(p pipeline.Period, at time.Time) {
	for _, phase := range s.Pipeline.Phases[1:] {
		for _, pr := range phase.Processors {
			s.slice(pr.Table, p, warehouse.Slice{Rows: 300, Oldest: at, Newest: at})
		}
	}
}

func (s *scene) report(p pipeline.Period, name string, count int64) {
	s.t.Helper()
	c := wire.Completion{Processor: name, Reported: name, Period: p, Status: wire.StatusSuccess, EventTime: wrote(p).Add(10 * time.Second),
		ExecutionID: "run-" + name, CorrelationID: "c", RecordCount: &count}
	if err := s.Engine.Record(context.Background(), cycle.Key{Transition: s.tr, Period: p}, c); err != nil {
		s.t.Fatal(err)
	}
}

// reports records all of a night but some, and converges.
func (s *scene) reports(p pipeline.Period, but ...string) {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(rowsOf)) {
		if !slices.Contains(but, name) {
			s.report(p, name, rowsOf[name])
		}
	}
	if _, err := s.Engine.Converge(context.Background(), cycle.Key{Transition: s.tr, Period: p}, ""); err != nil {
		s.t.Fatal(err)
	}
}

// good is a night with which everything is right.
func (s *scene) good(p pipeline.Period) {
	s.data(p)
	s.reports(p)
	s.phase4(p, s.Now().Add(time.Minute))
}

func (s *scene) run(from, to pipeline.Period, actor string) Report {
	s.t.Helper()
	r, err := s.rec.Run(context.Background(), s.tr, from, to, actor)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// types are the findings in short.
func types(r Report) string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s", f.Type, strings.TrimPrefix(f.Table, "nba_analytics."))))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// received are the tables that messages are about, with their sources.
func (s *scene) received() []string {
	var out []string
	for _, m := range s.PubSub.Messages() {
		t, err := wire.DecodeTrigger(m.Data)
		if err != nil {
			s.t.Error(err)
		}
		out = append(out, fmt.Sprintf("%s %s %s", t.GameDate, t.SourceTable, t.TriggerSource))
	}
	slices.Sort(out)
	return out
}

func (s *scene) edit(p pipeline.Period, fields ...store.Field) {
	s.t.Helper()
	if _, err := s.Store.Apply(context.Background(), store.Merge(store.Ref{Collection: "phase3_completion", ID: string(p)}, fields...)); err != nil {
		s.t.Fatal(err)
	}
}

// first makes sure that the window is managed.
func (s *scene) first() { s.good("2026-01-20") }

func (s *scene) key() cycle.Key { return cycle.Key{Transition: s.tr, Period: night} }

// brokerAway lets publishing fail until back is called.
func (s *scene) brokerAway() (back func()) {
	working := s.Engine.Publish
	s.Engine.Publish = func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
		out := make([]cycle.Published, len(msgs))
		for i := range out {
			out[i].Err = errors.New("the broker is away")
		}
		return out
	}
	return func() { s.Engine.Publish = working }
}

// of returns what was found about one period, in short.
func of(r Report, p pipeline.Period) string {
	var own Report
	for _, f := range r.Findings {
		if f.Period == p {
			own.Findings = append(own.Findings, f)
		}
	}
	return types(own)
}

// pct is the accuracy, -1 where it is not known.
func (r Report) pct() float64 {
	if pct, known := r.Accuracy(); known {
		return pct
	}
	return -1
}
