package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Warning says what of a message was malformed and taken for absent.
type Warning struct {
	Field   string // path of the field
	Value   string // as received, clipped to 200 bytes of valid UTF-8
	Problem string // in words
}

const (
	// A timestamp this far before or after the publish time is believed; beyond, a
	// clock is wrong or a report was kept back.
	maxTimestampAge  = 24 * time.Hour
	maxTimestampLead = 5 * time.Minute
	// localTolerance is how far a timestamp without offset may be from the publish time's
	// local reading to be taken for one. A run is reported right after its end.
	localTolerance = 15 * time.Minute
)

// DecodeCompletion reads a processor's report for a transition. The error is a
// [*PermanentError] when the report can never be recorded. A malformed optional field is
// absent from the Completion and named in a Warning. NaN and Infinity,
// which Python writes, are read as null.
//
// The Processor of the Completion is a name that the transition expects, or "". A report of
// an unknown processor is recorded and never counts.
func DecodeCompletion(e Envelope, t *pipeline.Transition) (Completion, []Warning, error) {
	report, err := decodeObject("data", e.Data)
	var literals []Warning
	if err != nil {
		var data []byte
		if data, literals = withoutPythonNumbers(e.Data); len(literals) > 0 {
			report, err = decodeObject("data", data)
		}
	}
	if err != nil {
		return Completion{}, nil, err
	}
	var c Completion
	if err := c.readRequired(report, e, t); err != nil {
		return Completion{}, nil, err
	}
	if err := checkPhase(report, t); err != nil {
		return Completion{}, nil, err
	}
	sent, zoned, err := readTimestamp(report)
	if err != nil {
		return Completion{}, nil, err
	}
	_, offset := e.PublishTime.In(t.Calendar().Zone()).Zone() // in seconds
	behind := sent.Sub(e.PublishTime) - time.Duration(offset)*time.Second
	c.LocalTime = !sent.IsZero() && !zoned && offset != 0 && behind.Abs() <= localTolerance
	o := &optional{fields: report, warnings: literals}
	c.setEventTime(sent, e.PublishTime, o)
	c.readOptional(o, e)
	c.readMetadata(o)
	c.Processor = expectedName(report["processor_name"], c.OutputTable, t)
	return c, o.warnings, nil
}

// readRequired reads what a report cannot be without.
func (c *Completion) readRequired(report fields, e Envelope, t *pipeline.Transition) error {
	name, err := required(report, "processor_name")
	if err != nil {
		return err
	}
	c.Reported = clip(name)
	date, err := required(report, "game_date")
	if err != nil {
		return err
	}
	if c.Period, err = t.Calendar().Parse(date); err != nil {
		return permanent("game_date", report["game_date"],
			"is no period of the pipeline's calendar, such as %s", t.Calendar().At(e.PublishTime))
	}
	status, err := required(report, "status")
	if err != nil {
		return err
	}
	switch c.Status = Status(status); c.Status {
	case StatusSuccess, StatusPartial, StatusFailed, StatusNoData, StatusSkipped:
		return nil
	}
	return permanent("status", report["status"], "is not one of success, partial, failed, no_data, skipped")
}

// required returns a string that must be there and not be empty.
func required(report fields, key string) (string, error) {
	if _, ok := report.lookup(key); !ok {
		return "", missing(key)
	}
	s, err := report.text(key, key)
	if err == nil && s == "" {
		err = permanent(key, report[key], "is empty")
	}
	return s, err
}

// checkPhase refuses a report of another phase: it came to the wrong topic.
func checkPhase(report fields, t *pipeline.Transition) error {
	phase, err := report.text("phase", "phase")
	if err != nil {
		return err
	}
	if phase != "" && phase != t.UpstreamPhase {
		return permanent("phase", report["phase"], "is not %s", t.UpstreamPhase)
	}
	return nil
}

