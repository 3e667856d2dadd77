package terraform

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// phasectl pipeline diff names the resources of a pipeline file. They must be those that Terraform
// plans.
func TestResources_OfADefinitionAreThoseThatTerraformPlans(t *testing.T) {
	retail, err := filepath.Abs("../../dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../../../shared/pipeline/nba.yaml", retail} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := pipeline.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		vars := map[string]cty.Value{}
		if file == retail {
			vars["pipeline_file"] = cty.StringVal(file)
		}
		plan := planned(t, vars)
		got, want := map[string][]string{}, map[string][]string{}
		for what, kind := range map[string]string{"topic": "google_pubsub_topic", "subscription": "google_pubsub_subscription", "scheduler job": "google_cloud_scheduler_job"} {
			for _, i := range plan.some(kind) {
				name := i.text("name")
				want[what] = append(want[what], name)
				if schedule, ok := p.Resources()["scheduler job "+name]; kind == "google_cloud_scheduler_job" && (!ok || !strings.HasPrefix(schedule, i.text("schedule")+" in "+strings.Replace(i.text("time_zone"), "Etc/", "", 1)+", job ")) {
					t.Errorf("%s is %q, Terraform plans %s in %s", name, schedule, i.text("schedule"), i.text("time_zone"))
				}
			}
		}
		for resource := range p.Resources() {
			for what := range want {
				if name, found := strings.CutPrefix(resource, what+" "); found {
					got[what] = append(got[what], name)
				}
			}
		}
		for what := range want {
			slices.Sort(got[what])
			slices.Sort(want[what])
			if !slices.Equal(got[what], want[what]) {
				t.Errorf("%s: %q, Terraform plans %q", what, got[what], want[what])
			}
		}
	}
}
