package reconcile

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// Summary is how hand-overs went over a window.
type Summary struct {
	Schema     int             `json:"schema"`
	Transition string          `json:"transition"`
	From       pipeline.Period `json:"from"`
	To         pipeline.Period `json:"to"`
	Cycles     int             `json:"cycles"`      // that were handed over, or are past their deadline and were not
	HandedOver int             `json:"handed_over"` // of them, at least once
	OnTime     int             `json:"on_time"`     // of these, before the mode's deadline
	OnTimePct  *float64        `json:"on_time_pct"` // of Cycles; null where there are none
	Degraded   int             `json:"degraded"`    // first handed over without all that the mode expects
	Repaired   int             `json:"repaired"`    // hand-overs that reconciliation has caused
	Operator   int             `json:"by_operator"` // hand-overs that a person has asked for
	Latency    Latency         `json:"latency_seconds"`
	// Accuracy is Report.Accuracy; nil when there is none, or the tables could not all be read or judged.
	Accuracy *float64 `json:"accuracy_pct"`
	Unknown  []string `json:"unknown"`
}

// Latency is the time from when a hand-over was due to the broker's last answer, in seconds, for the
// hand-overs that a policy has caused. Percentiles are by the nearest rank, and 0 without any.
type Latency struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Summarise sums up the periods from one to another. It changes nothing.
func (r *Reconciler) Summarise(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (Summary, error) {
	w, err := r.read(ctx, t, from, to)
	if err != nil {
		return Summary{}, err
	}
	c := compare(w)
	s := Summary{Schema: 1, Transition: t.ID, From: from, To: to, Unknown: c.unknown}
	if len(c.unknown) == 0 {
		if accuracy, known := (Report{Tables: c.tables, Shown: c.shown}).Accuracy(); known {
			s.Accuracy = &accuracy
		}
	}
	var latencies []time.Duration
	for _, b := range w.periods {
		if w.since == "" || b.Period < w.since {
			continue
		}
		for _, st := range b.Cycles {
			latencies = append(latencies, s.cycle(t, b, st)...)
		}
	}
	if s.Cycles > 0 {
		pct := 100 * float64(s.OnTime) / float64(s.Cycles)
		s.OnTimePct = &pct
	}
	s.Latency = latency(latencies)
	return s, nil
}

// Judge reports whether a cycle counts for the share on time, and whether it was on time. It counts
// if it was handed over, or is past its deadline and was not. It was on time if its first hand-over
// came before the mode's deadline. at is the time of the read.
func Judge(t *pipeline.Transition, at time.Time, st cycle.Status) (judged, onTime bool) {
	var first, deadline time.Time
	if m, known := t.Mode(st.Mode); known && m.Deadline != nil {
		deadline = t.Calendar().Instant(pipeline.Period(st.Period), *m.Deadline)
	}
	for _, b := range st.Batches {
		if !b.PublishedAt.IsZero() {
			first = b.PublishedAt
			break
		}
	}
	if first.IsZero() {
		late := st.State == string(policy.Overdue) || st.State == string(cycle.StateOnHold)
		return late && !deadline.IsZero() && at.After(deadline), false
	}
	return true, deadline.IsZero() || !first.After(deadline)
}

// Took returns how long a hand-over took, if a policy has caused it and it is published.
func Took(b cycle.BatchStatus) (d time.Duration, ok bool) {
	if b.PublishedAt.IsZero() || b.DueAt.IsZero() || b.Cause == cycle.CauseReconciliation || b.Cause == cycle.CauseOperator {
		return 0, false
	}
	return max(b.PublishedAt.Sub(b.DueAt), 0), true
}

// cycle adds one cycle, and returns how long its hand-overs took.
func (s *Summary) cycle(t *pipeline.Transition, period cycle.PeriodState, st cycle.Status) (took []time.Duration) {
	handedOver := false
	for _, b := range st.Batches {
		if b.PublishedAt.IsZero() {
			continue
		}
		switch b.Cause {
		case cycle.CauseReconciliation:
			s.Repaired++
		case cycle.CauseOperator:
			s.Operator++
		}
		if d, ok := Took(b); ok {
			took = append(took, d)
		}
		if !handedOver && strings.HasPrefix(b.Cause, "critical_plus_majority_") {
			s.Degraded++
		}
		handedOver = true
	}
	judged, onTime := Judge(t, period.At, st)
	if judged {
		s.Cycles++
	}
	if handedOver {
		s.HandedOver++
	}
	if onTime {
		s.OnTime++
	}
	return took
}

// Percentiles returns what is known of some durations.
func Percentiles(all []time.Duration) Latency { return latency(slices.Clone(all)) }

func latency(all []time.Duration) Latency {
	if len(all) == 0 {
		return Latency{}
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		return all[max(int(math.Ceil(share*float64(len(all))))-1, 0)].Seconds()
	}
	return Latency{Count: len(all), P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: at(1)}
}
