package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/scripts/packaging/rights"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// cloud answers as Google's interfaces do, by method and path; an answer that begins with a number
// is an error with that status. It fails the test at a call that would change something.
type cloud struct {
	t       *testing.T
	answers map[string]string

	mu    sync.Mutex
	calls int
}

// harmless are the calls that only read, although they are no GET.
var harmless = regexp.MustCompile(`:(getIamPolicy|testIamPermissions)$`)

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	if r.Method != http.MethodGet && !(r.Method == http.MethodPost && harmless.MatchString(r.URL.Path)) {
		c.t.Errorf("%s %s changes something", r.Method, r.URL)
	}
	w.Header().Set("Content-Type", "application/json")
	answer, ok := c.answers[r.URL.Path]
	if !ok {
		answer = "404 NOT_FOUND"
	}
	var code int
	if n, _ := fmt.Sscanf(answer, "%d ", &code); n == 1 {
		w.WriteHeader(code)
		answer = fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":"X"}}`, code, answer[4:])
	}
	fmt.Fprint(w, answer)
}

// soundCloud is a cloud with a sound deployment of the embedded pipeline in project p.
func soundCloud(t *testing.T) *cloud {
	t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	d := rights.Deployment{Pipeline: p, Config: app.Config{Project: "p", Store: "firestore"}, Number: "42"}
	type binding struct {
		Role      string            `json:"role"`
		Members   []string          `json:"members"`
		Condition map[string]string `json:"condition,omitempty"`
	}
	object := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bound, access := map[string][]binding{}, map[string][]map[string]string{}
	paths := map[rights.Kind]string{rights.Project: "/v1/projects/p", rights.Topic: "/v1/projects/p/topics/", rights.Subscription: "/v1/projects/p/subscriptions/",
		rights.Service: "/v1/projects/p/locations/us-central1/services/", rights.Account: "/v1/projects/p/serviceAccounts/"}
	for _, g := range d.Grants() {
		if g.Kind == rights.Dataset {
			role := map[string]string{"roles/bigquery.dataViewer": "READER", "roles/bigquery.dataEditor": "WRITER"}[g.Role]
			access[g.Resource] = append(access[g.Resource], map[string]string{"role": role, "userByEmail": strings.TrimPrefix(g.Member, "serviceAccount:")})
			continue
		}
		b := binding{Role: g.Role, Members: []string{g.Member}}
		if g.Condition != "" {
			b.Condition = map[string]string{"title": "t", "expression": g.Condition}
		}
		path := paths[g.Kind] + g.Resource + ":getIamPolicy"
		bound[path] = append(bound[path], b)
	}
	c := &cloud{t: t, answers: map[string]string{}}
	for path, bindings := range bound {
		c.answers[path] = object(map[string]any{"version": 3, "bindings": bindings})
	}
	for _, dataset := range append(datasets(p), "nba_orchestration", "nba_reference", "phasegate_staging", "phasegate_sweep_archive") {
		c.answers["/projects/p/datasets/"+dataset] = object(map[string]any{"location": "US", "access": access[dataset]})
	}
	for _, phase := range p.Phases {
		for _, pr := range phase.Processors {
			var fields []map[string]string
			for _, column := range slices.Concat([]string{pr.DateColumn, pr.OrderBy, "another"}, pr.Key, pr.Filled) {
				fields = append(fields, map[string]string{"name": column, "type": "STRING"})
			}
			dataset, table, _ := strings.Cut(pr.Table, ".")
			c.answers["/projects/p/datasets/"+dataset+"/tables/"+table] = object(map[string]any{"schema": map[string]any{"fields": fields}})
		}
	}
	for _, pl := range p.PushSubscriptions() {
		c.answers["/v1/projects/p/subscriptions/"+pl.Name] = fmt.Sprintf(`{"name":"projects/p/subscriptions/%s","topic":"projects/p/topics/%s","state":"ACTIVE","ackDeadlineSeconds":600,
			"pushConfig":{"pushEndpoint":"https://f.run.app/%s","oidcToken":{"serviceAccountEmail":%q}},"expirationPolicy":{},
			"retryPolicy":{"minimumBackoff":"%ds","maximumBackoff":"600s"},"deadLetterPolicy":{"deadLetterTopic":"projects/p/topics/%[2]s-dead-letter","maxDeliveryAttempts":100}}`,
			pl.Name, pl.Topic, pl.Query, d.Pusher(pl.Function), int(pl.MinBackoff.Seconds()))
	}
	var functions []string
	for _, name := range pipeline.Functions() {
		functions = append(functions, `{"name":"projects/p/locations/us-central1/functions/phasegate-`+name+`","state":"ACTIVE"}`)
	}
	c.answers["/v2/projects/p/locations/-/functions"] = `{"functions":[` + strings.Join(functions, ",") + `]}`
	c.answers["/v1/projects/p"] = `{"projectId":"p","projectNumber":"42","lifecycleState":"ACTIVE"}`
	var services []map[string]string
	for _, name := range slices.Concat(apisBefore, apisDeployed) {
		services = append(services, map[string]string{"name": "projects/42/services/" + name + ".googleapis.com", "state": "ENABLED"})
	}
	c.answers["/v1/projects/p/services"] = object(map[string]any{"services": services})
	c.answers["/v1/projects/p:testIamPermissions"] = object(map[string]any{"permissions": slices.Collect(maps.Values(deployer))})
	c.answers["/v3/projects/p/alertPolicies"] = `{"alertPolicies":[{"name":"projects/p/alertPolicies/1","notificationChannels":["projects/p/notificationChannels/7"]}]}`
	c.answers["/v3/projects/p/notificationChannels"] = `{"notificationChannels":[{"name":"projects/p/notificationChannels/7","type":"email","displayName":"phasegate mail","enabled":true}]}`
	return c
}

