package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Verification is what BigQuery says of one statement before it is ever needed.
type Verification struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"` // "" when it can be asked
	Unknown bool   `json:"unknown,omitempty"` // BigQuery could not be asked about it
	Warning string `json:"warning,omitempty"` // what does not work if it is used; nothing else is wrong
	Bytes   int64  `json:"bytes,omitempty"`   // that a whole query would read, at most

	silent bool // BigQuery did not answer at all
}

// Verify dry-runs every statement of a transition's checks, which costs nothing and reads nothing. It
// checks that the tables and columns exist, that the result is a number, and that a whole hand-over
// of each mode stays below the limit of bytes. Where a whole query has a problem, each statement is
// dry-run by itself. If BigQuery does not answer at all, that is the whole result.
func (w *Warehouse) Verify(ctx context.Context, t *pipeline.Transition, p pipeline.Period) []Verification {
	if t.Checks == nil {
		return nil
	}
	var alone []pipeline.Check
	if t.Checks.Expected != "" {
		alone = append(alone, pipeline.Check{Name: "expected", SQL: t.Checks.Expected})
	}
	var wholes []Verification
	sound := map[string]bool{} // checks that stand in a query without a problem
	for _, m := range t.Modes {
		checks := t.Checks.For(m.Name, slices.Concat(m.Critical, m.Optional))
		if len(checks) == 0 {
			continue
		}
		var sqls []string
		for _, c := range checks {
			sqls = append(sqls, c.SQL)
		}
		v := w.verify(ctx, t, p, "all of "+m.Name, sqls)
		if v.silent {
			return []Verification{v}
		}
		for _, c := range checks {
			sound[c.Name] = sound[c.Name] || v.Problem == ""
		}
		if v.Problem == "" && v.Bytes > t.Checks.MaxBytesBilled {
			v.Problem = fmt.Sprintf("reads %d bytes, max_bytes_billed is %d", v.Bytes, t.Checks.MaxBytesBilled)
		}
		wholes = append(wholes, v)
	}
	for _, c := range t.Checks.All {
		if !sound[c.Name] {
			alone = append(alone, c)
		}
	}
	out := make([]Verification, len(alone))
	SideBySide(len(alone), func(i int) {
		out[i] = w.verify(ctx, t, p, alone[i].Name, []string{alone[i].SQL})
	})
	for _, c := range t.Checks.All {
		if sound[c.Name] {
			out = append(out, Verification{Name: c.Name})
		}
	}
	return append(out, wholes...)
}

// VerifyTables reads the metadata of each processor's table. A warning names what keeps
// [Warehouse.Write] from writing rows into it. A processor may write them by other means.
func (w *Warehouse) VerifyTables(ctx context.Context, p *pipeline.Pipeline) []Verification {
	var processors []pipeline.Processor
	for _, phase := range p.Phases {
		processors = append(processors, phase.Processors...)
	}
	out := make([]Verification, len(processors))
	SideBySide(len(processors), func(i int) {
		out[i].Name = "table " + processors[i].Table
		switch _, err := w.CheckTarget(ctx, Target{Processor: processors[i], Calendar: p.Calendar}); {
		case errors.Is(err, ErrTarget):
			out[i].Warning = err.Error()
		case err != nil:
			out[i].Problem, out[i].Unknown = problem(err), true
		}
	})
	return out
}

func (w *Warehouse) verify(ctx context.Context, t *pipeline.Transition, p pipeline.Period, name string, sqls []string) Verification {
	v := Verification{Name: name}
	var err error
	if v.Bytes, err = w.dryRun(ctx, t, p, sqls); err != nil {
		v.silent = !unasked(err) && !refused(err)
		v.Problem, v.Unknown = problem(err), unasked(err) || v.silent
	}
	return v
}

// unasked reports whether BigQuery did not let the caller ask.
func unasked(err error) bool {
	return answered(err, http.StatusForbidden, http.StatusUnauthorized)
}

// dryRun returns the bytes that a query would read. ABS takes numbers alone, so a
// statement of another type is refused.
func (w *Warehouse) dryRun(ctx context.Context, t *pipeline.Transition, p pipeline.Period, sqls []string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Checks.Timeout)
	defer cancel()
	numbers := make([]string, len(sqls))
	for i, sql := range sqls {
		numbers[i] = "SELECT ABS((\n" + sql + "\n))"
	}
	q, err := w.query(ctx, t, p, numbers)
	if err != nil {
		return 0, err
	}
	return dry(ctx, q)
}

// dry returns the bytes that a statement would read, at most.
func dry(ctx context.Context, q *bigquery.Query) (bytes int64, err error) {
	q.DryRun = true
	var job *bigquery.Job
	if err := patiently(ctx, func() (err error) { job, err = q.Run(ctx); return err }); err != nil {
		return 0, err
	}
	status := job.LastStatus() // a dry run is over at once
	if err := status.Err(); err != nil {
		return 0, err
	}
	if status.Statistics == nil {
		return 0, errors.New("BigQuery answered a dry run without statistics")
	}
	return status.Statistics.TotalBytesProcessed, nil
}
