package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// history is what 8 clients of one lock saw, while calls were refused, answers lost,
// writes landed late and processes stood still beyond their lease.
type history struct {
	inner  store.Store
	prefix string // of its collections
	lease  time.Duration
	order  atomic.Int64 // of calls and answers
	late   sync.WaitGroup
	look   func(execution string) error // whether the lock is that execution's, in truth
	clock  historyClock

	mu      sync.Mutex
	rng     *rand.Rand
	ops     []porcupine.Operation
	clients int // a client whose call has no answer goes on as another
	problem error
}

const historyClients, historyRounds = 8, 3

// historyClock is the clock of all clients of a history. Each goroutine that uses it enters
// before it begins, and leaves when it ends.
type historyClock interface {
	now() time.Time
	sleep(d time.Duration)
	enter()
	leave()
}

// synctestClock is the clock of a test in synctest.
type synctestClock struct{}

func (synctestClock) now() time.Time        { return time.Now() }
func (synctestClock) sleep(d time.Duration) { time.Sleep(d) }
func (synctestClock) enter()                {}
func (synctestClock) leave()                {}

func (h *history) draw(n int) int { h.mu.Lock(); defer h.mu.Unlock(); return h.rng.IntN(n) }

// client is one process: its store goes wrong, and its executions are its own.
type client struct {
	*history
	id     int
	locks  *Locks
	faults int   // of the calls to the store so far
	landed int64 // version of a write of the present call whose answer was lost on its way to the driver
}

func (h *history) play() []porcupine.Operation {
	h.clients = historyClients
	var wg sync.WaitGroup
	for range historyClients {
		h.clock.enter()
	}
	for i := range historyClients {
		wg.Go(func() {
			defer h.clock.leave()
			c := &client{history: h, id: i}
			log, err := telemetry.New(io.Discard, "error")
			if err != nil {
				panic(err)
			}
			ids := 0
			c.locks = New(Config{Store: c, Now: h.clock.now, Lease: h.lease, Prefix: h.prefix, Instance: fmt.Sprint(i), Log: log,
				NewID: func() string { ids++; return fmt.Sprintf("n%d.%d", i, ids) }})
			for round := range historyRounds {
				c.round(fmt.Sprintf("c%d.%d", i, round))
			}
		})
	}
	wg.Wait()
	h.late.Wait()
	return h.ops
}

// part is a random part of a tenth of the lease, or at times more than all of it.
func (c *client) part() time.Duration {
	if c.draw(12) == 0 {
		return c.lease + time.Duration(c.draw(int(c.lease/3)))
	}
	return time.Duration(c.draw(int(c.lease / 10)))
}

// round is one run: it waits its turn, acquires, works and renews, and releases or dies.
func (c *client) round(execution string) {
	c.clock.sleep(c.part())
	ctx := context.Background()
	var got *Lease
	c.record(call{"acquire", execution, 0}, func() (a answer, err error) {
		got, err = c.locks.Acquire(ctx, key, execution)
		held := (*HeldError)(nil)
		switch {
		case errors.As(err, &held):
			return answer{result: "held", holder: held.State.Execution}, nil
		case err != nil:
			return a, err
		}
		return answer{result: "ok", version: int64(got.version)}, nil
	})
	if got == nil {
		if c.draw(3) == 0 {
			c.inspect()
		}
		return
	}
	for range c.draw(4) {
		c.clock.sleep(c.part())
		if got.Check() != nil {
			break
		}
		if c.look != nil { // while it works, no other run may hold the lock
			if err := c.look(execution); err != nil {
				c.mu.Lock()
				c.problem = errors.Join(c.problem, err)
				c.mu.Unlock()
			}
		}
		c.record(call{"renew", execution, 0}, func() (answer, error) {
			before := got.version
			err := got.Renew(ctx)
			switch {
			case err == nil:
				return answer{result: "ok", version: int64(got.version)}, nil
			case errors.Is(err, ErrLost) && got.version == before && got.taken():
				return answer{result: "lost"}, nil
			}
			return answer{}, err // also when the safe time ended on the way
		})
	}
	if c.draw(4) == 0 {
		return
	}
	c.record(call{"release", execution, 0}, func() (answer, error) {
		err := got.Release(ctx)
		switch {
		case err == nil:
			return answer{result: "ok"}, nil
		case errors.Is(err, ErrLost):
			return answer{result: "lost"}, nil
		}
		return answer{}, err
	})
}

// taken reports whether the lease ended because of what was read, not by the clock.
func (l *Lease) taken() bool { return l.remaining() > 0 }

func (c *client) inspect() {
	c.record(call{"inspect", "", 0}, func() (answer, error) {
		snap, err := c.Get(context.Background(), c.locks.lockRef(key.String()))
		if err != nil {
			return answer{}, err
		}
		s, _ := parse(snap.Docs[0])
		return answer{result: "ok", holder: s.Execution}, nil
	})
}

