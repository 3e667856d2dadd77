package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// ready is what a running local environment says of itself; env reads it from the
// data folder.
type ready struct {
	Schema    int               `json:"schema"`
	Project   string            `json:"project"`
	PubSub    string            `json:"pubsub"`
	BigQuery  string            `json:"bigquery"` // "" while nothing needs it
	Store     string            `json:"store"`
	Functions map[string]string `json:"functions"`
	Slack     string            `json:"slack,omitempty"` // address of a webhook
	Prefix    string            `json:"prefix,omitempty"`
	Tables    string            `json:"tables,omitempty"`
	Shadow    bool              `json:"shadow,omitempty"`
	Pipeline  string            `json:"pipeline_file,omitempty"`
}

const readyFile = "local.json"

// dataFlag: where the local environment keeps its documents.
func dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", defaultData(), "folder of the documents, kept between runs")
}

func defaultData() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "phasegate")
}

func localCommand(f *flags) *cobra.Command {
	var data string
	var base int
	var asJSON, seed bool
	cmd := &cobra.Command{
		Use:     "local",
		Short:   "Run the whole system on this machine until interrupted",
		Example: "  phasectl local --seed\n  phasectl local --pipeline my-pipeline.yaml --port-base 0 --data /tmp/mine",
		Long: "Run Pub/Sub (port 8085), the functions (8088) and a scheduler in this process, on the loopback\n" +
			"interface, with documents in a SQLite file. Notifications for Slack are printed. Pub/Sub takes gRPC, and by REST\n" +
			"requests to publish. BigQuery (9050) runs too if bqemu is in the folder of phasectl (make build/bqemu), with the\n" +
			"datasets for staged and archived rows. Without BigQuery no data is checked, written or swept.\n\n" +
			"--seed makes the tables of the pipeline file, with rows for the periods of the last day that are over. Of another\n" +
			"pipeline than the embedded one, a table has the columns that the file names, and no table is made that only\n" +
			"statements name. Existing tables stay as they are.\n\n" +
			"In another terminal:\n\n" +
			"  eval \"$(phasectl env)\"\n  phasectl status",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seed && bigQueryProgram() == "" && f.getenv(nil)("BIGQUERY_EMULATOR_HOST") == "" {
				return usage(errors.New("--seed: there is no BigQuery to make tables in: run make build/bqemu"))
			}
			if err := os.MkdirAll(data, 0o700); err != nil {
				return usage(fmt.Errorf("--data: %w", err))
			}
			lock, err := lockFolder(data)
			if err != nil {
				return err
			}
			defer lock.Close()
			c, err := localConfig(f, "sqlite:"+filepath.Join(data, "store.db"))
			if err != nil {
				return err
			}
			o := local.Options{Config: c, Clock: local.NewClock(clock()), PubSubPort: 8085, FunctionsPort: 8088, BigQueryPort: 9050, BigQuery: bigQueryProgram(), Seed: seed, Schedule: true,
				Logs: cmd.ErrOrStderr(), Errors: complain(cmd.ErrOrStderr())}
			if cmd.Flags().Changed("port-base") {
				o.PubSubPort, o.FunctionsPort, o.BigQueryPort = base, base+1, base+2
				if base == 0 {
					o.FunctionsPort, o.BigQueryPort = 0, 0
				}
			}
			o.Stores = stores
			if file, ok := cmd.ErrOrStderr().(*os.File); ok && terminal(file) {
				o.Logs = &shortHealth{to: file}
			}
			o.Slack = func(text string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), slackText(text)) } // as the logs: the last resort
			env, err := local.Start(cmd.Context(), o)
			if err != nil {
				return startError(err)
			}
			r := ready{Schema: 1, Project: c.Project, PubSub: env.PubSub, BigQuery: env.BigQuery, Store: c.Store, Functions: env.Functions, Slack: env.Slack, Prefix: c.Prefix, Pipeline: c.PipelineFile}
			if !c.ReadOnly && c.Prefix != "" {
				r.Tables = "write"
			}
			if c.Shadow != "" {
				r.Shadow = true
			}
			if err := announce(cmd.OutOrStdout(), data, r, seed, asJSON); err != nil {
				return errors.Join(err, env.Close())
			}
			select {
			case err = <-env.Failed():
			case <-cmd.Context().Done():
			}
			return errors.Join(err, env.Close(), os.Remove(filepath.Join(data, readyFile)))
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().IntVar(&base, "port-base", 0, "Pub/Sub on this port, functions and BigQuery on the next, instead of 8085, 8088 and 9050; 0 picks free ones")
	cmd.Flags().BoolVar(&seed, "seed", false, "make the tables of the pipeline file in BigQuery, with sample rows")
	f.types[cmd] = reflect.TypeFor[ready]()
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object when ready")
	return cmd
}

