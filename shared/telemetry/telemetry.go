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

// Event names. Alerts and dashboards select on them; they are never reused for
// another meaning.
const (
	CompletionRecorded    = "completion_recorded"
	CompletionQuarantined = "completion_quarantined"
	CompletionLocalTime   = "completion_local_time"
	CompletionDoubtful    = "completion_doubtful"
	CycleWaiting          = "cycle_waiting"
	CycleBlocked          = "cycle_blocked"
	CycleOverdue          = "cycle_overdue"
	CycleOnHold           = "cycle_on_hold"
	CycleClosed           = "cycle_closed"
	CheckUnknown          = "check_unknown"
	BatchPublished        = "batch_published"
	BatchResumed          = "batch_resumed"
	LockAcquired          = "lock_acquired"
	LockRenewed           = "lock_renewed"
	LockLost              = "lock_lost"
	LockHeld              = "lock_held"
	WriteFenced           = "write_fenced"
	RowsDeduplicated      = "rows_deduplicated"
	DuplicatesFound       = "duplicates_found"
	DuplicatesRemoved     = "duplicates_removed"
	SweepUndone           = "sweep_undone"
	Finding               = "finding"
	Repaired              = "repaired"
	Report                = "report"
	Heartbeat             = "heartbeat"
	JobSuperseded         = "job_superseded"
	NotifyFailed          = "notify_failed"
	OperatorAction        = "operator_action"
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
