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
	for {
		c.mu.Lock()
		left, changed := t.Sub(time.Now().Add(c.offset)), c.changed
		c.mu.Unlock()
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
