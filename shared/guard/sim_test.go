//go:build !race

// The goroutines of a world take turns by its virtual clock, of which the race detector knows nothing.

package guard

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// The simulation plays guards, their service and a broker in virtual time. All calls of the
// store take random time, so that a seed decides the order of everything. A guard dies before
// or after a call, or while its service works; an answer of the store is lost, before or after
// the write is applied, or the write lands later; an instance is suspended; a connection to the
// service breaks; the broker delivers copies, also while the first is at work, and replays; an
// operator asks for a new run. The oracle knows each run of the service and what each guard
// could rely on, from the answers of the store alone.

var (
	simSeeds = flag.Int("sim.seeds", 2000, "how many worlds TestSimulation plays")
	simFrom  = flag.Int("sim.from", 1, "the first of them")
)

const (
	simTTL  = time.Minute
	simTick = time.Millisecond
)

var errAway = errors.New("the store is away")

// profile is a deployment with what may go wrong in it.
type profile struct {
	name     string
	parent   bool // the service dies with its guard
	kills    bool // on a lost claim and an unknown result
	cooldown bool
	serial   bool // two messages set off one processor, which takes its own lock and answers 200 if it is held
	quiet    bool // no faults
	forget   bool
	long     bool // in TestEverySchedule: runs last beyond the time of a claim, and the broker hangs up
	fails    int  // in TestEverySchedule: so many runs report a failure
	effect   bool // and have had their effect
}

var profiles = []profile{
	{name: "sidecar"},
	{name: "parent", parent: true},
	{name: "parent_kill", parent: true, kills: true},
	{name: "forget", forget: true},
	{name: "serial", parent: true, kills: true, cooldown: true, serial: true},
	{name: "no_faults", quiet: true},
	{name: "serial_no_faults", parent: true, cooldown: true, kills: true, serial: true, quiet: true},
}

type world struct {
	profile
	rng   *rand.Rand
	path  *path // of TestEverySchedule, in place of rng
	store *memory.Store
	end   chan struct{} // closed at the end of the world: what still waits ends
	over  bool

	faults   int // left
	faulted  bool
	messages []*message
	runs     []*execution
	tries    []*try
	forgets  int
	locks    map[string]*execution // that the service itself holds
	wrong    []string
	log      []string
}

type message struct {
	name, key, proc string
	subscription    string
	epoch           int // how many forgets there were when it was published
	acked           bool
	refused         int
}

// try is one delivery to one instance.
type try struct {
	w        *world
	name     string
	instance string // two serve one service
	m        *message

	dead, ended, cut, suspended bool
	suspendedSinceCheck         bool
	until                       time.Time // it is suspended until then
	skew                        time.Duration
	epoch                       int       // how many forgets there were when it claimed
	claimedAt                   int       // commit number of its claim
	trust                       time.Time // when its safe time ends, as far as the store has answered
	run                         *execution
	recorded, unrecorded        bool // the receipt has its success; the guard has given that up
	doneAt                      int  // commit number of its success
	answered                    bool
	done                        chan struct{}  // closed when it has answered or died
	breaks                      chan time.Time // in TestEverySchedule: the connection to the service breaks
}

// execution is one run of the service.
type execution struct {
	name      string
	t         *try
	key       string
	on        bool
	completed bool
	failedTo  bool // reports a failure after its effect
	killed    bool
	epoch     int
	gone      chan struct{}
	own       bool      // its guard was suspended between its check and the beginning
	locked    time.Time // when it took the service's own lock, which lasts for a while, whatever becomes of the run
}

func (w *world) note(format string, a ...any) {
	if !w.over {
		w.log = append(w.log, fmt.Sprintf("%9s  ", time.Since(simEpoch).Round(simTick))+fmt.Sprintf(format, a...))
	}
}

var simEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of synctest

func (w *world) bad(format string, a ...any) {
	if !w.over {
		w.wrong = append(w.wrong, fmt.Sprintf(format, a...))
		w.note("*** "+format, a...)
	}
}

// fault reports whether something goes wrong now, one time in n.
func (w *world) fault(n int) bool {
	if w.faults == 0 || w.over || w.path == nil && w.rng.IntN(n) > 0 || w.path != nil && w.path.Choose(2) == 0 {
		return false
	}
	w.faults--
	w.faulted = true
	return true
}