// lockFolder keeps a second local environment off a folder. The lock ends with the
// returned file, or with the process.
func lockFolder(data string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(data, "local.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, usage(fmt.Errorf("--data: %w", err))
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = findings(fmt.Errorf("--data: another phasectl local runs on %s: stop it, or name another folder", data))
		return nil, errors.Join(err, f.Close())
	default:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
}

// localConfig is the environment's configuration with the local defaults below it and
// the store fixed: a local environment never opens production's.
func localConfig(f *flags, store string) (app.Config, error) {
	getenv := f.getenv(nil)
	c, err := app.ConfigFromEnv(func(name string) string {
		switch name {
		case "PHASEGATE_STORE":
			return store
		case "GOOGLE_CLOUD_PROJECT": // never production's either, unless named by the flag
			if f.project == "" {
				return localProjectID
			}
		}
		return getenv(name)
	})
	if err != nil {
		return c, usage(err)
	}
	if _, err := c.LoadPipeline(); err != nil {
		return c, usage(err)
	}
	if c.PipelineFile != "" { // other commands may run in another folder
		c.PipelineFile, err = filepath.Abs(c.PipelineFile)
	}
	return c, err
}

func announce(w io.Writer, data string, r ready, seeded, asJSON bool) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, readyFile), b, 0o600); err != nil {
		return err
	}
	if asJSON {
		return printLine(w, r)
	}
	var out strings.Builder
	line := func(service, address string) { fmt.Fprintf(&out, "  %-12s %s\n", service, address) }
	fmt.Fprintf(&out, "Phasegate runs locally, as project %s. Stop with Ctrl-C.\n", r.Project)
	line("Pub/Sub", r.PubSub+"  gRPC; REST: POST http://"+r.PubSub+"/v1/projects/"+r.Project+"/topics/TOPIC:publish")
	switch {
	case r.BigQuery == "":
		line("BigQuery", "none: no data is checked, written or swept; make build/bqemu builds one")
	case seeded:
		line("BigQuery", r.BigQuery+"  with the tables of the pipeline file and sample rows")
	default:
		line("BigQuery", r.BigQuery+"  no tables yet: create them, or start with --seed")
	}
	line("documents", strings.TrimPrefix(r.Store, "sqlite:"))
	for _, name := range pipeline.Functions() {
		line(name, r.Functions[name])
	}
	line("status page", r.Functions["health"]+"/")
	if r.Slack != "" {
		line("Slack", r.Slack+"  messages are printed here")
	}
	env := "phasectl env"
	if data != defaultData() {
		env += " --data " + shellQuote(data)
	}
	fmt.Fprintf(&out, "In another terminal:  eval \"$(%s)\"; phasectl status\n", env)
	_, err = io.WriteString(w, out.String())
	return err
}

// bigQueryProgram is the emulator in the folder of this command, "" if it was not built.
func bigQueryProgram() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	program := filepath.Join(filepath.Dir(self), "bqemu")
	if _, err := os.Stat(program); err != nil {
		return ""
	}
	return program
}

// slackText shows a message in Slack's markup on a terminal, a line each.
func slackText(text string) string {
	return "slack: " + strings.ReplaceAll(strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text), "\n", "\nslack: ")
}

func complain(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) {
		// Standard error is the last resort: nothing is left to tell when it fails.
		_, _ = fmt.Fprintf(w, "local: "+format+"\n", args...)
	}
}

func envCommand(f *flags) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:     "env",
		Short:   "Print the environment that points other commands at the local environment",
		Example: "  eval \"$(phasectl env)\"",
	}
	dataFlag(cmd, &data)
	return answers(f, cmd, func(context.Context) (*envAnswer, error) {
		b, err := os.ReadFile(filepath.Join(data, readyFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, unknown(fmt.Errorf("no local environment runs on %s; start one: phasectl local", data))
		}
		var r ready
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return nil, unknown(err)
		}
		return &envAnswer{r.variables()}, nil
	})
}

// envAnswer are the variables of a local environment.
type envAnswer struct {
	Variables []variable `json:"variables"`
}

type variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (e *envAnswer) text(p *page) {
	for _, v := range e.Variables {
		p.line("export %s=%s", v.Name, shellQuote(v.Value))
	}
}

func printEnv(w io.Writer, r ready) error {
	p := &page{}
	(&envAnswer{r.variables()}).text(p)
	return p.writeTo(w)
}

// variables point other commands at the environment.
func (r ready) variables() []variable {
	vars := []variable{{"GOOGLE_CLOUD_PROJECT", r.Project}, {"PUBSUB_EMULATOR_HOST", r.PubSub}, {"PHASEGATE_STORE", r.Store}}
	if r.BigQuery != "" {
		vars = append(vars, variable{"BIGQUERY_EMULATOR_HOST", r.BigQuery})
	}
	if r.Slack != "" {
		vars = append(vars, variable{"SLACK_WEBHOOK_URL", r.Slack})
	}
	if r.Prefix != "" {
		vars = append(vars, variable{"PHASEGATE_PREFIX", r.Prefix})
	}
	if r.Tables != "" {
		vars = append(vars, variable{"PHASEGATE_TABLES", r.Tables})
	}
	if r.Shadow {
		vars = append(vars, variable{"PHASEGATE_SHADOW", "true"})
	}
	if r.Pipeline != "" {
		vars = append(vars, variable{"PIPELINE_FILE", r.Pipeline})
	}
	return vars
}

// shellQuote quotes a value for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
