package terraform

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/scripts/packaging/rights"
	"github.com/phasegate/phasegate/shared/app"
)

// granted are the rights that Terraform gives to the members of a list.
func granted(p *plan, members map[string]bool) map[rights.Grant]bool {
	resource := map[string]struct {
		kind      rights.Kind
		attribute string
	}{
		"google_project_iam_member":               {rights.Project, ""},
		"google_pubsub_topic_iam_member":          {rights.Topic, "topic"},
		"google_pubsub_subscription_iam_member":   {rights.Subscription, "subscription"},
		"google_bigquery_dataset_iam_member":      {rights.Dataset, "dataset_id"},
		"google_cloud_run_v2_service_iam_member":  {rights.Service, "name"},
		"google_secret_manager_secret_iam_member": {rights.Secret, "secret_id"},
		"google_service_account_iam_member":       {rights.Account, "service_account_id"},
	}
	out := map[rights.Grant]bool{}
	for _, i := range p.instances {
		r, ok := resource[i.kind]
		if !ok || !members[i.text("member")] {
			continue
		}
		g := rights.Grant{Kind: r.kind, Role: i.text("role"), Member: i.text("member"), Condition: i.text("condition", "0", "expression")}
		if r.attribute != "" {
			g.Resource = path.Base(i.text(r.attribute))
		}
		out[g] = true
	}
	return out
}

// phasectl doctor compares the policies of a project with the list in scripts/packaging/rights.
func TestRights_AreThoseThatDoctorExpects(t *testing.T) {
	set := func(pairs ...any) map[string]cty.Value {
		out := map[string]cty.Value{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i].(string)] = pairs[i+1].(cty.Value)
		}
		return out
	}
	retail, err := filepath.Abs("../../dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		vars map[string]cty.Value
		env  map[string]string
	}{
		"default":          {nil, nil},
		"shadow":           {set("shadow", cty.True), map[string]string{"PHASEGATE_SHADOW": "true"}},
		"other_reads":      {set("prefix", cty.StringVal("dev-")), map[string]string{"PHASEGATE_PREFIX": "dev-"}},
		"other_writes":     {set("prefix", cty.StringVal("dev-"), "writes_tables", cty.True), map[string]string{"PHASEGATE_PREFIX": "dev-", "PHASEGATE_TABLES": "write"}},
		"another_database": {set("database", cty.StringVal("state")), map[string]string{"PHASEGATE_STORE": "firestore:state"}},
		"slack":            {set("slack_channel", cty.StringVal("#alerts"), "slack_token", cty.StringVal("xoxb-x")), nil},
		"two_transitions":  {set("pipeline_file", cty.StringVal(twoTransitions(t))), nil},
		"retail":           {set("pipeline_file", cty.StringVal(retail)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := app.ConfigFromEnv(func(name string) string {
				if name == "GOOGLE_CLOUD_PROJECT" {
					return project
				}
				return tc.env[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			if file, ok := tc.vars["pipeline_file"]; ok {
				c.PipelineFile = file.AsString()
			}
			def, err := c.LoadPipeline()
			if err != nil {
				t.Fatal(err)
			}
			want, members := map[rights.Grant]bool{}, map[string]bool{}
			for _, g := range (rights.Deployment{Pipeline: def, Config: c, Number: projectNumber, Slack: name == "slack"}).Grants() {
				want[g], members[g.Member] = true, true
			}
			got := granted(planned(t, tc.vars), members)
			var problems []string
			for g := range got {
				if !want[g] {
					problems = append(problems, "Terraform grants, and the list lacks: "+g.Member+" "+g.String()+" "+g.Condition)
				}
			}
			for g := range want {
				if !got[g] {
					problems = append(problems, "the list has, and Terraform does not grant: "+g.Member+" "+g.String()+" "+g.Condition)
				}
			}
			if slices.Sort(problems); len(problems) > 0 || len(want) < 40 {
				t.Errorf("%d rights:\n%s", len(want), strings.Join(problems, "\n"))
			}
		})
	}
}