func (w *world) pause(atMost time.Duration) { time.Sleep(simTick + w.upTo(atMost)) }

// upTo returns a random time below d; a path has half of it.
func (w *world) upTo(d time.Duration) time.Duration {
	if w.path != nil {
		return d / 2
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

// either chooses one of two ways.
func (w *world) either() bool {
	if w.path != nil {
		return w.path.Choose(2) == 0
	}
	return w.rng.IntN(2) == 0
}

// alive returns once the instance of a try runs; a dead one never returns.
func (t *try) alive(part string) {
	if t.w.fault(60) {
		d := simTTL/4 + t.w.upTo(2*simTTL)
		t.until, t.suspended, t.suspendedSinceCheck = time.Now().Add(d), true, true
		t.w.note("%s is suspended for %s", t.name, d.Round(time.Second))
	}
	for !t.dead && time.Now().Before(t.until) {
		time.Sleep(time.Until(t.until))
		t.turn(part)
	}
	if t.dead || t.w.over {
		<-t.w.end
		runtime.Goexit()
	}
}

// die ends a guard; in a parent its service ends with it.
func (t *try) die() {
	if t.dead || t.ended {
		return
	}
	t.dead = true
	t.w.note("%s DIES", t.name)
	if t.w.parent && t.run != nil {
		t.w.kill(t.run)
	}
	close(t.done)
}

func (w *world) kill(e *execution) {
	if !e.on {
		return
	}
	e.on, e.killed = false, true
	w.note("%s is killed", e.name)
	close(e.gone)
}

// simStore is the store as one try sees it.
type simStore struct {
	t *try
}

func (s simStore) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	part := partGuard + refs[0].Collection
	s.t.begins(part)
	switch {
	case s.t.w.fault(40):
		s.t.die()
	case s.t.w.fault(40):
		return store.Snapshot{}, errAway
	}
	s.t.alive(part)
	snap, err := s.t.w.store.Get(ctx, refs...)
	s.t.answers()
	s.t.alive(part)
	return snap, err
}

func (s simStore) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	t, w := s.t, s.t.w
	part := partGuard + writes[0].Ref.Collection
	began := t.begins(part)
	switch {
	case w.fault(30):
		t.die()
	case w.fault(30):
		w.note("%s: the store is away", t.name)
		return nil, errAway
	case w.fault(30):
		d := w.upTo(2 * simTTL)
		w.note("%s: a write lands %s later", t.name, d.Round(time.Second))
		go func() {
			time.Sleep(d)
			if v, err := w.store.Apply(context.Background(), writes...); err == nil {
				t.applied(writes, v, time.Time{})
				w.listed(t.m)
			}
		}()
		return nil, errAway
	}
	t.alive(part)
	versions, err := w.store.Apply(ctx, writes...)
	if err == nil && w.fault(20) {
		t.applied(writes, versions, time.Time{})
		if w.either() {
			t.die()
			t.alive(part)
		}
		w.note("%s: an answer is lost", t.name)
		return nil, errAway
	}
	if err == nil {
		t.applied(writes, versions, began)
		w.listed(t.m)
	}
	t.answers()
	t.alive(part)
	return versions, err
}

func (s simStore) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.t.w.store.Scan(ctx, collection, from, to)
}

// applied is what the oracle learns from a write. began is when the attempt was made, zero if
// its answer was lost.
func (t *try) applied(writes []store.Write, versions []store.Version, began time.Time) {
	for i, write := range writes {
		if write.Ref.Collection != "receipts" {
			continue
		}
		for _, f := range write.Fields {
			switch {
			case f.Path[0] == "state" && f.Value == receipt.Working:
				t.claimedAt, t.epoch = int(versions[i]), t.w.forgets
				if began.IsZero() {
					began = time.Now().Add(-20 * time.Millisecond)
				}
				t.trust = began.Add(simTTL * 9 / 10)
				t.w.note("%s has the claim of %s", t.name, t.m.key)
			case f.Path[0] == "renewed" && len(write.Fields) == 1 && !began.IsZero():
				t.trust = began.Add(simTTL * 9 / 10)
				t.w.note("%s renews", t.name)
			case f.Path[0] == "state" && f.Value == receipt.Done:
				t.recorded, t.doneAt = true, int(versions[i])
				t.w.note("%s records %s as done", t.name, t.m.key)
			case f.Path[0] == "state" && f.Value == receipt.Released:
				t.w.note("%s releases %s", t.name, t.m.key)
			}
		}
	}
}

