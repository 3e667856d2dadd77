package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
)

func checksCommand(f *flags) *cobra.Command {
	return group("checks", "Verify the readiness checks against the warehouse, or run them", checksVerifyCommand(f), checksRunCommand(f))
}

func checksVerifyCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify, at no cost, the checks, the subscriptions that the pipeline replaces, and renamed names",
		Long: "Verify each check by a dry run of BigQuery, which costs nothing. Its tables and columns must exist, it must yield\n" +
			"a number, and the query of a hand-over must stay below its limit of bytes. All datasets must be in one location.\n" +
			"A warning names each table into which processors in Go cannot write rows, and why.\n" +
			"Dry runs also verify the statements that write each table: merge, merge by key, removal and archive copy.\n" +
			"An error names the table and the statement. With PHASEGATE_TABLES=read these are skipped. A warning names each\n" +
			"table without partitions by its date column, and the bytes that each write reads from it.\n" +
			"Unless PHASEGATE_SHADOW is true, no subscription that the pipeline file replaces may exist:\n" +
			"two orchestrators would hand over twice. Other subscriptions that push the same messages cause a warning.\n" +
			"No transition, mode or processor may be renamed without `formerly`:\n" +
			"its last days would look as if nothing had been handed over.\n\n" +
			"Exit status: 0 all is ok, with or without warnings, 1 a problem was found, 2 something could not be verified.",
		Example: "  phasectl checks verify --pipeline my-pipeline.yaml --project my-project",
	}
	return answers(f, cmd, f.verify)
}

func (f *flags) verify(ctx context.Context) (*verified, error) {
	c, p, w, err := f.warehouse()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	others, err := replaced(ctx, c, p)
	if err != nil {
		return nil, err
	}
	r := &verified{[]warehouse.Verification{}}
	for _, t := range p.Transitions {
		f.progress("%s: verifying its checks…", t.ID)
		for _, v := range w.Verify(ctx, t, p.Calendar.At(clock())) {
			v.Name = t.Prefix() + v.Name
			r.Checks = append(r.Checks, v)
		}
	}
	if c.BigQueryHost != "" || !c.Local {
		f.progress("verifying tables and writes…")
		r.Checks = append(r.Checks, locations(ctx, w, c, p, false))
		r.Checks = append(r.Checks, w.VerifyTables(ctx, p)...)
		if c.ReadOnly {
			r.Checks = append(r.Checks, warehouse.Verification{Name: "writes", Warning: "not verified: this environment only reads the tables (PHASEGATE_TABLES=read)"})
		} else {
			r.Checks = append(r.Checks, w.VerifyWrites(ctx, p, p.Calendar.At(clock()), c.Archive())...)
		}
	}
	r.Checks = append(append(r.Checks, others...), names(ctx, c)...)
	bad, unmade := 0, 0
	for _, v := range r.Checks {
		switch {
		case v.Unknown:
			unmade++
		case v.Problem != "":
			bad++
		}
	}
	of := pipeline.Count(len(r.Checks), "verification", "verifications")
	switch {
	case bad > 0:
		return r, findings(fmt.Errorf("%d of %s failed", bad, of))
	case unmade > 0:
		return r, unknown(fmt.Errorf("%d of %s could not be made", unmade, of))
	}
	return r, nil
}

// verified is what was verified.
type verified struct {
	Checks []warehouse.Verification `json:"checks"`
}

func (r *verified) text(p *page) {
	p.listing("the pipeline declares no checks", "STATE", "CHECK")
	for _, v := range r.Checks {
		state, note := "ok", ""
		switch {
		case v.Unknown:
			state, note = "unknown", v.Problem
		case v.Problem != "":
			state, note = "bad", v.Problem
		case v.Warning != "":
			state, note = "warn", v.Warning
		case strings.Contains(v.Name, "all of "):
			note = fmt.Sprintf("at most %d bytes read", v.Bytes)
		}
		if p.row(state, v.Name); note != "" {
			p.detail("%s", note)
		}
	}
}

