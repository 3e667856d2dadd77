package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/api/cloudfunctions/v2"
	"google.golang.org/api/cloudresourcemanager/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iam/v1"
	"google.golang.org/api/monitoring/v3"
	"google.golang.org/api/option"
	"google.golang.org/api/pubsub/v1"
	cloudrun "google.golang.org/api/run/v1"
	"google.golang.org/api/secretmanager/v1"
	"google.golang.org/api/serviceusage/v1"

	"github.com/phasegate/phasegate/scripts/packaging/rights"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// doctorWithin bounds all questions together.
const doctorWithin = 2 * time.Minute

// doctor asks Google's interfaces about a project. It calls nothing that changes anything.
type doctor struct {
	config    app.Config
	pipeline  *pipeline.Pipeline
	deploying bool // before a deployment: what it will create or reset is no finding

	functions   *cloudfunctions.Service
	bigQuery    *bigquery.Service
	resources   *cloudresourcemanager.Service
	accounts    *iam.Service
	monitoring  *monitoring.Service
	pubsub      *pubsub.Service
	run         *cloudrun.APIService
	secrets     *secretmanager.Service
	serviceUses *serviceusage.Service

	project  *cloudresourcemanager.Project
	deployed map[string]string // region of each function that is deployed, by its full name
	member   string            // the caller, as a shell word
}

type doctorOptions struct {
	*flags
	deploying bool
}

func doctorCommand(f *flags) *cobra.Command {
	o := doctorOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check a project: credentials, APIs, rights, tables, subscriptions and notification channels",
		Long: "Check the credentials, the project and its APIs, the rights of the caller, and the rights of each function's identity.\n" +
			"Check the tables and their locations, the subscriptions with their retry policies, and the notification channels.\n" +
			"Each is ok, unknown, or failing with the command that fixes it. Before the first deployment, what it creates\n" +
			"is no finding. A right that is not granted on the resource or the project is unknown if the project has a\n" +
			"parent, because it may be inherited. Nothing is changed.\n\n" +
			"Exit status: 0 all is ok, 1 a check is failing, 2 a check could not be made.",
		Example: "  phasectl doctor --project my-project\n  phasectl doctor --project my-project --pipeline my-pipeline.yaml --json",
	}
	cmd.Flags().BoolVar(&o.deploying, "before-deploy", false, "what make deploy will create or reset is no finding, as before the first deployment")
	return answers(f, cmd, o.run)
}

func (o *doctorOptions) run(ctx context.Context) (*checklist, error) {
	c, p, err := o.configured()
	if err != nil {
		return nil, err
	}
	if err := deployedElsewhere(c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorWithin)
	defer cancel()
	o.progress("asking Google about project %s…", c.Project)
	d := &doctor{config: c, pipeline: p, deploying: o.deploying, member: `"user:$(gcloud config get account)"`}
	return checklistOf(d.checks(ctx), "everything is as it should be", "fix what is failing, and run phasectl doctor again", "not everything could be checked")
}

// checks makes all checks. Without credentials or a project nothing else can be asked.
func (d *doctor) checks(ctx context.Context) []check {
	out := []check{d.credentials(ctx)}
	if out[0].State != checkOK {
		return out
	}
	if err := d.open(ctx); err != nil {
		return append(out, check{ID: "clients", State: checkUnknown, Evidence: err.Error()})
	}
	project := d.readProject(ctx)
	if out = append(out, project); project.State != checkOK {
		return out
	}
	if err := d.readFunctions(ctx); err != nil {
		out = append(out, d.unread("deployment", err, "roles/cloudfunctions.viewer"))
	}
	parts := []func(context.Context) []check{d.apis, d.callerRights, d.identities, d.tables, d.subscriptions, d.guarded, d.channels}
	return append(out, slices.Concat(together(len(parts), parts, func(part func(context.Context) []check) []check { return part(ctx) })...)...)
}

func (d *doctor) open(ctx context.Context) error {
	var errs [9]error
	opts := append([]option.ClientOption{}, platformOptions...)
	d.functions, errs[0] = cloudfunctions.NewService(ctx, opts...)
	d.bigQuery, errs[1] = bigquery.NewService(ctx, opts...)
	d.resources, errs[2] = cloudresourcemanager.NewService(ctx, opts...)
	d.accounts, errs[3] = iam.NewService(ctx, opts...)
	d.monitoring, errs[4] = monitoring.NewService(ctx, opts...)
	d.pubsub, errs[5] = pubsub.NewService(ctx, opts...)
	d.run, errs[6] = cloudrun.NewService(ctx, opts...)
	d.secrets, errs[7] = secretmanager.NewService(ctx, opts...)
	d.serviceUses, errs[8] = serviceusage.NewService(ctx, opts...)
	return errors.Join(errs[:]...)
}

