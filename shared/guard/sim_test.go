//go:build !race

// The goroutines of a world take turns by its virtual clock, of which the race detector knows nothing.

package guard

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// The simulation plays guards, their service and a broker in virtual time. All calls of the
// store take random time, so that a seed decides the order of everything. A guard dies before
// or after a call, or while its service works. An answer of the store is lost, before or after
// the write is applied, or the write lands later. An instance is suspended. A connection to the
// service breaks. The broker delivers copies, also while the first is at work, and replays. An
// operator asks for a new run. The oracle knows each run of the service. From the answers of
// the store alone it knows what each guard could rely on.

var (
	simSeeds = flag.Int("sim.seeds", 2000, "how many worlds TestSimulation plays")
	simFrom  = flag.Int("sim.from", 1, "the first of them")
)

const (
	simTTL  = time.Minute
	simTick = time.Millisecond
)

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
