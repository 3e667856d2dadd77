// Package reconcile compares documents, tables and the schedule, names each difference, and
// repairs differences through the engine.
//
// # Sources
//
//	documents  runs, batches and the compatibility document
//	tables     rows of both phases, by date
//	schedule   the expectation for a period
//	locks, quarantine
//
// A comparison of any number of periods takes a constant number of calls, and one query more for every
// [store.ScanPage] documents of a kind.
//
// # States of a finding
//
//	open ──> repaired, or failed if the repair did not succeed
//	skipped: it is right to leave it as it is
//
// # Guarantees
//
//   - [Report.Unknown] names each source that could not be read, and nothing is concluded from
//     a missing answer.
//   - A table is repaired only if its rows are older than [settled], its processor is not
//     locked, and the time of the write belongs to a mode. The rest is unknown.
//   - A repair records a completion and evaluates the cycle ([cycle.Engine.Repair]): its
//     hand-over is really published, by the policy of the mode. A completion that is too old
//     for that is recorded and reported.
//   - Evidence that the next phase has run since counts as a hand-over: no trigger is repeated.
//   - Periods before the first recorded one, or before managed_since, are ignored.
//   - A dry run uses the same code. A second repair changes nothing; two at once, or next to
//     live completions, do no harm.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Finding is one difference. Types are constants of this package.
type Finding struct {
	Type     string          `json:"type"`
	Period   pipeline.Period `json:"period"` // "" when it is about none
	Mode     string          `json:"mode"`
	Table    string          `json:"table"`
	Severity Severity        `json:"severity"`
	Evidence map[string]any  `json:"evidence"`
	Repair   string          `json:"repair"` // what mends it
	Status   Status          `json:"status"`

	repairable bool
}

// Command is what an operator does about the finding alone.
func (f *Finding) Command() string {
	if f.repairable {
		return "phasectl reconcile " + string(f.Period) + " --fix"
	}
	return f.Repair
}

// Severity of a finding.
type Severity string

// The severities. A finding of severity info needs no action.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Status of a finding.
type Status string

// The statuses.
const (
	Open     Status = "open"
	Repaired Status = "repaired"
	Failed   Status = "failed"  // its repair was tried
	Skipped  Status = "skipped" // it is right to leave it alone
)

// Report is the answer about one transition and window.
type Report struct {
	Schema   int             `json:"schema"`
	From     pipeline.Period `json:"from"`
	To       pipeline.Period `json:"to"`
	Findings []*Finding      `json:"findings"`
	Unknown  []string        `json:"unknown"` // what could not be read or judged, in words

	// Of so many tables with rows, each counted once a period, so many are shown as
	// complete by the compatibility document.
	Tables, Shown int `json:"-"`
	// What was compared: the state by period, oldest first, and the first period that is ours. That
	// is "" when nothing was ever recorded. Expected is how much work a period should bring, where
	// that is known.
	Periods  []cycle.PeriodState       `json:"-"`
	Since    pipeline.Period           `json:"-"`
	Managed  cycle.Managed             `json:"-"`
	Expected map[pipeline.Period]int64 `json:"-"`
}

// Left counts the findings that an operator has to handle.
func (r Report) Left() int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity != Info && (f.Status == Open || f.Status == Failed) {
			n++
		}
	}
	return n
}

// Accuracy is the share of tables with rows that are shown as complete, in percent, of
// what could be judged. false: there is none, or none could be.
func (r Report) Accuracy() (pct float64, known bool) {
	if r.Tables == 0 {
		return 0, false
	}
	return 100 * float64(r.Shown) / float64(r.Tables), true
}

// AccuracyText is Accuracy for people.
func (r Report) AccuracyText() string {
	pct, known := r.Accuracy()
	switch {
	case !known && len(r.Unknown) > 0:
		return "unknown"
	case !known:
		return "none (no table has rows that must be shown as complete)"
	}
	return fmt.Sprintf("%.1f %% (%d of %s shown as complete)", pct, r.Shown, pipeline.Count(r.Tables, "table with rows is", "tables with rows are"))
}

