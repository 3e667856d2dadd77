package cycle

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	pgs  = "player_game_summary"
	tdef = "team_defense_game_summary"
	toff = "team_offense_game_summary"
	upg  = "upcoming_player_game_context"
	utg  = "upcoming_team_game_context"
)

// clock is set by the test; store and engine read it.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time  { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) set(t time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.t = t }

// broker accepts each message unless fail returns an error.
type broker struct {
	mu   sync.Mutex
	n    int
	got  []wire.Trigger
	ids  []string
	fail func(i int, t wire.Trigger) error // with lose, the answer is lost
	lose bool                              // a message that fails is accepted all the same
}

func (b *broker) publish(_ context.Context, _ string, msgs []wire.Outgoing) []Published {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Published, len(msgs))
	for i, m := range msgs {
		t, err := wire.DecodeTrigger(m.Data)
		if err != nil {
			out[i].Err = err
			continue
		}
		if b.fail != nil {
			if err := b.fail(i, t); err != nil {
				out[i].Err = err
				if !b.lose {
					continue
				}
			}
		}
		b.n++
		b.got = append(b.got, t)
		b.ids = append(b.ids, fmt.Sprint(b.n))
		if out[i].Err == nil {
			out[i].ID = fmt.Sprint(b.n)
		}
	}
	return out
}

func (b *broker) tables() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, t := range b.got {
		names = append(names, t.SourceTable)
	}
	return names
}

// counting counts remote calls.
type counting struct {
	store.Store
	calls     atomic.Int64
	conflicts atomic.Int64
	// before runs ahead of every Apply.
	before func(ws []store.Write)
}

func (c *counting) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.calls.Add(1)
	return c.Store.Get(ctx, refs...)
}

func (c *counting) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	c.calls.Add(1)
	if c.before != nil {
		c.before(ws)
	}
	vs, err := c.Store.Apply(ctx, ws...)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
		c.conflicts.Add(1)
	}
	return vs, err
}

func (c *counting) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.calls.Add(1)
	return c.Store.Scan(ctx, collection, from, to)
}

