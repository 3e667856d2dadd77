package cycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// schedule is what a look-up said of a period, as stored.
type schedule struct {
	At      time.Time // zero: nobody has looked
	Units   int64     // of work that the period should bring
	Problem string    // "" when Units is known
}

// The schedule is asked only about a cycle that comes to nothing: every hour, as it may
// be corrected, and sooner where it could not be read.
const (
	lookAgain    = time.Hour
	lookAgainBad = 15 * time.Minute
)

func (l schedule) expected() gate.Expected {
	switch {
	case l.At.IsZero(), l.Problem != "":
		return gate.ExpectedUnknown
	case l.Units == 0:
		return gate.ExpectedNone
	}
	return gate.ExpectedSome
}

// next returns when the schedule is to be asked again.
func (l schedule) next() time.Time {
	if l.Problem != "" {
		return l.At.Add(lookAgainBad)
	}
	return l.At.Add(lookAgain)
}

func (s *snapshot) readSchedule(doc store.Doc) error {
	f := &fields{doc: doc}
	m := &fields{doc: store.Doc{Ref: doc.Ref, Data: field[map[string]any](f, "schedule")}}
	l := schedule{At: m.time("at"), Units: m.int("units"), Problem: m.str("problem")}
	if l.At.After(s.schedule.At) {
		s.schedule = l
	}
	return errors.Join(f.err, m.err)
}

// asks reports whether the schedule decides what becomes of a cycle: one that has
// neither begun nor any rows would be handed over, or held, or stays closed. Where
// nothing is on record and nothing expected, nothing is asked.
func (c *convergence) asks(s *snapshot) bool {
	if c.Expected == nil || c.lookedUp || !s.recorded() && !c.expected || s.now.Before(s.schedule.next()) {
		return false
	}
	for _, m := range c.key.Transition.Modes {
		if s.began(m.Name) != nil {
			continue
		}
		in := c.input(s, m)
		if b := firstUnpublished(s.batches[m.Name]); b != nil {
			if !b.unfrozen() || b.Given {
				continue
			}
			in.GraceStart = b.GraceSince
		}
		if gate.Empty(in) && gate.Decide(in).State != gate.Waiting {
			return true
		}
	}
	return false
}

// lookUp asks the schedule and writes down what it says. Two at once write the same;
// one whose write is lost is asked again.
func (c *convergence) lookUp(ctx context.Context) error {
	c.lookedUp = true
	value := map[string]any{"at": store.ServerTime, "units": int64(0), "problem": ""}
	n, err := c.Expected(ctx, c.key)
	switch {
	case errors.Is(err, ErrNobodyKnows):
		return nil
	case err != nil:
		value["problem"] = err.Error()
		c.Log.ErrorContext(ctx, err.Error(), "event", telemetry.CheckUnknown, "check", "expected",
			"transition", c.key.Transition.ID, "period", string(c.key.Period))
	default:
		value["units"] = n
	}
	return c.inPeriod(ctx, c.key, store.F(value, "schedule"))
}

// tellUnknown logs a line for each check that has no answer, tolerated or not: one that
// never runs must not go unseen.
func (c *convergence) tellUnknown(ctx context.Context, mode string, r Readiness) {
	for _, check := range r.Unknown() {
		c.Log.ErrorContext(ctx, check.Name+" is unknown: "+check.Problem, "event", telemetry.CheckUnknown, "check", check.Name,
			"transition", c.key.Transition.ID, "period", string(c.key.Period), "mode", mode)
	}
}

// readiness parses what a batch keeps of its last check.
func (f *fields) readiness() (r Readiness) {
	if s := f.str("readiness"); s != "" {
		err := json.Unmarshal([]byte(s), &r)
		if err != nil && f.err == nil {
			f.err = fmt.Errorf("%s: readiness: %w", f.doc.Ref, err)
		}
	}
	return r
}

// measured are a batch's measured values, for its log line.
func measured(b *batch) []any {
	values := map[string]float64{}
	for _, c := range b.Readiness.Checks {
		if c.Value != nil {
			values[c.Name] = *c.Value
		}
	}
	args := []any{"readiness", string(b.Readiness.Outcome), "data_freshness_verified", b.Readiness.Verified(), slog.Any("checks", values)}
	if len(b.Readiness.Reasons) > 0 { // also of one that passes: it warns
		args = append(args, "readiness_reasons", b.Readiness.Reasons)
	}
	if b.Readiness.MinutesCoverage != nil {
		args = append(args, "minutes_coverage_pct", *b.Readiness.MinutesCoverage)
	}
	return args
}
