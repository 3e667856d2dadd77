// Package reconcile is the function that finishes and repairs, by jobs of the scheduler:
//
//	relay    converges the recent periods, reports leaked locks, and leaves a heartbeat if
//	         all of that succeeded
//	nightly  compares the last week with BigQuery, and repairs differences
//	verify   verifies the readiness checks by dry runs
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// timeout bounds one job, below the subscription's ack deadline of 600 s.
const timeout = 5 * time.Minute

// New returns the function's handler. POST takes a job message; an unknown job goes
// to quarantine.
func New(open func(context.Context) (*app.App, error)) http.Handler {
	return delivery.Function{
		Name: pipeline.FunctionReconcile, Open: open, Timeout: timeout, Source: delivery.Jobs(pipeline.FunctionReconcile), Handle: handle,
	}
}

func handle(ctx context.Context, r delivery.Request) (notifications []notify.Notification, err error) {
	job, err := wire.DecodeJob(r.Envelope)
	switch {
	case err != nil:
		return nil, err
	case job.Job != wire.JobRelay && job.Job != wire.JobNightly && job.Job != wire.JobVerify:
		return nil, &wire.PermanentError{Field: "job", Value: job.Job, Problem: "is not served by reconcile; relay, nightly and verify are"}
	case job.Table != "":
		return nil, &wire.PermanentError{Field: "table", Value: job.Table, Problem: "means nothing to " + job.Job}
	case job.Date != "":
		return nil, &wire.PermanentError{Field: "date", Value: job.Date, Problem: "means nothing to " + job.Job}
	}
	err = delivery.Periodic(ctx, r.App, r.Envelope, job.Job, func() (err error) {
		switch job.Job {
		case wire.JobVerify:
			return verify(ctx, r.App)
		case wire.JobNightly:
			return nightly(ctx, r.App, r.Envelope)
		}
		notifications, err = relay(ctx, r.App, r.MessageID)
		return err
	})
	return notifications, err
}

// relayLimit bounds the relay of one transition. Its readiness checks begin within twice 45 s, and the
// last of them end with their claims. It is below timeout, so that the job answers.
const relayLimit = 4 * time.Minute

// relay names leaked locks at the same time as it converges the transitions. Notifications about those
// that proceed do not wait for one that hangs.
func relay(ctx context.Context, a *app.App, messageID string) (notifications []notify.Notification, err error) {
	var naming sync.WaitGroup
	var unnamed error
	naming.Go(func() { unnamed = guarded(ctx, a, "part", "locks", func() error { return nameLeakedLocks(ctx, a) }) })
	var mu sync.Mutex
	err = eachTransition(ctx, a, func(t *pipeline.Transition) error {
		ctx, cancel := context.WithTimeout(ctx, relayLimit)
		defer cancel()
		return a.Engine.Relay(ctx, t, messageID, func(key cycle.Key, cycles []cycle.Status) {
			mu.Lock()
			defer mu.Unlock()
			notifications = append(notifications, a.Notifications(key, cycles)...)
		})
	}, func() {
		mu.Lock()
		most := notifications
		notifications = nil
		mu.Unlock()
		a.Notifier.Notify(ctx, most...)
	})
	naming.Wait()
	if err := errors.Join(err, unnamed); err != nil {
		return notifications, err // and no heartbeat: a relay that keeps failing has to be noticed
	}
	return notifications, a.Heartbeat(ctx, pipeline.FunctionReconcile, wire.JobRelay)
}

const (
	// nightlyDays is the window of the nightly job.
	nightlyDays = 7
	// nightlyActor is the actor of repairs in documents and audit records.
	nightlyActor = "nightly"
	// nightlyLock keeps two of them apart.
	nightlyLock = "PhasegateNightly"
)

// nightly compares and repairs, alone. Its window follows from when it was asked for, so
// that a request that is redelivered on the next day is about the same periods. One that
// ends early is tried again: what was repaired is no finding any more.
func nightly(ctx context.Context, a *app.App, e wire.Envelope) error {
	key := lease.Key{Class: nightlyLock, Period: a.Pipeline.Calendar.At(e.PublishTime)}
	held, err := a.Locks.Acquire(ctx, key, "message-"+e.MessageID)
	if _, ok := errors.AsType[*lease.HeldError](err); ok {
		return fmt.Errorf("%w: %w", delivery.ErrBusy, err) // such as an earlier try that died: its lock ends by itself
	}
	if err != nil {
		return err
	}
	inside, stop := held.Keep(ctx)
	err = reconcileAll(inside, a, e.PublishTime)
	stop()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	// Nothing is written under its token: the list of tokens need not keep it.
	err = errors.Join(err, held.Settle(after, slices.Concat(held.Outstanding(), held.Used())...))
	if released := held.Release(after); released != nil {
		a.Log.WarnContext(ctx, "the lock was not released, it ends by itself: "+released.Error(), "lock", key.String())
	}
	if err != nil {
		return err
	}
	return a.Heartbeat(ctx, pipeline.FunctionReconcile, wire.JobNightly)
}

