package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/api/cloudresourcemanager/v1"

	"github.com/phasegate/phasegate/scripts/packaging/rights"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// bindings say who has which role on a resource.
type bindings struct {
	grants map[grantee]bool
	err    error
}

// grantee is a member with a role, as policies of all interfaces have them.
type grantee struct{ role, member, condition string }

// place is a resource that has a policy.
type place struct {
	kind rights.Kind
	name string
}

// identities compares the policies of the project with the rights that a deployment gives, and has
// a line for each identity.
func (d *doctor) identities(ctx context.Context) []check {
	byMember := map[string][]rights.Grant{}
	places := map[place]*bindings{{kind: rights.Project}: {}}
	for _, g := range d.rights().Grants() {
		byMember[g.Member] = append(byMember[g.Member], g)
		places[place{g.Kind, g.Resource}] = &bindings{}
	}
	at := slices.Collect(maps.Keys(places))
	for i, read := range together(8, at, func(at place) *bindings { return d.readPolicy(ctx, at) }) {
		places[at[i]] = read
	}
	var out []check
	for _, member := range slices.Sorted(maps.Keys(byMember)) {
		out = append(out, d.identity(strings.TrimPrefix(member, "serviceAccount:"), byMember[member], places))
	}
	return out
}

// identity says which rights of an identity are there. A right that is granted neither on its
// resource nor on the project may be inherited from the parent of the project.
func (d *doctor) identity(email string, wanted []rights.Grant, places map[place]*bindings) check {
	c := check{ID: "rights of " + email}
	var missing, unknown []string
	var first error
	project := places[place{kind: rights.Project}]
	for _, g := range wanted {
		on := places[place{g.Kind, g.Resource}]
		key := grantee{g.Role, g.Member, g.Condition}
		switch {
		case on.grants[key], on.grants[grantee{g.Role, g.Member, ""}], project.grants[grantee{g.Role, g.Member, ""}]:
		case on.err != nil && codeOf(on.err) != http.StatusNotFound && !disabled(on.err):
			unknown = append(unknown, g.String())
			if first == nil {
				first = on.err
			}
		case d.isDeployed() && !d.deploying && (project.err != nil || d.inherits("") != ""):
			unknown = append(unknown, g.String())
		default:
			missing = append(missing, g.String())
		}
	}
	switch {
	case len(missing) > 0:
		c = d.byDeploying(check{ID: c.ID, Evidence: "not granted: " + strings.Join(missing, ", ")})
		if c.State == checkFailing || len(unknown) == 0 {
			return c
		}
		fallthrough
	case len(unknown) > 0:
		c.State, c.Evidence, c.Action = checkUnknown, "not known: "+strings.Join(unknown, ", "), "make deploy grants them on their resources"
		if first != nil {
			c.Evidence += ": " + first.Error()
			c.Action = d.bind(d.member, "roles/iam.securityReviewer")
		} else {
			c.Evidence += d.inherits("; they may be inherited from ")
		}
	default:
		c.State, c.Evidence = checkOK, pipeline.Count(len(wanted), "role is granted", "roles are granted")
	}
	return c
}

// readPolicy reads one. BigQuery has lists of access in place of policies.
func (d *doctor) readPolicy(ctx context.Context, at place) *bindings {
	project := "projects/" + d.config.Project
	switch at.kind {
	case rights.Project:
		ask := &cloudresourcemanager.GetIamPolicyRequest{Options: &cloudresourcemanager.GetPolicyOptions{RequestedPolicyVersion: 3}}
		return bindingsOf(d.resources.Projects.GetIamPolicy(d.config.Project, ask).Context(ctx).Do())
	case rights.Topic:
		return bindingsOf(d.pubsub.Projects.Topics.GetIamPolicy(project + "/topics/" + at.name).Context(ctx).Do())
	case rights.Subscription:
		return bindingsOf(d.pubsub.Projects.Subscriptions.GetIamPolicy(project + "/subscriptions/" + at.name).Context(ctx).Do())
	case rights.Service:
		return bindingsOf(d.run.Projects.Locations.Services.GetIamPolicy(project + "/locations/" + d.region() + "/services/" + at.name).Context(ctx).Do())
	case rights.Secret:
		return bindingsOf(d.secrets.Projects.Secrets.GetIamPolicy(project + "/secrets/" + at.name).Context(ctx).Do())
	case rights.Account:
		return bindingsOf(d.accounts.Projects.ServiceAccounts.GetIamPolicy(project + "/serviceAccounts/" + at.name).Context(ctx).Do())
	}
	meta, err := d.bigQuery.Datasets.Get(d.config.Project, at.name).Context(ctx).Do()
	if err != nil {
		return &bindings{err: err}
	}
	out := &bindings{grants: map[grantee]bool{}}
	for _, a := range meta.Access {
		role := a.Role
		if named, ok := datasetRoles[role]; ok {
			role = named
		}
		if a.UserByEmail != "" {
			out.grants[grantee{role, "serviceAccount:" + a.UserByEmail, ""}] = true
		}
	}
	return out
}

// bindingsOf reads a policy of any of Google's clients. Each has types of its own for the same JSON.
func bindingsOf(policy any, err error) *bindings {
	var read struct {
		Bindings []struct {
			Role      string
			Members   []string
			Condition struct{ Expression string }
		}
	}
	if err == nil {
		var b []byte
		if b, err = json.Marshal(policy); err == nil {
			err = json.Unmarshal(b, &read)
		}
	}
	out := &bindings{grants: map[grantee]bool{}, err: err}
	for _, b := range read.Bindings {
		for _, member := range b.Members {
			out.grants[grantee{b.Role, member, b.Condition.Expression}] = true
		}
	}
	return out
}

// datasetRoles are the names that lists of access have for two roles:
// https://cloud.google.com/bigquery/docs/access-control-basic-roles#dataset-basic-roles.
var datasetRoles = map[string]string{"READER": "roles/bigquery.dataViewer", "WRITER": "roles/bigquery.dataEditor"}

// region is that of the deployed functions; - stands for none, and finds nothing.
func (d *doctor) region() string {
	for _, name := range slices.Sorted(maps.Keys(d.deployed)) {
		if strings.HasPrefix(name, d.rights().Function("")) {
			return d.deployed[name]
		}
	}
	return "-"
}
