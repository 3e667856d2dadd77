package cycle

import (
	"context"
	"errors"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// relayPeriods is how far back the relay looks.
const relayPeriods = 7

// Relay converges the periods from a week back to the next one: whatever is due there
// by time, or was left by a process that died, is finished. One read a period, and
// writes only where something is unfinished. Idempotent; two at once are harmless.
// One period's error does not keep it from the others.
func (e *Engine) Relay(ctx context.Context, t *pipeline.Transition, messageID string) error {
	cal := t.Calendar()
	today := cal.At(e.Now())
	var errs []error
	for n := -relayPeriods; n <= 1; n++ {
		_, err := e.Converge(ctx, Key{Transition: t, Period: cal.Add(today, n)}, messageID)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