// serve points the clients of doctor to it.
func (c *cloud) serve() {
	c.t.Helper()
	s := httptest.NewServer(c)
	c.t.Cleanup(s.Close)
	platformOptions = []option.ClientOption{option.WithEndpoint(s.URL), option.WithoutAuthentication()}
	c.t.Cleanup(func() { platformOptions = nil })
}

// change replaces a part of an answer.
func (c *cloud) change(path, old, with string) {
	c.t.Helper()
	if !strings.Contains(c.answers[path], old) {
		c.t.Fatalf("no %s in %s: %s", old, path, c.answers[path])
	}
	c.answers[path] = strings.Replace(c.answers[path], old, with, 1)
}

// diagnose runs doctor and checks its exit status and its lines, each as STATE ID: EVIDENCE, and
// the fix on the next.
func diagnose(t *testing.T, code int, parts []string, args ...string) string {
	t.Helper()
	got, stdout, stderr := command(t, append([]string{"doctor", "--project", "p", "--json"}, args...)...)
	var r checklist
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || got != code {
		t.Fatalf("exit %d, want %d; %v:\n%s%s", got, code, err, stdout, stderr)
	}
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s %s: %s\n", c.State, c.ID, c.Evidence)
		if c.Action != "" {
			fmt.Fprintf(&b, "         %s\n", c.Action)
		}
	}
	for _, part := range parts {
		if !strings.Contains(b.String(), part) {
			t.Errorf("no %q in:\n%s", part, b.String())
		}
	}
	return b.String()
}

func TestDoctor_FindsNothingInASoundDeployment(t *testing.T) {
	c := soundCloud(t)
	c.serve()
	out := diagnose(t, 0, []string{"ok       credentials: ", "ok       project p: number 42", "ok       APIs: 15 are needed, and enabled", "ok       rights of the caller: ",
		"ok       rights of pg-sweep@p.iam.gserviceaccount.com: ", "ok       rights of pg-push-health@p.iam.gserviceaccount.com: 1 role is granted",
		"ok       rights of service-42@gcp-sa-pubsub.iam.gserviceaccount.com: ", "ok       locations of datasets: all datasets that exist are in US", "ok       table nba_analytics.player_game_summary: ",
		"ok       subscription nba-phase3-analytics-complete-transition: retries after 10s to 10m0s", `ok       notification channel 7: email "phasegate mail"`})
	want(t, 0, []string{"ok: everything is as it should be"}, "doctor", "--project", "p")
	if strings.Contains(out, "unknown") || strings.Contains(out, "failing") || c.calls > 180 {
		t.Errorf("%d calls\n%s", c.calls, out)
	}
}

