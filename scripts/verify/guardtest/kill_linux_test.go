package guardtest

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

var (
	manyMessages = flag.Int("guard.messages", 500, "how many messages TestKill_EachTriggerIsDoneOnce publishes, copies included")
	manyKills    = flag.Int("guard.kills", 20, "how many guards and services it kills or suspends meanwhile")
	killSeed     = flag.Uint64("guard.seed", 0, "repeats its messages and kills; 0: a random one")
)

const (
	claimTime = 30 * time.Second // the guards' ttl
	// lanes are topics with a subscription each: the emulator pushes a few messages of a
	// subscription at a time, where Pub/Sub pushes many.
	lanes = 12
	// A suspension of more than this ends the safe time of a claim.
	safe = claimTime * 9 / 10
)

// The test kills and suspends guards and services while messages and their copies are delivered. The
// work of every trigger must be done, and done once. The documented limits allow exceptions, which
// the test counts.
func TestKill_EachTriggerIsDoneOnce(t *testing.T) {
	seed := cmp.Or(*killSeed, rand.Uint64())
	w := newWorld(t, emulatortest.Namespace(t)...)
	w.front.copies, w.front.hangUp = 0.05, 0.03
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range lanes {
		// Some lanes are redelivered while the first delivery is at work, as Pub/Sub does after 600 s.
		w.push(fmt.Sprintf("lane%d", i), []int32{10, 600}[i%2], 100)
	}
	orders, keys := orders(random, *manyMessages)
	var ids []string
	publish := func(n int) {
		for _, o := range orders[:n] {
			ids = append(ids, w.publish(fmt.Sprintf("lane%d", random.IntN(lanes)), o))
		}
		orders = orders[n:]
	}
	began := time.Now()
	d := &disturber{world: w, random: random}
	for i := range *manyKills {
		publish(len(orders) / (*manyKills - i))
		d.disturb(i%50 == 1)
	}
	d.wait()
	disturbing := time.Since(began)
	w.awaitAcknowledged(limit+time.Duration(*manyMessages)*50*time.Millisecond, ids)
	w.stop()
	v := judge(t, keys, runs(t, w.log), w.front.of(""), d.done)
	if orphans := v.again["guard of the parent killed"+workedOn]; orphans > 0 && len(w.slots[0].namespace) > 0 {
		t.Errorf("%d runs of the parent went on after the death of their guard, which was PID 1", orphans)
	}
	events := map[string]int{}
	for _, s := range w.slots {
		for event, n := range s.events {
			events[event] += n
		}
	}
	statuses := map[int]int{}
	for _, d := range w.front.of("") {
		statuses[d.status]++
	}
	counts := map[string]int{}
	for _, x := range d.done {
		counts[x.what]++
	}
	t.Logf("seed %d: %d triggers in %d messages and %d deliveries, answered %v", seed, v.keys, len(ids), len(w.front.of("")), statuses)
	t.Logf("%d kills and suspensions in %v: %v", len(d.done), disturbing.Round(time.Second), counts)
	t.Logf("%d runs, %d of them failed; %d triggers were undisturbed; done more than once: %v; at once: %v; widest window hit: %v",
		v.runs, v.failures, v.undisturbed, v.again, v.overlaps, v.widest.Round(time.Millisecond))
	t.Logf("events: %v; all acknowledged %v after the last kill", events, (time.Since(began) - disturbing).Round(time.Second))
}

// orders makes messages: some triggers twice or three times, some long, some that fail first.
func orders(random *rand.Rand, n int) (all []order, keys []string) {
	for len(all) < n {
		o := order{Key: fmt.Sprintf("marts_to_reports_2026-02-03_daily~%d/table", len(keys)+1), Seconds: 0.02 + random.Float64()*0.2}
		switch k := random.IntN(200); {
		case k == 0 && n > 1000:
			o.Seconds = claimTime.Seconds() * 1.1 // has to be renewed, and takes long if it is killed
		case k < 10:
			o.Seconds = 2
		case k < 40:
			o.Tail = 0.3 // a wide window
		case k < 60:
			o.Fails = 1 + random.IntN(2)
		}
		keys = append(keys, o.Key)
		for range 1 + random.IntN(4)/3 + random.IntN(10)/9 {
			if len(all) < n {
				all = append(all, o)
			}
		}
	}
	// A copy comes a while after its original.
	at := map[int]float64{}
	for i := range all {
		at[i] = float64(i) + random.Float64()*20
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(at[a], at[b]) })
	out := all[:0:0]
	for _, i := range order {
		out = append(out, all[i])
	}
	return out, keys
}

// disturber kills and suspends. Long suspensions of one slot last while the other is disturbed.
type disturber struct {
	*world
	random *rand.Rand

	mu        sync.Mutex
	done      []disturbance
	suspended [2]bool
	pending   sync.WaitGroup
}

func (d *disturber) note(x disturbance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = append(d.done, x)
}

func (d *disturber) wait() { d.pending.Wait() }

// disturb does something to an instance that is at work. long asks for a suspension beyond the
// time of a claim.
func (d *disturber) disturb(long bool) {
	d.t.Helper()
	i := d.random.IntN(2)
	d.mu.Lock()
	if d.suspended[i] {
		i = 1 - i
	}
	if d.suspended[i] { // both
		d.mu.Unlock()
		d.pending.Wait()
		d.mu.Lock()
	}
	long = long && !d.suspended[1-i]
	d.mu.Unlock()
	select {
	case <-d.front.occupied(i):
	case <-time.After(time.Second):
	}
	<-time.After(time.Duration(d.random.Int64N(int64(400 * time.Millisecond))))
	s := d.slots[i]
	x := disturbance{slot: i, from: time.Now()}
	switch k := d.random.IntN(10); {
	case long:
		d.suspend(i, 34*time.Second, true, d.random.IntN(2) == 0)
		return
	case k < 4:
		x.what = "guard of the " + s.name + " killed"
		x.dead = s.killGuard()
	case k < 6:
		x.what = "service of the " + s.name + " killed"
		s.killService()
	case k < 8:
		x.what = "worker of the " + s.name + " killed"
		s.killWorker()
	default:
		what := 1 + d.random.IntN(3)
		d.suspend(i, time.Duration(d.random.Int64N(int64(3*time.Second))), what&1 != 0, what&2 != 0)
		return
	}
	x.until = x.from
	d.note(x)
	d.front.to(i, s.guard.url)
}

// suspend stops processes for a while, at the same time as others are disturbed.
func (d *disturber) suspend(i int, length time.Duration, guard, service bool) {
	resume := d.slots[i].suspend(guard, service)
	x := disturbance{slot: i, what: "suspended", from: time.Now()}
	if length > safe {
		x.what, x.beyond = "suspended beyond the time of a claim", true
	}
	d.mu.Lock()
	d.suspended[i] = true
	d.mu.Unlock()
	d.pending.Go(func() {
		<-time.After(length)
		resume()
		x.until = time.Now()
		d.note(x)
		d.mu.Lock()
		d.suspended[i] = false
		d.mu.Unlock()
	})
}
