//go:build unix && !race

package simulation

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// Every call that the system makes stops at a gate. When all goroutines wait, the seed chooses
// which call goes on, and its fault.

// fault is the fault of one call.
type fault int

const (
	healthy    fault = iota
	refused          // no effect, and an error
	lost             // its effect, and an error
	late             // an error, and its effect comes later
	slow             // the process waits, then makes the call
	slowAfter        // the process makes the call, then waits
	diesBefore       // the process ends without the effect
	diesAfter        // the process ends with the effect
	dead             // the process had ended before
)

var (
	errRefused = errors.New("refused")
	errDead    = errors.New("the process is dead")
)

// call is one call that waits for its turn.
type call struct {
	process *process
	thread  int
	what    string
	write   bool
	wake    time.Time
	turn    chan fault
}

type threadKey struct{}

func threadOf(ctx context.Context) int { n, _ := ctx.Value(threadKey{}).(int); return n }

// do makes one call of a process, when its turn comes.
func (w *world) do(ctx context.Context, p *process, write bool, what string, effect func() error) error {
	switch f := w.stop(&call{process: p, thread: threadOf(ctx), what: what, write: write}); f {
	case dead:
		return errDead
	case refused:
		return errRefused
	case lost:
		_ = effect()
		return errRefused
	case late:
		w.after(time.Duration(1+w.draw(180))*time.Second, func() { _ = effect() })
		return errRefused
	case diesBefore:
		w.kill(p)
		return errDead
	case diesAfter:
		_ = effect()
		w.kill(p)
		return errDead
	case slowAfter:
		err := effect()
		if w.stop(&call{process: p, thread: threadOf(ctx), what: what, wake: time.Now().Add(w.pause())}) == dead {
			return errDead
		}
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return effect()
}

// stop waits for the turn of a call.
func (w *world) stop(c *call) fault {
	w.mu.Lock()
	switch {
	case c.process.dead:
		w.mu.Unlock()
		return dead
	case w.calm && !c.write: // no faults are drawn any more, and reads need no order
		w.calls++
		w.mu.Unlock()
		return healthy
	}
	c.turn = make(chan fault, 1)
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	w.arrive()
	return <-c.turn
}

// arrive wakes the scheduler.
func (w *world) arrive() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

func (w *world) draw(n int) int { w.mu.Lock(); defer w.mu.Unlock(); return w.rng.IntN(n) }

// pause is how long a process waits, often longer than its claim.
func (w *world) pause() time.Duration {
	return []time.Duration{time.Second, 40 * time.Second, 59 * time.Second, 70 * time.Second, 100 * time.Second, 11 * time.Minute}[w.draw(6)]
}

// fault draws the fault of a call.
func (w *world) fault(c *call) fault {
	if w.calm || w.faults == 0 || w.rng.IntN(w.rate) > 0 {
		return healthy
	}
	w.faults--
	w.happened++
	kinds := []fault{refused, slow, slow, slowAfter, diesBefore, diesAfter}
	if c.write {
		kinds = append(kinds, lost, lost, late, late)
	}
	return kinds[w.rng.IntN(len(kinds))]
}

// play runs until no event is left before an instant.
func (w *world) play(until time.Time) {
	for w.problem == "" {
		synctest.Wait()
		w.finish()
		if w.steps++; w.steps > 60_000 {
			w.fail("no end after %d steps", w.steps)
			return
		}
		now := time.Now()
		for len(w.events) > 0 && !w.events[0].at.After(now) {
			e := w.events[0]
			w.events = w.events[1:]
			e.do()
		}
		synctest.Wait()
		w.mu.Lock()
		var ready []*call
		next := until
		for _, c := range w.waiting {
			if !c.wake.After(now) {
				ready = append(ready, c)
			} else if c.wake.Before(next) {
				next = c.wake
			}
		}
		if len(ready) > 0 {
			slices.SortFunc(ready, func(a, b *call) int { return cmp.Or(a.thread-b.thread, cmp.Compare(a.what, b.what)) })
			c := ready[w.rng.IntN(len(ready))]
			f := w.fault(c)
			if f == slow {
				w.mu.Unlock()
				c.wake = now.Add(w.pause())
				continue
			}
			w.waiting = slices.DeleteFunc(w.waiting, func(o *call) bool { return o == c })
			w.calls++
			rest := time.Duration(1+w.rng.IntN(8)) * time.Millisecond
			w.mu.Unlock()
			w.tell("%d:%d %s %v", c.process.id, c.thread, c.what, f)
			c.turn <- f
			time.Sleep(rest)
			continue
		}
		if len(w.events) > 0 && w.events[0].at.Before(next) {
			next = w.events[0].at
		}
		w.mu.Unlock()
		if !next.After(now) {
			return
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-timer.C:
		case <-w.arrived:
		}
		timer.Stop()
	}
}

// gated is the store as one process reaches it.
type gated struct {
	w *world
	p *process
}

func (g gated) Get(ctx context.Context, refs ...store.Ref) (snap store.Snapshot, err error) {
	failed := g.w.do(ctx, g.p, false, "get "+refs[0].String(), func() (err error) { snap, err = g.w.mem.Get(context.WithoutCancel(ctx), refs...); return err })
	return snap, failed
}

func (g gated) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	failed := g.w.do(ctx, g.p, true, "apply "+ws[len(ws)-1].Ref.String(), func() (err error) {
		before := g.w.version(ws)
		vs, err = g.w.mem.Apply(context.WithoutCancel(ctx), ws...)
		if err == nil && before != g.w.version(ws) {
			g.w.applied(ws)
		}
		return err
	})
	return vs, failed
}

func (g gated) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		var docs []store.Doc
		err := g.w.do(ctx, g.p, false, "scan "+collection+" "+from, func() error {
			docs = nil
			for doc, err := range g.w.mem.Scan(context.WithoutCancel(ctx), collection, from, to) {
				if err != nil {
					return err
				}
				docs = append(docs, doc)
			}
			return nil
		})
		if err != nil {
			yield(store.Doc{}, err)
			return
		}
		for _, doc := range docs {
			if !yield(doc, nil) {
				return
			}
		}
	}
}
