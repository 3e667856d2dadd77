package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

type runRow struct {
	Processor, Tone, Symbol, Status string
	Ended, Rows, Took, Execution    string
	HandOver, Error, Log            string
}

type batchRow struct {
	N                         int
	Tone, Symbol, State       string
	Cause, Due, Published     string
	After, Actor, ID, Waiting string
	Triggers                  []trigger
	TriggersCut               int // that are not shown
}

// Size is how many triggers the batch has.
func (b batchRow) Size() int { return len(b.Triggers) + b.TriggersCut }

type trigger struct{ Table, ID, Message string }

type readyRow struct {
	Name, Tone, Symbol, Result, Value, Warn, Block, Problem string
	Bullet                                                  *bullet
}

// bullet draws a share against its bound, in per cent.
type bullet struct{ Value, Bound string }

type personRow struct{ At, Actor, Action, Reason string }

func newRunRow(a *app.App, c *shown, r cycle.RunStatus, clk clock) runRow {
	out := runRow{Processor: r.Processor, Tone: "good", Symbol: "dot", Status: string(r.Status), Ended: clk.exact(r.EventTime), Rows: "unknown", Took: "unknown",
		Execution: r.ExecutionID, Error: r.Error, Log: logs(a, c, fmt.Sprintf("jsonPayload.execution_id=%q", r.ExecutionID))}
	switch {
	case r.Status == wire.StatusFailed:
		out.Tone, out.Symbol = "bad", "fail"
	case !r.Counts:
		out.Tone, out.Symbol = "calm", "dash"
	case late(c, r):
		out.Tone, out.Status = "fair", out.Status+", after the deadline"
	}
	if r.RecordCount != nil {
		out.Rows = fmt.Sprint(*r.RecordCount)
	}
	if r.Duration != nil {
		out.Took = span(time.Duration(*r.Duration * float64(time.Second)))
	}
	switch {
	case r.Batch > 0:
		out.HandOver = fmt.Sprint(r.Batch)
	case r.Why != "":
		out.HandOver = "no: " + r.Why
	case c.State == string(cycle.StatePublished): // as of a further run that changed nothing
		out.HandOver = "none is due"
	default:
		out.HandOver = "not yet"
	}
	return out
}

// late reports whether a run ended after the deadline of the cycle.
func late(c *shown, r cycle.RunStatus) bool {
	return c.mode.Deadline != nil && r.EventTime.After(c.mode.Due(c.of.Calendar(), c.period))
}

func newBatchRow(b cycle.BatchStatus, clk clock) batchRow {
	l := lookOf(kind(b.State))
	out := batchRow{N: b.N, Tone: l.Tone, Symbol: l.Symbol, State: l.Word, Cause: b.Cause, Actor: b.Actor, ID: b.ID, Due: clk.exact(begun(b)), Published: "not yet"}
	switch {
	case !b.PublishedAt.IsZero():
		out.Published = clk.exact(b.PublishedAt)
		if !b.DueAt.IsZero() {
			out.After = span(b.PublishedAt.Sub(b.DueAt))
		}
	default:
		out.After = clk.age(begun(b))
	}
	for table, id := range b.Messages {
		if id == "" {
			id = "no id yet"
		}
		out.Triggers = append(out.Triggers, trigger{table, fmt.Sprintf("~%d/%s", b.N, table), id})
	}
	slices.SortFunc(out.Triggers, func(a, b trigger) int { return strings.Compare(a.Table, b.Table) })
	if out.TriggersCut = max(0, len(out.Triggers)-mostTriggers); out.TriggersCut > 0 {
		out.Triggers = out.Triggers[:mostTriggers]
	}
	if len(out.Triggers) == 0 {
		out.Waiting = "none yet"
	}
	return out
}

// ready shows the answers of the newest readiness check.
func (v *cycleView) ready(x cycle.Explanation) {
	if x.Readiness == nil {
		v.ReadyNote = "No readiness check has run."
		return
	}
	v.ReadyNote = "Result: " + string(x.Readiness.Outcome) + "."
	if !x.NextCheck.IsZero() && x.State == string(cycle.StateBlocked) {
		v.ReadyNote += " It runs again by itself."
	}
	checks := x.Readiness.Checks
	if v.ReadyCut = max(0, len(checks)-mostChecks); v.ReadyCut > 0 { // those that pass come last
		passes := func(c policy.CheckResult) int {
			if c.State == string(policy.Passed) {
				return 1
			}
			return 0
		}
		checks = slices.Clone(checks)
		slices.SortStableFunc(checks, func(a, b policy.CheckResult) int { return passes(a) - passes(b) })
		checks = checks[:mostChecks]
	}
	for _, c := range checks {
		row := readyRow{Name: c.Name, Tone: "good", Symbol: "ok", Result: "passes", Value: "—", Warn: c.Warn, Block: c.Block, Problem: c.Problem}
		switch c.State {
		case "warn":
			row.Tone, row.Symbol, row.Result = "fair", "ask", "warns"
		case string(policy.Failed):
			row.Tone, row.Symbol, row.Result = "bad", "fail", "blocks"
		case string(policy.Unknown):
			row.Tone, row.Symbol, row.Result = "fair", "ask", "unknown"
		}
		if c.Value != nil {
			row.Value = fmt.Sprintf("%.4g", *c.Value)
			var bound float64
			n, _ := fmt.Sscanf(strings.TrimLeft(c.Block, "<= "), "%g", &bound)
			if n == 1 && strings.HasPrefix(c.Block, "<") && strings.HasSuffix(c.Name, "_pct") && *c.Value >= 0 && *c.Value <= 100 {
				row.Bullet = &bullet{fmt.Sprintf("%.3g%%", *c.Value), fmt.Sprintf("%.3g%%", bound)}
			}
		}
		v.Ready = append(v.Ready, row)
	}
}

func (v *cycleView) people(s *cycleState, clk clock) {
	v.PeopleCut = s.cut
	if s.recordsErr != nil {
		v.PeopleProblem = s.recordsErr.Error()
	}
	for _, r := range slices.Backward(s.records) {
		row := personRow{clk.exact(r.At), r.Actor, r.Action, r.Reason}
		if r.Period == "" {
			row.Action += " of every cycle"
		}
		v.People = append(v.People, row)
	}
}
