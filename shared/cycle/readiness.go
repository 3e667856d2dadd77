package cycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// schedule is what a look-up said of a period, as stored.
type schedule struct {
	Tried   time.Time // the last query; zero: there was none
	At      time.Time // of the last answer; zero: there was none
	Units   int64     // of work that the period should bring, as of At
	Problem string    // of the last query, "" when it was answered
}

// The schedule is asked only about a cycle that comes to nothing: every hour, as it may
// be corrected, and sooner where it could not be read.
const (
	lookAgain    = time.Hour
	lookAgainBad = 15 * time.Minute
	// An answer stands for this long while the schedule cannot be read: an hour without
	// BigQuery says nothing new about a day without games.
	answerStands = 24 * time.Hour
	// A relay that has waited for this long for a schedule that does not answer does not
	// wait again for the next period: what else is due comes first.
	patience = 5 * time.Second
)

func (l schedule) expected() policy.Expected {
	switch {
	case l.At.IsZero(), l.Problem != "" && l.Tried.Sub(l.At) > answerStands:
		return policy.ExpectedUnknown
	case l.Units == 0:
		return policy.ExpectedNone
	}
	return policy.ExpectedSome
}

// next returns when the schedule is to be asked again.
func (l schedule) next() time.Time {
	if l.Problem != "" {
		return l.Tried.Add(lookAgainBad)
	}
	return l.Tried.Add(lookAgain)
}

func (s *snapshot) readSchedule(doc store.Doc) error {
	f := &fields{doc: doc}
	m := &fields{doc: store.Doc{Ref: doc.Ref, Data: field[map[string]any](f, "schedule")}}
	l := schedule{Tried: m.time("tried"), At: m.time("at"), Units: m.int("units"), Problem: m.str("problem")}
	if l.Tried.After(s.schedule.Tried) {
		s.schedule = l
	}
	return errors.Join(f.err, m.err)
}

// asks reports whether the schedule decides what becomes of a cycle: one that has neither begun nor
// any rows is handed over, overdue, or stays closed. Where nothing is recorded or expected, the
// schedule is not read.
func (s *snapshot) asks(by *attempt) bool {
	return by.schedule && !by.scheduleAsked && (s.recorded() || by.expected) && !s.now.Before(s.schedule.next()) && s.undecided()
}

// undecided reports whether the period has a cycle of which the schedule decides.
func (s *snapshot) undecided() bool {
	for _, m := range s.key.Transition.Modes {
		if s.began(m.Name) != nil || s.closed[m.Name] != nil {
			continue
		}
		in := s.input(m)
		if b := firstUnpublished(s.batches[m.Name]); b != nil {
			if !b.unfrozen() || len(selected(in, b)) > 0 {
				continue
			}
			in.GraceStart = b.GraceSince
		}
		if policy.Empty(in) && policy.Decide(in).State != policy.Waiting {
			return true
		}
	}
	return false
}

// askSchedule asks the schedule and writes down what it says. Two at once write the same;
// one whose write is lost is asked again.
func (c *convergence) askSchedule(ctx context.Context) error {
	c.scheduleAsked = true
	fields := []store.Field{store.F(store.ServerTime, "schedule", "tried")}
	began := c.Now()
	n, err := c.Expected(ctx, c.key)
	switch {
	case errors.Is(err, ErrNoSchedule):
		return nil
	case err != nil:
		c.unread = c.Now().Sub(began) > patience
		fields = append(fields, store.F(err.Error(), "schedule", "problem"))
		c.Log.ErrorContext(ctx, err.Error(), "event", telemetry.CheckUnknown, "check", "expected",
			"transition", c.key.Transition.ID, "period", string(c.key.Period))
	default:
		fields = append(fields, store.F(store.ServerTime, "schedule", "at"), store.F(n, "schedule", "units"), store.F("", "schedule", "problem"))
	}
	return c.inPeriod(ctx, c.key, nil, fields)
}

// logUnknown logs what has no answer, tolerated or not, a line for each reason: a
// check that never runs must not go unseen, nor one outage look like many.
func (c *convergence) logUnknown(ctx context.Context, mode string, r Readiness) {
	var problems []string
	checks := map[string][]string{} // by problem
	for _, check := range r.Unknown() {
		if checks[check.Problem] == nil {
			problems = append(problems, check.Problem)
		}
		checks[check.Problem] = append(checks[check.Problem], check.Name)
	}
	for _, problem := range problems {
		names := policy.Listed(checks[problem])
		c.Log.ErrorContext(ctx, names+" unknown: "+problem, "event", telemetry.CheckUnknown, "check", names,
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

// mostValues bounds the measured values of a log line: an entry of Cloud Logging takes 256 KB.
const mostValues = 500

// measured are a batch's measured values, for its log line.
func measured(b *batch) []any {
	values := map[string]float64{}
	many := len(b.Readiness.Checks) > mostValues // then of those that did not pass
	for _, c := range b.Readiness.Checks {
		if c.Value != nil && len(values) < mostValues && !(many && c.State == string(Passed)) {
			values[c.Name] = *c.Value
		}
	}
	args := []any{"readiness", string(b.Readiness.Outcome), "data_freshness_verified", b.Readiness.Verified(), slog.Any("checks", values)}
	if len(b.Readiness.Reasons) > 0 { // also of one that passes: it warns
		args = append(args, "readiness_reasons", policy.Capped(b.Readiness.Reasons))
	}
	if b.Readiness.MinutesCoverage != nil {
		args = append(args, "minutes_coverage_pct", *b.Readiness.MinutesCoverage)
	}
	return args
}
