package terraform

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// roles are all roles that Terraform grants, by the kind of binding.
var roles = map[string][]string{
	"google_cloud_run_v2_service_iam_member":  {"roles/run.invoker", "roles/run.viewer"},
	"google_pubsub_topic_iam_member":          {"roles/pubsub.publisher"},
	"google_pubsub_subscription_iam_member":   {"roles/pubsub.subscriber", "roles/pubsub.viewer"},
	"google_service_account_iam_member":       {"roles/iam.serviceAccountTokenCreator"},
	"google_secret_manager_secret_iam_member": {"roles/secretmanager.secretAccessor"},
	"google_bigquery_dataset_iam_member":      {"roles/bigquery.dataEditor", "roles/bigquery.dataViewer"},
	"google_storage_bucket_iam_member":        {"roles/storage.objectViewer"},
	"google_project_iam_member": {"roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer", "roles/datastore.user",
		"projects/" + project + "/roles/phasegate_sees_jobs", "projects/" + project + "/roles/dev_phasegate_sees_jobs",
		"roles/bigquery.jobUser", "roles/monitoring.viewer", "roles/run.viewer"},
}

func TestRights_AreOnlyThoseListed(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		for _, i := range p.instances {
			if strings.Contains(i.value.GoString(), "allUsers") || strings.Contains(i.value.GoString(), "allAuthenticatedUsers") {
				t.Errorf("%s is public", i.address)
			}
			if !strings.Contains(i.kind, "_iam_") || i.kind == "google_project_iam_custom_role" {
				continue
			}
			if !slices.Contains(roles[i.kind], i.text("role")) {
				t.Errorf("%s: %s of %s is not listed", i.address, i.text("role"), i.kind)
			}
			if i.text("role") == "roles/datastore.user" && !strings.Contains(i.text("condition", "0", "expression"), `resource.name == "projects/`+project+`/databases/`) {
				t.Errorf("%s: any database", i.address)
			}
		}
	})
}

