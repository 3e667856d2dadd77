// Package processor runs processors written in Go: one run at a time, with one write each.
// [Runner.Run] is the only way to run one.
//
// # Steps of a run
//
//  1. served    a request whose trigger_id was served is done
//  2. lock      of the processor and the period; if it is held, the request is redelivered
//  3. fence     check that rows can be written into the table, and revoke the outstanding
//     tokens of earlier runs
//  4. work      the caller's function reads, computes and returns rows
//  5. write     de-duplicated, staged and merged by one statement, under this run's token
//  6. record    the completion, and that the request is served, in one commit
//  7. publish   the completion, and confirm it with the broker's id
//  8. release
//
// # Guarantees
//
// A completion is published at least once; the engine treats copies as one. A run renews its
// lock while it works. A run that lost its lock writes nothing: its context has ended, and its
// token is revoked. The last step of a finished run is a log line heartbeat.
//
// # Failures
//
// If a run dies, its request is redelivered, because it was not answered. Before step 6 the
// next run repeats all steps, and its write replaces the earlier one. After step 6 the request
// is served: the next run only publishes the unconfirmed completion.
//
// An error of the work, a panic, a time-out and rows that do not fit are failures with a
// [Category]. If a retry cannot help, the run is published once as failed, its request is
// answered as done, and it is not retried.
package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// Config is what a Runner stands on. All fields are required but Prefix.
type Config struct {
	Pipeline  *pipeline.Pipeline
	Store     store.Store
	Locks     *lease.Locks
	Warehouse *warehouse.Warehouse
	Publish   cycle.Publish
	Now       func() time.Time
	NewID     func() string // unique; letters and digits
	Prefix    string        // of collections and topics
	Staging   string        // dataset for what is loaded before it is merged
	TimeLimit time.Duration // of the work
	Log       *slog.Logger
}

// Runner is safe for concurrent use.
type Runner struct{ Config }

// New returns a runner.
func New(c Config) *Runner { return &Runner{c} }

// Request is what a run is asked for by. The zero Request asks for a run of everything.
type Request struct {
	TriggerID     string    // a request with one that was served is dropped
	Published     time.Time // when it was sent
	Mode          string    // of the cycle that it belongs to
	Entities      []string  // that changed; nil: all
	CorrelationID string
	Parent        string // processor whose completion asks for this run
}

// Run describes a run to the work.
type Run struct {
	Processor pipeline.Processor
	Period    pipeline.Period
	Execution string
	Request   Request
}

// Output is what the work returns.
type Output struct {
	Rows []dedup.Row // all of the period, by the columns of the processor's table
	// Entities: Rows are those of these entities alone, and take the place of the rows
	// with their keys. nil: Rows are all that the period has.
	Entities []string
	Partial  bool // a part of the sources was not there
	Failed   int  // records that could not be made
}

// Work makes a processor's rows. It may be run again for the same request, and must
// write nothing by itself. It ends soon after ctx does.
type Work func(ctx context.Context, run Run) (Output, error)

// Category says why a run failed.
type Category string

// The categories.
const (
	FailedWork      Category = "work"      // the work returned an error
	FailedPanic     Category = "panic"     // the work panicked
	FailedTime      Category = "timeout"   // the work took too long
	FailedData      Category = "data"      // the rows do not fit their table
	FailedWarehouse Category = "warehouse" // the warehouse could not be read or written
	FailedLock      Category = "lock_lost" // another run may be at work
)

// Permanent marks an error of the work that trying again cannot help.
func Permanent(err error) error { return &permanent{err} }

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Outcome is the result of a run that is not retried.
type Outcome struct {
	Status    wire.Status // "" when there was no run
	Execution string      // of the run, or of the one that served the request
	Category  Category    // of a failure
	Written   warehouse.Written
	// Served: the request was done before. Covered: a run that began after the request
	// was sent has done what it asks for.
	Served, Covered bool
}