// receiptOf reads the receipt of a message as it is.
func (w *world) receiptOf(m *message) store.Doc {
	snap, err := w.store.Get(context.Background(), store.Ref{Collection: "receipts", ID: delivery(m).ID()})
	if err != nil {
		panic(err)
	}
	return snap.Docs[0]
}

// delivery is what the guard reads from the push of a message.
func delivery(m *message) receipt.Delivery {
	body := fmt.Appendf(nil, `{"message":{"attributes":{"trigger_id":%q},"data":%q,"messageId":%q,"publishTime":"2026-02-04T11:00:00Z"},"subscription":%q}`,
		m.key, base64.StdEncoding.EncodeToString([]byte(m.key)), m.name, m.subscription)
	r, err := http.NewRequest(http.MethodPost, "/", nil)
	if err == nil {
		r.RequestURI = "/"
		r.Header.Set("Content-Type", "application/json")
		var d receipt.Delivery
		if d, err = (&Guard{Config: Config{Scope: "service"}}).delivery(r, body); err == nil {
			return d
		}
	}
	panic(err)
}

// deliver sends a message to an instance of its own; it returns when the broker has an answer,
// or does not wait for it any more.
func (w *world) deliver(m *message) {
	t := &try{w: w, name: fmt.Sprintf("g%d", len(w.tries)+1), instance: fmt.Sprintf("i%d", len(w.tries)%2), m: m, done: make(chan struct{}), skew: w.upTo(time.Hour), breaks: make(chan time.Time, 1)}
	w.tries = append(w.tries, t)
	w.note("%s is delivered to %s", m.name, t.name)
	g := t.guard()
	ctx, hangUp := context.WithCancel(context.Background())
	go func() {
		a := g.deliver(ctx, delivery(m), t.serve)
		t.alive(partGuard)
		t.ended = true
		t.answer(a)
		close(t.done)
	}()
	deadline := 2*simTTL + w.upTo(8*simTTL)
	if w.long {
		deadline = simTTL + 3*time.Second
	}
	select {
	case <-t.done:
	case <-time.After(deadline):
		w.note("the broker hangs up on %s", t.name)
	case <-w.end:
	}
	t.answered = true
	hangUp()
}

func (t *try) guard() *Guard {
	now := func() time.Time { return time.Now().Add(t.skew) }
	id := 0
	newID := func() string { id++; return fmt.Sprintf("%s.%d", t.name, id) }
	quiet := slog.New(events{slog.DiscardHandler, t})
	g := &Guard{ended: make(chan struct{}), Config: Config{
		Receipts: receipt.New(receipt.Config{Store: simStore{t}, Now: now, NewID: newID, TTL: simTTL, Instance: t.instance, Log: quiet}),
		Scope:    "service", Paths: []string{"/"}, Success: []int{200}, Limit: 6 * simTTL, Cooldown: t.w.cooldown, NewID: newID, Log: quiet,
	}}
	if t.w.kills {
		g.Kill = func() {
			t.turn(partGuard)
			t.alive(partGuard)
			if t.run != nil {
				t.w.kill(t.run)
			}
		}
	}
	if t.w.serial {
		g.Locks = lease.New(lease.Config{Store: simStore{t}, Now: now, NewID: newID, Lease: simTTL, Instance: t.name, Log: quiet})
		g.Serial = func([]byte) ([]lease.Key, error) {
			return []lease.Key{{Class: "guard_" + t.m.proc, Period: "2026-02-03"}}, nil
		}
	}
	return g
}

// events notes what a guard logs.
type events struct {
	slog.Handler
	t *try
}

func (e events) Enabled(context.Context, slog.Level) bool { return true }
func (e events) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e events) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		e.t.unrecorded = e.t.unrecorded || a.Key == "event" && a.Value.String() == telemetry.GuardUnrecorded
		e.t.cut = e.t.cut || a.Key == "event" && a.Value.String() == telemetry.GuardUnknown
		return true
	})
	return nil
}

