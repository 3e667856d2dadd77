package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
)

func checksCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "checks",
		Short:   "Verify the readiness checks against the warehouse, or run them",
		Example: "  phasectl checks verify\n  phasectl checks run --date 2026-02-03 --mode overnight",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(checksVerifyCommand(f), checksRunCommand(f))
	return cmd
}

func checksVerifyCommand(f *flags) *cobra.Command {
	var asJSON bool
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
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, p, w, err := f.warehouse()
			if err != nil {
				return err
			}
			defer w.Close()
			others, err := replaced(cmd.Context(), c, p)
			if err != nil {
				return err
			}
			all, bad, unknown := []warehouse.Verification{}, 0, 0
			for _, t := range p.Transitions {
				for _, v := range w.Verify(cmd.Context(), t, p.Calendar.At(time.Now())) {
					if len(p.Transitions) > 1 {
						v.Name = t.ID + ": " + v.Name
					}
					all = append(all, v)
				}
			}
			if c.BigQueryHost != "" || !c.Local {
				all = append(all, locations(cmd.Context(), w, c, p, false))
				all = append(all, w.VerifyTables(cmd.Context(), p)...)
				if c.ReadOnly {
					all = append(all, warehouse.Verification{Name: "writes", Warning: "not verified: this environment only reads the tables (PHASEGATE_TABLES=read)"})
				} else {
					all = append(all, w.VerifyWrites(cmd.Context(), p, p.Calendar.At(time.Now()), c.Archive())...)
				}
			}
			all = append(append(all, others...), names(cmd.Context(), c)...)
			for _, v := range all {
				switch {
				case v.Unknown:
					unknown++
				case v.Problem != "":
					bad++
				}
			}
			if asJSON {
				err = printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "checks": all})
			} else {
				err = printVerifications(cmd.OutOrStdout(), all)
			}
			switch {
			case err != nil:
				return err
			case bad > 0:
				return exitError{exitFindings, fmt.Errorf("%d of %d verifications failed", bad, len(all))}
			case unknown > 0:
				return exitError{exitUnknown, fmt.Errorf("%d of %d verifications could not be made", unknown, len(all))}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printVerifications(w io.Writer, all []warehouse.Verification) error {
	var b strings.Builder
	if len(all) == 0 {
		b.WriteString("the pipeline declares no checks\n")
	}
	for _, v := range all {
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
		b.WriteString(strings.TrimSpace(fmt.Sprintf("%-8s %s  %s", state, v.Name, note)) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func checksRunCommand(f *flags) *cobra.Command {
	var date, mode, transition string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "run --date DATE --mode MODE",
		Short: "Run the checks of a hand-over of all that a mode expects, and show values against bounds",
		Long: "Run the checks of a hand-over of all that a mode expects, and show values against bounds.\n" +
			"Nothing is recorded and nothing handed over.\n\n" +
			"Exit status: 0 pass, 1 fail, 2 unknown.",
		Example: "  phasectl checks run --date 2026-02-03 --mode overnight",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, required := range []struct{ flag, value string }{{"--date", date}, {"--mode", mode}} {
				if required.value == "" {
					return usage(fmt.Errorf("%s: is required", required.flag))
				}
			}
			_, p, w, err := f.warehouse()
			if err != nil {
				return err
			}
			defer w.Close()
			t, ok := p.Transition(transition)
			if !ok {
				return usage(fmt.Errorf("--transition: %q: the pipeline has %s", transition, p.TransitionIDs()))
			}
			period, err := p.Calendar.Parse(date)
			if err != nil {
				return usage(fmt.Errorf("--date: %w", err))
			}
			m, ok := t.Mode(mode)
			if !ok {
				return usage(fmt.Errorf("--mode: %q: %s has %s", mode, t.ID, modeNames(t)))
			}
			r := checksRun{Schema: 1, Transition: t.ID, Period: period, Mode: m.Name,
				Readiness: w.Check(cmd.Context(), t, period, m.Name, slices.Concat(m.Critical, m.Optional))}
			if n, err := w.Expected(cmd.Context(), t, period); err != nil {
				r.ExpectedProblem = err.Error()
			} else {
				r.Expected = &n
			}
			if asJSON {
				err = printLine(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout())
			}
			switch {
			case err != nil:
				return err
			case r.Outcome == policy.Failed:
				return exitError{exitFindings, errors.New("the data is not ready")}
			case r.Outcome != policy.Passed:
				return exitError{exitUnknown, fmt.Errorf("readiness is %s", strings.ReplaceAll(string(r.Outcome), "_", " "))}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&date, "date", "", "the period, such as 2026-02-03")
	cmd.Flags().StringVar(&mode, "mode", "", "the mode")
	cmd.Flags().StringVar(&transition, "transition", "", "id of the transition (default: the pipeline's only one)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// checksRun is the answer of checks run.
type checksRun struct {
	Schema          int             `json:"schema"`
	Transition      string          `json:"transition"`
	Period          pipeline.Period `json:"period"`
	Mode            string          `json:"mode"`
	Expected        *int64          `json:"expected"` // null: not known
	ExpectedProblem string          `json:"expected_problem,omitempty"`
	policy.Readiness
}

func (r checksRun) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", r.Period, r.Mode, r.Outcome)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "  %s\n", checkLine(c))
	}
	if r.Expected != nil {
		fmt.Fprintf(&b, "  expected of the period: %d\n", *r.Expected)
	} else {
		fmt.Fprintf(&b, "  expected of the period: unknown, %s\n", r.ExpectedProblem)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// checkLine shows the value of a check and its bounds.
func checkLine(c policy.CheckResult) string {
	s := fmt.Sprintf("%-7s %s ", c.State, c.Name)
	if c.Value == nil {
		return s + "— " + quoted([]string{c.Problem})
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
	// An error in the file comes before an error about the project or the credentials.
	p, err := app.Config{PipelineFile: f.getenv(nil)("PIPELINE_FILE")}.LoadPipeline()
	if err != nil {
		return app.Config{}, nil, nil, usage(err)
	}
	c, err := app.ConfigFromEnv(f.getenv(nil))
	if err != nil {
		return c, nil, nil, usage(err)
	}
	asks := slices.ContainsFunc(p.Transitions, func(t *pipeline.Transition) bool { return t.Checks != nil })
	if asks && c.Local && c.BigQueryHost == "" {
		return c, nil, nil, exitError{exitUnknown, errors.New("the documents are on this machine and BIGQUERY_EMULATOR_HOST is not set: Google's warehouse is not asked about them")}
	}
	return c, p, warehouse.New(c.Project, c.BigQueryHost), nil
}
