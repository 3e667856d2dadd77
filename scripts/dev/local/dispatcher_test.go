package local

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestBackoff_DoublesFromTenSecondsToTenMinutes(t *testing.T) {
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		if got := backoff(pipeline.MinBackoff, i+1); got != want*time.Second {
			t.Errorf("after attempt %d: %s, want %ds", i+1, got, want)
		}
	}
	for _, attempt := range []int{100, 1 << 30} {
		if got := backoff(pipeline.MinBackoff, attempt); got != 600*time.Second {
			t.Errorf("after attempt %d: %s, want 600s", attempt, got)
		}
	}
	if got := backoff(pipeline.MinBackoff, 0); got != 10*time.Second {
		t.Errorf("without a count: %s, want 10s", got)
	}
}

func TestDispatcher_RedeliversOnlyAfterBackoff(t *testing.T) {
	t.Parallel()
	down := newConsumer()
	var mu sync.Mutex
	var at []time.Time // when each delivery came
	var clock func() time.Time
	down.answer = func(int, received) int {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, clock())
		return http.StatusInternalServerError
	}
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = down })
	clock = w.Clock.Now
	came := func() []time.Time { mu.Lock(); defer mu.Unlock(); return slices.Clone(at) }
	w.send("orders", wire.Outgoing{Data: []byte("x")})
	const attempts = 9
	for len(came()) < attempts {
		w.settle()
		n := len(came())
		due, ok := w.NextRetry()
		now := w.Clock.Now()
		if len(came()) != n || due.Before(now) {
			continue // the clock runs in real time, and a slow machine can miss a backoff
		}
		wait := backoff(pipeline.MinBackoff, n)
		if !ok || due.Before(came()[n-1].Add(wait)) || due.After(now.Add(wait)) {
			t.Fatalf("after attempt %d: due %s after it came, want %s", n, due.Sub(came()[n-1]), wait)
		}
		w.Clock.AdvanceTo(due.Add(-time.Second))
		w.settle()
		w.Clock.AdvanceTo(due)
	}
	for i, later := range came()[1:] {
		if waited := later.Sub(came()[i]); waited < backoff(pipeline.MinBackoff, i+1) {
			t.Errorf("attempt %d came %s after the one before, want %s at least", i+2, waited, backoff(pipeline.MinBackoff, i+1))
		}
	}
}

func TestDispatcher_SlowMessageDelaysNoOther(t *testing.T) {
	t.Parallel()
	seen, began, release := newConsumer(), make(chan struct{}), make(chan struct{})
	var answered atomic.Bool
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		e, err := wire.FromRequest(r)
		if err != nil {
			t.Error(err)
		}
		if string(e.Data) == "slow" {
			close(began)
			<-release
			answered.Store(true)
		}
		rw.WriteHeader(seen.take(received{Data: e.Data}))
	})
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = handler })
	w.send("orders", wire.Outgoing{Data: []byte("slow")})
	<-began
	w.send("orders", wire.Outgoing{Data: []byte("a")}, wire.Outgoing{Data: []byte("b")})
	for _, got := range seen.wait(t, 2) {
		if string(got.Data) == "slow" {
			t.Error("the slow one was answered first")
		}
	}

	broker := w.pubsub.inner
	closed := make(chan error, 1)
	go func() { closed <- w.Close() }()
	// The pulling loops end; the delivery in flight is all that keeps Close.
	select {
	case err := <-closed:
		t.Errorf("closed with a delivery in flight: %v", err)
	default:
	}
	close(release)
	if err := <-closed; err != nil || !answered.Load() {
		t.Errorf("closed: %v, the delivery in flight answered: %t", err, answered.Load())
	}
	for _, m := range broker.Messages() {
		if m.Acks != 1 {
			t.Errorf("%s: %d acknowledgements, want 1", m.Data, m.Acks)
		}
	}
}

func TestBroker_PublishTimesFollowClock(t *testing.T) {
	t.Parallel()
	c := newConsumer()
	var times []time.Time
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		e, err := wire.FromRequest(r)
		if err != nil {
			t.Error(err)
		}
		times = append(times, e.PublishTime)
		c.take(received{Data: e.Data})
		rw.WriteHeader(http.StatusNoContent)
	})
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = handler })
	for i, when := range []string{"2026-02-03 13:00", "2026-02-10 13:00"} {
		w.Clock.AdvanceTo(at(when))
		w.send("orders", wire.Outgoing{Data: []byte(when)})
		w.settle()
		if len(times) != i+1 || times[i].Before(at(when)) || times[i].After(at(when).Add(time.Minute)) {
			t.Errorf("publish times %s, want %s last", times, when)
		}
	}
}
