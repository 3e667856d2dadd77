package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// hundred is an application of 100 transitions.
func hundred() *app.App {
	a := &app.App{Pipeline: &pipeline.Pipeline{}, Log: slog.New(slog.DiscardHandler)}
	for i := range 100 {
		a.Pipeline.Transitions = append(a.Pipeline.Transitions, &pipeline.Transition{ID: fmt.Sprintf("t%d", i)})
	}
	return a
}

func number(tr *pipeline.Transition) int {
	var n int
	if _, err := fmt.Sscanf(tr.ID, "t%d", &n); err != nil {
		panic(err)
	}
	return n
}

// Of 100 transitions 20 hang until the job ends, 20 take a minute, one panics and one fails. The others
// take a second each.
func TestRelay_HangingAndSlowTransitionsDelayNoOther(t *testing.T) {
	for name, place := range map[string]func(n int) int{"first": func(n int) int { return n }, "last": func(n int) int { return 99 - n }, "between": func(n int) int { return n * 37 % 100 }} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			began := time.Now()
			var mu sync.Mutex
			var working, atOnce, quick int
			var told time.Duration
			err := eachTransition(ctx, hundred(), func(tr *pipeline.Transition) error {
				mu.Lock()
				working++
				atOnce = max(atOnce, working)
				mu.Unlock()
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					working--
					if time.Since(began) <= 20*time.Second {
						quick++
					}
				}()
				switch n := place(number(tr)); {
				case n < 20:
					<-ctx.Done()
					return ctx.Err()
				case n < 40:
					time.Sleep(time.Minute)
				case n == 40:
					panic("nil map")
				case n == 41:
					return errors.New("its state is damaged")
				default:
					time.Sleep(time.Second)
				}
				return nil
			}, func() { told = time.Since(began) })
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nil map") || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%v", err)
			}
			if quick != 60 || told > 25*time.Second || time.Since(began) != timeout {
				t.Errorf("%s: %d of 60 ended within 20 s, all but those that hang or are slow were done after %s, the job after %s", name, quick, told, time.Since(began))
			}
			if atOnce > turns+40 {
				t.Errorf("%s: %d at once", name, atOnce)
			}
		})
	}
}

func TestRelay_LastTransitionBeginsThoughAllOthersHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		began, last := time.Now(), time.Duration(0)
		_ = eachTransition(ctx, hundred(), func(tr *pipeline.Transition) error {
			if number(tr) == 99 {
				last = time.Since(began)
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, func() {})
		if last > 30*time.Second {
			t.Errorf("the last had its turn after %s", last)
		}
	})
}

func TestRelay_BeginsFewTransitionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		working, atOnce := 0, 0
		err := eachTransition(t.Context(), hundred(), func(*pipeline.Transition) error {
			mu.Lock()
			working++
			atOnce = max(atOnce, working)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			working--
			mu.Unlock()
			return nil
		}, func() {})
		if err != nil || atOnce != turns {
			t.Errorf("%d at once, %v", atOnce, err)
		}
	})
}