// Run does one run, or finds that it was done. An error means that the request must be redelivered:
// another run has the lock ([*lease.HeldError]), or something failed that can succeed the next time.
func (r *Runner) Run(ctx context.Context, name string, period pipeline.Period, req Request, work Work) (Outcome, error) {
	phase, pr, ok := r.Pipeline.Processor(name)
	if !ok {
		return Outcome{}, fmt.Errorf("processor %q is none of the pipeline's", name)
	}
	n := &run{Runner: r, phase: phase, began: r.Now(), key: lease.Key{Class: pr.Class, Period: period},
		reportsTo: r.Pipeline.ReportsTo(pr.Name), Run: Run{Processor: pr, Period: period, Execution: "run-" + strings.ToLower(r.NewID()), Request: req}}
	if out, done, err := n.before(ctx, false); done || err != nil {
		return out, err
	}
	held, err := r.Locks.Acquire(ctx, n.key, n.Execution)
	if err != nil {
		out, done, readErr := n.before(ctx, errors.As(err, new(*lease.HeldError)))
		if done {
			return out, nil
		}
		return Outcome{}, errors.Join(err, readErr)
	}
	return n.locked(ctx, held, work)
}

// run is one run under way.
type run struct {
	*Runner
	Run
	phase     pipeline.Phase
	reportsTo *pipeline.Transition // nil: no transition expects its completions
	key       lease.Key
	held      *lease.Lease
	began     time.Time
}

// locked is a run that has the lock, which it gives back at its end.
func (n *run) locked(ctx context.Context, held *lease.Lease, work Work) (Outcome, error) {
	n.held = held
	inside, stop := held.Keep(ctx)
	out, err := n.inside(inside, work)
	stop()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishing)
	defer cancel()
	if failed := n.release(after); failed != nil {
		n.Log.WarnContext(ctx, "the lock was not released, it ends by itself: "+failed.Error(), "lock", n.key.String(), "execution_id", n.Execution)
	}
	if err == nil && out.Status != "" {
		n.Log.InfoContext(ctx, fmt.Sprintf("%s for %s: %s", n.Processor.Name, n.Period, out.Status), "event", telemetry.Heartbeat, "processor", n.Processor.Name,
			"period", string(n.Period), "execution_id", n.Execution, "status", string(out.Status), "rows", out.Written.Rows, "seconds", n.Now().Sub(n.began).Seconds())
	}
	return out, err
}

// finishing bounds what is done when the caller may have gone.
const finishing = 30 * time.Second

func (n *run) release(ctx context.Context) error {
	if err := n.held.Release(ctx); !errors.Is(err, lease.ErrLost) { // which is already logged
		return err
	}
	return nil
}

func (n *run) inside(ctx context.Context, work Work) (Outcome, error) {
	if out, done, err := n.before(ctx, false); done || err != nil { // another run has ended since
		return out, err
	}
	location, err := n.Warehouse.CheckTarget(ctx, n.target())
	if err == nil {
		err = n.fence(ctx, location)
	}
	switch {
	case permanentData(err):
		return n.unwritten(ctx, FailedData, Permanent(err))
	case err != nil:
		return n.unwritten(ctx, FailedWarehouse, err)
	}
	made, category, err := n.work(ctx, work)
	if err != nil {
		return n.unwritten(ctx, category, err)
	}
	written, err := n.write(ctx, made)
	switch {
	case errors.Is(err, warehouse.ErrFenced), errors.Is(err, lease.ErrLost), err != nil && n.held.Check() != nil:
		n.logFenced(ctx, err)
		return n.failed(ctx, FailedLock, err)
	case permanentData(err):
		return n.failed(ctx, FailedData, Permanent(err))
	case err != nil:
		return n.failed(ctx, FailedWarehouse, err)
	}
	n.settle(ctx, written)
	return n.finish(ctx, made, written)
}

// unwritten reports the failure of a run that has begun no write, and settles its token. If
// each try on a broken table left a token, the next run would have to fence them all.
func (n *run) unwritten(ctx context.Context, category Category, why error) (Outcome, error) {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishing)
	defer cancel()
	if err := n.held.Settle(after, n.held.Used()...); err != nil {
		n.Log.WarnContext(ctx, "tokens are left to the next run: "+err.Error(), "lock", n.key.String(), "execution_id", n.Execution)
	}
	return n.failed(ctx, category, why)
}