// world is one engine whose store, broker, clock and log the test controls.
type world struct {
	t      *testing.T
	tr     *pipeline.Transition
	clock  *clock
	store  *counting
	broker *broker
	engine *Engine
	log    *syncBuffer
	msgs   int
	prefix string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func nba(t testing.TB) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

// drivers are the stores that need nothing but Go.
var drivers = map[string]func(t *testing.T, now func() time.Time) store.Store{
	"memory": func(_ *testing.T, now func() time.Time) store.Store { return memory.New(now) },
	"sqlite": func(t *testing.T, now func() time.Time) store.Store {
		s, err := sqlite.Open(filepath.Join(t.TempDir(), "store.db"), now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	},
}

// onFirestore opens the emulator, whose clock is real. The world's prefix keeps tests
// apart.
func onFirestore(t testing.TB) store.Store {
	t.Helper()
	emulatortest.Firestore(t)
	s, err := firestore.Open(context.Background(), "phasegate-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newWorld(t *testing.T, driver string) *world { t.Helper(); return newWorldOf(t, driver, nba(t)) }

func newWorldOf(t *testing.T, driver string, tr *pipeline.Transition) *world {
	t.Helper()
	w := &world{t: t, tr: tr, clock: &clock{t: at("2026-02-03 12:00")}, broker: &broker{}, log: &syncBuffer{}}
	if driver == "firestore" {
		w.prefix = "t" + rand.Text()
		w.store = &counting{Store: onFirestore(t)}
	} else {
		w.store = &counting{Store: drivers[driver](t, w.clock.now)}
	}
	w.engine = w.newEngine()
	return w
}

// newEngine is one more instance on the same store and broker.
func (w *world) newEngine() *Engine {
	log, err := telemetry.New(w.log, "debug")
	if err != nil {
		w.t.Fatal(err)
	}
	return New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: w.clock.now,
		NewID: ids(), Claim: time.Minute, Prefix: w.prefix, Log: log})
}

var idCounter atomic.Int64

func ids() func() string { return func() string { return fmt.Sprintf("h%06d", idCounter.Add(1)) } }

// at is a local time of the NBA pipeline.
func at(s string) time.Time {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		panic(err)
	}
	layout := "2006-01-02 15:04"
	if len(s) > len(layout) {
		layout += ":05"
	}
	t, err := time.ParseInLocation(layout, s, zone)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

// run is a successful completion for 2026-02-03.
func run(processor, when string, edit ...func(*wire.Completion)) wire.Completion {
	n := int64(100)
	c := wire.Completion{Processor: processor, Reported: processor, Period: "2026-02-03", Status: wire.StatusSuccess,
		EventTime: at(when), ExecutionID: processor + "@" + when, CorrelationID: "corr-" + processor, RecordCount: &n}
	for _, e := range edit {
		e(&c)
	}
	return c
}

func status(s wire.Status) func(*wire.Completion) {
	return func(c *wire.Completion) { c.Status = s }
}
func count(n int64) func(*wire.Completion) {
	return func(c *wire.Completion) { c.RecordCount = &n }
}
func execution(id string) func(*wire.Completion) {
	return func(c *wire.Completion) { c.ExecutionID = id }
}
func entities(names ...string) func(*wire.Completion) {
	return func(c *wire.Completion) { c.Entities, c.Incremental = names, true }
}

func (w *world) key(p pipeline.Period) Key { return Key{Transition: w.tr, Period: p} }

// deliver hands a completion to an engine as the function does, at its event time
// unless the clock is already later.
func (w *world) deliver(c wire.Completion) (Result, error) {
	w.t.Helper()
	if w.clock.now().Before(c.EventTime) {
		w.clock.set(c.EventTime)
	}
	w.msgs++
	ctx := context.Background()
	if err := w.engine.Record(ctx, w.key(c.Period), c); err != nil {
		return Result{}, err
	}
	return w.engine.Converge(ctx, w.key(c.Period), fmt.Sprintf("m%d", w.msgs))
}

func (w *world) mustDeliver(cs ...wire.Completion) {
	w.t.Helper()
	for _, c := range cs {
		if _, err := w.deliver(c); err != nil {
			w.t.Fatalf("%s %s: %v", c.Processor, c.EventTime, err)
		}
	}
}

func (w *world) converge(p pipeline.Period) {
	w.t.Helper()
	if _, err := w.engine.Converge(context.Background(), w.key(p), ""); err != nil {
		w.t.Fatal(err)
	}
}

// statuses returns the cycles of 2026-02-03 by mode.
func (w *world) statuses() map[string]Status {
	w.t.Helper()
	ss, err := w.engine.Status(context.Background(), w.key("2026-02-03"))
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]Status{}
	for _, s := range ss {
		out[s.Mode] = s
	}
	return out
}

func (w *world) doc(collection, id string) store.Doc {
	w.t.Helper()
	s, err := w.store.Store.Get(context.Background(), store.Ref{Collection: w.prefix + collection, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Docs[0]
}

func (w *world) projection() map[string]any { return w.doc("phase3_completion", "2026-02-03").Data }

// events returns the log lines with that event name.
func (w *world) events(name string) []map[string]any { return w.lines("event", name) }

// lines returns the log lines in which a field has a value.
func (w *world) lines(field, value string) []map[string]any {
	var out []map[string]any
	for _, line := range bytes.Split([]byte(w.log.String()), []byte("\n")) {
		var m map[string]any
		if json.Unmarshal(line, &m) == nil && m[field] == value {
			out = append(out, m)
		}
	}
	return out
}

func sorted(s []string) []string { s = slices.Clone(s); slices.Sort(s); return s }

var (
	errBroker = errors.New("broker is down")
	errLost   = errors.New("connection reset")
)

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, errors.New("closed pipe") }

// brokenLog is a logger whose every write fails.
func brokenLog(t testing.TB) *slog.Logger {
	t.Helper()
	log, err := telemetry.New(closedPipe{}, "")
	if err != nil {
		t.Fatal(err)
	}
	return log
}
