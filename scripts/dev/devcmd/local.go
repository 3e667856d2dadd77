package devcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// localOptions are the flags of local.
type localOptions struct {
	data       string
	base       int
	based      bool // a port is named
	seed, json bool
	out, errs  io.Writer
}

// Local is the command local.
func Local(host func() Host) *cobra.Command {
	var o localOptions
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.based, o.out, o.errs = cmd.Flags().Changed("port-base"), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return host().local(cmd.Context(), o)
		},
	}
	DataFlag(cmd, &o.data)
	cmd.Flags().IntVar(&o.base, "port-base", 0, "Pub/Sub on this port, functions and BigQuery on the next, instead of 8085, 8088 and 9050; 0 picks free ones")
	cmd.Flags().BoolVar(&o.seed, "seed", false, "make the tables of the pipeline file in BigQuery, with sample rows")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object when ready")
	return cmd
}

func (h Host) local(ctx context.Context, o localOptions) error {
	if o.seed && bigQueryProgram() == "" && h.Getenv("BIGQUERY_EMULATOR_HOST") == "" {
		return cli.Usage(errors.New("--seed: there is no BigQuery to make tables in: run make build/bqemu"))
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return cli.Usage(fmt.Errorf("--data: %w", err))
	}
	lock, err := lockFolder(o.data)
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := h.Config("sqlite:" + filepath.Join(o.data, "store.db"))
	if err != nil {
		return err
	}
	env, err := local.Start(ctx, h.environment(c, o))
	if err != nil {
		return startError(err)
	}
	r := Ready{Schema: 1, Project: c.Project, PubSub: env.PubSub, BigQuery: env.BigQuery, Store: c.Store, Functions: env.Functions, Slack: env.Slack, Prefix: c.Prefix,
		Shadow: c.Shadow != "", Pipeline: c.PipelineFile}
	if !c.ReadOnly && c.Prefix != "" {
		r.Tables = "write"
	}
	if err := announce(r, o); err != nil {
		return errors.Join(err, env.Close())
	}
	select {
	case err = <-env.Failed():
	case <-ctx.Done():
	}
	return errors.Join(err, env.Close(), os.Remove(filepath.Join(o.data, ReadyFile)))
}

// environment says what to start.
func (h Host) environment(c app.Config, o localOptions) local.Options {
	out := local.Options{Config: c, Stores: h.Stores, Clock: local.NewClock(h.Now()), PubSubPort: 8085, FunctionsPort: 8088, BigQueryPort: 9050, BigQuery: bigQueryProgram(),
		Seed: o.seed, Schedule: true, Logs: o.errs,
		// Standard error is the last resort of both: nothing is left to tell when it fails.
		Errors: func(format string, args ...any) { _, _ = fmt.Fprintf(o.errs, "local: "+format+"\n", args...) },
		Slack:  func(text string) { _, _ = fmt.Fprintln(o.errs, slackText(text)) }}
	if o.based {
		out.PubSubPort, out.FunctionsPort, out.BigQueryPort = o.base, o.base+1, o.base+2
		if o.base == 0 {
			out.FunctionsPort, out.BigQueryPort = 0, 0
		}
	}
	if file, ok := o.errs.(*os.File); ok && cli.Terminal(file) {
		out.Logs = &shortHealth{to: file}
	}
	return out
}

// lockFolder keeps a second local environment off a folder. The lock ends with the
// returned file, or with the process.
func lockFolder(data string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(data, "local.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--data: %w", err))
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = cli.Findings(fmt.Errorf("--data: another phasectl local runs on %s: stop it, or name another folder", data))
		return nil, errors.Join(err, f.Close())
	default:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
}

// announce leaves the file for other commands, and prints where everything is.
func announce(r Ready, o localOptions) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.data, ReadyFile), b, 0o600); err != nil {
		return err
	}
	if o.json {
		return cli.PrintLine(o.out, r)
	}
	var out strings.Builder
	line := func(service, address string) { fmt.Fprintf(&out, "  %-12s %s\n", service, address) }
	fmt.Fprintf(&out, "Phasegate runs locally, as project %s. Stop with Ctrl-C.\n", r.Project)
	line("Pub/Sub", r.PubSub+"  gRPC; REST: POST http://"+r.PubSub+"/v1/projects/"+r.Project+"/topics/TOPIC:publish")
	switch {
	case r.BigQuery == "":
		line("BigQuery", "none: no data is checked, written or swept; make build/bqemu builds one")
	case o.seed:
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
	if o.data != defaultData() {
		env += " --data " + cli.Quote(o.data)
	}
	fmt.Fprintf(&out, "In another terminal:  eval \"$(%s)\"; phasectl status\n", env)
	_, err = io.WriteString(o.out, out.String())
	return err
}

// slackText shows a message in Slack's markup on a terminal, a line each.
func slackText(text string) string {
	return "slack: " + strings.ReplaceAll(strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text), "\n", "\nslack: ")
}

// Ready is what a running local environment says of itself. It is kept in [ReadyFile].
type Ready struct {
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

// ReadyFile is in the folder of the documents while the environment runs.
const ReadyFile = "local.json"

// DataFlag says where the local environment keeps its documents.
func DataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", defaultData(), "folder of the documents, kept between runs")
}

func defaultData() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "phasegate")
}

// ReadReady reads what the environment that runs on a folder says.
func ReadReady(data string) (r Ready, err error) {
	b, err := os.ReadFile(filepath.Join(data, ReadyFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("no local environment runs on %s; start one: phasectl local", data)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, cli.Unknown(err)
}

// Variable is one of the environment.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (v Variable) String() string { return "export " + v.Name + "=" + cli.Quote(v.Value) }

// Variables point other commands at the environment.
func (r Ready) Variables() []Variable {
	shadow := ""
	if r.Shadow {
		shadow = "true"
	}
	return slices.DeleteFunc([]Variable{{"GOOGLE_CLOUD_PROJECT", r.Project}, {"PUBSUB_EMULATOR_HOST", r.PubSub}, {"PHASEGATE_STORE", r.Store},
		{"BIGQUERY_EMULATOR_HOST", r.BigQuery}, {"SLACK_WEBHOOK_URL", r.Slack}, {"PHASEGATE_PREFIX", r.Prefix}, {"PHASEGATE_TABLES", r.Tables},
		{"PHASEGATE_SHADOW", shadow}, {"PIPELINE_FILE", r.Pipeline}}, func(v Variable) bool { return v.Value == "" })
}