// A build writes its log and its image and reads the source, of which the platform keeps a copy.
func TestBuilds_MayReadTheirSourceAndWriteTheirImage(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		build := ""
		for _, f := range p.some("google_cloudfunctions2_function") {
			build = "serviceAccount:" + strings.TrimPrefix(f.text("build_config", "0", "service_account"), "projects/"+project+"/serviceAccounts/")
		}
		var got []string
		for _, i := range p.instances {
			if strings.Contains(i.kind, "_iam_") && i.text("member") == build {
				got = append(got, strings.TrimSpace(i.text("role")+" "+i.text("bucket")+" "+i.text("condition", "0", "expression")))
			}
		}
		slices.Sort(got)
		want := []string{"roles/artifactregistry.writer", "roles/logging.logWriter",
			"roles/storage.objectViewer " + p.some("google_storage_bucket")[0].text("name"),
			`roles/storage.objectViewer  resource.name.startsWith("projects/_/buckets/gcf-v2-sources-` + projectNumber + "-" + region + `")`}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// A run that takes a lock waits for jobs of the run before it, which may be another identity's.
func TestLocks_IdentitiesThatTakeThemSeeJobsOfOthers(t *testing.T) {
	const account = "phase3@my-project.iam.gserviceaccount.com"
	p := planned(t, map[string]cty.Value{"processors": cty.SetVal([]cty.Value{cty.StringVal(account)})})
	for _, r := range p.some("google_project_iam_custom_role") {
		if permissions := r.at("permissions").AsValueSlice(); len(permissions) != 1 || permissions[0].AsString() != "bigquery.jobs.get" {
			t.Errorf("%s: %v", r.address, r.at("permissions").GoString())
		}
	}
	var got []string
	for _, m := range p.some("google_project_iam_member") {
		if m.text("role") == p.some("google_project_iam_custom_role")[0].text("id") {
			got = append(got, m.text("member"))
		}
	}
	slices.Sort(got)
	want := []string{"serviceAccount:pg-reconcile@" + project + ".iam.gserviceaccount.com", "serviceAccount:pg-sweep@" + project + ".iam.gserviceaccount.com", "serviceAccount:" + account}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Health asks Pub/Sub whether a subscription without a time series exists.
func TestHealth_SeesEachDeadLetterSubscription(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		want, got := map[string]bool{}, map[string]bool{}
		health := ""
		for _, f := range p.some("google_cloudfunctions2_function") {
			if f.text("build_config", "0", "entry_point") == "health" {
				health = "serviceAccount:" + f.text("service_config", "0", "service_account_email")
			}
		}
		for _, s := range p.some("google_pubsub_subscription") {
			if s.name == "dead_letter" {
				want[s.text("id")] = true
			}
		}
		for _, m := range p.some("google_pubsub_subscription_iam_member") {
			if m.text("role") == "roles/pubsub.viewer" && m.text("member") == health {
				got[m.text("subscription")] = true
			}
		}
		if len(want) == 0 || !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// No binding exists twice: Terraform would remove the right of both when it removes one.
func TestRights_EachIsGrantedOnce(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		granted := map[string]string{}
		for _, i := range p.instances {
			if !strings.Contains(i.kind, "_iam_") || i.kind == "google_project_iam_custom_role" {
				continue
			}
			key := i.kind
			for _, path := range []string{"role", "member", "topic", "subscription", "dataset_id", "bucket", "name", "service_account_id", "secret_id"} {
				key += " " + i.text(path)
			}
			key += i.text("condition", "0", "expression")
			if other := granted[key]; other != "" {
				t.Errorf("%s and %s are the same: %s", other, i.address, key)
			}
			granted[key] = i.address
		}
	})
}

// A function may publish to the topics of its hand-overs and to its own dead-letter topics. In
// shadow it may not publish.
func TestRights_ShadowMayNotPublish(t *testing.T) {
	publishers := func(vars map[string]cty.Value) map[string]int {
		out := map[string]int{}
		for _, m := range planned(t, vars).some("google_pubsub_topic_iam_member") {
			if m.name == "publishes" {
				out[strings.TrimPrefix(m.text("topic"), "projects/"+project+"/topics/")]++
			}
		}
		return out
	}
	got := publishers(nil)
	want := map[string]int{"nba-phase4-trigger": 2, "nba-phase3-analytics-complete-dead-letter": 1, "phasegate-reconcile-dead-letter": 1,
		"phasegate-sweep": 1, "phasegate-sweep-dead-letter": 1, "phasegate-health-dead-letter": 1} // reconciliation triggers sweeps
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("active: %v, want %v", got, want)
	}
	if got := publishers(map[string]cty.Value{"shadow": cty.True}); len(got) != 0 {
		t.Errorf("shadow: %v", got)
	}
}

// A function may query the warehouse and read the datasets that the statements of the checks name. It
// may read no others, and write to none.
func TestF17_TheFunctionsMayReadWhatTheChecksRead(t *testing.T) {
	p := planned(t, nil)
	got := map[string]int{}
	for _, m := range p.some("google_bigquery_dataset_iam_member") {
		if m.name == "reads" {
			got[m.text("role")+" "+m.text("dataset_id")]++
		}
	}
	want := map[string]int{"roles/bigquery.dataViewer nba_raw": 3, "roles/bigquery.dataViewer nba_analytics": 4,
		"roles/bigquery.dataViewer nba_precompute": 3, "roles/bigquery.dataViewer nba_predictions": 3, // the tables that reconciliation, the sweep and health count
		"roles/bigquery.dataViewer nba_orchestration": 1, "roles/bigquery.dataViewer nba_reference": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	asks := 0
	for _, m := range p.some("google_project_iam_member") {
		if m.text("role") == "roles/bigquery.jobUser" {
			asks++
		}
	}
	if asks != 4 {
		t.Errorf("%d functions may run queries, want 4", asks)
	}
	def, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	checks := def.Transitions[0].Checks
	for _, named := range regexp.MustCompile(`\b(nba_[a-z]+)\.`).FindAllStringSubmatch(fmt.Sprint(checks.Tables, checks.All, checks.Expected), -1) {
		if got["roles/bigquery.dataViewer "+named[1]] == 0 {
			t.Errorf("a statement reads dataset %s, and no function may read it", named[1])
		}
	}
}

// The staging dataset must be in the location of the tables; otherwise every write would fail.
func TestDatasets_AreWhereTheTablesAre(t *testing.T) {
	for name, tc := range map[string]struct {
		locations map[string]string
		want      string // location, or what is refused
	}{
		"europe":        {nil, "europe-west3"},
		"another":       {map[string]string{"nba_raw": "US", "nba_analytics": "US", "nba_precompute": "US", "nba_predictions": "US"}, "US"},
		"more_than_one": {map[string]string{"nba_predictions": "US"}, "nba_precompute is in europe-west3, nba_predictions is in US"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plan{t: t, locations: tc.locations}
			if err := p.evaluate(root, nil); err != nil {
				t.Fatal(err)
			}
			if len(p.failed) > 0 {
				if !strings.Contains(strings.Join(p.failed, ""), tc.want) {
					t.Errorf("refused: %q, want %s", p.failed, tc.want)
				}
				return
			}
			for _, d := range p.some("google_bigquery_dataset") {
				if d.text("location") != tc.want {
					t.Errorf("%s is in %s, the tables in %s", d.address, d.text("location"), tc.want)
				}
			}
		})
	}
}