func TestDoctor_NamesEachProblemAndItsFix(t *testing.T) {
	const inFolder = `"lifecycleState":"ACTIVE","parent":{"type":"folder","id":"99"}`
	for name, tc := range map[string]struct {
		change func(*cloud)
		code   int
		parts  []string
	}{
		"no_project":     {func(c *cloud) { c.answers["/v1/projects/p"] = "403 denied" }, 1, []string{"failing  project p: it does not exist, or this identity may not see it", "gcloud projects list"}},
		"a_dead_project": {func(c *cloud) { c.change("/v1/projects/p", "ACTIVE", "DELETE_REQUESTED") }, 1, []string{"its state is DELETE_REQUESTED", "gcloud projects undelete p"}},
		"an_api_off": {func(c *cloud) { c.change("/v1/projects/p/services", "pubsub.googleapis.com", "x.googleapis.com") }, 1,
			[]string{"failing  APIs: pubsub.googleapis.com: not enabled", "gcloud services enable pubsub.googleapis.com --project=p"}},
		"the_caller_lacks_a_role": {func(c *cloud) { c.change("/v1/projects/p:testIamPermissions", "storage.buckets.create", "x") }, 1,
			[]string{"failing  rights of the caller: lacks storage.buckets.create", `gcloud projects add-iam-policy-binding p --member="user:$(gcloud config get account)" --role=roles/storage.admin`}},
		"act_as_may_be_elsewhere": {func(c *cloud) { c.change("/v1/projects/p:testIamPermissions", actAs, "x") }, 2, []string{"unknown  rights of the caller: lacks " + actAs}},
		"a_right_is_gone": {func(c *cloud) {
			c.change("/v1/projects/p/topics/nba-phase4-trigger:getIamPolicy", "pg-transition@", "another@")
		}, 1, []string{"failing  rights of pg-transition@p.iam.gserviceaccount.com: not granted: roles/pubsub.publisher on topic nba-phase4-trigger", "         make deploy\n"}},
		"a_right_may_be_inherited": {func(c *cloud) {
			c.change("/v1/projects/p", `"lifecycleState":"ACTIVE"`, inFolder)
			c.change("/v1/projects/p/topics/nba-phase4-trigger:getIamPolicy", "pg-transition@", "another@")
		}, 2, []string{"number 42, in folder 99", "unknown  rights of pg-transition@p.iam.gserviceaccount.com: not known: roles/pubsub.publisher on topic nba-phase4-trigger; they may be inherited from folder 99"}},
		"a_right_of_the_project": {func(c *cloud) {
			c.change("/v1/projects/p/topics/nba-phase4-trigger:getIamPolicy", "pg-transition@", "another@")
			c.change("/v1/projects/p:getIamPolicy", `{"role":`, `{"role":"roles/pubsub.publisher","members":["serviceAccount:pg-transition@p.iam.gserviceaccount.com"]},{"role":`)
		}, 0, []string{"ok       rights of pg-transition@p.iam.gserviceaccount.com: "}},
		"another_database": {func(c *cloud) { c.change("/v1/projects/p:getIamPolicy", "(default)", "other") }, 1, []string{"not granted: roles/datastore.user on project"}},
		"a_push_is_refused": {func(c *cloud) {
			delete(c.answers, "/v1/projects/p/locations/us-central1/services/phasegate-health:getIamPolicy")
		}, 1, []string{"failing  rights of pg-push-health@p.iam.gserviceaccount.com: not granted: roles/run.invoker on service phasegate-health"}},
		"a_policy_cannot_be_read": {func(c *cloud) {
			c.answers["/v1/projects/p/topics/nba-phase4-trigger:getIamPolicy"] = "403 denied"
		}, 2, []string{"unknown  rights of pg-transition@p.iam.gserviceaccount.com: not known: roles/pubsub.publisher on topic nba-phase4-trigger", "--role=roles/iam.securityReviewer"}},
		"a_dataset_list": {func(c *cloud) { c.change("/projects/p/datasets/nba_analytics", `"WRITER"`, `"READER"`) }, 1,
			[]string{"failing  rights of pg-sweep@p.iam.gserviceaccount.com: not granted: roles/bigquery.dataEditor on dataset nba_analytics"}},
		"no_dataset":    {func(c *cloud) { delete(c.answers, "/projects/p/datasets/nba_raw") }, 1, []string{"failing  dataset nba_raw: does not exist", "bq --location=LOCATION mk --dataset p:nba_raw"}},
		"two_locations": {func(c *cloud) { c.change("/projects/p/datasets/nba_raw", "US", "EU") }, 1, []string{"failing  locations of datasets: EU has nba_raw; US has nba_analytics"}},
		"no_table": {func(c *cloud) { delete(c.answers, "/projects/p/datasets/nba_predictions/tables/ml_feature_store_v2") }, 1,
			[]string{"failing  table nba_predictions.ml_feature_store_v2: does not exist", "correct `table` of ml_feature_store_v2 in the pipeline file"}},
		"no_column": {func(c *cloud) {
			c.change("/projects/p/datasets/nba_analytics/tables/player_game_summary", `"points"`, `"score"`)
		}, 1, []string{"failing  table nba_analytics.player_game_summary: has no column points"}},
		"no_retries": {func(c *cloud) {
			c.change("/v1/projects/p/subscriptions/nba-phase3-analytics-complete-transition", `"retryPolicy":{"minimumBackoff":"10s","maximumBackoff":"600s"},`, "")
		}, 1, []string{"failing  subscription nba-phase3-analytics-complete-transition: it has no retry policy", "         make deploy\n"}},
		"other_retries": {func(c *cloud) {
			c.change("/v1/projects/p/subscriptions/phasegate-health-health", `"300s"`, `"10s"`)
		}, 1, []string{`subscription phasegate-health-health: its least pause between attempts is "10s", not "300s"`}},
		"a_channel_is_gone":   {func(c *cloud) { c.answers["/v3/projects/p/notificationChannels"] = `{}` }, 1, []string{"failing  notification channel 7: does not exist, and 1 alert goes to it"}},
		"a_channel_is_off":    {func(c *cloud) { c.change("/v3/projects/p/notificationChannels", `"enabled":true`, `"enabled":false`) }, 1, []string{"is disabled, and 1 alert goes to it", "gcloud beta monitoring channels update projects/p/notificationChannels/7 --enabled"}},
		"no_alert_has_one":    {func(c *cloud) { c.answers["/v3/projects/p/alertPolicies"] = `{}` }, 1, []string{"failing  notification channels: 0 alerts have channels"}},
		"a_service_is_broken": {func(c *cloud) { c.answers["/v3/projects/p/alertPolicies"] = "400 broken" }, 2, []string{"unknown  notification channels: googleapi: Error 400: broken"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := soundCloud(t)
			tc.change(c)
			c.serve()
			diagnose(t, tc.code, tc.parts)
		})
	}
}

