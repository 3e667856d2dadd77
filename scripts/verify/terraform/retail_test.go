package terraform

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

// Terraform deploys the topics and jobs of the pipeline file, for any pipeline.
func TestTerraform_PlansHourlyPipeline(t *testing.T) {
	file, err := filepath.Abs("../../dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
	if len(p.failed) > 0 {
		t.Errorf("%q", p.failed)
	}
	var topics []string
	for _, i := range p.some("google_pubsub_topic") {
		topics = append(topics, i.text("name"))
	}
	for _, name := range []string{"retail-enrich-complete", "retail-aggregate-trigger", "retail-aggregate-complete", "retail-forecast-trigger",
		"phasegate-shadow-enrich_to_aggregate", "phasegate-shadow-aggregate_to_forecast"} {
		if !slices.Contains(topics, name) {
			t.Errorf("no topic %s among %q", name, topics)
		}
	}
	for _, i := range p.some("google_cloud_scheduler_job") {
		want := "Europe/Berlin"
		if i.key == "relay" || i.key == "health" {
			want = "Etc/UTC"
		}
		if zone := i.text("time_zone"); zone != want {
			t.Errorf("%s in %s", i.text("name"), zone)
		}
	}
}
