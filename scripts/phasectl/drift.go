package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

type driftOptions struct {
	*flags
	dir     string
	verbose bool
}

func driftCommand(f *flags) *cobra.Command {
	o := driftOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Compare what is deployed with a checkout: source, revisions, traffic, schedules, services",
		Long: "Compare the source of a checkout with the deployed archive and the last run of each function. Check that the newest\n" +
			"revision of each service has all traffic, that each schedule exists, is enabled and matches the pipeline file, and\n" +
			"that the services of the phases exist. Services and jobs that the pipeline file does not name are ignored, and\n" +
			"listed with --verbose. Nothing is changed.\n\n" +
			"Exit status: 0 nothing differs, 1 something does, 2 something could not be read.",
		Example: "  phasectl drift --project my-project\n  phasectl drift --source ~/phasegate --verbose",
	}
	cmd.Flags().StringVar(&o.dir, "source", ".", "folder of the checkout")
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "list ignored services and jobs as well")
	return answers(f, cmd, on(f.open, o.run))
}

func (o *driftOptions) run(ctx context.Context, a *app.App) (*checklist, error) {
	o.progress("reading the checkout and the deployment…")
	d, err := newDrift(ctx, a, o.dir)
	if err != nil {
		return nil, err
	}
	r, err := checklistOf(d.checks(), "nothing differs", "the deployment differs from the checkout", "not everything could be read")
	if o.verbose || o.json {
		r.Ignored = d.ignored()
	}
	return r, err
}

// platformOptions point the clients of the platform elsewhere, in tests.
var platformOptions []option.ClientOption

// drift compares a checkout with the deployment.
type drift struct {
	app       *app.App
	source    string // hash of the checkout
	deployed  deployed.Deployed
	ran       map[string]ran // by function
	ranErr    error
	functions []string
}

// ran is what a function says that it has run.
type ran struct {
	source string
	last   time.Time // when it came to the end of a job
}

// deployedElsewhere returns an error if the environment is this machine, on which nothing is
// deployed. A comparison of its documents with a real project would be of two systems.
func deployedElsewhere(c app.Config) error {
	if (c.Local || c.PubSubHost != "") && platformOptions == nil {
		return unknown(errors.New("nothing is deployed on this machine: name a project, without the emulators' variables"))
	}
	return nil
}

// newDrift reads both sides. A folder that is no checkout is an error: a comparison with
// nothing finds nothing.
func newDrift(ctx context.Context, a *app.App, dir string) (*drift, error) {
	source, err := checkoutHash(ctx, dir, a.Config.PipelineFile)
	if err != nil {
		return nil, err
	}
	if err := deployedElsewhere(a.Config); err != nil {
		return nil, err
	}
	d := &drift{app: a, source: source, ran: map[string]ran{}, functions: pipeline.Functions(), deployed: deployed.Read(ctx, a.Config.Project, platformOptions...)}
	var refs []store.Ref
	for _, name := range d.functions {
		refs = append(refs, store.Ref{Collection: a.Config.StatePrefix() + app.StatusCollection, ID: name})
	}
	snap, err := a.Store.Get(ctx, refs...)
	if d.ranErr = err; err == nil {
		for _, doc := range snap.Docs {
			var r ran
			r.source, _ = doc.Data["source_hash"].(string)
			beats, _ := doc.Data["heartbeats"].(map[string]any)
			for _, beat := range beats {
				if at, _ := beat.(time.Time); at.After(r.last) {
					r.last = at
				}
			}
			d.ran[doc.Ref.ID] = r
		}
	}
	return d, nil
}

// packer is what makes archives in a checkout, and knows what their hash is over.
const packer = "scripts/packaging"

// checkoutHash asks a checkout for the hash of its source, by its own rule.
func checkoutHash(ctx context.Context, dir, pipelineFile string) (string, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", usage(fmt.Errorf("--source: %q is no folder", dir))
	}
	if _, err := os.Stat(filepath.Join(dir, packer)); errors.Is(err, fs.ErrNotExist) {
		return "", unknown(fmt.Errorf("--source: %q is no checkout of Phasegate: it has no %s", dir, packer))
	}
	arguments := []string{"run", "./" + packer, "--hash", "--version", app.Version}
	if pipelineFile != "" {
		file, err := filepath.Abs(pipelineFile)
		if err != nil {
			return "", unknown(err)
		}
		arguments = append(arguments, "--pipeline", file)
	}
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", unknown(fmt.Errorf("hash of the checkout %q: %w: %s", dir, err, strings.TrimSpace(stderr.String())))
	}
	return strings.TrimSpace(string(out)), nil
}

func (d *drift) name(function string) string {
	return d.app.Config.Prefix + pipeline.ResourceName(function)
}

func (d *drift) checks() []check {
	var out []check
	for _, name := range d.functions {
		out = append(out, d.function(name))
	}
	for _, name := range d.functions {
		out = append(out, d.service(d.name(name), false))
	}
	for _, s := range d.app.Pipeline.Schedules {
		out = append(out, d.schedule(s))
	}
	for _, phase := range d.app.Pipeline.Phases {
		if phase.Service != "" {
			out = append(out, d.service(phase.Service, true))
		}
	}
	return out
}

