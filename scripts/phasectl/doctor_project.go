package main

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"google.golang.org/api/cloudresourcemanager/v1"
	"google.golang.org/api/monitoring/v3"
	"google.golang.org/api/serviceusage/v1"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// The APIs that have to be enabled before a deployment, and those that it enables.
var (
	apisBefore   = []string{"cloudresourcemanager", "serviceusage"}
	apisDeployed = []string{"artifactregistry", "bigquery", "cloudbuild", "cloudfunctions", "cloudscheduler", "firestore", "iam", "logging", "monitoring",
		"pubsub", "run", "secretmanager", "storage"}
)

func (d *doctor) apis(ctx context.Context) []check {
	enabled := map[string]bool{}
	err := d.serviceUses.Services.List("projects/"+d.config.Project).Filter("state:ENABLED").PageSize(200).Pages(ctx, func(page *serviceusage.ListServicesResponse) error {
		for _, s := range page.Services {
			enabled[strings.TrimSuffix(path.Base(s.Name), ".googleapis.com")] = true
		}
		return nil
	})
	const id = "APIs"
	missing := func(names []string) (out []string) {
		for _, name := range names {
			if !enabled[name] {
				out = append(out, name+".googleapis.com")
			}
		}
		return out
	}
	enable := func(names []string) string {
		return "gcloud services enable " + strings.Join(names, " ") + " --project=" + d.config.Project
	}
	switch {
	case disabled(err):
		return []check{{ID: id, State: checkFailing, Evidence: "serviceusage.googleapis.com is not enabled", Action: enable(missing(apisBefore))}}
	case err != nil:
		return []check{d.unread(id, err, "roles/serviceusage.serviceUsageViewer")}
	}
	if names := missing(apisBefore); len(names) > 0 {
		return []check{{ID: id, State: checkFailing, Evidence: strings.Join(names, ", ") + " must be enabled before a deployment", Action: enable(names)}}
	}
	if names := missing(apisDeployed); len(names) > 0 {
		c := d.byDeploying(check{ID: id, Evidence: strings.Join(names, ", ") + ": not enabled"})
		if c.State == checkFailing {
			c.Action = enable(names)
		}
		return []check{c}
	}
	return []check{{ID: id, State: checkOK, Evidence: fmt.Sprintf("%d are needed, and enabled", len(apisBefore)+len(apisDeployed))}}
}

// deployer are the roles that deploying needs, and a permission that only each of them gives.
var deployer = map[string]string{
	"roles/serviceusage.serviceUsageAdmin":  "serviceusage.services.enable",
	"roles/resourcemanager.projectIamAdmin": "resourcemanager.projects.setIamPolicy",
	"roles/iam.serviceAccountAdmin":         "iam.serviceAccounts.create",
	"roles/iam.roleAdmin":                   "iam.roles.create",
	"roles/iam.serviceAccountUser":          actAs,
	"roles/cloudfunctions.admin":            "cloudfunctions.functions.create",
	"roles/run.admin":                       "run.services.setIamPolicy",
	"roles/pubsub.admin":                    "pubsub.topics.setIamPolicy",
	"roles/cloudscheduler.admin":            "cloudscheduler.jobs.create",
	"roles/datastore.owner":                 "datastore.entities.create",
	"roles/bigquery.dataOwner":              "bigquery.datasets.create",
	"roles/logging.configWriter":            "logging.sinks.create",
	"roles/monitoring.admin":                "monitoring.alertPolicies.create",
	"roles/storage.admin":                   "storage.buckets.create",
	"roles/secretmanager.admin":             "secretmanager.secrets.create",
	"roles/bigquery.jobUser":                "bigquery.jobs.create",
}

// actAs may be granted on each identity instead of the project.
const actAs = "iam.serviceAccounts.actAs"

