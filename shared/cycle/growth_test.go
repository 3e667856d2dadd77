package cycle

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"iter"
	"math"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// hourly is a transition of two processors whose periods are hours.
func hourly(t testing.TB) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(`schema: 1
name: hours
time_zone: UTC
calendar: hour
kinds: {thing: things}
schedules: [{name: relay, cron: "*/5 * * * *", function: reconcile, job: relay}]
phases:
  - name: up
    processors:
      - {name: alpha, kind: thing, table: d.alpha, date_column: hour, key: [hour], order_by: processed_at}
      - {name: beta, kind: thing, table: d.beta, date_column: hour, key: [hour], order_by: processed_at}
  - name: down
    processors:
      - {name: cache, kind: thing, table: d.cache, date_column: hour, key: [hour], order_by: processed_at}
transitions:
  - id: up_to_down
    upstream: {phase: up, topic: completed}
    downstream: {phase: down, topic: trigger, triggered_by: us, parent_processor: Us, order: [alpha, beta]}
    compatibility_collection: shown
    trigger_within: 72h
    modes:
      - {name: hourly, event: after, critical: [alpha, beta], complete: all, counts_from: ":00", second_runs: ignore}
`))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

// cost counts the calls of a store, and the documents that they read.
type cost struct {
	store.Store
	calls, docs int
	platform    *platform
}

func (c *cost) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.calls, c.docs = c.calls+1, c.docs+len(refs)
	return c.Store.Get(ctx, refs...)
}

func (c *cost) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	c.calls++
	if c.platform != nil {
		c.platform.written(ws)
	}
	return c.Store.Apply(ctx, ws...)
}

func (c *cost) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.calls++
	return func(yield func(store.Doc, error) bool) {
		for doc, err := range c.Store.Scan(ctx, collection, from, to) {
			c.docs++
			if !yield(doc, err) {
				return
			}
		}
	}
}

// platform deletes documents as Firestore does: each separately, at any moment from its end on,
// and a day after that at the latest.
type platform struct {
	t     testing.TB
	store store.Store
	now   func() time.Time
	rng   *mathrand.Rand
	ends  map[int64]map[store.Ref]bool // by the day on which they may end
}

const day = 24 * time.Hour

func (p *platform) written(ws []store.Write) {
	for _, w := range ws {
		for _, f := range w.Fields {
			if at, ok := f.Value.(time.Time); ok && f.Path[0] == store.ExpiresAt {
				p.due(at.Unix()/int64(day/time.Second), w.Ref)
			}
		}
	}
}

func (p *platform) due(on int64, ref store.Ref) {
	if p.ends[on] == nil {
		p.ends[on] = map[store.Ref]bool{}
	}
	p.ends[on][ref] = true
}