// The sweep may write to the datasets of the tables whose duplicates it may remove, and to its
// archive. In shadow it may write to none.
func TestRights_SweepWritesOnlyListedDatasets(t *testing.T) {
	// The datasets of the pipeline's tables and the archive.
	editors := func(vars map[string]cty.Value) (out []string) {
		for _, m := range planned(t, vars).some("google_bigquery_dataset_iam_member") {
			if m.name == "sweeps" {
				out = append(out, m.text("role")+" "+m.text("dataset_id"))
			}
		}
		slices.Sort(out)
		return out
	}
	want := []string{"roles/bigquery.dataEditor nba_analytics", "roles/bigquery.dataEditor " + app.Config{}.Archive()}
	if got := editors(nil); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := editors(map[string]cty.Value{"shadow": cty.True}); len(got) != 0 {
		t.Errorf("shadow: %q", got)
	}
	for name, tc := range map[string]struct {
		vars  map[string]cty.Value
		reads bool
	}{
		"another environment reads":                 {map[string]cty.Value{"prefix": cty.StringVal("dev-")}, true},
		"it writes when that is said":               {map[string]cty.Value{"prefix": cty.StringVal("dev-"), "writes_tables": cty.True}, false},
		"without a prefix it reads when it is said": {map[string]cty.Value{"writes_tables": cty.False}, true},
	} {
		if got := editors(tc.vars); (len(got) == 0) != tc.reads {
			t.Errorf("%s: sweeps may write %q", name, got)
		}
		for _, f := range planned(t, tc.vars).some("google_cloudfunctions2_function") {
			vars := f.at("service_config", "0", "environment_variables").AsValueMap()
			if c, err := app.ConfigFromEnv(func(name string) string {
				if v, ok := vars[name]; ok {
					return v.AsString()
				}
				return ""
			}); err != nil || c.ReadOnly != tc.reads {
				t.Errorf("%s: %s reads only: %v, %v", name, f.address, c.ReadOnly, err)
			}
		}
	}
	for _, d := range planned(t, map[string]cty.Value{"prefix": cty.StringVal("dev-")}).some("google_bigquery_dataset") {
		if d.name == "sweep_archive" && (d.text("dataset_id") != app.Config{Prefix: "dev-"}.Archive() ||
			!d.at("default_table_expiration_ms").RawEquals(cty.NumberIntVal(warehouse.ArchiveKept.Milliseconds()))) {
			t.Errorf("%s: %s", d.address, d.value.GoString())
		}
	}
}