// Reconciler is safe for concurrent use.
type Reconciler struct {
	Pipeline *pipeline.Pipeline
	Engine   *cycle.Engine
	Locks    *lease.Locks
	// Waiting counts what is in quarantine and was not replayed.
	Waiting func(ctx context.Context) (int, error)
	// GivenUp counts the dead letters. nil: it is not looked, because an alert does; a
	// function has no right to pull them.
	GivenUp func(ctx context.Context) (int, error)
	// Contents and Expected ask the warehouse; see there.
	Contents func(ctx context.Context, processors []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents
	Expected func(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error)
	// Planned tells the periods that are left alone by who only looks; nil: none.
	Planned func(pipeline.Period) bool
	// Sweep orders a sweep of one table and period.
	Sweep func(ctx context.Context, table string, period pipeline.Period) error
	Log   *slog.Logger
}

// New returns the reconciler of an application.
func New(a *app.App) *Reconciler {
	r := &Reconciler{Pipeline: a.Pipeline, Engine: a.Engine, Locks: a.Locks, Log: a.Log,
		Waiting: func(ctx context.Context) (n int, err error) {
			for q, err := range delivery.ListQuarantine(ctx, a) {
				if err != nil {
					return 0, err
				}
				if !q.Settled() {
					n++
				}
			}
			return n, nil
		},
		Sweep: func(ctx context.Context, table string, period pipeline.Period) error {
			switch {
			case a.Config.Shadow != "":
				return errors.New("a shadow requests no sweep")
			case a.Config.ReadOnly:
				return errors.New("an environment that only reads the tables requests no sweep")
			}
			return sweep.Ask(ctx, a.Pipeline, a.Config.Prefix, a.Broker.Publish, table, period)
		},
		Contents: func(ctx context.Context, processors []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents {
			return a.Warehouse.Contents(ctx, a.Pipeline.Calendar, processors, from, to)
		},
		Expected: func(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
			return a.Warehouse.ExpectedByPeriod(ctx, t, from, to)
		}}
	if a.Warehouse == nil {
		const nothing = "no BigQuery is configured"
		r.Contents = func(_ context.Context, processors []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
			out := map[string]warehouse.Contents{}
			for _, p := range processors {
				out[p.Table] = warehouse.Contents{Problem: nothing}
			}
			return out
		}
		r.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
			return nil, errors.New(nothing)
		}
	}
	return r
}

// Run looks at the periods from one to another and, if it is to fix, repairs what can
// be. An error means that nothing is known, or that repairing came to no end: what is
// done is done, and running again carries on. With an actor of "" it only looks.
func (r *Reconciler) Run(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period, actor string) (Report, error) {
	w, err := r.read(ctx, t, from, to)
	if err != nil {
		return Report{}, err
	}
	c := compare(w)
	report := Report{Schema: 1, From: from, To: to, Findings: c.findings, Unknown: c.unknown, Tables: c.tables, Shown: c.shown,
		Periods: w.periods, Since: w.since, Managed: w.managed, Expected: w.expected}
	if actor == "" {
		return report, nil
	}
	for _, f := range report.Findings {
		if f.Type == DuplicateRows {
			f.Evidence["handed_to_the_sweep"] = true
			if err := r.Sweep(ctx, f.Table, f.Period); err != nil { // which comes by itself, later
				f.Evidence["handed_to_the_sweep"], f.Evidence["problem"] = false, err.Error()
			}
		}
	}
	tried, failed := map[pipeline.Period]bool{}, map[pipeline.Period]error{}
	var stopped error
	for _, b := range w.periods {
		p := c.repairs[b.Period]
		if p == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			stopped = fmt.Errorf("repairing from %s on: %w", b.Period, err)
			break
		}
		tried[b.Period], failed[b.Period] = true, r.repair(ctx, b, p, actor)
	}
	if len(tried) == 0 {
		return report, stopped
	}
	if err := ctx.Err(); err != nil && stopped == nil {
		stopped = fmt.Errorf("stopped during the last repair: %w", err)
	}
	// What is gone by now was repaired, before an interrupt too; the tables were not touched.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterRepairs)
	defer cancel()
	if w.periods, err = r.Engine.PeriodStates(ctx, t, from, to); err != nil {
		return report, errors.Join(stopped, err)
	}
	after := compare(w)
	still := subjects(slices.DeleteFunc(slices.Clone(after.findings), func(f *Finding) bool { return f.Status == Skipped }))
	for _, f := range report.Findings {
		if !f.repairable || !tried[f.Period] {
			continue
		}
		f.Status = Repaired
		if problem := after.left(f, still); problem != "" {
			f.Status, f.Evidence["problem"] = Failed, problem
		}
		if err := failed[f.Period]; err != nil {
			f.Status, f.Evidence["problem"] = Failed, err.Error()
		}
		if f.Status == Repaired {
			r.Log.WarnContext(ctx, f.Type+" repaired", append(f.attributes(t), "event", telemetry.Repaired, "actor", actor)...)
		}
	}
	known := subjects(report.Findings)
	for _, f := range after.findings { // what a repair has brought to light
		if known[f.subject()] == nil {
			report.Findings = append(report.Findings, f)
		}
	}
	report.Unknown, report.Tables, report.Shown = after.unknown, after.tables, after.shown
	return report, stopped
}

