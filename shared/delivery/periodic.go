package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// maxRetrying is how long a failing job is retried, from its first attempt, when its next one is
// due later than that.
const maxRetrying = time.Hour

// Periodic runs a job that a schedule sends again and again: the next job repeats the work
// of one that failed. So a job that is older than its interval is acknowledged without a
// run, and one that fails is retried until then, for an hour at most. Both are logged as
// job_superseded; no heartbeat tells that the work was done. A job that no schedule sends
// is never superseded.
func Periodic(ctx context.Context, a *app.App, e wire.Envelope, job string, run func() error) error {
	interval := a.Pipeline.Interval(job, e.PublishTime)
	if interval == 0 {
		return run()
	}
	superseded := func(level slog.Level, format string, args ...any) error {
		a.Log.Log(ctx, level, fmt.Sprintf("job %s of %s is superseded: ", job, e.PublishTime.Format(time.RFC3339))+fmt.Sprintf(format, args...),
			"event", telemetry.JobSuperseded, "job", job, "message_id", e.MessageID, "delivery_attempt", e.DeliveryAttempt)
		return nil
	}
	if olderThan(ctx, a, e, interval) {
		return superseded(slog.LevelWarn, "it was not run, because its schedule sends one every %s", interval)
	}
	err := run()
	switch {
	case err == nil:
	case interval <= maxRetrying && olderThan(ctx, a, e, interval):
		return superseded(slog.LevelError, "it is not retried, because it still fails after %s: %v", interval, err)
	case interval > maxRetrying && failedFor(ctx, a, e, job) >= maxRetrying:
		return superseded(slog.LevelError, "it is not retried, because it still fails %s after its first attempt: %v", maxRetrying, err)
	}
	return err
}

// failedFor returns how long ago an attempt of a job's message failed first, by the store's
// clock. A message may come hours late, so its age says nothing about attempts. Without an
// answer of the store it is 0: the message is retried until its next one is due.
func failedFor(ctx context.Context, a *app.App, e wire.Envelope, job string) time.Duration {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // the run may have used up its time
	defer cancel()
	ref := store.Ref{Collection: a.Config.StatePrefix() + app.StatusCollection, ID: "attempts"}
	got, err := a.Store.Get(ctx, ref)
	if err == nil {
		attempts, _ := got.Docs[0].Data["attempts"].(map[string]any)
		first, _ := attempts[job].(map[string]any)
		if at, ok := first["failed_at"].(time.Time); ok && first["message_id"] == e.MessageID {
			return got.ReadTime.Sub(at)
		}
		_, err = a.Store.Apply(ctx, store.Merge(ref, store.F(map[string]any{"message_id": e.MessageID, "failed_at": store.ServerTime}, "attempts", job)))
	}
	if err != nil {
		a.Log.WarnContext(ctx, "the first failed attempt of the job is not recorded: "+err.Error(), "job", job, "message_id", e.MessageID)
	}
	return 0
}

// olderThan compares a message's age with a limit. A fast clock on this machine must not
// drop every job, so the store's clock has to agree, if the store answers.
func olderThan(ctx context.Context, a *app.App, e wire.Envelope, limit time.Duration) bool {
	if a.Now().Sub(e.PublishTime) < limit {
		return false
	}
	got, err := a.Store.Get(ctx, store.Ref{Collection: a.Config.StatePrefix() + app.StatusCollection, ID: "clock"}) // its read time is all that counts
	return err != nil || got.ReadTime.Sub(e.PublishTime) >= limit
}