func reconcileAll(ctx context.Context, a *app.App, asked time.Time) error {
	r := reconcile.New(a)
	return eachTransition(ctx, a, func(t *pipeline.Transition) error {
		from, to := t.Window(asked, nightlyDays)
		report, err := r.Run(ctx, t, from, to, nightlyActor)
		if err != nil {
			return fmt.Errorf("%s: %w", t.ID, err)
		}
		r.LogReport(ctx, t, report)
		return nil
	}, func() {})
}

const (
	// turns bounds the transitions that begin at once, and so the memory: each holds the documents of
	// one period.
	turns = 16
	// turn is how long a transition keeps others from beginning. Then it goes on next to them: it
	// waits for BigQuery or for the store, or has much to do. So the last of 100 transitions begins
	// after 30 s, even if all others hang.
	turn = 5 * time.Second
)

// eachTransition does something for all transitions: one that fails, panics, hangs or is slow keeps no
// other from its turn. Once all others are done, most is called, and then it waits for those that still
// work after their turns.
func eachTransition(ctx context.Context, a *app.App, do func(t *pipeline.Transition) error, most func()) error {
	errs := make([]error, len(a.Pipeline.Transitions))
	free := make(chan struct{}, turns)
	var working sync.WaitGroup
	for i, t := range a.Pipeline.Transitions {
		if !take(ctx, free) {
			errs[i] = fmt.Errorf("%s had no turn: %w", t.ID, ctx.Err())
			continue
		}
		working.Go(func() {
			end := sync.OnceFunc(func() { <-free })
			defer time.AfterFunc(turn, end).Stop()
			defer end()
			errs[i] = guarded(ctx, a, "transition", t.ID, func() error { return do(t) })
		})
	}
	for range turns {
		take(ctx, free)
	}
	most()
	working.Wait()
	return errors.Join(errs...)
}

// take waits for a turn, until ctx ends.
func take(ctx context.Context, free chan<- struct{}) bool {
	select {
	case free <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// guarded turns a panic of one part of a job into an error. The log entry has
// the kind and the name of the part.
func guarded(ctx context.Context, a *app.App, what, part string, do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: panic: %v", part, r)
			a.Log.ErrorContext(ctx, err.Error(), what, part, "stack", string(debug.Stack()))
		}
	}()
	return do()
}

// nameLeakedLocks logs the leaked locks: they expired long ago, no run has asked for them
// since, and their runs did not finish. It deletes the oldest of many.
func nameLeakedLocks(ctx context.Context, a *app.App) error {
	locks, at, err := a.Locks.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range locks {
		if s.Leaked(at) {
			i := strings.LastIndexByte(s.Key, '_') + 1
			a.Log.WarnContext(ctx, "lock "+s.Key+" was not released", "event", telemetry.Finding, "by", "locks", "type", "leaked_lock", "lock", s.Key,
				"period", s.Key[i:], "execution_id", s.Execution, "instance", s.Instance, "renewed", s.Renewed)
		}
	}
	if a.Config.Shadow != "" {
		return nil // the locks are not the shadow's own
	}
	deleted, err := a.Locks.Trim(ctx, locks, at)
	if deleted > 0 {
		a.Log.WarnContext(ctx, fmt.Sprintf("%d leaked locks were deleted: the newest %d are kept", deleted, lease.MostLeaked))
	}
	return err
}

// verify asks the warehouse about the readiness checks as the function that will have
// to ask them: what it may not read is known before a night needs it. It leaves a
// heartbeat when every check can be asked, else a line for each that cannot.
func verify(ctx context.Context, a *app.App) error {
	sound := true
	unanswered := func(transition, name, problem string) {
		sound = false
		a.Log.ErrorContext(ctx, "the readiness check "+name+" cannot run: "+problem, "event", telemetry.CheckUnknown, "check", name, "transition", transition)
	}
	for _, t := range a.Pipeline.Transitions {
		if t.Checks != nil && a.Warehouse == nil {
			unanswered(t.ID, "every check", "no BigQuery is configured")
			continue
		}
		for _, v := range a.Warehouse.Verify(ctx, t, a.Pipeline.Calendar.At(a.Now())) {
			if v.Problem != "" {
				unanswered(t.ID, v.Name, v.Problem)
			}
		}
	}
	if !sound {
		return nil // a retry changes nothing; the log and the missing heartbeat report it
	}
	return a.Heartbeat(ctx, pipeline.FunctionReconcile, wire.JobVerify)
}
