package cycle

import (
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
// processor, uniting its runs. size is the payloads' bytes.
func (c *convergence) payloads(s *snapshot, a action, ready Readiness, withEntities bool) (messages map[string]any, size int, err error) {
	messages = map[string]any{}
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
			Incremental:      withEntities,
			EntitiesChanged:  map[string][]string{},
		}
		unite(&t, c.key.Transition.EntitiesKey(name), runs[name])
		out, err := t.Encode()
		if err != nil {
			return nil, 0, fmt.Errorf("message for %s: %w", name, err)
		}
		size += len(out)
		messages[c.key.Transition.Stored(name)] = map[string]any{"payload": string(out), "id": ""}
	}
	return messages, size, nil
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
