package sweep

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

const night = pipeline.Period("2026-02-03")

var morning = time.Date(2026, 2, 4, 15, 50, 0, 0, time.UTC)

// world is a warehouse, a store with a clock, and the processes that sweep.
type world struct {
	*warehousetest.World
	t        testing.TB
	mem      *memory.Store
	pipeline *pipeline.Pipeline
	archive  string

	mu  sync.Mutex
	now time.Time
}

func (w *world) time() time.Time         { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
func (w *world) advance(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

// newWorld has the NBA pipeline, changed as the pairs say, and none of its tables.
func newWorld(t testing.TB, in *warehousetest.World, pairs ...string) *world {
	t.Helper()
	w := &world{World: in, t: t, now: morning}
	w.mem = memory.New(w.time)
	p, err := pipeline.Parse([]byte(w.Definition(pairs...)))
	if err != nil {
		t.Fatal(err)
	}
	w.pipeline, w.archive = p, w.Staging()
	return w
}

const scores = `game_date DATE, player_lookup STRING, points INT64, processed_at TIMESTAMP`

// withScores has one table, player_game_summary, with these columns.
func withScores(t testing.TB, columns string, rows ...string) *world {
	t.Helper()
	w := newWorld(t, warehousetest.Empty(t))
	w.Exec("CREATE TABLE nba_analytics.player_game_summary (" + columns + ") PARTITION BY game_date")
	w.insert(rows...)
	return w
}

// addWriter gives player_game_summary a second processor that fills it.
func (w *world) addWriter() {
	w.t.Helper()
	const first = "      - name: team_defense_game_summary"
	second := `      - name: player_corrections
        kind: player
        table: ` + w.table() + `
        date_column: game_date
        key: [game_date, player_lookup]
        order_by: processed_at
        duplicates: remove
`
	parsed, err := pipeline.Parse([]byte(strings.Replace(w.Definition(), first, second+first, 1)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.pipeline = parsed
}

func (w *world) table() string { return w.Rename("nba_analytics.player_game_summary") }

// insert puts rows into player_game_summary: values without the brackets.
func (w *world) insert(rows ...string) {
	w.t.Helper()
	if len(rows) > 0 {
		w.Exec("INSERT INTO nba_analytics.player_game_summary VALUES (" + strings.Join(rows, "), (") + ")")
	}
}

// row is one of player_game_summary, of second after the night's run; without: NULL.
func row(player, points, second string) string {
	at := "NULL"
	if second != "" {
		at = "TIMESTAMP '2026-02-04 11:03:" + second + "'"
	}
	return "DATE '2026-02-03', '" + player + "', " + points + ", " + at
}

// json are the rows of a table as JSON, in order.
func (w *world) json(table string) []string {
	w.t.Helper()
	var out []string
	client, err := w.Client(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	it, err := client.Query(w.Rename("SELECT TO_JSON_STRING(r) AS r FROM (SELECT * FROM " + table + ") AS r")).Read(w.t.Context())
	for err == nil {
		var r struct{ R string }
		if err = it.Next(&r); err == nil {
			out = append(out, r.R)
		}
	}
	if !errors.Is(err, iterator.Done) {
		w.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// process is one that sweeps. It dies at a call to anything, and from then on reaches
// nothing.
type process struct {
	*Sweeper
	w    *world
	logs bytes.Buffer

	life   sync.Mutex
	writes int // calls that change something
	dies   int // right after so many of them, before the answer arrives; 0: never
	dead   bool
	stops  int // right before so many of them stop is called; 0: never
	stop   func()
	before map[string]func() // by what a request to the warehouse says, once
	answer func(r *http.Request, answer map[string]any)
	quota  func(body []byte) bool // whether BigQuery answers that a quota is used up, which passes
}

var errDead = errors.New("the process is dead")

func (w *world) process() *process {
	w.t.Helper()
	p := &process{w: w, before: map[string]func(){}}
	log, err := telemetry.New(&p.logs, "info")
	if err != nil {
		w.t.Fatal(err)
	}
	locks := lease.New(lease.Config{Store: mortal{p}, Now: w.time, NewID: rand.Text, Lease: lease.Max, Instance: "p", Log: log})
	p.Sweeper = &Sweeper{Pipeline: w.pipeline, Store: mortal{p}, Locks: locks, Now: w.time, NewID: newID, Archive: w.archive, Log: log,
		Warehouse: w.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
			p.meet(body)
			return p.call(r.Method != http.MethodGet, func() {
				rec := forward()
				p.change(r, rec)
				if p.quota != nil && p.quota(body) {
					rec.Code = http.StatusForbidden
					rec.Body.Reset()
					rec.Body.WriteString(`{"error":{"code":403,"message":"Quota exceeded","errors":[{"reason":"quotaExceeded","message":"Quota exceeded"}]}}`)
				}
			})
		})}
	return p
}

// meet does what is to happen right before such a request is carried out.
func (p *process) meet(body []byte) {
	for word, do := range p.before {
		if bytes.Contains(body, []byte(word)) {
			delete(p.before, word)
			do()
			return
		}
	}
}

// change makes of the emulator's answer what BigQuery's would be.
func (p *process) change(r *http.Request, rec *httptest.ResponseRecorder) {
	var answer map[string]any
	if p.answer == nil || json.Unmarshal(rec.Body.Bytes(), &answer) != nil {
		return
	}
	p.answer(r, answer)
	rec.Body.Reset()
	if err := json.NewEncoder(rec.Body).Encode(answer); err != nil {
		p.w.t.Error(err)
	}
}

// call is one call to anything. Where a process dies matters by what it has changed.
func (p *process) call(changes bool, do func()) error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.dead {
		return errDead
	}
	if changes {
		p.writes++
		if p.writes == p.stops {
			p.stop()
		}
	}
	p.dead = p.dies > 0 && p.writes >= p.dies
	do()
	if p.dead {
		return errDead
	}
	return nil
}

type mortal struct{ p *process }

func (s mortal) Get(ctx context.Context, refs ...store.Ref) (snap store.Snapshot, err error) {
	if dead := s.p.call(false, func() { snap, err = s.p.w.mem.Get(ctx, refs...) }); dead != nil {
		return store.Snapshot{}, dead
	}
	return snap, err
}

func (s mortal) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	if dead := s.p.call(true, func() { vs, err = s.p.w.mem.Apply(ctx, ws...) }); dead != nil {
		return nil, dead
	}
	return vs, err
}

func (s mortal) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.p.w.mem.Scan(ctx, collection, from, to)
}

// all removes from every table.
func all(pipeline.Processor) bool { return true }

// order is about player_game_summary of the night.
func order(fix func(pipeline.Processor) bool) Order {
	return Order{Table: "player_game_summary", From: night, To: night, Fix: fix, Actor: "ada", Reason: "the test"}
}

// sweep runs an order about one table and returns its one part.
func (p *process) sweep(o Order) Part {
	p.w.t.Helper()
	r, err := p.Run(p.w.t.Context(), o)
	if err != nil || len(r.Tables) != 1 {
		p.w.t.Fatalf("%+v, %v", r, err)
	}
	return *r.Tables[0]
}

func (p *process) wantPart(got Part, state State, duplicates, removed int64, problem string) {
	p.w.t.Helper()
	if got.State != state || got.Duplicates != duplicates || got.Removed != removed || !strings.Contains(got.Problem, problem) || (problem == "") != (got.Problem == "") {
		p.w.t.Errorf("%+v, want %s, %d duplicates, %d removed, %q", got, state, duplicates, removed, problem)
	}
}

func (w *world) want(table string, rows []string) {
	w.t.Helper()
	if got := w.json(table); !slices.Equal(got, rows) {
		w.t.Errorf("%s has %d rows, want %d:\n%s\nwant:\n%s", table, len(got), len(rows), strings.Join(got[:min(len(got), 10)], "\n"), strings.Join(rows[:min(len(rows), 10)], "\n"))
	}
}

// states are those of the removals, oldest first.
func (w *world) states() string {
	w.t.Helper()
	listed, err := w.process().List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, l := range listed {
		out = append(out, l.State)
	}
	return strings.Join(out, " ")
}
