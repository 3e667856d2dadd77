package cycle

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// The sources of triggers: a policy, reconciliation or an operator.
const (
	sourceOrchestrator = "orchestrator"
	CauseOperator      = "operator"

	// CauseReconciliation is the cause of what a repair has handed over.
	CauseReconciliation = "reconciliation"
)

func source(cause string) string {
	if cause == CauseOperator || cause == CauseReconciliation {
		return cause
	}
	return sourceOrchestrator
}

// processors returns the processors of the runs in the order of the messages.
func processors(t *pipeline.Transition, runs []policy.Run) []string {
	var names []string
	of := byProcessor(runs)
	for _, name := range t.Order {
		if of[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

// byProcessor groups runs by their processors, each group in the order of the runs.
func byProcessor(runs []policy.Run) map[string][]policy.Run {
	of := map[string][]policy.Run{}
	for _, r := range runs {
		of[r.Processor] = append(of[r.Processor], r)
	}
	return of
}

// payloads makes the messages of a batch, byte for byte as they will be sent: one a
// processor, uniting its runs. One that no document could hold leaves out its entities.
func (c *convergence) payloads(ctx context.Context, s *snapshot, a action, ready Readiness) (messages []message, err error) {
	runs := byProcessor(a.handing.runs)
	for _, name := range processors(c.key.Transition, a.handing.runs) {
		t := wire.Trigger{
			SourceTable:  name,
			AnalysisDate: c.key.Period, GameDate: c.key.Period,
			Success:          true,
			TriggerSource:    source(a.handing.verdict.Cause),
			TriggeredBy:      c.key.Transition.TriggeredBy,
			ParentProcessor:  c.key.Transition.ParentProcessor,
			Timestamp:        wire.Timestamp(s.now),
			Mode:             a.mode.Name,
			TriggerReason:    a.handing.verdict.Cause,
			FreshnessChecked: ready.Verified(),
			MinutesCoverage:  ready.MinutesCoverage,
			TriggerID:        a.batch.ID + "/" + c.key.Transition.Stored(name),
			Cycle:            cycleID(c.key, a.mode.Name),
			Batch:            a.batch.N,
			Incremental:      true,
			EntitiesChanged:  map[string][]string{},
		}
		unite(&t, c.key.Transition.EntitiesKey(name), runs[name])
		out, err := t.Encode()
		if len(out) > maxPayloads {
			c.Log.WarnContext(ctx, "a message is larger than a document: its entities are left out, consumers take everything",
				"transition", c.key.Transition.ID, "period", string(c.key.Period), "mode", a.mode.Name, "processor", name, "bytes", len(out))
			t.Incremental, t.EntitiesChanged = false, map[string][]string{}
			out, err = t.Encode()
		}
		if err != nil {
			return nil, fmt.Errorf("message for %s: %w", name, err)
		}
		messages = append(messages, message{c.key.Transition.Stored(name), string(out)})
	}
	return messages, nil
}

// unite puts a processor's runs, oldest first, into its message: the ids of the
// latest, the entities of all. One run that does not name everything it changed
// makes the whole message a full one.
func unite(t *wire.Trigger, entitiesKey string, runs []policy.Run) {
	var entities []string
	seen := map[string]bool{}
	for _, r := range runs {
		t.CorrelationID, t.ParentExecution = r.CorrelationID, r.ExecutionID
		t.Incremental = t.Incremental && r.Incremental && !r.Truncated
		for _, e := range r.Entities {
			if !seen[e] {
				entities, seen[e] = append(entities, e), true
			}
		}
	}
	if t.Incremental && len(entities) > 0 {
		t.EntitiesChanged[entitiesKey] = entities
	}
}

// outgoing is a frozen payload with the attributes that repeat its identity.
func outgoing(b *batch, name, payload string) wire.Outgoing {
	return wire.Outgoing{Data: []byte(payload), Attributes: map[string]string{
		"trigger_id": b.ID + "/" + name,
		"cycle":      strings.TrimSuffix(b.ID, "~"+strconv.Itoa(b.N)),
		"batch":      strconv.Itoa(b.N),
	}}
}
