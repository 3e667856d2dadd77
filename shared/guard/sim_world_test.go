//go:build !race

package guard

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store/memory"
)

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
	locked    time.Time // when it took the service's own lock, which outlives a run that dies
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