// deletes is called once a day.
func (p *platform) deletes() {
	today := p.now().Unix() / int64(day/time.Second)
	for ref := range p.ends[today] {
		snap, err := p.store.Get(context.Background(), ref)
		if err != nil {
			p.t.Fatal(err)
		}
		doc := snap.Docs[0]
		at, expires := doc.Data[store.ExpiresAt].(time.Time)
		switch late := p.now().Sub(at); {
		case !expires || late < -day: // it was written since
		case late < 0, late < day && p.rng.IntN(2) == 0:
			p.due(today+1, ref)
		default:
			if _, err := p.store.Apply(context.Background(), store.DeleteIf(ref, doc.Version)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	delete(p.ends, today)
}

// documents counts those that can expire.
func (p *platform) documents() (n int) {
	for _, collection := range []string{periodsCollection, triggersCollection, "lock_tokens", "audit"} {
		for _, err := range p.store.Scan(context.Background(), collection, "!", "~") {
			if err != nil {
				p.t.Fatal(err)
			}
			n++
		}
	}
	return n
}

var growthYears = flag.Bool("growth.years", false, "TestGrowth plays three years of hourly periods")

func TestGrowth_ThreeYearsOfHoursCostTheSameEachDay(t *testing.T) {
	if !*growthYears {
		t.Skip("three years of hourly periods take minutes; make test-all plays them")
	}
	ctx := context.Background()
	clock := &clock{t: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	docs := &cost{Store: memory.New(clock.now)}
	broker := &broker{}
	tr := hourly(t)
	log := brokenLog(t)
	e := New(Config{Store: docs, Publish: broker.publish, Check: Unchecked, Now: clock.now, NewID: rand.Text, Claim: time.Minute, Log: log})
	locks := lease.New(lease.Config{Store: docs, Now: clock.now, NewID: rand.Text, Lease: 10 * time.Minute, Instance: "i", Log: log})
	ttl := &platform{t: t, store: docs.Store, now: clock.now, rng: mathrand.New(mathrand.NewPCG(1, 1)), ends: map[int64]map[store.Ref]bool{}}
	docs.platform = ttl
	report := func(processor string, p pipeline.Period) Report {
		n := int64(7)
		c := wire.Completion{Processor: processor, Reported: processor, Period: p, Status: wire.StatusSuccess, EventTime: clock.now(), ExecutionID: rand.Text(), CorrelationID: "c", RecordCount: &n}
		return Report{c, rand.Text()}
	}
	complete := func(processor string, p pipeline.Period) {
		l, err := locks.Acquire(ctx, lease.Key{Class: processor, Period: p}, rand.Text())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Settle(ctx, l.Used()...); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(ctx); err != nil {
			t.Fatal(err)
		}
		r := report(processor, p)
		for range 1 + ttl.rng.IntN(20)/19 { // now and then it is delivered twice
			if _, err := e.Complete(ctx, Key{tr, p}, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	const days = 3 * 365
	var perDay [days]cost
	for d := range days {
		docs.calls, docs.docs = 0, 0
		for range 24 {
			p := tr.Calendar().At(clock.now())
			clock.set(clock.now().Add(time.Hour + time.Minute))
			complete("alpha", p)
			complete("beta", p)
			clock.set(clock.now().Add(-time.Minute))
		}
		if err := e.Relay(ctx, tr, "relay", nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Ahead(ctx, tr); err != nil {
			t.Fatal(err)
		}
		perDay[d] = *docs
		ttl.deletes()
	}
	if n := len(broker.got); n != 2*24*days {
		t.Errorf("%d messages in %d hours", n, 24*days)
	}
	month := func(n int) (calls, read float64) {
		for d := 30 * (n - 1); d < 30*n; d++ {
			calls, read = calls+float64(perDay[d].calls)/30, read+float64(perDay[d].docs)/30
		}
		t.Logf("month %d: %.1f calls and %.1f documents read a day", n, calls, read)
		return calls, read
	}
	earlyCalls, earlyRead := month(2)
	lateCalls, lateRead := month(36)
	if math.Abs(lateCalls-earlyCalls) > earlyCalls/100 || math.Abs(lateRead-earlyRead) > earlyRead/100 {
		t.Errorf("a day of month 36 costs %.1f calls and %.1f documents, one of month 2 %.1f and %.1f", lateCalls, lateRead, earlyCalls, earlyRead)
	}
	// A period, a batch and the tokens of two processors each hour, for 401 days, and the lists.
	left := ttl.documents()
	t.Logf("%d documents after three years", left)
	if most := 4*24*402 + 10; left > most {
		t.Errorf("%d documents after three years, at most %d", left, most)
	}

	// A period of 500 days ago.
	old := Key{tr, tr.Calendar().AddDays(tr.Calendar().At(clock.now()), -500)}
	sent := len(broker.got)
	st, err := e.Status(ctx, old)
	if err != nil || st[0].State != "closed" || !strings.Contains(st[0].Reason, "nothing is recorded any more: the period ended") {
		t.Errorf("%+v, %v", st, err)
	}
	states, err := e.PeriodStates(ctx, tr, old.Period, old.Period)
	if err != nil || len(states) != 1 || !states[0].Expired {
		t.Errorf("%+v, %v", states, err)
	}
	late := report("alpha", old.Period)
	for range 2 { // twice
		if _, err := e.Complete(ctx, old, late); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(broker.got) - sent; n != 0 {
		t.Errorf("%d messages before a person asks", n)
	}
	b, err := e.Trigger(ctx, old, tr.Modes[0], Request{Processors: []string{"alpha"}, Actor: "ada", Reason: "corrected", Force: true})
	if err != nil || b.State != StatePublished {
		t.Fatalf("%+v, %v", b, err)
	}
	for range 3 {
		clock.set(clock.now().Add(24 * time.Hour))
		ttl.deletes()
		if _, err := e.Complete(ctx, old, late); err != nil {
			t.Fatal(err)
		}
		if err := e.Relay(ctx, tr, "relay", nil); err != nil {
			t.Fatal(err)
		}
	}
	ids := map[string]int{}
	for _, m := range broker.got {
		ids[m.TriggerID]++
	}
	want := fmt.Sprintf("up_to_down_%s_hourly~%d/alpha", old.Period, b.N)
	if n := len(broker.got) - sent; n != 1 || ids[want] != 1 || b.N < 2 || ids[fmt.Sprintf("up_to_down_%s_hourly~1/alpha", old.Period)] != 1 {
		t.Errorf("%d messages for the late completion, batch %d", n, b.N)
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}