// record keeps a call with its answer; one without takes effect at any later time, or never.
func (c *client) record(in call, do func() (answer, error)) {
	in.at = c.clock.now().UnixMicro()
	op := porcupine.Operation{ClientId: c.id, Input: in, Call: c.order.Add(1)}
	before := c.faults
	c.landed = 0
	a, err := do()
	a.sure = c.faults == before
	op.Return = c.order.Add(1)
	if err != nil {
		if in.kind == "inspect" {
			return
		}
		a.result, op.Return = "unknown", math.MaxInt64
	}
	op.Output = a
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, op)
	also := func(kind string, a answer) {
		in := in
		in.kind = kind
		c.ops = append(c.ops, porcupine.Operation{ClientId: c.clients, Input: in, Call: op.Call, Output: a, Return: op.Return})
		c.clients++
	}
	switch {
	case in.kind != "acquire":
	case err != nil: // it may have been acquired, not be trusted, and be given back
		also("release", a)
	case c.landed != 0 && c.landed != a.version: // held unknown to itself until it expired and a second try met a rival
		also("acquire", answer{result: "ok", version: c.landed})
	}
	if err != nil {
		c.id = c.clients
		c.clients++
	}
}

// fault is drawn for each call: one in eight goes wrong.
func (c *client) fault(kinds int) int {
	k := c.draw(8 * kinds)
	if k < kinds {
		c.faults++
		return k
	}
	return -1
}

// Get implements store.Store.
func (c *client) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	switch c.fault(3) {
	case 0:
		return store.Snapshot{}, errAway
	case 1:
		c.clock.sleep(c.part())
	case 2:
		defer c.clock.sleep(c.part())
	}
	return c.inner.Get(ctx, refs...)
}

// Apply implements store.Store.
func (c *client) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	switch c.fault(6) {
	case 0:
		return nil, errAway
	case 1:
		_, _ = c.inner.Apply(ctx, ws...)
		return nil, errAway
	case 2: // the driver's own second try
		if versions, err := c.inner.Apply(ctx, ws...); err == nil {
			c.landed = int64(versions[0])
		}
	case 3: // it lands long after its caller got an error
		after := c.part()
		c.clock.enter()
		c.late.Go(func() {
			defer c.clock.leave()
			c.clock.sleep(after)
			_, _ = c.inner.Apply(context.WithoutCancel(ctx), ws...)
		})
		return nil, errAway
	case 4:
		c.clock.sleep(c.part())
	case 5:
		defer c.clock.sleep(c.part())
	}
	return c.inner.Apply(ctx, ws...)
}

// Scan implements store.Store.
func (c *client) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return c.inner.Scan(ctx, collection, from, to)
}

// judge checks a history against the model, and keeps a picture of one that is wrong.
func judge(t *testing.T, name string, model porcupine.Model, ops []porcupine.Operation, problem error) bool {
	result, info := porcupine.CheckOperationsVerbose(model, ops, time.Minute)
	if result == porcupine.Ok && problem == nil {
		return true
	}
	file := filepath.Join(os.TempDir(), "phasegate-lease-"+name+".html")
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		t.Error(err)
	}
	t.Errorf("history %s of %d calls: %s, %v; see %s", name, len(ops), result, problem, file)
	return false
}

// remember plays one history in memory, on a clock of its own.
func remember(t *testing.T, seed uint64) (ops []porcupine.Operation, problem error) {
	synctest.Test(t, func(*testing.T) {
		mem := memory.New(time.Now)
		h := &history{inner: mem, clock: synctestClock{}, lease: Max, rng: rand.New(rand.NewPCG(seed, 1))}
		h.look = func(execution string) error {
			snap, err := mem.Get(context.Background(), store.Ref{Collection: locksCollection, ID: key.String()})
			if err != nil {
				return err
			}
			if s, ok := parse(snap.Docs[0]); !ok || s.Execution != execution {
				return fmt.Errorf("%s works, and %q has the lock", execution, s.Execution)
			}
			return nil
		}
		ops, problem = h.play(), h.problem
	})
	return ops, problem
}

// A first write lands and its answer is lost. When the client reads it back, the lock has
// expired and a rival has it. Another client saw a holder meanwhile that never learns that it
// had the lock. Without a lost answer there is no such holder.
func TestHistory_UnawareHolderRequiresLostResponse(t *testing.T) {
	for _, lost := range []bool{true, false} {
		h := &history{clock: synctestClock{}, rng: rand.New(rand.NewPCG(1, 1)), clients: 3}
		first, rival, other := &client{history: h}, &client{history: h, id: 1}, &client{history: h, id: 2}
		first.record(call{kind: "acquire", execution: "first"}, func() (answer, error) {
			if lost {
				first.landed = time.Now().UnixMicro()
			}
			other.record(call{kind: "inspect"}, func() (answer, error) { return answer{result: "ok", holder: "first"}, nil })
			rival.record(call{kind: "acquire", execution: "rival"}, func() (answer, error) {
				return answer{result: "ok", version: time.Now().Add(2 * Max).UnixMicro()}, nil
			})
			return answer{result: "held", holder: "rival"}, nil
		})
		if ok := porcupine.CheckOperations(locking(Max.Microseconds(), 1000), h.ops); ok != lost {
			t.Errorf("answer lost: %v, linearizable: %v", lost, ok)
		}
	}
}

func TestHistory_IsLinearizable(t *testing.T) {
	var calls, unknown atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d histories of %d calls, %d of them without an answer", histories, calls.Load(), unknown.Load())
	})
	model := locking(Max.Microseconds(), 1000)
	const workers = 4
	for worker := range workers {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for n := range histories / workers {
				seed := uint64(n*workers + worker)
				ops, problem := remember(t, seed)
				calls.Add(int64(len(ops)))
				for _, op := range ops {
					if op.Return == math.MaxInt64 {
						unknown.Add(1)
					}
				}
				if !judge(t, fmt.Sprintf("memory-%d", seed), model, ops, problem) {
					return
				}
			}
		})
	}
}
