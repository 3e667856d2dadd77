package cycle

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// Explanation is everything that is known about one cycle, with the grounds of its
// verdict.
type Explanation struct {
	Status
	Policy string `json:"policy"`
	// Definition is the hash of the pipeline definition by which it is decided now.
	Definition string       `json:"definition"`
	Deadline   time.Time    `json:"deadline,omitzero"` // UTC
	Runs       []RunStatus  `json:"runs"`              // of the processors that the mode names, and unexpected ones of its time; oldest first
	Claim      *ClaimStatus `json:"claim,omitempty"`   // on the unpublished batch
	Hold       *Hold        `json:"hold,omitempty"`    // in force
	// Old: what completes now completes too late to be handed over by itself.
	Old bool `json:"old,omitempty"`
	// Readiness is the answer of the newest check, nil before the first.
	Readiness *Readiness `json:"readiness,omitempty"`
}

// RunStatus is one run and what becomes of it in a cycle.
type RunStatus struct {
	Processor   string      `json:"processor"` // as expected; as reported when it is not
	ExecutionID string      `json:"execution_id"`
	EventTime   time.Time   `json:"event_time"` // UTC
	Status      wire.Status `json:"status"`
	RecordCount *int64      `json:"record_count,omitempty"`
	Duration    *float64    `json:"duration_seconds,omitempty"`
	Error       string      `json:"error,omitempty"` // type and message, 200 bytes at most
	Counts      bool        `json:"counts"`
	Why         string      `json:"why,omitempty"`   // it does not count
	Batch       int         `json:"batch,omitempty"` // that handed it over
	HandedOver  bool        `json:"handed_over"`     // also by a batch that has expired, whose number is not known any more
}

// ClaimStatus tells who works on a batch.
type ClaimStatus struct {
	Holder    string    `json:"holder"`
	MessageID string    `json:"message_id"` // on whose behalf
	Since     time.Time `json:"since"`      // UTC, the server's clock
	Until     time.Time `json:"until"`
	Live      bool      `json:"live"`
}

// Explain reads one cycle and says why it is where it is. It changes nothing.
func (e *Engine) Explain(ctx context.Context, key Key, m pipeline.Mode) (Explanation, error) {
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return Explanation{}, err
	}
	return s.explain(m), nil
}

func (s *snapshot) explain(m pipeline.Mode) Explanation {
	key, in := s.key, s.input(m)
	x := Explanation{Status: s.status(m), Policy: policy.Decide(in).Policy, Definition: key.Transition.Definition(), Runs: []RunStatus{}}
	x.Hold = x.Status.Hold
	x.Old = key.old(s.now)
	for _, b := range x.Batches {
		if b.Readiness != nil {
			x.Readiness = b.Readiness
		}
	}
	if m.Deadline != nil {
		x.Deadline = key.Transition.Calendar().Instant(key.Period, *m.Deadline)
	}
	if b := firstUnpublished(s.batches[m.Name]); b != nil && b.Holder != "" {
		x.Claim = &ClaimStatus{Holder: b.Holder, MessageID: strings.Join(b.ClaimMessages, " "), Since: b.ClaimedAt,
			Until: b.ClaimedAt.Add(b.Claim), Live: b.live(s.now)}
	}
	slices.SortFunc(s.runs, policy.Older)
	handed := s.batches[m.Name]
	for _, name := range s.former[m.Name].names {
		handed = slices.Concat(s.batches[name], handed)
	}
	by := map[string]*batch{}
	for _, b := range handed {
		for _, k := range b.Runs {
			by[k] = b
		}
	}
	summed := map[string]bool{}
	for _, k := range slices.Concat(s.former[m.Name].Runs, s.handed[m.Name].Runs) {
		summed[k] = true
	}
	for _, r := range s.runs {
		mine := key.Transition.ModeAt(key.Period, r.EventTime) == m.Name
		taken := 0
		shown := r
		if b := by[r.Key]; b != nil {
			taken, shown = b.N, b.then(key.Transition, r)
		}
		// What was handed over is shown, and what no mode names any more in its own time.
		if !m.Names(r.Processor) && taken == 0 && !summed[r.Key] && (key.Transition.Expects(r.Processor) || !mine) {
			continue
		}
		rs := RunStatus{Processor: shown.Processor, ExecutionID: r.ExecutionID, EventTime: r.EventTime,
			Status: r.Status, RecordCount: r.RecordCount, Duration: r.Duration, Error: ErrorOf(r), Why: policy.WhyNot(in, r)}
		if r.Processor == "" {
			rs.Processor = r.Reported
		}
		rs.Counts, rs.Batch, rs.HandedOver = rs.Why == "", taken, taken > 0 || summed[r.Key]
		x.Runs = append(x.Runs, rs)
	}
	return x
}

// mostError is how many bytes of an error people are shown.
const mostError = 200

// ErrorOf returns what a run reported as its error: the type and the message, [mostError] bytes at most.
func ErrorOf(r policy.Run) string {
	return pipeline.Clip(r.ErrorText(), mostError)
}
