package local

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestClock_AdvanceToNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := at("2026-02-03 12:00")
		c := NewClock(start)
		if now := c.Now(); !now.Equal(start) {
			t.Errorf("starts at %s, want %s", now, start)
		}
		for _, step := range []struct{ to, want time.Time }{
			{start.Add(time.Hour), start.Add(time.Hour)},
			{start, start.Add(time.Hour)},
			{time.Time{}, start.Add(time.Hour)},
			{start.Add(time.Hour), start.Add(time.Hour)},
			{start.Add(48 * time.Hour), start.Add(48 * time.Hour)},
		} {
			c.AdvanceTo(step.to)
			if now := c.Now(); !now.Equal(step.want) {
				t.Errorf("advanced to %s: %s, want %s", step.to, now, step.want)
			}
		}
	})
}

func TestClock_AdvancesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, real := NewClock(at("2026-02-03 12:00")), NewClock(time.Time{})
		if !real.Now().Equal(time.Now()) {
			t.Error("the zero time does not mean real time")
		}
		began := c.Now()
		if err := c.Until(t.Context(), began.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if passed := c.Now().Sub(began); passed != time.Hour {
			t.Errorf("%s passed, want an hour", passed)
		}
	})
}

func TestClock_UntilWakesWhenClockAdvances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began := NewClock(at("2026-02-03 12:00")), time.Now()
		woken := make(chan error, 1)
		go func() { woken <- c.Until(t.Context(), at("2026-02-03 14:00")) }()
		synctest.Wait()
		c.AdvanceTo(at("2026-02-03 13:00")) // not enough
		synctest.Wait()
		select {
		case err := <-woken:
			t.Fatalf("woken an hour early: %v", err)
		default:
		}
		c.AdvanceTo(at("2026-02-03 14:00"))
		if err := <-woken; err != nil || !time.Now().Equal(began) {
			t.Errorf("%v after %s of real time, want at once", err, time.Since(began))
		}
	})
}

func TestClock_UntilEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(time.Time{})
		ctx, cancel := context.WithCancel(t.Context())
		woken := make(chan error, 1)
		go func() { woken <- c.Until(ctx, c.Now().Add(time.Hour)) }()
		synctest.Wait()
		cancel()
		if err := <-woken; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want cancelled", err)
		}
		if err := c.Until(ctx, c.Now().Add(-time.Hour)); !errors.Is(err, context.Canceled) {
			t.Errorf("for what is past: %v, want cancelled", err)
		}
	})
}