// callerRights asks what the caller may do, by a call that only tells.
func (d *doctor) callerRights(ctx context.Context) []check {
	const id = "rights of the caller"
	asked := slices.Sorted(maps.Values(deployer))
	got, err := d.resources.Projects.TestIamPermissions(d.config.Project, &cloudresourcemanager.TestIamPermissionsRequest{Permissions: asked}).Context(ctx).Do()
	if err != nil {
		return []check{d.unread(id, err, "roles/browser")}
	}
	var out []check
	for _, role := range slices.Sorted(maps.Keys(deployer)) {
		permission := deployer[role]
		if slices.Contains(got.Permissions, permission) {
			continue
		}
		c := check{ID: id, State: checkFailing, Evidence: "lacks " + permission + ", which deploying needs", Action: d.bind(d.member, role)}
		if permission == actAs {
			c.State, c.Evidence = checkUnknown, "lacks "+permission+" on the project; it may be granted on each identity of the functions"
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		out = []check{{ID: id, State: checkOK, Evidence: "has the permissions that deploying needs"}}
	}
	return out
}

// channels looks where the alerts of this environment go.
func (d *doctor) channels(ctx context.Context) []check {
	environment := "production"
	if d.config.Prefix != "" {
		environment = strings.TrimSuffix(d.config.Prefix, "-")
	}
	used := map[string]int{} // policies by channel
	policies := 0
	err := d.monitoring.Projects.AlertPolicies.List("projects/"+d.config.Project).Filter(fmt.Sprintf(`user_labels.app="phasegate" AND user_labels.environment=%q`, environment)).
		Pages(ctx, func(page *monitoring.ListAlertPoliciesResponse) error {
			for _, p := range page.AlertPolicies {
				policies++
				for _, name := range p.NotificationChannels {
					used[name]++
				}
			}
			return nil
		})
	const id = "notification channels"
	if disabled(err) {
		return []check{d.byDeploying(check{ID: id, Evidence: "monitoring.googleapis.com is not enabled"})}
	}
	if err != nil {
		return []check{d.unread(id, err, "roles/monitoring.viewer")}
	}
	if policies == 0 || len(used) == 0 {
		return []check{d.byDeploying(check{ID: id, Evidence: pipeline.Count(policies, "alert has channels", "alerts have channels")})}
	}
	known := map[string]*monitoring.NotificationChannel{}
	err = d.monitoring.Projects.NotificationChannels.List("projects/"+d.config.Project).Pages(ctx, func(page *monitoring.ListNotificationChannelsResponse) error {
		for _, c := range page.NotificationChannels {
			known[c.Name] = c
		}
		return nil
	})
	if err != nil {
		return []check{d.unread(id, err, "roles/monitoring.viewer")}
	}
	var out []check
	for _, name := range slices.Sorted(maps.Keys(used)) {
		channel := known[name]
		c := check{ID: "notification channel " + path.Base(name), State: checkFailing}
		switch {
		case channel == nil:
			c.Evidence, c.Action = fmt.Sprintf("does not exist, and %s to it", pipeline.Count(used[name], "alert goes", "alerts go")), "remove it from critical_channels and other_channels, then make deploy"
		case !channel.Enabled:
			c.Evidence, c.Action = fmt.Sprintf("%s %q is disabled, and %s to it", channel.Type, channel.DisplayName, pipeline.Count(used[name], "alert goes", "alerts go")), "gcloud beta monitoring channels update "+name+" --enabled"
		case channel.VerificationStatus == "UNVERIFIED":
			c.Evidence, c.Action = fmt.Sprintf("%s %q is not verified, so it gets no notification", channel.Type, channel.DisplayName), "https://console.cloud.google.com/monitoring/alerting/notifications?project="+d.config.Project
		default:
			c.State, c.Evidence = checkOK, fmt.Sprintf("%s %q, of %s", channel.Type, channel.DisplayName, pipeline.Count(used[name], "alert", "alerts"))
		}
		out = append(out, c)
	}
	return out
}
