package local

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/message"
)

func TestBackoffDoublesFromTenSecondsToTenMinutes(t *testing.T) {
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		if got := backoff(i + 1); got != want*time.Second {
			t.Errorf("after attempt %d: %s, want %ds", i+1, got, want)
		}
	}
	for _, attempt := range []int{100, 1 << 30} {
		if got := backoff(attempt); got != 600*time.Second {
			t.Errorf("after attempt %d: %s, want 600s", attempt, got)
		}
	}
	if got := backoff(0); got != 10*time.Second {
		t.Errorf("without a count: %s, want 10s", got)
	}
}

func TestRedeliveriesComeAfterTheirBackoffAndNoSooner(t *testing.T) {
	t.Parallel()
	down := newConsumer()
	down.answer = func(int, received) int { return http.StatusInternalServerError }
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = down })
	// The clock runs on while the message is pushed, and the push may be over
	// before settle is called: what it is measured from is the first moment at
	// which it could be pushed.
	from := w.Clock.Now()
	w.send("orders", message.Outgoing{Data: []byte("x")})
	for i, wait := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		w.settle()
		due, ok := w.NextRetry()
		if left := due.Sub(from) - wait*time.Second; !ok || left < 0 || left > 9*time.Second {
			t.Fatalf("after attempt %d: due in %s, want %ds", i+1, due.Sub(from), wait)
		}
		w.Clock.AdvanceTo(due.Add(-8 * time.Second))
		w.settle()
		if n := len(down.deliveries()); n != i+1 {
			t.Fatalf("%d deliveries before the backoff ended, want %d", n, i+1)
		}
		from = due
		w.Clock.AdvanceTo(due)
	}
}

func TestASlowMessageHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	seen, began, release := newConsumer(), make(chan struct{}), make(chan struct{})
	var answered atomic.Bool
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		e, err := message.FromRequest(r)
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
	w.send("orders", message.Outgoing{Data: []byte("slow")})
	<-began
	w.send("orders", message.Outgoing{Data: []byte("a")}, message.Outgoing{Data: []byte("b")})
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

func TestTheBrokerKeepsPublishTimesByTheClock(t *testing.T) {
	t.Parallel()
	c := newConsumer()
	var times []time.Time
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		e, err := message.FromRequest(r)
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
		w.send("orders", message.Outgoing{Data: []byte(when)})
		w.settle()
		if len(times) != i+1 || times[i].Before(at(when)) || times[i].After(at(when).Add(time.Minute)) {
			t.Errorf("publish times %s, want %s last", times, when)
		}
	}
}
