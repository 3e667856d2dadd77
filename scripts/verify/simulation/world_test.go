//go:build unix && !race

package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/functions/transition"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// world is one system. The seed decides everything in it.
type world struct {
	seed      uint64
	rng       *rand.Rand
	season    season
	pipeline  *pipeline.Pipeline
	mem       *memory.Store
	processes []*process
	shadow    bool            // every completion is delivered to the shadow, too
	poisoned  pipeline.Period // its readiness check panics
	hangs     pipeline.Period // its readiness check takes an hour
	calm      bool
	faults    int // that may still happen
	rate      int
	trace     func(string)
	problem   string

	mu      sync.Mutex
	waiting []*call
	results []result
	arrived chan struct{}
	threads int // requests under way
	ids     int

	events   []event // by time
	messages []*message
	runs     []*run
	tables   map[string]map[pipeline.Period]warehouse.Slice
	effects  map[string]string // trigger id → payload that the consumer accepted
	sent     map[string]int    // trigger id → messages
	notified []time.Time       // times of notifications about quarantine

	calls, writes, steps, number int
	happened                     int          // calls that failed
	ended                        int          // the thread that has just ended
	panicked                     map[int]bool // threads in which a readiness check panicked
}

type event struct {
	at time.Time
	do func()
}

// process is one instance of the functions.
type process struct {
	id    int
	dead  bool
	app   *app.App
	skew  time.Duration
	serve map[string]http.Handler
}

// message is one of a topic with a push subscription.
type message struct {
	id, path  string
	data      []byte
	published time.Time
	invalid   bool
	attempts  int
	acked     bool
}

func (m *message) isRelay() bool { return strings.Contains(string(m.data), `"relay"`) }

// run is one run of a processor about a period.
type run struct {
	processor string
	period    pipeline.Period
	event     time.Time
	rows      int64
	execution string
	reported  bool // false: its report is lost
}

type result struct {
	thread int
	p      *process
	code   int
	done   func(code int)
}

func (w *world) tell(format string, args ...any) {
	if w.trace != nil {
		w.trace(time.Now().UTC().Format("02 15:04:05.000 ") + fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, args...)
	}
}

func (w *world) at(t time.Time, do func()) {
	i, _ := slices.BinarySearchFunc(w.events, t, func(e event, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1
	})
	w.events = slices.Insert(w.events, i, event{t, do})
}

func (w *world) after(d time.Duration, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at(time.Now().Add(d), do)
}

var silent = slog.New(slog.DiscardHandler)

// boot starts a new instance with empty memory in a place.
func (w *world) boot(i int) {
	p := &process{id: i, skew: w.processes[i].skew}
	st := gated{w, p}
	now := func() time.Time { return time.Now().Add(p.skew) }
	newID := func() string { w.mu.Lock(); defer w.mu.Unlock(); w.ids++; return fmt.Sprintf("i%d", w.ids) }
	p.app = &app.App{Config: app.Config{Project: "sim", Store: "memory", Claim: time.Minute, Lease: lease.Max, Local: true}, Pipeline: w.pipeline,
		Store: st, Log: silent, Now: now,
		Engine:   cycle.New(cycle.Config{Store: st, Publish: w.publisher(p), Check: w.checker(p), Now: now, NewID: newID, Claim: time.Minute, Log: silent}),
		Notifier: &notify.Notifier{Store: st, Slack: channel, NewID: newID, Log: silent},
		Locks:    lease.New(lease.Config{Store: st, Now: now, NewID: newID, Lease: lease.Max, Instance: fmt.Sprint(i), Log: silent})}
	open := func(context.Context) (*app.App, error) { return p.app, nil }
	p.serve = map[string]http.Handler{"transition": transition.New(open), "reconcile": reconcile.New(open)}
	w.processes[i] = p
}

// kill ends a process: none of its pending calls has an effect any more.
func (w *world) kill(p *process) {
	w.mu.Lock()
	p.dead = true
	for _, c := range w.waiting {
		if c.process == p {
			c.turn <- dead
		}
	}
	w.waiting = slices.DeleteFunc(w.waiting, func(c *call) bool { return c.process == p })
	w.mu.Unlock()
	w.tell("%d is dead", p.id)
	w.boot(p.id)
}

// request runs a request on a process, and passes its status to done: 0 if the process died.
func (w *world) request(p *process, do func(ctx context.Context) int, done func(code int)) {
	w.mu.Lock()
	w.number++
	w.threads++
	n := w.number
	w.mu.Unlock()
	go func() {
		code := do(context.WithValue(context.WithValue(context.Background(), threadKey{}, n), placeKey{}, place{w, p}))
		w.mu.Lock()
		w.results = append(w.results, result{n, p, code, done})
		w.mu.Unlock()
		w.arrive()
	}()
}