// answer is what the broker makes of an answer.
func (t *try) answer(a answer) {
	t.w.note("%s answers %d", t.name, a.status)
	if t.answered || !slices.Contains(acknowledged, a.status) {
		t.m.refused++
		return
	}
	t.m.acked = true
	for _, e := range t.w.runs {
		if e.completed && e.key == t.m.key && e.epoch >= t.m.epoch {
			return
		}
	}
	t.w.bad("2: %s is acknowledged, and its work was never completed", t.m.name)
}

// serve is the service: a run with an effect, which may fail, break off, or take long.
func (t *try) serve(ctx context.Context) answer {
	w := t.w
	t.suspendedSinceCheck = false
	t.alive(partServe) // a suspension here cannot be seen by a guard that has checked
	e := &execution{name: fmt.Sprintf("e%d", len(w.runs)+1), t: t, key: t.m.key, on: true, epoch: t.epoch, own: t.suspendedSinceCheck, gone: make(chan struct{})}
	w.judge(e)
	w.runs = append(w.runs, e)
	t.run = e
	w.note("%s begins %s", t.name, e.name)
	result := make(chan answer, 1)
	go func() { result <- w.work(e) }()
	breaks, dies := (<-chan time.Time)(t.breaks), (<-chan time.Time)(nil)
	if w.path == nil && w.fault(8) {
		breaks = time.After(w.upTo(3 * simTTL))
	}
	if w.path == nil && w.fault(8) {
		dies = time.After(w.upTo(3 * simTTL))
	}
	for {
		select {
		case a := <-result:
			t.alive(partServe)
			return a
		case <-breaks:
			t.cut = true
			if w.either() {
				w.kill(e) // gunicorn's own timeout
			}
			w.note("the connection of %s to %s breaks", t.name, e.name)
			return answer{result: unknown, err: errors.New("broken")}
		case <-dies:
			t.die()
			t.alive(partServe)
		case <-ctx.Done():
			t.cut = true
			return answer{result: unknown, err: ctx.Err()}
		case <-e.gone:
			t.alive(partServe)
			return answer{result: unknown, err: errors.New("killed")}
		case <-w.end:
			runtime.Goexit()
		}
	}
}

func (w *world) work(e *execution) answer {
	step := func(d time.Duration) bool {
		if w.path != nil {
			return w.followed(e, d)
		}
		select {
		case <-time.After(simTick + w.upTo(d)):
			return e.on
		case <-e.gone:
			return false
		case <-w.end:
			return false
		}
	}
	gone := answer{result: unknown, err: errors.New("the process has ended")}
	if w.serial {
		if by := w.locks[e.t.m.proc]; by != nil && time.Since(by.locked) < simTTL*9/10 {
			switch {
			case !by.on && !by.own && !e.own:
				w.bad("7: %s meets the service's lock of %s, which has ended: the guard's lock did not outlast it", e.name, by.name)
			case w.quiet:
				w.bad("7: %s meets the service's lock of %s, without a fault", e.name, by.name)
			}
			e.on = false
			w.note("%s skips its work: %s has the lock", e.name, by.name)
			return w.judged(e, answer{status: 200, body: []byte(`{"status":"skipped"}`)})
		}
		w.locks[e.t.m.proc], e.locked = e, time.Now()
	}
	long := simTTL / 4
	if w.path == nil && w.rng.IntN(4) == 0 || w.long {
		long = 4 * simTTL
	}
	if !step(long) {
		return gone
	}
	reported, effect := len(w.runs) <= w.fails, w.effect
	if w.path == nil {
		reported, effect = w.rng.IntN(8) == 0, w.rng.IntN(2) == 0
	}
	if !reported || effect {
		e.completed = true
		w.note("%s has its effect", e.name)
	}
	e.failedTo = reported && e.completed
	if !step(simTTL / 4) {
		return gone
	}
	e.on = false
	if w.serial && w.locks[e.t.m.proc] == e {
		delete(w.locks, e.t.m.proc)
	}
	if reported {
		w.note("%s answers 500", e.name)
		return answer{result: failed, status: 500, err: errors.New("500")}
	}
	return w.judged(e, answer{status: 200, body: []byte(`{"status":"completed"}`)})
}