const login = "gcloud auth application-default login"

// credentials looks for those of the libraries, which are not those of gcloud.
func (d *doctor) credentials(ctx context.Context) check {
	c := check{ID: "credentials", State: checkOK, Evidence: "application default credentials"}
	if platformOptions != nil {
		return c
	}
	found, err := google.FindDefaultCredentials(ctx, cloudresourcemanager.CloudPlatformReadOnlyScope)
	if err == nil {
		_, err = found.TokenSource.Token()
	}
	if err != nil {
		return check{ID: c.ID, State: checkFailing, Evidence: err.Error(), Action: login}
	}
	var file struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
	}
	if json.Unmarshal(found.JSON, &file) == nil && file.Email != "" {
		d.member, c.Evidence = "serviceAccount:"+file.Email, file.Email
	}
	return c
}

func (d *doctor) readProject(ctx context.Context) check {
	c := check{ID: "project " + d.config.Project, State: checkFailing, Action: "gcloud projects list; then name one of them with --project"}
	project, err := d.resources.Projects.Get(d.config.Project).Context(ctx).Do()
	switch code := codeOf(err); {
	case disabled(err):
		c.Evidence, c.Action = err.Error(), "gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com --project="+d.config.Project
	case code == http.StatusForbidden || code == http.StatusNotFound: // Google does not say which of the two
		c.Evidence = "it does not exist, or this identity may not see it"
	case err != nil:
		c.State, c.Evidence, c.Action = checkUnknown, err.Error(), again
	case project.LifecycleState != "ACTIVE":
		c.Evidence, c.Action = "its state is "+project.LifecycleState, "gcloud projects undelete "+d.config.Project
	default:
		d.project = project
		return check{ID: c.ID, State: checkOK, Evidence: fmt.Sprintf("number %d%s", project.ProjectNumber, d.inherits(", in "))}
	}
	return c
}

// inherits names the parent of the project, from which it inherits rights; "" for none.
func (d *doctor) inherits(before string) string {
	if d.project.Parent == nil || d.project.Parent.Id == "" {
		return ""
	}
	return before + d.project.Parent.Type + " " + d.project.Parent.Id
}

// readFunctions notes which functions are deployed.
func (d *doctor) readFunctions(ctx context.Context) error {
	d.deployed = map[string]string{}
	err := d.functions.Projects.Locations.Functions.List("projects/"+d.config.Project+"/locations/-").Pages(ctx, func(page *cloudfunctions.ListFunctionsResponse) error {
		for _, f := range page.Functions {
			parts := strings.Split(f.Name, "/") // projects/P/locations/R/functions/F
			if len(parts) == 6 {
				d.deployed[parts[5]] = parts[3]
			}
		}
		return nil
	})
	if disabled(err) { // nothing can be deployed
		return nil
	}
	return err
}

// isDeployed reports whether a function of this environment is there.
func (d *doctor) isDeployed() bool {
	return slices.ContainsFunc(pipeline.Functions(), func(name string) bool { return d.deployed[d.rights().Function(name)] != "" })
}

func (d *doctor) rights() rights.Deployment {
	number := ""
	if d.project != nil {
		number = fmt.Sprint(d.project.ProjectNumber)
	}
	return rights.Deployment{Pipeline: d.pipeline, Config: d.config, Number: number, Slack: d.config.Slack.Problem() == nil}
}

// byDeploying is a finding that make deploy ends. It is none before a deployment.
func (d *doctor) byDeploying(c check) check {
	c.State, c.Action = checkFailing, "make deploy"
	if d.deploying || !d.isDeployed() {
		c.State, c.Action, c.Evidence = checkOK, "", "make deploy will set it: "+c.Evidence
	}
	return c
}

// unread is a check whose question was not answered.
func (d *doctor) unread(id string, err error, role string) check {
	c := check{ID: id, State: checkUnknown, Evidence: err.Error(), Action: again}
	if codeOf(err) == http.StatusForbidden {
		c.Action = d.bind(d.member, role)
	}
	return c
}

// bind is the command that gives a role on the project.
func (d *doctor) bind(member, role string) string {
	return fmt.Sprintf("gcloud projects add-iam-policy-binding %s --member=%s --role=%s --condition=None", d.config.Project, member, role)
}

func codeOf(err error) int {
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		return api.Code
	}
	return 0
}

// disabled reports whether an interface is not enabled in the project.
func disabled(err error) bool {
	return codeOf(err) == http.StatusForbidden && (strings.Contains(err.Error(), "SERVICE_DISABLED") || strings.Contains(err.Error(), "has not been used in project"))
}
