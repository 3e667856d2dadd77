// Package rights lists the rights that a deployment gives to the identities of its functions, to
// those that deliver to them, and to the agent of Pub/Sub. The tests of terraform/ compare the
// list with what Terraform would grant, and phasectl doctor compares it with the policies of a
// project.
package rights

import (
	"fmt"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// Deployment is what the rights follow from.
type Deployment struct {
	Pipeline *pipeline.Pipeline
	Config   app.Config
	Number   string // of the project
	Slack    bool   // the functions read a token
}

// Kind is the kind of a resource.
type Kind string

// The kinds on which roles are granted.
const (
	Project      Kind = "project"
	Topic        Kind = "topic"
	Subscription Kind = "subscription"
	Dataset      Kind = "dataset"
	Service      Kind = "service"
	Secret       Kind = "secret"
	Account      Kind = "service account"
)

// Grant is a role of a member on a resource.
type Grant struct {
	Kind      Kind
	Resource  string // its name, without the project and the kind; "" for the project itself
	Role      string
	Member    string
	Condition string // expression; "" for none
}

func (g Grant) String() string {
	s := fmt.Sprintf("%s on %s", g.Role, g.Kind)
	if g.Resource != "" {
		s += " " + g.Resource
	}
	return s
}

// Roles by their names.
const (
	datastoreUser   = "roles/datastore.user"
	jobUser         = "roles/bigquery.jobUser"
	dataViewer      = "roles/bigquery.dataViewer"
	dataEditor      = "roles/bigquery.dataEditor"
	monitoring      = "roles/monitoring.viewer"
	runViewer       = "roles/run.viewer"
	runInvoker      = "roles/run.invoker"
	publisher       = "roles/pubsub.publisher"
	subscriber      = "roles/pubsub.subscriber"
	pubsubViewer    = "roles/pubsub.viewer"
	secretAccessor  = "roles/secretmanager.secretAccessor"
	tokenCreator    = "roles/iam.serviceAccountTokenCreator"
	accountsPattern = "%spg-%s@%s.iam.gserviceaccount.com"
)

// Email is the identity that a function runs as.
func (d Deployment) Email(function string) string {
	return fmt.Sprintf(accountsPattern, d.Config.Prefix, function, d.Config.Project)
}

// Pusher is the identity that delivers to a function.
func (d Deployment) Pusher(function string) string { return d.Email("push-" + function) }

// Agent is the address of Pub/Sub's own identity in the project.
func (d Deployment) Agent() string {
	return "service-" + d.Number + "@gcp-sa-pubsub.iam.gserviceaccount.com"
}

// Function is the name of a function and of the service behind it.
func (d Deployment) Function(name string) string {
	return d.Config.Prefix + pipeline.ResourceName(name)
}

// database is the name of the Firestore database.
func (d Deployment) database() string {
	if _, name, ok := strings.Cut(d.Config.Store, ":"); ok {
		return name
	}
	return "(default)"
}

// handsOver are the functions that publish triggers.
var handsOver = []string{pipeline.FunctionTransition, pipeline.FunctionReconcile}

// Grants lists the rights, each once.
func (d Deployment) Grants() []Grant {
	var out []Grant
	add := func(kind Kind, resource, role, email, condition string) {
		g := Grant{kind, resource, role, "serviceAccount:" + email, condition}
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	prefix := strings.ReplaceAll(d.Config.Prefix, "-", "_")
	for _, f := range pipeline.Functions() {
		add(Project, "", datastoreUser, d.Email(f), fmt.Sprintf(`resource.name == "projects/%s/databases/%s"`, d.Config.Project, d.database()))
		add(Project, "", jobUser, d.Email(f), "")
		add(Service, d.Function(f), runInvoker, d.Pusher(f), "")
		add(Account, d.Pusher(f), tokenCreator, d.Agent(), "")
		if d.Slack {
			add(Secret, d.Config.Prefix+"phasegate-slack-token", secretAccessor, d.Email(f), "")
		}
	}
	for _, f := range []string{pipeline.FunctionReconcile, pipeline.FunctionSweep} {
		add(Project, "", "projects/"+d.Config.Project+"/roles/"+prefix+"phasegate_sees_jobs", d.Email(f), "")
	}
	add(Project, "", monitoring, d.Email(pipeline.FunctionHealth), "")
	add(Project, "", runViewer, d.Email(pipeline.FunctionHealth), "")
	for _, pl := range d.Pipeline.PushSubscriptions() {
		dead := d.Config.Prefix + pl.DeadLetter()
		add(Subscription, dead, pubsubViewer, d.Email(pipeline.FunctionHealth), "")
		add(Subscription, d.Config.Prefix+pl.Name, subscriber, d.Agent(), "")
		add(Topic, dead, publisher, d.Agent(), "")
		if d.Config.Shadow == "" && !strings.HasSuffix(pl.Query, "&shadow=1") {
			add(Topic, dead, publisher, d.Email(pl.Function), "")
		}
	}
	if topic, ok := d.Pipeline.JobTopic(pipeline.FunctionSweep); ok && d.Config.Shadow == "" {
		add(Topic, d.Config.Prefix+topic, publisher, d.Email(pipeline.FunctionReconcile), "")
	}
	for _, t := range d.Pipeline.Transitions {
		for _, f := range handsOver {
			if d.Config.Shadow == "" {
				add(Topic, d.Config.Prefix+t.DownstreamTopic, publisher, d.Email(f), "")
			}
		}
		if t.Checks == nil {
			continue
		}
		for _, dataset := range t.Checks.Datasets {
			for _, f := range append(slices.Clone(handsOver), pipeline.FunctionHealth) {
				add(Dataset, dataset, dataViewer, d.Email(f), "")
			}
		}
	}
	for _, dataset := range d.Pipeline.Health.Datasets {
		add(Dataset, dataset, dataViewer, d.Email(pipeline.FunctionHealth), "")
	}
	writes := d.Config.Shadow == "" && !d.Config.ReadOnly
	for _, p := range d.Pipeline.Processors() {
		dataset, _, _ := strings.Cut(p.Table, ".")
		for _, f := range []string{pipeline.FunctionReconcile, pipeline.FunctionSweep, pipeline.FunctionHealth} {
			add(Dataset, dataset, dataViewer, d.Email(f), "")
		}
		if writes && p.Duplicates == pipeline.DuplicatesRemove {
			add(Dataset, dataset, dataEditor, d.Email(pipeline.FunctionSweep), "")
		}
	}
	if writes {
		add(Dataset, d.Config.Archive(), dataEditor, d.Email(pipeline.FunctionSweep), "")
	}
	return out
}
