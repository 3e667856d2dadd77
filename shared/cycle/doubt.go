package cycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// Doubt is about a report that is most likely a mistake. Its processor's name is similar to an
// expected one, or its period is later than every expected one. The report is recorded as it is.
type Doubt struct {
	Period     pipeline.Period `json:"period"`
	Reported   string          `json:"reported"`     // processor_name as sent
	DidYouMean string          `json:"did_you_mean"` // a processor, or a period; "" for none

	ahead bool
	at    time.Time
}

func (d Doubt) String() string {
	s := fmt.Sprintf("%q reported for %s, and is no processor that is waited for", d.Reported, d.Period)
	if d.ahead {
		s = fmt.Sprintf("%q reported for %s, which is later than every period that is expected now", d.Reported, d.Period)
	}
	if d.DidYouMean != "" {
		s += fmt.Sprintf(": did you mean %s?", d.DidYouMean)
	}
	return s
}

// doubt returns what is doubtful about a report at a time, nil when nothing is.
func doubt(t *pipeline.Transition, c *wire.Completion, now time.Time) *Doubt {
	d := Doubt{Period: c.Period, Reported: c.Reported, at: c.EventTime}
	cal := t.Calendar()
	today := cal.At(now)
	if last := cal.Add(today, t.Lead()+1); c.Period > last { // a clock may be ahead
		d.ahead = true
		ran := cal.At(c.EventTime) // a run is most likely about the period in which it ended, or the one before
		expected := []string{string(ran), string(cal.Add(ran, -1))}
		for p := last; p >= cal.AddDays(today, -relayDays); p = cal.Add(p, -1) {
			expected = append(expected, string(p))
		}
		d.DidYouMean, _ = pipeline.Nearest(string(c.Period), expected)
		return &d
	}
	if c.Processor != "" {
		return nil
	}
	if d.DidYouMean = wire.DidYouMean(c.Reported, t); d.DidYouMean == "" {
		return nil // another's, which it is right to ignore
	}
	return &d
}

// logDoubt logs a report that is most likely a mistake.
func (e *Engine) logDoubt(ctx context.Context, key Key, c wire.Completion) {
	if d := doubt(key.Transition, &c, e.Now()); d != nil {
		e.Log.WarnContext(ctx, d.String(), "event", telemetry.CompletionDoubtful, "transition", key.Transition.ID, "period", string(key.Period),
			"reported", d.Reported, "did_you_mean", d.DidYouMean, "execution_id", c.ExecutionID)
	}
}

// doubts returns those of a snapshot, the newest of each name; not those of a processor that
// has reported by its own name since.
func (s *snapshot) doubts() []Doubt {
	newest := map[string]time.Time{}
	for _, r := range s.runs {
		if r.EventTime.After(newest[r.Processor]) {
			newest[r.Processor] = r.EventTime
		}
	}
	runs, seen := slices.Clone(s.runs), map[string]bool{}
	slices.SortFunc(runs, func(a, b policy.Run) int { return policy.Older(b, a) })
	var out []Doubt
	for _, r := range runs {
		if seen[r.Reported] {
			continue
		}
		d := doubt(s.key.Transition, r.Completion, s.now)
		if d == nil || seen[d.Reported] || !d.ahead && newest[d.DidYouMean].After(d.at) {
			continue
		}
		seen[d.Reported] = true
		out = append(out, *d)
	}
	return out
}

// Doubts returns the doubtful reports of the period.
func (b PeriodState) Doubts() []Doubt {
	if b.snapshot == nil {
		return nil
	}
	return b.snapshot.doubts()
}

// Ahead returns the doubtful reports of the last week about periods that are later than any
// that is expected. It takes one call however many there are, and one for each of these periods that has
// shards. broken has an error for each of these
// periods that cannot be read. It changes nothing.
func (e *Engine) Ahead(ctx context.Context, t *pipeline.Transition) (out []Doubt, broken []error, err error) {
	now := e.Now()
	periods, docs, err := e.recordedFrom(ctx, t, t.Calendar().Add(t.Calendar().At(now), t.Lead()+2))
	if err != nil {
		return nil, nil, err
	}
	for _, p := range periods {
		key := Key{Transition: t, Period: p}
		s, err := e.listing(key, now, docs[p], store.Doc{})
		var shards []store.Doc
		if err == nil {
			shards, err = e.getShards(ctx, s)
		}
		if err == nil {
			err = e.complete(s, docs[p], shards, store.Doc{}, nil)
		}
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", key, err))
			continue
		}
		for _, d := range s.doubts() {
			if now.Sub(d.at) < relayDays*24*time.Hour {
				out = append(out, d)
			}
		}
	}
	return out, broken, nil
}

// outside says of each processor whose newest report ended at a time of no declared mode, and counts
// for no mode, when runs count. It is shown with the first mode that names the processor.
func (s *snapshot) outside() map[string][]string {
	newest, out := map[string]policy.Run{}, map[string][]string{}
	for _, r := range s.runs {
		if old, ok := newest[r.Processor]; !ok || policy.Older(old, r) < 0 {
			newest[r.Processor] = r
		}
	}
	modeAt := s.key.Transition.ModesOf(s.key.Period)
	for _, name := range s.key.Transition.Order {
		r, ok := newest[name]
		if !ok || modeAt(r.EventTime) != "" {
			continue
		}
		mode, why := "", ""
		for _, m := range s.key.Transition.Modes {
			if !m.Names(name) {
				continue
			}
			one := policy.WhyNot(s.input(m), r)
			if one == "" {
				mode = ""
				break
			}
			if mode == "" {
				mode, why = m.Name, one
			}
		}
		if mode != "" {
			out[mode] = append(out[mode], fmt.Sprintf("%s reported %s, ended %s: %s", name, r.Status, s.key.Transition.Calendar().Local(r.EventTime), why))
		}
	}
	return out
}
