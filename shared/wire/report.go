package wire

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Report is a processor's completion as it is sent, which [DecodeCompletion] reads.
type Report struct {
	ProcessorName    string          `json:"processor_name"` // a name that the pipeline knows
	Phase            string          `json:"phase"`
	ExecutionID      string          `json:"execution_id"`
	CorrelationID    string          `json:"correlation_id"`
	GameDate         pipeline.Period `json:"game_date"`
	OutputTable      string          `json:"output_table"`
	OutputDataset    string          `json:"output_dataset"`
	Status           Status          `json:"status"`
	Timestamp        Timestamp       `json:"timestamp"` // the end of the run
	DurationSeconds  float64         `json:"duration_seconds"`
	RecordCount      *int64          `json:"record_count,omitempty"` // nil: not known
	RecordsFailed    *int64          `json:"records_failed,omitempty"`
	ParentProcessor  string          `json:"parent_processor,omitempty"`
	TriggerSource    string          `json:"trigger_source"`
	TriggerMessageID string          `json:"trigger_message_id,omitempty"`
	ErrorMessage     string          `json:"error_message,omitempty"`
	ErrorType        string          `json:"error_type,omitempty"`
	Metadata         ReportMetadata  `json:"metadata"`
}

// ReportMetadata says what changed. Incremental without a list of entities means that
// unnamed entities changed: a second run of that kind is handed over as a full one.
type ReportMetadata struct {
	IsIncremental   bool     `json:"is_incremental"`
	EntitiesChanged []string `json:"entities_changed,omitempty"`
	// EntitiesTruncated: some entities changed, and they are not named. Without it a second
	// run with the same count would be taken for one that changed nothing.
	EntitiesTruncated bool `json:"entities_truncated,omitempty"`
}

// Changed is the metadata of a run that wrote these entities; nil means all. If the
// reader would cut the list, it is left out, and the run is reported as a full one. A cut
// list seems complete, and the entities beyond it would be lost.
func Changed(entities []string) ReportMetadata {
	switch {
	case entities == nil:
		return ReportMetadata{}
	case len(entities) > MaxEntities || slices.ContainsFunc(entities, func(e string) bool { return !IsEntity(e) }):
		return ReportMetadata{EntitiesTruncated: true}
	}
	return ReportMetadata{IsIncremental: true, EntitiesChanged: entities}
}

// IsEntity reports whether the reader of a report accepts the name of an entity.
func IsEntity(name string) bool {
	return name != "" && len(name) <= maxEntity && utf8.ValidString(name)
}

// Encode returns the report's JSON. It refuses one that no reader would take.
func (r Report) Encode() ([]byte, error) {
	var problems []error
	for _, required := range []struct{ key, value string }{
		{"processor_name", r.ProcessorName}, {"game_date", string(r.GameDate)}, {"status", string(r.Status)}, {"execution_id", r.ExecutionID},
	} {
		if required.value == "" {
			problems = append(problems, fmt.Errorf("%s is empty", required.key))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return encode(r)
}