// readTimestamp returns the report's own time, the zero time when it says none, and
// whether it says its offset from UTC.
func readTimestamp(report fields) (sent time.Time, zoned bool, err error) {
	raw, ok := report.lookup("timestamp")
	if !ok {
		return time.Time{}, false, nil
	}
	s, err := report.text("timestamp", "timestamp")
	if err != nil || s == "" {
		return time.Time{}, false, err
	}
	sent, ok = parseInstant(s)
	if !ok {
		return time.Time{}, false, permanent("timestamp", raw, "is no RFC 3339 time")
	}
	return sent, instantForm.FindStringSubmatch(s)[3] != "", nil
}

// setEventTime decides which time the report counts with. Both are compared in the
// microseconds in which they are kept.
func (c *Completion) setEventTime(sent, published time.Time, o *optional) {
	published = published.UTC().Truncate(time.Microsecond)
	if !sent.IsZero() {
		if lead := sent.Sub(published); -maxTimestampAge <= lead && lead <= maxTimestampLead {
			c.EventTime = sent
			return
		}
		o.warn("timestamp", o.fields["timestamp"],
			"is not within %v before and %v after the publish time %s, which stands for it",
			maxTimestampAge, maxTimestampLead, published.Format(time.RFC3339Nano))
	}
	c.EventTime, c.TimeSource = published, TimeSourcePublish
}

func (c *Completion) readOptional(o *optional, e Envelope) {
	c.ExecutionID = o.text("execution_id")
	if c.ExecutionID == "" {
		c.ExecutionID, c.IDSource = e.MessageID, IDSourceMessage
	}
	c.CorrelationID = o.text("correlation_id")
	if c.CorrelationID == "" {
		c.CorrelationID = c.ExecutionID
	}
	c.RecordCount = o.count("record_count")
	c.RecordsFailed = o.count("records_failed")
	c.Duration = o.seconds("duration_seconds")
	c.OutputTable = o.text("output_table")
	c.OutputDataset = o.text("output_dataset")
	c.Parent = o.text("parent_processor")
	c.TriggerSource = o.text("trigger_source")
	c.TriggerID = o.text("trigger_message_id")
	c.ErrorMessage = o.prose("error_message")
	c.ErrorType = o.text("error_type")
}

func (c *Completion) readMetadata(o *optional) {
	m := o.object("metadata")
	c.Incremental = m.boolean("is_incremental")
	var given bool
	c.Entities, c.Truncated, given = m.entities("entities_changed")
	if c.Incremental && !given || m.boolean("entities_truncated") {
		c.Truncated = true // some entities changed, and they are not named
	}
	o.warnings = append(o.warnings, m.warnings...)
}

// Record returns the completion as it is stored: its JSON, and as key the first 16
// hex digits of the SHA-256 of what the report itself says. It is the same for every
// delivery of a report, also for one that comes back from a dead letter under another
// message id. It panics on what no decoder returns, such as a Duration that is not a
// number.
func (c Completion) Record() (key, value string) {
	value = c.json()
	c.LocalTime = false // follows from the publish time, which is another one when it is sent again
	said := c.json()
	if c.IDSource != "" {
		if c.CorrelationID == c.ExecutionID {
			c.CorrelationID = ""
		}
		c.ExecutionID = ""
		said = c.json()
	}
	sum := sha256.Sum256([]byte(said))
	return hex.EncodeToString(sum[:8]), value
}

func (c Completion) json() string {
	b, err := encode(c)
	if err != nil {
		panic(fmt.Sprintf("a decoded completion always has a JSON: %v", err))
	}
	return string(b)
}

// ParseCompletion reads what Record wrote. It knows no pipeline: names and periods
// are what they were when the completion was recorded.
func ParseCompletion(value string) (Completion, error) {
	var c Completion
	err := json.Unmarshal([]byte(value), &c)
	if err == nil && (c.Reported == "" || c.Period == "" || c.Status == "" || c.EventTime.IsZero()) {
		err = errors.New("reported, period, status or event_time is absent")
	}
	if err != nil {
		return Completion{}, fmt.Errorf("recorded completion %q: %w", clip(value), err)
	}
	c.EventTime = c.EventTime.UTC()
	return c, nil
}

// WithoutEntities returns the completion without its entity list, for a document that
// is near its limit; Truncated is set when there was one.
func (c Completion) WithoutEntities() Completion {
	c.Truncated = c.Truncated || len(c.Entities) > 0
	c.Entities = nil
	return c
}
