// Package telemetry writes structured logs in the format of Cloud Logging. Each line is one
// JSON object with severity and message. Lines that alerts or people search for have an
// event name of the list below.
//
// If logging fails (a closed pipe, a full disk), the work that is logged does not fail.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// Event names and their meanings. Alerts and dashboards select on the names; they are never
// reused for another meaning. docs/reference/events.md is generated from this list.
const (
	CompletionRecorded    = "completion_recorded"    // a processor's report was recorded
	CompletionQuarantined = "completion_quarantined" // an invalid message was put in quarantine
	CompletionLocalTime   = "completion_local_time"  // a report seems to have local time without an offset
	CompletionDoubtful    = "completion_doubtful"    // a report has an almost known name, or a later period than expected
	CycleWaiting          = "cycle_waiting"          // a cycle waits for processors or for its hours
	CycleBlocked          = "cycle_blocked"          // a hand-over is due, and its readiness check failed or is unknown
	CycleOverdue          = "cycle_overdue"          // a cycle is past its deadline and was not handed over
	CycleOnHold           = "cycle_on_hold"          // an operator keeps a cycle from being handed over
	CycleClosed           = "cycle_closed"           // the schedule or an operator says that a cycle has nothing to hand over
	CheckUnknown          = "check_unknown"          // a readiness check or the schedule has no answer
	BatchPublished        = "batch_published"        // the broker confirmed every message of a hand-over
	BatchResumed          = "batch_resumed"          // a process continued a hand-over that another one had left
	LockAcquired          = "lock_acquired"          // a run acquired its lock
	LockRenewed           = "lock_renewed"           // a run renewed its lock
	LockLost              = "lock_lost"              // a run lost its lock while it was at work
	LockHeld              = "lock_held"              // a run did not begin, because another run has the lock
	WriteFenced           = "write_fenced"           // a write under a revoked fencing token changed nothing
	RowsDeduplicated      = "rows_deduplicated"      // a processor returned duplicate rows, which were removed before the write
	DuplicatesFound       = "duplicates_found"       // a table has duplicate rows
	DuplicatesRemoved     = "duplicates_removed"     // a sweep removed duplicate rows
	SweepUndone           = "sweep_undone"           // the rows of a sweep were put back
	Finding               = "finding"                // the relay, health, a sweep or the lock check reports one problem
	Repaired              = "repaired"               // reconciliation repaired a difference
	Report                = "report"                 // the summary of a reconciliation or of a health evaluation
	Heartbeat             = "heartbeat"              // a job finished
	JobSuperseded         = "job_superseded"         // a job was skipped, because the next one repeats its work
	NotifyFailed          = "notify_failed"          // a notification could not be sent to Slack
	OperatorAction        = "operator_action"        // an operator changed something with phasectl
	GuardClaimed          = "guard_claimed"          // a guard claimed a delivery and forwards it
	GuardDone             = "guard_done"             // a guarded service did its work, and the receipt says so
	GuardRefused          = "guard_refused"          // a guard refused a copy of a delivery that is at work
	GuardReplayed         = "guard_replayed"         // a guard answered a copy of a delivery that was done before
	GuardReleased         = "guard_released"         // a guarded service failed; the next delivery works again
	GuardTakenOver        = "guard_taken_over"       // a guard took over a claim that was not renewed
	GuardLost             = "guard_lost"             // a guard lost its claim while its service was at work
	GuardUnknown          = "guard_unknown"          // the result of a guarded service is unknown
	GuardUnrecorded       = "guard_unrecorded"       // a guarded service did its work, and the receipt does not say so
	GuardOverlap          = "guard_overlap"          // two runs of one delivery were at work
	GuardKeyReused        = "guard_key_reused"       // two messages with different data have one key
)

// New returns a logger that writes to w at the given level (debug, info, warn,
// error; empty means info).
func New(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("LOG_LEVEL: %q is not one of debug, info, warn, error", level)
		}
	}
	h := slog.NewJSONHandler(limited{w}, &slog.HandlerOptions{Level: l, ReplaceAttr: cloudNames})
	return slog.New(traced{h}), nil
}

// cloudNames renames what slog names otherwise:
// https://cloud.google.com/logging/docs/structured-logging#special-payload-fields
func cloudNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		severity := "INFO"
		switch l := a.Value.Any().(slog.Level); {
		case l < slog.LevelInfo:
			severity = "DEBUG"
		case l >= slog.LevelError:
			severity = "ERROR"
		case l >= slog.LevelWarn:
			severity = "WARNING"
		}
		return slog.String("severity", severity)
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

// InShadow returns a logger whose lines have their event in the field shadow_event, so that
// a shadow is logged and causes no alert.
func InShadow(l *slog.Logger) *slog.Logger { return slog.New(shadowed{l.Handler()}) }

type shadowed struct{ slog.Handler }

func (s shadowed) Handle(ctx context.Context, r slog.Record) error {
	renamed := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			a.Key = "shadow_event"
		}
		renamed.AddAttrs(a)
		return true
	})
	return s.Handler.Handle(ctx, renamed)
}

func (s shadowed) WithAttrs(a []slog.Attr) slog.Handler { return shadowed{s.Handler.WithAttrs(a)} }
func (s shadowed) WithGroup(n string) slog.Handler      { return shadowed{s.Handler.WithGroup(n)} }

type traceKey struct{}

// WithTrace keeps the trace of a request for the lines logged on its behalf. The
// project completes the name by which Cloud Logging groups them.
func WithTrace(ctx context.Context, r *http.Request, project string) context.Context {
	// https://www.w3.org/TR/trace-context/: version-traceid-parent-flags
	if parts := strings.Split(r.Header.Get("traceparent"), "-"); len(parts) == 4 && len(parts[1]) == 32 {
		return context.WithValue(ctx, traceKey{}, "projects/"+project+"/traces/"+parts[1])
	}
	return ctx
}

// traced adds the context's trace to every line.
type traced struct{ slog.Handler }

func (t traced) Handle(ctx context.Context, r slog.Record) error {
	if trace, ok := ctx.Value(traceKey{}).(string); ok {
		r.AddAttrs(slog.String("logging.googleapis.com/trace", trace))
	}
	return t.Handler.Handle(ctx, r)
}

func (t traced) WithAttrs(a []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(a)} }
func (t traced) WithGroup(n string) slog.Handler      { return traced{t.Handler.WithGroup(n)} }
