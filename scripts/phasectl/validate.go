package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func validateCommand(f *flags) *cobra.Command {
	var days int
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Run the daily routine: health, reconcile and drift",
		Long: "Run health, reconcile without --fix, and drift, one after another, also if one of them fails. Nothing is changed.\n\n" +
			"Exit status: 0 all three are ok, 1 one of them has a finding, 2 none has a finding and one is unknown.",
		Example: "  phasectl validate\n  phasectl validate --days 30 --source ~/phasegate",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parts := []struct {
				name, title string
				command     *cobra.Command
				args        []string // never nil: cobra takes that for the process's own
			}{
				{"health", "Health", healthCommand(f), []string{}},
				{"reconcile", "Reconciliation", reconcileCommand(f), []string{"--days", strconv.Itoa(days)}},
				{"drift", "Drift", driftCommand(f), []string{"--source", dir}},
			}
			overall, code := checkOK, 0
			object := map[string]any{"schema": 1}
			var failed error
			for i, p := range parts {
				var out bytes.Buffer
				if asJSON {
					p.args = append(p.args, "--json")
				}
				p.command.SilenceErrors, p.command.SilenceUsage = true, true
				p.command.SetArgs(p.args)
				p.command.SetOut(&out)
				p.command.SetErr(cmd.ErrOrStderr())
				err := p.command.ExecuteContext(cmd.Context())
				var exit exitError
				switch {
				case err == nil:
				case !errors.As(err, &exit) || exit.code == exitUsage || exit.code == exitSoftware:
					return err
				case exit.code == exitFindings:
					overall, code, failed = checkFailing, exitFindings, errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
				default:
					failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
					if code == 0 {
						overall, code = checkUnknown, exitUnknown
					}
				}
				if asJSON {
					object[p.name] = nil // it could not even be asked: the error says why
					if out.Len() > 0 {
						object[p.name] = json.RawMessage(out.Bytes())
					}
					continue
				}
				gap := "\n"
				if i == 0 {
					gap = ""
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n%s", gap, p.title, out.Bytes()); err != nil {
					return err
				}
			}
			object["overall"] = overall
			var err error
			if asJSON {
				err = printLine(cmd.OutOrStdout(), object)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", overall)
			}
			if err == nil && code != 0 {
				err = exitError{code, failed}
			}
			return err
		},
	}
	cmd.Flags().IntVar(&days, "days", 7, "how many days reconciliation looks back, today included")
	cmd.Flags().StringVar(&dir, "source", ".", "folder of the checkout that should be deployed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