// finish calls done for the requests that have ended.
func (w *world) finish() {
	w.mu.Lock()
	all := w.results
	w.results = nil
	w.threads -= len(all)
	w.mu.Unlock()
	slices.SortFunc(all, func(a, b result) int { return a.thread - b.thread })
	for _, r := range all {
		if r.p.dead {
			r.code = 0
		}
		w.ended = r.thread
		r.done(r.code)
	}
}

// deliver pushes a message to some process, until it is acknowledged.
func (w *world) deliver(m *message) {
	m.attempts++
	p := w.processes[w.rng.IntN(len(w.processes))]
	function, _, _ := strings.Cut(m.path, "?")
	body := wire.Envelope{MessageID: m.id, PublishTime: m.published, Data: m.data, DeliveryAttempt: m.attempts}.Push()
	w.request(p, func(ctx context.Context) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+m.path, bytes.NewReader(body))
		rec := httptest.NewRecorder()
		p.serve[function].ServeHTTP(rec, r)
		return rec.Code
	}, func(code int) {
		w.tell("%s of %s: %d", m.id, m.path, code)
		switch {
		case code == http.StatusNoContent && w.panicked[w.ended] && m.isRelay() && time.Since(m.published) < 4*time.Minute:
			w.fail("a relay in which %s panicked is acknowledged", w.poisoned)
		case code == http.StatusNoContent && m.invalid, code == http.StatusAccepted && !m.invalid:
			w.fail("%s, invalid %t, is answered %d: %s", m.id, m.invalid, code, m.data)
		case code == http.StatusNoContent, code == http.StatusAccepted:
			m.acked = true
			if !w.calm && w.rng.IntN(10) == 0 {
				w.at(time.Now().Add(time.Duration(w.rng.IntN(900))*time.Second), func() { w.deliver(m) })
			}
		case code != 0 && code != http.StatusTooManyRequests && code != http.StatusServiceUnavailable:
			w.fail("%s of %s is answered %d", m.id, m.path, code)
		default:
			w.at(time.Now().Add(min(10*time.Second<<min(m.attempts-1, 6), 10*time.Minute)), func() { w.deliver(m) })
		}
	})
}

// send puts a message on a topic.
func (w *world) send(path string, data any, invalid bool) *message {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	m := &message{id: fmt.Sprintf("m%d", len(w.messages)), path: path, data: raw, published: time.Now(), invalid: invalid}
	w.messages = append(w.messages, m)
	w.deliver(m)
	return m
}

func (w *world) job(name string) *message {
	return w.send("reconcile", map[string]string{"job": name}, false)
}

// publisher is the downstream topics as a process reaches them.
func (w *world) publisher(p *process) cycle.Publish {
	return func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		out := make([]cycle.Published, len(msgs))
		err := w.do(ctx, p, true, "publish "+topic+" "+msgs[0].Attributes["trigger_id"], func() error {
			for i, m := range msgs {
				w.mu.Lock()
				w.ids++
				out[i].ID = fmt.Sprintf("b%d", w.ids)
				w.mu.Unlock()
				w.accepted(topic, m)
			}
			return nil
		})
		if err != nil {
			for i := range out {
				out[i] = cycle.Published{Err: err}
			}
		}
		return out
	}
}

// checker is the readiness of the tables, as a process asks for it.
func (w *world) checker(p *process) cycle.Check {
	return func(ctx context.Context, key cycle.Key, mode string, _ []string) cycle.Readiness {
		takes := time.Second
		switch {
		case key.Period == w.poisoned:
			w.mu.Lock()
			w.panicked[threadOf(ctx)] = true
			w.mu.Unlock()
			panic("the statement cannot be parsed")
		case key.Period == w.hangs:
			takes = time.Hour // until its caller's context ends
		}
		limit := time.NewTimer(takes)
		defer limit.Stop()
		select {
		case <-limit.C:
		case <-ctx.Done():
			return cycle.Readiness{Outcome: cycle.Unknown, Reasons: []string{ctx.Err().Error()}}
		}
		if err := w.do(ctx, p, false, "check "+key.String()+" "+mode, func() error { return nil }); err != nil {
			return cycle.Readiness{Outcome: cycle.Unknown, Reasons: []string{err.Error()}}
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
}

func (w *world) doc(collection, id string) store.Doc {
	snap, err := w.mem.Get(context.Background(), store.Ref{Collection: collection, ID: id})
	if err != nil {
		panic(err)
	}
	return snap.Docs[0]
}

// version adds up those of the documents that a commit writes.
func (w *world) version(ws []store.Write) (sum store.Version) {
	for _, wr := range ws {
		sum += w.doc(wr.Ref.Collection, wr.Ref.ID).Version
	}
	return sum
}
