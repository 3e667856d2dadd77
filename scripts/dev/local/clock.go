package local

import (
	"context"
	"sync"
	"time"
)

// Clock is real time plus an offset that only grows. Store, dispatcher and scheduler
// of one environment read the same one, so that a night can pass in seconds.
type Clock struct {
	mu      sync.Mutex
	offset  time.Duration
	changed chan struct{}
}

// NewClock returns a clock that shows t now; the zero time means real time.
func NewClock(t time.Time) *Clock {
	c := &Clock{changed: make(chan struct{})}
	if !t.IsZero() {
		c.offset = time.Until(t)
	}
	return c
}

// Now returns the clock's time, with a monotonic reading.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// AdvanceTo sets the clock forward to t; a clock that is later already stays.
func (c *Clock) AdvanceTo(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := t.Sub(time.Now().Add(c.offset)); d > 0 {
		c.offset += d
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// Until waits until the clock shows t, or ctx ends.
func (c *Clock) Until(ctx context.Context, t time.Time) error {
	c.wait(ctx, t, nil)
	return ctx.Err()
}

// wait waits until the clock shows t, which the zero time never is, until news is closed,
// or until ctx ends.
func (c *Clock) wait(ctx context.Context, t time.Time, news <-chan struct{}) {
	for {
		c.mu.Lock()
		left, changed := t.Sub(time.Now().Add(c.offset)), c.changed
		c.mu.Unlock()
		var shows <-chan time.Time
		if !t.IsZero() {
			if left <= 0 {
				return
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			shows = timer.C
		}
		select {
		case <-shows:
		case <-changed:
		case <-news:
			return
		case <-ctx.Done():
			return
		}
	}
}

// signal tells those who wait that something has come.
type signal struct {
	mu sync.Mutex
	c  chan struct{}
}

func newSignal() *signal { return &signal{c: make(chan struct{})} }

// next returns a channel that the next raise closes.
func (s *signal) next() <-chan struct{} { s.mu.Lock(); defer s.mu.Unlock(); return s.c }

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.c)
	s.c = make(chan struct{})
}