func permanentData(err error) bool {
	return errors.Is(err, warehouse.ErrTarget) || errors.As(err, new(*warehouse.RowError)) || errors.As(err, new(*dedup.KeyError))
}

// fence makes sure that no earlier run writes any more, before anything is read.
func (n *run) fence(ctx context.Context, location string) error {
	if err := n.Warehouse.FenceIn(ctx, location, n.key.String(), n.held.Outstanding()...); err != nil {
		return err
	}
	return n.held.Settle(ctx, n.held.Outstanding()...)
}

// work runs the work within its time; a panic is its failure.
func (n *run) work(ctx context.Context, work Work) (out Output, category Category, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, n.TimeLimit, fmt.Errorf("no end after %s", n.TimeLimit))
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			category, err = FailedPanic, Permanent(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	out, err = work(limited, n.Run)
	switch {
	case n.held.Check() != nil:
		return out, FailedLock, errors.Join(n.held.Check(), err)
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		return out, FailedTime, errors.Join(context.Cause(limited), err)
	}
	return out, FailedWork, err
}

func (n *run) target() warehouse.Target {
	return warehouse.Target{Processor: n.Processor, Period: n.Period, Calendar: n.Pipeline.Calendar, Staging: n.Staging}
}

func (n *run) write(ctx context.Context, made Output) (warehouse.Written, error) {
	target := n.target()
	target.ByKey = made.Entities != nil
	return n.Warehouse.Write(ctx, warehouse.Under(n.held), target, made.Rows)
}

// settle takes the tokens of this run from the list: their jobs have ended. The last one has
// written, and each one before it has failed. Without rows no job was begun.
func (n *run) settle(ctx context.Context, w warehouse.Written) {
	if err := n.held.Settle(ctx, n.held.Used()...); err != nil {
		n.Log.WarnContext(ctx, "tokens are left to the next run: "+err.Error(), "lock", n.key.String(), "execution_id", n.Execution)
	}
	attributes := []any{"processor", n.Processor.Name, "period", string(n.Period), "execution_id", n.Execution, "table", n.Processor.Table}
	if w.Removed > 0 {
		n.Log.WarnContext(ctx, fmt.Sprintf("%d rows had the key of another", w.Removed), append(attributes, "event", telemetry.RowsDeduplicated,
			"removed", w.Removed, "rows", w.Rows, "examples", fmt.Sprint(w.Examples))...)
	}
	if w.Doubled != 0 {
		found := fmt.Sprintf("the table has %d duplicate rows after the write", w.Doubled)
		if w.Doubled < 0 {
			found = "the duplicate rows after the write could not be counted: " + w.Problem
		}
		n.Log.ErrorContext(ctx, found, append(attributes, "event", telemetry.DuplicatesFound,
			"duplicates", w.Doubled)...)
		// The rows are written in any case; without this request the nightly sweep finds them.
		if err := sweep.Ask(ctx, n.Pipeline, n.Prefix, n.Publish, n.Processor.Table, n.Period); err != nil {
			n.Log.WarnContext(ctx, "the sweep was not requested: "+err.Error(), attributes...)
		}
	}
}

func (n *run) logFenced(ctx context.Context, err error) {
	if errors.Is(err, warehouse.ErrFenced) {
		n.Log.ErrorContext(ctx, "the write was fenced by a later run: "+err.Error(), "event", telemetry.WriteFenced, "collection", n.Prefix+"processing_locks",
			"lock", n.key.String(), "processor", n.Processor.Name, "period", string(n.Period), "execution_id", n.Execution)
	}
}

// covers reports whether what a run has done is what a request asks for.
func covers(s success, req Request) bool {
	if req.Published.IsZero() || !s.Began.After(req.Published) || req.Mode != "" && s.Mode != req.Mode {
		return false
	}
	if s.Entities == nil {
		return true
	}
	return req.Entities != nil && !slices.ContainsFunc(req.Entities, func(e string) bool { return !slices.Contains(s.Entities, e) })
}
