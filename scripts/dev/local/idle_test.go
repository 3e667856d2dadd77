package local

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// A route pulls when a message is published, when a message in backoff is due, and after a failed
// pull. At any other time it does nothing.
func TestDispatcher_PullsOnlyWhenThereIsSomethingToDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDispatcher(topology{}, NewClock(time.Time{}), newSignal(), t.Logf)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		mine := delivery{"s", "m"}
		rounds := 0
		var fails error
		go d.eachNews(ctx, "s", func() error {
			rounds++
			d.mu.Lock()
			defer d.mu.Unlock()
			if r := d.failed[mine]; !r.due.After(d.clock.Now()) {
				delete(d.failed, mine)
			}
			return fails
		})
		do := func(change func()) {
			d.mu.Lock()
			change()
			d.mu.Unlock()
			d.news.raise()
		}
		want := func(n int, when string) {
			t.Helper()
			synctest.Wait()
			if rounds != n {
				t.Fatalf("%s: %d rounds, want %d", when, rounds, n)
			}
		}
		time.Sleep(24 * time.Hour)
		want(1, "after an idle day")
		d.news.raise()
		want(2, "after news")
		do(func() {
			d.failed[mine] = retry{attempts: 1, due: d.clock.Now().Add(time.Minute)}
			d.failed[delivery{"other", "m"}] = retry{attempts: 1, due: d.clock.Now()}
		})
		want(3, "after a delivery has failed")
		time.Sleep(time.Minute - time.Second)
		want(3, "before its backoff ends")
		d.clock.AdvanceTo(d.clock.Now().Add(time.Second))
		want(4, "after its backoff")
		do(func() { fails = errors.New("not now") })
		want(5, "after news of which nothing can be pulled")
		d.mu.Lock()
		fails = nil
		d.mu.Unlock()
		time.Sleep(pullAgain)
		want(6, "after the pause of a pull that failed")
		do(func() { d.settling++ })
		want(6, "while somebody settles, who pulls alone")
		do(func() { d.settling-- })
		want(7, "after that")
	})
}

// A failed message is redelivered when its backoff ends, even if nothing else happens.
func TestDispatcher_RedeliversWithoutOtherNews(t *testing.T) {
	t.Parallel()
	c := newConsumer()
	c.answer = func(n int, _ received) int {
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	}
	w := newWorld(t, "memory", func(o *Options) { o.Consumers["orders"] = c })
	w.send("orders", wire.Outgoing{Data: []byte("x")})
	c.wait(t, 1)
	due, failed := w.NextRetry()
	for ; !failed; due, failed = w.NextRetry() { // its answer is on its way
		runtime.Gosched()
	}
	w.Clock.AdvanceTo(due)
	c.wait(t, 2)
}
