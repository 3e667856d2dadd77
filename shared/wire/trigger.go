package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Encode returns the trigger's JSON, the same bytes each time. Lists without entities
// are left out. It refuses a trigger that no reader would take.
func (t Trigger) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("encode trigger %q: %w", t.TriggerID, err)
	}
	changed := make(map[string][]string, len(t.EntitiesChanged))
	for key, names := range t.EntitiesChanged {
		if len(names) > 0 {
			changed[key] = names
		}
	}
	t.EntitiesChanged = changed
	data, err := encode(t)
	if err != nil {
		return nil, fmt.Errorf("encode trigger %q: %w", t.TriggerID, err)
	}
	return data, nil
}

func (t Trigger) check() error {
	var problems []error
	for _, required := range []struct{ key, value string }{
		{"source_table", t.SourceTable},
		{"analysis_date", string(t.AnalysisDate)},
		{"game_date", string(t.GameDate)},
		{"trigger_id", t.TriggerID},
	} {
		if required.value == "" {
			problems = append(problems, fmt.Errorf("%s is empty", required.key))
		}
	}
	return errors.Join(problems...)
}

// DecodeTrigger reads a trigger as strictly as the readers in production do: it must
// have source_table, analysis_date or game_date (one stands for the other), and
// success. The error is a [*PermanentError].
func DecodeTrigger(data []byte) (Trigger, error) {
	f, err := decodeObject("data", data)
	if err != nil {
		return Trigger{}, err
	}
	var t Trigger
	for _, field := range t.targets() {
		raw, ok := f.lookup(field.key)
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, field.into); err != nil {
			return Trigger{}, permanent(field.key, raw, "is malformed: %v", err)
		}
	}
	if t.AnalysisDate == "" {
		t.AnalysisDate = t.GameDate
	}
	if t.GameDate == "" {
		t.GameDate = t.AnalysisDate
	}
	if t.EntitiesChanged == nil {
		t.EntitiesChanged = map[string][]string{}
	}
	_, success := f.lookup("success")
	switch {
	case t.SourceTable == "":
		return Trigger{}, missing("source_table")
	case t.AnalysisDate == "":
		return Trigger{}, missing("analysis_date or game_date")
	case !success:
		return Trigger{}, missing("success")
	}
	return t, nil
}

// target is where the value of a key goes.
type target struct {
	key  string
	into any
}

// targets matches keys to fields exactly, which encoding/json does not.
func (t *Trigger) targets() []target {
	return []target{
		{"source_table", &t.SourceTable},
		{"analysis_date", &t.AnalysisDate},
		{"game_date", &t.GameDate},
		{"success", &t.Success},
		{"correlation_id", &t.CorrelationID},
		{"trigger_source", &t.TriggerSource},
		{"triggered_by", &t.TriggeredBy},
		{"timestamp", &t.Timestamp},
		{"entities_changed", &t.EntitiesChanged},
		{"is_incremental", &t.Incremental},
		{"mode", &t.Mode},
		{"trigger_reason", &t.TriggerReason},
		{"data_freshness_verified", &t.FreshnessChecked},
		{"minutes_coverage_pct", &t.MinutesCoverage},
		{"parent_execution_id", &t.ParentExecution},
		{"parent_processor", &t.ParentProcessor},
		{"trigger_id", &t.TriggerID},
		{"cycle", &t.Cycle},
		{"batch", &t.Batch},
	}
}
