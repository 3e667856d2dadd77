// Package wire defines the wire formats: deliveries of Pub/Sub, completions of processors,
// triggers of the next phase, and jobs of the scheduler.
//
// All readers use one decoder, so that no two of them disagree on a name, a date or a
// status. Wrong types in optional fields become absent, with a warning. An input that would
// need a guess is a [*PermanentError], which names the field and the value; a retry does not
// help.
package wire

import (
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// PermanentError says that a message can never be processed.
type PermanentError struct {
	Field   string // path of the field, "" for the message as a whole
	Value   string // as received, clipped to 200 bytes of valid UTF-8
	Problem string // in words
}

func (e *PermanentError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return fmt.Sprintf("%s: %s (%s)", e.Field, e.Problem, e.Value)
}

// Envelope is one delivery of one Pub/Sub message.
type Envelope struct {
	MessageID       string
	PublishTime     time.Time // UTC
	Attributes      map[string]string
	Data            []byte
	Subscription    string // projects/P/subscriptions/S, "" when not said
	DeliveryAttempt int    // 1, 2, …; 0 when the subscription does not count
}

// Status is the outcome that a processor reports.
type Status string

// The statuses. Success and partial count; the others are kept and shown.
const (
	StatusSuccess Status = "success"
	StatusPartial Status = "partial"
	StatusFailed  Status = "failed"
	StatusNoData  Status = "no_data"
	StatusSkipped Status = "skipped"
)

// Counts reports whether a run with this status can complete a processor.
func (s Status) Counts() bool { return s == StatusSuccess || s == StatusPartial }

// MaxEntities is how many changed entities a completion keeps; a longer list is
// marked truncated, and what is handed over from it is not incremental.
const MaxEntities = 200

// Completion is one report of a processor, decoded. Its JSON is the form in which it
// is stored: equal reports have equal bytes, in any message.
type Completion struct {
	Processor     string          `json:"processor,omitempty"` // expected name; "" when the pipeline knows none
	Reported      string          `json:"reported"`            // processor_name as sent, clipped to 200 bytes
	Period        pipeline.Period `json:"period"`
	Status        Status          `json:"status"`
	EventTime     time.Time       `json:"event_time"`            // UTC, microseconds
	TimeSource    string          `json:"time_source,omitempty"` // "publish_time" when the timestamp was absent or implausible
	LocalTime     bool            `json:"local_time,omitempty"`  // the timestamp has no offset and looks like the pipeline's local time; it was read as UTC all the same
	ExecutionID   string          `json:"execution_id"`          // the message id when absent
	CorrelationID string          `json:"correlation_id"`        // the execution id when absent
	IDSource      string          `json:"id_source,omitempty"`   // "message_id" when execution_id was absent
	RecordCount   *int64          `json:"record_count,omitempty"`
	RecordsFailed *int64          `json:"records_failed,omitempty"`
	Duration      *float64        `json:"duration_seconds,omitempty"` // seconds
	OutputTable   string          `json:"output_table,omitempty"`
	OutputDataset string          `json:"output_dataset,omitempty"`
	Parent        string          `json:"parent_processor,omitempty"`
	TriggerSource string          `json:"trigger_source,omitempty"`
	TriggerID     string          `json:"trigger_message_id,omitempty"`
	ErrorMessage  string          `json:"error_message,omitempty"`
	ErrorType     string          `json:"error_type,omitempty"`
	Incremental   bool            `json:"is_incremental,omitempty"`
	Entities      []string        `json:"entities_changed,omitempty"` // in the order sent, without duplicates
	Truncated     bool            `json:"truncated,omitempty"`        // entities are missing from the list
	Found         bool            `json:"found,omitempty"`            // not reported: its rows were found, and EventTime is that of the newest
	FoundLate     bool            `json:"found_late,omitempty"`       // and too late for an automatic hand-over
}

// Sources of values that a report leaves out.
const (
	TimeSourcePublish = "publish_time" // for its timestamp
	IDSourceMessage   = "message_id"   // for its execution_id
)

// Trigger is one message to the next phase: which processor completed for a period.
type Trigger struct {
	SourceTable      string              `json:"source_table"`
	AnalysisDate     pipeline.Period     `json:"analysis_date"`
	GameDate         pipeline.Period     `json:"game_date"`
	Success          bool                `json:"success"`
	CorrelationID    string              `json:"correlation_id"`
	TriggerSource    string              `json:"trigger_source"` // orchestrator, reconciliation, operator
	TriggeredBy      string              `json:"triggered_by"`
	Timestamp        Timestamp           `json:"timestamp"`
	EntitiesChanged  map[string][]string `json:"entities_changed"` // never nil
	Incremental      bool                `json:"is_incremental"`
	Mode             string              `json:"mode"`
	TriggerReason    string              `json:"trigger_reason"`
	FreshnessChecked bool                `json:"data_freshness_verified"`
	MinutesCoverage  *float64            `json:"minutes_coverage_pct"` // null when not measured
	ParentExecution  string              `json:"parent_execution_id"`
	ParentProcessor  string              `json:"parent_processor"`
	TriggerID        string              `json:"trigger_id"` // the idempotency key: {batch document id}/{source_table}
	Cycle            string              `json:"cycle"`
	Batch            int                 `json:"batch"`
}

// Timestamp is an instant written as Python's isoformat writes it, in UTC with six
// digits: 2026-02-04T11:05:00.000000+00:00.
type Timestamp time.Time

// Outgoing is a message ready for the broker.
type Outgoing struct {
	Data       []byte
	Attributes map[string]string
}
