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

// destroyed returns the instances of one plan that another does not have, without those that
// terraform state rm removed. Refused are those of them that Terraform does not destroy.
func destroyed(before, after *plan, given ...string) (gone, refused []string) {
	left := map[string]bool{}
	if after != nil {
		for _, i := range after.instances {
			left[i.address] = true
		}
	}
	for _, i := range before.instances {
		if left[i.address] || slices.ContainsFunc(given, func(g string) bool { return i.address == g || strings.HasPrefix(i.address, g+"[") }) {
			continue
		}
		gone = append(gone, i.address)
		if i.kept {
			refused = append(refused, i.address)
		}
	}
	slices.Sort(refused)
	return gone, refused
}

// retail returns the plan of the pipeline with two transitions, and that without its second one,
// each with its variables.
func retail(t *testing.T, vars, after map[string]cty.Value) (both, first *plan) {
	t.Helper()
	b, err := os.ReadFile("../../dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "  - id: aggregate_to_forecast\n")
	_, schedules, ok := strings.Cut(rest, "\nschedules:\n")
	if !ok {
		t.Fatal("the second transition is not found")
	}
	short := filepath.Join(t.TempDir(), "retail.yaml")
	without := head + "\nschedules:\n" + schedules
	if p, err := pipeline.Parse([]byte(without)); err != nil || len(p.Transitions) != 1 {
		t.Fatal(err)
	}
	if err := os.WriteFile(short, []byte(without), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := filepath.Abs("../../dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	of := func(file string, vars map[string]cty.Value) *plan {
		all := map[string]cty.Value{"pipeline_file": cty.StringVal(file)}
		for name, v := range vars {
			all[name] = v
		}
		p := planned(t, all)
		if len(p.failed) > 0 {
			t.Fatalf("%q", p.failed)
		}
		return p
	}
	return of(whole, vars), of(short, after)
}

// Terraform destroys a second environment as a whole. Of the first one it refuses to destroy a topic that
// others use, until an operator removes the topic from the state.
func TestDestroy_OfAnEnvironment(t *testing.T) {
	made := []string{`google_pubsub_topic.pipeline["nba-phase3-analytics-complete"]`, `google_pubsub_topic.pipeline["nba-phase4-trigger"]`}
	existing := cty.SetVal([]cty.Value{cty.StringVal("nba-phase3-analytics-complete"), cty.StringVal("nba-phase4-trigger")})
	for name, tc := range map[string]struct {
		vars    map[string]cty.Value
		given   []string
		refused []string
	}{
		"second":                      {map[string]cty.Value{"prefix": cty.StringVal("dev-")}, nil, nil},
		"first":                       {nil, nil, made},
		"first_given_up":              {nil, []string{"google_pubsub_topic.pipeline"}, nil},
		"first_with_topics_of_others": {map[string]cty.Value{"existing_topics": existing}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := planned(t, tc.vars)
			gone, refused := destroyed(before, nil, tc.given...)
			if !slices.Equal(refused, tc.refused) {
				t.Errorf("refused: %q, want %q", refused, tc.refused)
			}
			for _, address := range gone { // without those that terraform state rm removed
				if len(tc.refused) == 0 && strings.HasPrefix(address, "google_pubsub_topic.pipeline") {
					t.Errorf("%s would be destroyed", address)
				}
			}
			// Only in a second environment does Terraform destroy a dataset with its tables.
			for _, d := range before.some("google_bigquery_dataset") {
				if with := d.text("delete_contents_on_destroy"); with != map[bool]string{true: "true", false: "false"}[name == "second"] {
					t.Errorf("%s is destroyed with its tables: %s", d.address, with)
				}
			}
			for _, d := range before.all("google_firestore_database") {
				if d.text("deletion_policy") == "DELETE" || d.text("delete_protection_state") != "DELETE_PROTECTION_ENABLED" {
					t.Errorf("%s can be destroyed", d.address)
				}
			}
		})
	}
}

// When a transition leaves the pipeline file, Terraform destroys its own resources, but no topic of others,
// no dataset and no table.
func TestDestroy_OfATransition(t *testing.T) {
	topics := func(names ...string) cty.Value {
		var all []cty.Value
		for _, name := range names {
			all = append(all, cty.StringVal(name))
		}
		return cty.SetVal(all)
	}
	first := []string{"retail-enrich-complete", "retail-aggregate-trigger"}
	second := []string{"retail-aggregate-complete", "retail-forecast-trigger"}
	refused := []string{`google_pubsub_topic.pipeline["retail-aggregate-complete"]`, `google_pubsub_topic.pipeline["retail-forecast-trigger"]`}
	for name, tc := range map[string]struct {
		vars, after map[string]cty.Value
		given       []string
		refused     []string
	}{
		"topics_of_others":     {map[string]cty.Value{"existing_topics": topics(append(first, second...)...)}, map[string]cty.Value{"existing_topics": topics(first...)}, nil, nil},
		"topics_made_here":     {nil, nil, nil, refused},
		"topics_given_up":      {nil, nil, refused, nil},
		"a_second_environment": {map[string]cty.Value{"prefix": cty.StringVal("dev-")}, map[string]cty.Value{"prefix": cty.StringVal("dev-")}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			both, first := retail(t, tc.vars, tc.after)
			gone, got := destroyed(both, first, tc.given...)
			if !slices.Equal(got, tc.refused) {
				t.Errorf("refused: %q, want %q", got, tc.refused)
			}
			if len(gone) < 10 {
				t.Errorf("only %d instances go: %q", len(gone), gone)
			}
			for _, address := range gone {
				for _, kept := range []string{"google_bigquery_dataset.", "google_firestore_database.", "google_storage_bucket.", "google_cloud_scheduler_job.", "google_project_service."} {
					if strings.HasPrefix(address, kept) {
						t.Errorf("%s would be destroyed", address)
					}
				}
			}
			if added, _ := destroyed(first, both); len(added) > 0 && tc.after == nil {
				t.Errorf("%q would be created again", added)
			}
		})
	}
}

// Terraform only looks up topics of others, by their names with the prefix.
func TestExistingTopics_AreOnlyLookedUp(t *testing.T) {
	const name = "nba-phase4-trigger"
	for prefix, want := range map[string]string{"": name, "dev-": "dev-" + name} {
		p := planned(t, map[string]cty.Value{"prefix": cty.StringVal(prefix), "existing_topics": cty.SetVal([]cty.Value{cty.StringVal(name)})})
		for _, i := range p.some("google_pubsub_topic") {
			if i.text("name") == want {
				t.Errorf("%s would be made", i.address)
			}
		}
		if id := text(p.local("topic_ids"), name); id != "projects/"+project+"/topics/"+want {
			t.Errorf("prefix %q: %s is %s", prefix, name, id)
		}
	}
}