// Before the first deployment the project has its tables, and nothing that Terraform makes.
func TestDoctor_LeavesToTheDeploymentWhatItWillCreate(t *testing.T) {
	empty := func(t *testing.T) *cloud {
		c := soundCloud(t)
		for path := range c.answers {
			if strings.Contains(path, "/subscriptions/") || strings.Contains(path, "/topics/") || strings.Contains(path, "/serviceAccounts/") ||
				strings.Contains(path, "/locations/us-central1/") || strings.Contains(path, "/datasets/phasegate_") {
				delete(c.answers, path)
			}
		}
		c.answers["/v1/projects/p:getIamPolicy"], c.answers["/v3/projects/p/alertPolicies"], c.answers["/v2/projects/p/locations/-/functions"] = `{}`, `{}`, `{}`
		c.change("/v1/projects/p", `"lifecycleState":"ACTIVE"`, `"lifecycleState":"ACTIVE","parent":{"type":"organization","id":"99"}`)
		return c
	}
	c := empty(t)
	c.serve()
	diagnose(t, 0, []string{"make deploy will set it: does not exist", "make deploy will set it: not granted: "})
	c.answers["/v1/projects/p/services"] = `{"services":[{"name":"projects/42/services/serviceusage.googleapis.com"},{"name":"projects/42/services/cloudresourcemanager.googleapis.com"}]}`
	for _, path := range []string{"/v2/projects/p/locations/-/functions", "/v3/projects/p/alertPolicies"} {
		c.answers[path] = "403 Some API has not been used in project 42 before or it is disabled"
	}
	diagnose(t, 0, []string{"make deploy will set it: artifactregistry.googleapis.com, "})

	c = soundCloud(t) // a later deployment resets what was changed by hand
	c.change("/v1/projects/p/subscriptions/phasegate-health-health", `"300s"`, `"10s"`)
	c.change("/v1/projects/p/topics/nba-phase4-trigger:getIamPolicy", "pg-transition@", "another@")
	c.serve()
	diagnose(t, 0, []string{`make deploy will set it: its least pause`, "make deploy will set it: not granted: roles/pubsub.publisher"}, "--before-deploy")
}

func TestDoctor_NamesTheLoginWhereThereIsNone(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
	out := diagnose(t, 1, []string{"failing  credentials: ", "\n         gcloud auth application-default login\n"})
	if strings.Count(out, "\n") != 2 {
		t.Errorf("asks without credentials:\n%s", out)
	}
	t.Setenv("PHASEGATE_STORE", "sqlite:x")
	want(t, 2, []string{"nothing is deployed on this machine"}, "doctor", "--project", "p")
}

// Step by step, terraform/README.md names the roles that doctor looks for.
func TestDoctor_LooksForTheRolesThatTheDeploymentPageNames(t *testing.T) {
	page, err := os.ReadFile("../../terraform/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "needs these roles on the project:")
	list, _, _ = strings.Cut(list, "`make deploy`")
	named := strings.Fields(list)
	slices.Sort(named)
	if looked := slices.Sorted(maps.Keys(deployer)); !slices.Equal(named, looked) {
		t.Errorf("%q, doctor looks for %q", named, looked)
	}
	apis, err := os.ReadFile("../../terraform/apis.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range apisDeployed {
		if !strings.Contains(string(apis), `"`+name+`"`) {
			t.Errorf("terraform/apis.tf does not enable %s", name)
		}
	}
}