// judged applies the definition of success of the real guard.
func (w *world) judged(e *execution, a answer) answer {
	g := Guard{Config: Config{Success: []int{200}}}
	if w.serial {
		g.SuccessJSON = map[string][]string{"status": {"completed"}}
	}
	w.note("%s answers %s", e.name, a.body)
	if err := g.failure(a); err != nil {
		a.result, a.err = failed, err
	}
	return a
}

// judge says whether a run may begin now.
func (w *world) judge(e *execution) {
	t := e.t
	doc := w.receiptOf(t.m)
	own := t.suspendedSinceCheck
	if doc.Data["state"] == receipt.Done && !own && int(doc.Version) < t.claimedAt {
		w.bad("3: %s begins, and the receipt was done before its claim", e.name)
	}
	for _, x := range w.runs {
		if x.key != e.key {
			continue
		}
		h := x.t
		if x.on && !own && time.Now().Before(h.trust) {
			w.bad("1: %s begins while %s is at work, under a claim of %s that lasts", e.name, x.name, h.name)
		}
		if x.on && !own && w.quiet {
			w.bad("1: %s begins while %s is at work, without a fault", e.name, x.name)
		}
		if x.completed && !x.on && x.epoch == w.forgets && e.epoch == x.epoch && !own && !w.explained(x, t) {
			w.bad("6: %s begins after %s had its effect", e.name, x.name)
		}
	}
}

// explained reports whether the documented limits allow a copy after a completed run.
func (w *world) explained(x *execution, by *try) bool {
	h := x.t
	switch {
	case x.failedTo, x.killed, h.cut, h.unrecorded:
		return true
	case h.recorded: // it has absorbed the claim of the copy
		return by.claimedAt < h.doneAt
	case h.dead:
		return true
	}
	return !h.ended && !time.Now().Before(h.trust)
}

// broker delivers a message until it is acknowledged; copies come at random.
func (w *world) broker(m *message, done chan<- bool) {
	backoff := 10 * time.Second
	if w.path != nil {
		backoff += time.Duration(len(w.messages)) * time.Second // no two brokers at one time
	}
	for !m.acked && !w.over {
		w.deliver(m)
		if !m.acked {
			w.pause(backoff)
			backoff = min(2*backoff, 10*simTTL)
		}
	}
	done <- true
}

func (w *world) publish(name, key, proc string) *message {
	m := &message{name: name, key: key, proc: proc, subscription: "triggers", epoch: w.forgets}
	w.messages = append(w.messages, m)
	return m
}

// copyOf is another message with the same key: one that was published again, or a dead letter
// that was replayed.
func (w *world) copyOf(m *message) *message {
	c := w.publish("copy", m.key, m.proc)
	c.subscription = "replays"
	return c
}

// clean deletes expired documents, as the platform does at some time.
func (w *world) clean() {
	for {
		select {
		case <-time.After(time.Duration(w.rng.Int64N(int64(4 * simTTL)))):
		case <-w.end:
			return
		}
		for doc, err := range w.store.Scan(context.Background(), "receipts", "a", "z") {
			if at, ok := doc.Data["expires_at"].(time.Time); err == nil && ok && at.Before(time.Now()) {
				_, _ = w.store.Apply(context.Background(), store.DeleteIf(doc.Ref, doc.Version))
				w.note("%s expires", doc.Ref)
			}
		}
	}
}

// slow is the store as an operator sees it: much happens between two calls.
type slow struct{ w *world }

func (s slow) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s.turn()
	return s.w.store.Get(context.Background(), refs...)
}

func (s slow) turn() {
	if s.w.path != nil {
		s.w.path.wait(s.w, "operator")
	} else {
		s.w.pause(simTTL / 4)
	}
}

func (s slow) Apply(_ context.Context, writes ...store.Write) ([]store.Version, error) {
	s.turn()
	return s.w.store.Apply(context.Background(), writes...)
}

func (s slow) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return s.w.store.Scan(ctx, collection, from, to)
}