// function compares the archive of a function, and what it has run last, with the checkout.
func (d *drift) function(name string) check {
	c := check{ID: "function " + d.name(name), State: checkFailing, Action: "make deploy"}
	f, ok := d.deployed.Functions[d.name(name)]
	switch ran := d.ran[name]; {
	case d.deployed.FunctionsErr != nil:
		c.State, c.Evidence, c.Action = checkUnknown, d.deployed.FunctionsErr.Error(), ""
	case !ok:
		c.Evidence = "is not deployed"
	case f.State != "ACTIVE":
		c.Evidence, c.Action = "its state is "+f.State, "gcloud functions describe "+d.name(name)+" --v2 --region="+f.Region
	case f.Source == "":
		c.State, c.Evidence = checkUnknown, "its archive's name has no hash: it was not deployed from here"
	case f.Source != d.source:
		c.Evidence = fmt.Sprintf("source %s is deployed, and the checkout is %s", f.Source, d.source)
	case d.ranErr != nil:
		c.State, c.Evidence, c.Action = checkUnknown, fmt.Sprintf("source %s is deployed; what has run is not known: %v", f.Source, d.ranErr), ""
	case ran.source != "" && ran.source != f.Source && ran.last.After(f.Updated.Add(health.Settling)):
		c.Evidence, c.Action = fmt.Sprintf("source %s is deployed, and %s has run since", f.Source, ran.source), "phasectl smoke"
	default:
		c.State, c.Evidence, c.Action = checkOK, "source "+f.Source, ""
	}
	return c
}

// service looks where a service's requests go. commit: it has to say from which it was built.
func (d *drift) service(name string, commit bool) check {
	c := check{ID: "service " + name, State: checkFailing}
	s, ok := d.deployed.Services[name]
	switch {
	case d.deployed.ServicesErr != nil:
		c.State, c.Evidence = checkUnknown, d.deployed.ServicesErr.Error()
	case !ok:
		c.Evidence, c.Action = "does not exist", "correct the service's name in the pipeline file, or deploy it"
		if !commit {
			c.Action = "make deploy"
		}
	case s.Drift() != "":
		c.Evidence, c.Action = s.Drift(), fmt.Sprintf("gcloud run services update-traffic %s --to-latest --region=%s", name, s.Region)
	case commit && s.Commit == "":
		c.State, c.Evidence = checkUnknown, fmt.Sprintf("revision %s has all traffic; it has no label %s, so its commit is unknown", s.Ready, deployed.CommitLabel)
	case commit:
		c.State, c.Evidence = checkOK, fmt.Sprintf("revision %s has all traffic, commit %s", s.Ready, s.Commit)
	default:
		c.State, c.Evidence = checkOK, fmt.Sprintf("revision %s has all traffic", s.Ready)
	}
	return c
}

func (d *drift) schedule(s pipeline.Schedule) check {
	name := d.name(s.Name)
	c := check{ID: "schedule " + name, State: checkFailing, Action: "make deploy"}
	zone := d.app.Pipeline.Zone(s).String()
	if zone == "UTC" {
		zone = "Etc/UTC" // as terraform/scheduler.tf names it
	}
	j, ok := d.deployed.Jobs[name]
	switch {
	case d.deployed.JobsErr != nil:
		c.State, c.Evidence, c.Action = checkUnknown, d.deployed.JobsErr.Error(), ""
	case !ok:
		c.Evidence = "does not exist"
	case j.State != "ENABLED":
		c.Evidence, c.Action = "is "+strings.ToLower(j.State), fmt.Sprintf("gcloud scheduler jobs resume %s --location=%s", name, j.Region)
	case j.Cron != s.Cron || j.Zone != zone:
		c.Evidence = fmt.Sprintf("is at %q in %s, and the pipeline file says %q in %s", j.Cron, j.Zone, s.Cron, zone)
	default:
		c.State, c.Evidence, c.Action = checkOK, fmt.Sprintf("%q in %s", j.Cron, j.Zone), ""
	}
	return c
}

// ignored is what else there is in the project.
func (d *drift) ignored() []string {
	ours := map[string]bool{}
	for _, c := range d.checks() {
		ours[c.ID] = true
	}
	out := []string{}
	for kind, names := range map[string][]string{"function": slices.Collect(maps.Keys(d.deployed.Functions)), "service": slices.Collect(maps.Keys(d.deployed.Services)),
		"schedule": slices.Collect(maps.Keys(d.deployed.Jobs))} {
		for _, name := range names {
			if !ours[kind+" "+name] {
				out = append(out, kind+" "+name+": the pipeline does not name it")
			}
		}
	}
	for name, s := range d.deployed.Services {
		for _, t := range s.Traffic {
			if ours["service "+name] && t.Percent == 0 {
				out = append(out, "service "+name+": revision "+t.Revision+" has a tag and no traffic")
			}
		}
	}
	slices.Sort(out)
	return out
}