// afterRepairs bounds how long it is read what the repairs have done.
const afterRepairs = time.Minute

// repair repairs one period. A panic is an error of this period: the others have their turn.
func (r *Reconciler) repair(ctx context.Context, b cycle.PeriodState, p *repair, actor string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: panic: %v", b.Key, v)
			r.Log.ErrorContext(ctx, err.Error(), "transition", b.Transition.ID, "period", string(b.Period), "stack", string(debug.Stack()))
		}
	}()
	return r.Engine.Repair(ctx, b.Key, cycle.Repair{Completions: p.completions, Actor: actor, Reason: strings.Join(policy.Capped(p.reasons), "; "), Before: standing(b)})
}

// standing says how a period's cycles stand.
func standing(b cycle.PeriodState) string {
	var out []string
	for _, st := range b.Cycles {
		out = append(out, fmt.Sprintf("%s %s (%s)", st.Mode, st.State, st.Reason))
	}
	return strings.Join(out, ", ")
}

// subject is what a finding is about.
func (f *Finding) subject() subject { return subject{f.Type, f.Period, f.Mode, f.Table} }

type subject struct {
	typ    string
	period pipeline.Period
	mode   string
	table  string
}

// subjects returns a finding about each subject.
func subjects(findings []*Finding) map[subject]*Finding {
	of := map[subject]*Finding{}
	for _, f := range findings {
		of[f.subject()] = f
	}
	return of
}

// left says what is left of a finding after its repair; "" when nothing is. still has what is found
// after it.
func (c *comparison) left(f *Finding, still map[subject]*Finding) string {
	if still[f.subject()] != nil {
		return "it is found again"
	}
	if f.Type != Untriggered && f.Type != Unpublished {
		return ""
	}
	for _, b := range c.periods {
		for _, st := range b.Cycles {
			if b.Period == f.Period && st.Mode == f.Mode && st.State != string(cycle.StatePublished) {
				return st.State + ": " + st.Reason
			}
		}
	}
	return ""
}

// LogReport logs each finding, and the report as a whole.
func (r *Reconciler) LogReport(ctx context.Context, t *pipeline.Transition, report Report) {
	for _, f := range report.Findings {
		level := slog.LevelWarn
		if f.Severity == Info {
			level = slog.LevelInfo
		}
		r.Log.Log(ctx, level, fmt.Sprintf("%s %s: %s", f.Type, f.Period, f.Repair), append(f.attributes(t), "event", telemetry.Finding, "status", string(f.Status))...)
	}
	for _, u := range report.Unknown {
		r.Log.ErrorContext(ctx, "unknown: "+u, "event", telemetry.Finding, "type", "unknown", "transition", t.ID)
	}
	attributes := []any{"event", telemetry.Report, "transition", t.ID, "findings", report.Left(), "unknown", len(report.Unknown), "not_shown", report.Tables - report.Shown}
	if pct, known := report.Accuracy(); known {
		attributes = append(attributes, "accuracy_pct", pct)
	}
	r.Log.InfoContext(ctx, fmt.Sprintf("%s to %s: %s left, %d unknown, tracking accuracy %s", report.From, report.To, pipeline.Count(report.Left(), "finding", "findings"), len(report.Unknown), report.AccuracyText()),
		attributes...)
}

func (f *Finding) attributes(t *pipeline.Transition) []any {
	return []any{"type", f.Type, "transition", t.ID, "period", string(f.Period), "mode", f.Mode, "table", f.Table, "severity_of_finding", string(f.Severity), "evidence", f.Evidence}
}