// forget is an operator who asks for a new run of the first key, and tries until it is granted.
func (w *world) forget(done chan<- bool) {
	m, asked := w.messages[0], 0
	r := receipt.New(receipt.Config{Store: slow{w}, Now: time.Now, NewID: func() string { asked++; return fmt.Sprint("operator", asked) }, TTL: simTTL, Log: slog.New(slog.DiscardHandler)})
	for i := range 20 {
		if i > 0 || w.path == nil {
			w.pause(3 * simTTL)
		}
		if err := r.Forget(context.Background(), delivery(m).ID(), "operator", "again"); err != nil {
			w.note("forget is refused: %v", err)
			continue
		}
		w.listed(m)
		w.forgets++
		w.note("an operator asks for a new run of %s", m.key)
		n := w.publish("f1", m.key, m.proc)
		n.epoch = w.forgets
		w.broker(n, done)
		return
	}
	done <- true
}

func play(t *testing.T, seed int, p profile) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		w = &world{profile: p, rng: rng, store: memory.New(time.Now), end: make(chan struct{}), locks: map[string]*execution{}}
		if !p.quiet {
			w.faults = 1 + rng.IntN(5)
		}
		done := make(chan bool, 16)
		begin := 0
		start := func(f func()) { begin++; go f() }
		w.publish("m1", "k1", "P")
		if p.serial {
			w.publish("m2", "k2", "P")
		}
		for _, m := range w.messages {
			start(func() {
				w.pause(10 * simTick)
				w.broker(m, done)
			})
		}
		for range rng.IntN(3) { // copies of a message, also of one that is acknowledged
			start(func() {
				w.pause(12 * simTTL)
				w.deliver(w.copyOf(w.messages[0]))
				done <- true
			})
		}
		go w.clean()
		if p.forget {
			start(func() { w.forget(done) })
		}
		limit := time.After(200 * simTTL)
		for range begin {
			select {
			case <-done:
			case <-limit:
				w.bad("4: no end after %s", 200*simTTL)
			}
			if len(w.wrong) > 0 {
				break
			}
		}
		w.atTheEnd()
		w.over = true
		close(w.end)
		time.Sleep(20 * simTTL) // every timer of a dead guard ends
		synctest.Wait()
	})
	return w
}

// listed judges that the open receipts are those of runs that may be at work, however the world
// has gone.
func (w *world) listed(m *message) {
	snap, err := w.store.Get(context.Background(), store.Ref{Collection: "receipts", ID: delivery(m).ID()}, store.Ref{Collection: "open_receipts", ID: delivery(m).ID()})
	if err != nil {
		panic(err)
	}
	state, overlap := snap.Docs[0].Data["state"], snap.Docs[0].Data["overlap"] == true
	var latest *try // to claim it
	for _, t := range w.tries {
		if t.m.key == m.key && t.claimedAt > 0 && (latest == nil || t.claimedAt > latest.claimedAt) {
			latest = t
		}
	}
	atWork := state == receipt.Working || overlap && latest != nil && latest.run != nil && latest.run.on && !latest.recorded
	if open := snap.Docs[1].Exists; atWork && !open || open && state != receipt.Working && !overlap {
		w.bad("8: the receipt of %s is %v, overlap %t, and it is listed as open: %t", m.key, state, overlap, open)
	}
}

// atTheEnd judges what the world has come to.
func (w *world) atTheEnd() {
	if len(w.wrong) > 0 || w.faulted || w.forgets > 0 {
		return
	}
	for _, m := range w.messages {
		runs, want := 0, 1
		for _, e := range w.runs {
			if e.key == m.key {
				if runs++; !e.completed || e.failedTo {
					want++
				}
			}
		}
		if runs != want {
			w.bad("5: %d runs of %s without a fault, want %d", runs, m.key, want)
		}
	}
}

func TestSimulation(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a seed has one order of events
	began := time.Now()
	for seed := *simFrom; seed < *simFrom+*simSeeds; seed++ {
		p := profiles[seed%len(profiles)]
		if w := play(t, seed, p); len(w.wrong) > 0 {
			t.Fatalf("seed %d, %s: %s\n%s", seed, p.name, w.wrong[0], strings.Join(w.log, "\n"))
		}
	}
	took := time.Since(began)
	t.Logf("%d worlds in %s: %.0f a second", *simSeeds, took.Round(time.Millisecond), float64(*simSeeds)/took.Seconds())
}
