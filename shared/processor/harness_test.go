package processor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	name  = "player_game_summary"
	night = pipeline.Period("2026-02-03")
)

var start = time.Date(2026, 2, 4, 11, 3, 12, 0, time.UTC)

// world is a warehouse with one table, a store with a clock, a broker, and the machines
// on which runs are at work.
type world struct {
	*warehousetest.World
	t        *testing.T
	mem      *memory.Store
	pipeline *pipeline.Pipeline
	staging  string // dataset

	mu        sync.Mutex
	now       time.Time
	published []wire.Report
	broken    error    // what the broker answers
	asked     []string // jobs for the sweep
	deaf      error    // what asking it answers
}

func newWorld(t *testing.T) *world { t.Helper(); return worldOf(t, warehousetest.Empty(t)) }

func worldOf(t *testing.T, in *warehousetest.World) *world {
	t.Helper()
	if in.Host == "" {
		t.Skip("machines die at a proxy, which needs the emulator")
	}
	w := &world{World: in, t: t, now: start}
	w.mem = memory.New(w.time)
	w.Exec(`CREATE TABLE nba_analytics.player_game_summary (game_date DATE, player_lookup STRING, points INT64, processed_at TIMESTAMP) PARTITION BY game_date`)
	p, err := pipeline.Parse([]byte(w.Definition()))
	if err != nil {
		t.Fatal(err)
	}
	w.pipeline = p
	w.staging = w.Staging()
	return w
}

func (w *world) time() time.Time         { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
func (w *world) advance(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

// machine is one process. It dies at a call to anything, and from then on reaches
// nothing.
type machine struct {
	*world
	runner *Runner
	logs   bytes.Buffer
	clock  func() time.Time

	life   sync.Mutex
	writes int // calls that change something
	dies   int // right after so many of them, before the answer arrives; 0: never
	dead   bool

	acquired bool // as far as it has tried
	faults   warehousetest.Faults

	pauseAt string // one of steps: it stands still right before it, once
	paused  chan struct{}
	resume  chan struct{}
}

// reach is a point at which the process may stand still for long.
func (m *machine) reach(point string) {
	m.life.Lock()
	here := m.pauseAt == point
	if here {
		m.pauseAt = ""
	}
	m.life.Unlock()
	if here {
		close(m.paused)
		<-m.resume
	}
}

var errDead = errors.New("the process is dead")

func (w *world) machine() *machine {
	w.t.Helper()
	m := &machine{world: w, clock: w.time, paused: make(chan struct{}), resume: make(chan struct{})}
	log, err := telemetry.New(&m.logs, "info")
	if err != nil {
		w.t.Fatal(err)
	}
	locks := lease.New(lease.Config{Store: mortal{m}, Now: func() time.Time { return m.clock() }, NewID: rand.Text, Lease: lease.Max, Instance: "m", Log: log})
	m.runner = New(Config{Pipeline: w.pipeline, Store: mortal{m}, Locks: locks, Warehouse: m.warehouse(), Publish: m.publish, Now: func() time.Time { return m.clock() },
		NewID: rand.Text, Staging: w.staging, TimeLimit: time.Hour, Log: log})
	return m
}

// call is one call to anything. Where a process dies matters by what it has changed: one
// that dies before its next change might as well have died after its last.
func (m *machine) call(changes bool, do func()) error {
	m.life.Lock()
	if m.dead {
		m.life.Unlock()
		return errDead
	}
	if changes {
		m.writes++
	}
	m.dead = m.dies > 0 && m.writes >= m.dies
	dead := m.dead
	m.life.Unlock()
	do()
	if dead {
		return errDead
	}
	return nil
}

// warehouse reaches the emulator as long as the process lives.
func (m *machine) warehouse() *warehouse.Warehouse {
	return m.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		switch {
		case bytes.Contains(body, []byte("MERGE")):
			m.reach("write")
		case strings.HasPrefix(r.URL.Path, "/upload/"):
			m.reach("stage")
		}
		var fault error
		if dead := m.call(r.Method != http.MethodGet, func() { fault = m.faults.Pass(m.World, r, body, forward) }); dead != nil {
			return dead
		}
		return fault
	})
}

