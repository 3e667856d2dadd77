package cycle

import (
	"fmt"
	"slices"
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
	for _, name := range t.Order {
		if slices.ContainsFunc(runs, func(r policy.Run) bool { return r.Processor == name }) {
			names = append(names, name)
		}
	}
	return names
}

// payloads makes the messages of a batch, byte for byte as they will be sent: one a
// processor, uniting its runs. size is the payloads' bytes.
func (c *convergence) payloads(s *snapshot, a action, ready Readiness, withEntities bool) (messages map[string]any, size int, err error) {
	messages = map[string]any{}
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
		unite(&t, c.key.Transition.EntitiesKey(name), name, a.handing.runs)
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
func unite(t *wire.Trigger, entitiesKey, processor string, runs []policy.Run) {
	var entities []string
	seen := map[string]bool{}
	for _, r := range runs {
		if r.Processor != processor {
			continue
		}
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