type checksRunOptions struct {
	*flags
	subject
}

func checksRunCommand(f *flags) *cobra.Command {
	o := checksRunOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "run PERIOD [MODE]",
		Short: "Run the checks of a hand-over of all that a mode expects, and show values against bounds",
		Long: "Run the checks of a hand-over of all that a mode expects, and show values against bounds.\n" +
			"Nothing is recorded and nothing handed over.\n\n" +
			"Exit status: 0 pass, 1 fail, 2 unknown.",
		Example: "  phasectl checks run 2026-02-03 overnight",
	}
	o.takes(cmd, 2)
	f.needs(cmd, o.needsPeriod(f, never), o.needsPlace(f, false, never))
	return answers(f, cmd, o.run)
}

func (o *checksRunOptions) run(ctx context.Context) (*checksRun, error) {
	_, p, w, err := o.warehouse()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	key, m, err := o.one(p, clock())
	if err != nil {
		return nil, err
	}
	r := &checksRun{Transition: key.Transition.ID, Period: key.Period, Mode: m.Name,
		Readiness: w.Check(ctx, key.Transition, key.Period, m.Name, slices.Concat(m.Critical, m.Optional))}
	if n, err := w.Expected(ctx, key.Transition, key.Period); err != nil {
		r.ExpectedProblem = err.Error()
	} else {
		r.Expected = &n
	}
	switch {
	case r.Outcome == policy.Failed:
		return r, findings(errors.New("the data is not ready"))
	case r.Outcome != policy.Passed:
		return r, unknown(fmt.Errorf("readiness is %s", strings.ReplaceAll(string(r.Outcome), "_", " ")))
	}
	return r, nil
}

// checksRun is the answer of checks run.
type checksRun struct {
	Transition      string          `json:"transition"`
	Period          pipeline.Period `json:"period"`
	Mode            string          `json:"mode"`
	Expected        *int64          `json:"expected"` // null: not known
	ExpectedProblem string          `json:"expected_problem,omitempty"`
	policy.Readiness
}

func (r *checksRun) text(p *page) {
	p.line("%s %s: %s", r.Period, r.Mode, r.Outcome)
	for _, c := range r.Checks {
		p.line("  %s", checkLine(c))
	}
	if r.Expected != nil {
		p.line("  expected of the period: %d", *r.Expected)
	} else {
		p.line("  expected of the period: unknown, %s", r.ExpectedProblem)
	}
}

// checkLine shows the value of a check and its bounds.
func checkLine(c policy.CheckResult) string {
	s := fmt.Sprintf("%-7s %s ", c.State, c.Name)
	if c.Value == nil {
		return s + "— " + quoted(c.Problem)
	}
	var bounds []string
	if c.Warn != "" {
		bounds = append(bounds, "warns "+c.Warn)
	}
	if c.Block != "" {
		bounds = append(bounds, "blocks "+c.Block)
	}
	return s + strconv.FormatFloat(*c.Value, 'f', -1, 64) + " (" + strings.Join(bounds, ", ") + ")"
}

// warehouse opens what checks are about: the definition and BigQuery, no store.
func (f *flags) warehouse() (app.Config, *pipeline.Pipeline, *warehouse.Warehouse, error) {
	c, p, err := f.configured()
	if err != nil {
		return c, nil, nil, err
	}
	asks := slices.ContainsFunc(p.Transitions, func(t *pipeline.Transition) bool { return t.Checks != nil })
	if asks && c.Local && c.BigQueryHost == "" {
		return c, nil, nil, unknown(errors.New("the documents are on this machine and BIGQUERY_EMULATOR_HOST is not set: Google's warehouse is not asked about them"))
	}
	f.opened = &opened{c, p}
	return c, p, warehouse.New(c.Project, c.BigQueryHost), nil
}