func (m *machine) publish(_ context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
	out := make([]cycle.Published, len(msgs))
	switch topic {
	case "nba-phase3-analytics-complete":
	case "phasegate-sweep":
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked = append(m.asked, string(msgs[0].Data))
		out[0].Err = m.deaf
		return out
	default:
		m.t.Errorf("published to %s", topic)
	}
	for i, msg := range msgs {
		err := m.call(true, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if out[i].Err = m.broken; out[i].Err != nil {
				return
			}
			var r wire.Report
			if err := json.Unmarshal(msg.Data, &r); err != nil {
				m.t.Error(err)
			}
			m.published = append(m.published, r)
			out[i].ID = fmt.Sprint("m", len(m.published))
		})
		if err != nil {
			out[i] = cycle.Published{Err: err}
		}
	}
	return out
}

type mortal struct{ m *machine }

// locked reports whether the run has asked for its lock.
func (s mortal) locked() bool { s.m.life.Lock(); defer s.m.life.Unlock(); return s.m.acquired }

func (s mortal) Get(ctx context.Context, refs ...store.Ref) (snap store.Snapshot, err error) {
	if refs[0].Collection == collection && s.locked() {
		s.m.reach("take")
	}
	if dead := s.m.call(false, func() { snap, err = s.m.mem.Get(ctx, refs...) }); dead != nil {
		return store.Snapshot{}, dead
	}
	return snap, err
}

func (s mortal) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	switch {
	case ws[0].Ref.Collection == collection:
		s.m.reach("record")
	case ws[0].Op == store.OpDeleteIf:
		s.m.reach("release")
	default:
		s.m.reach("acquire")
		s.m.life.Lock()
		s.m.acquired = true
		s.m.life.Unlock()
	}
	if dead := s.m.call(true, func() { vs, err = s.m.mem.Apply(ctx, ws...) }); dead != nil {
		return nil, dead
	}
	return vs, err
}

func (s mortal) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.m.mem.Scan(ctx, collection, from, to)
}

func (m *machine) run(period pipeline.Period, req Request, work Work) (Outcome, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	return m.runner.Run(ctx, name, period, req, work)
}

// rows are players' rows of a period, with these points.
func rows(period pipeline.Period, at time.Time, points, players int) []dedup.Row {
	var out []dedup.Row
	for i := range players {
		out = append(out, dedup.Row{"game_date": string(period), "player_lookup": fmt.Sprintf("player%03d", i), "points": points, "processed_at": at})
	}
	return out
}

func making(points, players int) Work {
	return func(_ context.Context, run Run) (Output, error) {
		return Output{Rows: rows(run.Period, start, points, players)}, nil
	}
}

// table is what the period has: how many rows, of how many players, and their points.
func (w *world) table(period pipeline.Period) string {
	w.t.Helper()
	return fmt.Sprint(w.Ask("SELECT COUNT(*), COUNT(DISTINCT player_lookup), IFNULL(MIN(points), -1), IFNULL(MAX(points), -1) FROM nba_analytics.player_game_summary WHERE game_date = DATE '" + string(period) + "'")...)
}

func (w *world) want(period pipeline.Period, table string) {
	w.t.Helper()
	if got := w.table(period); got != table {
		w.t.Errorf("%s: rows, players and points are %s, want %s", period, got, table)
	}
}

// statuses are those of the published completions of a period.
func (w *world) statuses(period pipeline.Period) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, r := range w.published {
		if r.GameDate == period {
			out = append(out, string(r.Status))
		}
	}
	return strings.Join(out, " ")
}

func (w *world) doc(collection, id string) store.Doc {
	w.t.Helper()
	snap, err := w.mem.Get(context.Background(), store.Ref{Collection: collection, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return snap.Docs[0]
}

// outstanding are the tokens that are listed for a period.
func (w *world) outstanding(period pipeline.Period) int {
	w.t.Helper()
	nonces, _ := w.doc("lock_tokens", "PlayerGameSummaryProcessor_"+string(period)).Data["nonces"].([]any)
	return len(nonces)
}