// Processors that take our locks get the rights for locks, staging, jobs and reports, and no right to a
// table.
func TestRights_ProcessorsGetLocksStagingJobsAndReports(t *testing.T) {
	const account = "phase3@my-project.iam.gserviceaccount.com"
	p := planned(t, map[string]cty.Value{"prefix": cty.StringVal("dev-"), "processors": cty.SetVal([]cty.Value{cty.StringVal(account)})})
	var got []string
	for _, i := range p.instances {
		if strings.Contains(i.kind, "_iam_") && i.text("member") == "serviceAccount:"+account {
			got = append(got, i.text("role")+" "+i.text("dataset_id")+strings.TrimPrefix(i.text("topic"), "projects/"+project+"/topics/"))
		}
	}
	slices.Sort(got)
	want := []string{"roles/bigquery.dataEditor " + app.Config{Prefix: "dev-"}.Staging(), "roles/bigquery.jobUser ", "roles/datastore.user ", "projects/" + project + "/roles/dev_phasegate_sees_jobs ", "roles/pubsub.publisher dev-nba-phase3-analytics-complete", "roles/pubsub.publisher dev-phasegate-sweep"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, d := range p.some("google_bigquery_dataset") {
		if d.name == "staging" && (d.text("dataset_id") != "dev_phasegate_staging" || !d.at("default_table_expiration_ms").RawEquals(cty.NumberIntVal(24*3600*1000))) {
			t.Errorf("%s: %s", d.address, d.value.GoString())
		}
	}
	q, err := tryPlan(t, map[string]cty.Value{"processors": cty.SetVal([]cty.Value{cty.StringVal("ann@example.com")})})
	if err != nil || len(q.failed) != 1 || !strings.Contains(q.failed[0], "ann@example.com") {
		t.Errorf("%v %q", err, q.failed)
	}
}

// named are the attributes whose values two environments in one project must not share.
var named = []string{"name", "role_id", "account_id", "dataset_id", "secret_id", "display_name", "collection"}

func TestEnvironments_ShareNoName(t *testing.T) {
	names := func(prefix string) map[string]string {
		out := map[string]string{}
		for _, i := range planned(t, map[string]cty.Value{"prefix": cty.StringVal(prefix), "slack_channel": cty.StringVal("#a")}).instances {
			if i.kind == "google_project_service" || strings.Contains(i.kind, "_iam_member") || i.name == "archive" {
				continue
			}
			for _, attribute := range named {
				if v := i.text(attribute); v != "" {
					out[i.kind+"."+attribute+" "+v+" "+i.text("field")] = i.address
				}
			}
		}
		return out
	}
	one, two := names(""), names("dev-")
	if len(one) < 60 {
		t.Fatalf("only %d names", len(one))
	}
	for name, address := range two {
		if other, same := one[name]; same && !strings.Contains(name, "display_name Phasegate:") {
			t.Errorf("%s and %s are both %s", address, other, name)
		}
	}
}

// A token must reach no state: only write-only arguments and the variable itself may
// name it.
func TestSlackToken_IsInNoTerraformState(t *testing.T) {
	p := planned(t, map[string]cty.Value{"slack_channel": cty.StringVal("#alerts"), "slack_token": cty.StringVal("xoxb-secret")})
	v := p.module.blocks["variable.slack_token"].Body
	for _, attribute := range []string{"ephemeral", "sensitive"} {
		if a := v.Attributes[attribute]; a == nil {
			t.Errorf("the token is not %s", attribute)
		}
	}
	found := 0
	for name, b := range p.module.blocks {
		if strings.HasPrefix(name, "variable.") {
			continue // validations do not store the values that they read
		}
		walkAttributes(b.Body, func(attribute *hclsyntax.Attribute) {
			for _, tr := range attribute.Expr.Variables() {
				if tr.RootName() == "var" && tr[1].(hcl.TraverseAttr).Name == "slack_token" {
					found++
					if !strings.HasSuffix(attribute.Name, "_wo") {
						t.Errorf("%s: %s would be kept in the state", name, attribute.Name)
					}
				}
			}
		})
	}
	if found != 2 {
		t.Errorf("the token is used %d times, want twice", found)
	}
}

func walkAttributes(b *hclsyntax.Body, visit func(*hclsyntax.Attribute)) {
	for _, a := range b.Attributes {
		visit(a)
	}
	for _, inner := range b.Blocks {
		walkAttributes(inner.Body, visit)
	}
}
