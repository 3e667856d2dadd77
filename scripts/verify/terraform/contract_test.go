package terraform

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/functions/reconcile"
	"github.com/phasegate/phasegate/functions/sweep"
	"github.com/phasegate/phasegate/functions/transition"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

func nba(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// route is a push subscription: its topic, and the function that it delivers to.
type route struct{ Topic, Function, Query string }

// deployedRoutes are the push subscriptions of a plan by name.
func deployedRoutes(t *testing.T, p *plan) map[string]route {
	t.Helper()
	uris := map[string]string{} // address of a function → its name
	for _, f := range p.some("google_cloudfunctions2_function") {
		uris[f.text("service_config", "0", "uri")] = f.text("build_config", "0", "entry_point")
	}
	out := map[string]route{}
	for _, s := range p.some("google_pubsub_subscription") {
		if s.name != "push" {
			continue
		}
		uri, query, _ := strings.Cut(s.text("push_config", "0", "push_endpoint"), "/?")
		if uri = strings.TrimSuffix(uri, "/"); uris[uri] == "" {
			t.Errorf("%s delivers to %s: no function has this address", s.address, uri)
		}
		out[s.text("name")] = route{strings.TrimPrefix(s.text("topic"), "projects/"+project+"/topics/"), uris[uri], query}
	}
	return out
}

// localRoutes are those of a running local environment, read from its broker.
func localRoutes(t *testing.T, prefix string) (map[string]route, map[string]bool) {
	t.Helper()
	stores := func(now func() time.Time) app.Stores {
		return func(context.Context, app.Config) (store.Store, error) { return memory.New(now), nil }
	}
	e, err := local.Start(t.Context(), local.Options{Clock: local.NewClock(morning), Stores: stores, Logs: io.Discard, Errors: t.Logf,
		Config: app.Config{Project: "local", Store: "memory", Prefix: prefix, Claim: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	out, topics := map[string]route{}, map[string]bool{}
	subs := e.App.Broker.Client.SubscriptionAdminClient.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/local"})
	for s, err := subs.Next(); err != iterator.Done; s, err = subs.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if s.PushConfig.GetPushEndpoint() == "" {
			continue
		}
		for name, url := range e.Functions {
			if rest, ok := strings.CutPrefix(s.PushConfig.PushEndpoint, url); ok {
				out[filepath.Base(s.Name)] = route{filepath.Base(s.Topic), name, strings.TrimPrefix(rest, "?")}
			}
		}
	}
	all := e.App.Broker.Client.TopicAdminClient.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/local"})
	for topic, err := all.Next(); err != iterator.Done; topic, err = all.Next() {
		if err != nil {
			t.Fatal(err)
		}
		topics[filepath.Base(topic.Name)] = true
	}
	return out, topics
}

// The deployment has the topics and subscriptions of the local environment, in which the tests
// run: none is missing, and there are no others.
func TestF50_TheDeployedTopologyIsTheOneThatIsTriedLocally(t *testing.T) {
	for _, prefix := range []string{"", "dev-"} {
		p := planned(t, map[string]cty.Value{"prefix": cty.StringVal(prefix)})
		want, wantTopics := localRoutes(t, prefix)
		if diff := cmp.Diff(want, deployedRoutes(t, p)); diff != "" {
			t.Errorf("prefix %q: subscriptions (-local +deployed):\n%s", prefix, diff)
		}
		topics := map[string]bool{}
		for _, topic := range p.some("google_pubsub_topic") {
			topics[topic.text("name")] = true
		}
		if diff := cmp.Diff(wantTopics, topics); diff != "" {
			t.Errorf("prefix %q: topics (-local +deployed):\n%s", prefix, diff)
		}
	}
}

func TestTerraform_NamesMatchCode(t *testing.T) {
	p, deployed := nba(t), deployedRoutes(t, planned(t, nil))
	want := map[string]route{}
	for _, tr := range p.Transitions {
		want[tr.Subscription()] = route{tr.UpstreamTopic, "transition", "transition=" + tr.ID}
		want[pipeline.Subscription(tr.ShadowTopic(), "transition")] = route{tr.ShadowTopic(), "transition", "transition=" + tr.ID + "&shadow=1"}
	}
	for _, s := range p.Schedules {
		want[pipeline.Subscription(s.Topic(), s.Function)] = route{s.Topic(), s.Function, ""}
	}
	if diff := cmp.Diff(want, deployed); diff != "" {
		t.Errorf("(-code +terraform):\n%s", diff)
	}
	for _, s := range planned(t, nil).some("google_pubsub_subscription") {
		if s.name == "dead_letter" && !slices.ContainsFunc(slices.Collect(maps.Values(want)), func(r route) bool { return pipeline.DeadLetterTopic(r.Topic) == s.text("name") }) {
			t.Errorf("%s: %s is no dead letter of the code's", s.address, s.text("name"))
		}
	}
}

func TestTerraform_FunctionsMatchCode(t *testing.T) {
	folders, err := os.ReadDir("../../../functions")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range folders {
		want = append(want, f.Name())
	}
	for _, f := range planned(t, nil).some("google_cloudfunctions2_function") {
		got = append(got, f.text("build_config", "0", "entry_point"))
		if f.text("name") != "phasegate-"+f.text("build_config", "0", "entry_point") || f.text("build_config", "0", "runtime") != "go126" {
			t.Errorf("%s: name %s, runtime %s", f.address, f.text("name"), f.text("build_config", "0", "runtime"))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("folders of functions/ and deployed ones (-folders +deployed):\n%s", diff)
	}
	if diff := cmp.Diff(pipeline.Functions(), got); diff != "" {
		t.Errorf("served and deployed ones (-served +deployed):\n%s", diff)
	}
}

// A request ends by itself before the platform ends it, and before Pub/Sub's acknowledgement
// deadline.
func TestTimeLimits_AreInOrder(t *testing.T) {
	unopened := func(context.Context) (*app.App, error) { return nil, fmt.Errorf("not opened by this test") }
	own := map[string]delivery.Function{
		"transition": transition.New(unopened).(delivery.Function), "reconcile": reconcile.New(unopened).(delivery.Function),
		"sweep": sweep.New(unopened).(delivery.Function), "health": health.New(unopened).(delivery.Function),
	}
	p := planned(t, nil)
	for _, f := range p.some("google_cloudfunctions2_function") {
		name := f.text("build_config", "0", "entry_point")
		limit, err := strconv.Atoi(f.text("service_config", "0", "timeout_seconds"))
		if err != nil {
			t.Fatal(err)
		}
		if handler := own[name].Timeout; handler == 0 || time.Duration(limit)*time.Second <= handler || limit > 540 {
			t.Errorf("%s: the handler ends after %v, the platform ends it after %d s, at most 540", name, handler, limit)
		}
	}
	for _, s := range p.some("google_pubsub_subscription") {
		if s.text("ack_deadline_seconds") != "600" {
			t.Errorf("%s: ack deadline %s", s.address, s.text("ack_deadline_seconds"))
		}
	}
}

// unset are the variables that no deployment sets. The archive contains the pipeline file, emulators
// are for developers, and a bot token replaces the webhook of Slack.
var unset = []string{"SLACK_WEBHOOK_URL", "PIPELINE_FILE", "PHASEGATE_LEASE", "FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"}

// Go's limit leaves room for the program itself, which it does not count: some 30 MB.
func TestMemory_GoLimitLeavesRoomForTheProgram(t *testing.T) {
	for _, f := range planned(t, nil).some("google_cloudfunctions2_function") {
		var memory, limit int
		vars := f.at("service_config", "0", "environment_variables").AsValueMap()
		if v, ok := vars["GOMEMLIMIT"]; !ok {
			t.Errorf("%s has no GOMEMLIMIT", f.address)
			continue
		} else if _, err := fmt.Sscanf(v.AsString(), "%dMiB", &limit); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(f.at("service_config", "0", "available_memory").AsString(), "%dM", &memory); err != nil {
			t.Fatal(err)
		}
		if used := limit << 20 / 1_000_000; used > memory-50 || used < memory/2 {
			t.Errorf("%s: GOMEMLIMIT of %d MB in %d MB of memory", f.address, used, memory)
		}
	}
}

func TestEnvironment_MatchesVariablesThatCodeReads(t *testing.T) {
	read := map[string]bool{}
	if _, err := app.ConfigFromEnv(func(name string) string { read[name] = true; return "" }); err == nil {
		t.Fatal("an empty environment is accepted")
	}
	for _, name := range unset {
		if !read[name] {
			t.Errorf("the code does not read %s", name)
		}
		delete(read, name)
	}
	// Every variable of Terraform has another value than its default.
	p := planned(t, map[string]cty.Value{"prefix": cty.StringVal("dev-"), "database": cty.StringVal("books"), "shadow": cty.True,
		"claim": cty.StringVal("2m"), "log_level": cty.StringVal("debug"), "slack_channel": cty.StringVal("#alerts"), "slack_token": cty.StringVal("xoxb-secret"), "page": cty.StringVal("https://status.example.com")})
	for _, f := range p.some("google_cloudfunctions2_function") {
		vars := map[string]string{}
		for name, v := range f.at("service_config", "0", "environment_variables").AsValueMap() {
			vars[name] = v.AsString()
		}
		for _, v := range f.at("service_config", "0", "secret_environment_variables").AsValueSlice() {
			if secret := v.GetAttr("secret").AsString(); secret != "dev-phasegate-slack-token" {
				t.Errorf("%s: a secret %q", f.address, secret)
			}
			vars[v.GetAttr("key").AsString()] = "xoxb-secret"
		}
		delete(vars, "GOMEMLIMIT") // Go itself reads it
		if diff := cmp.Diff(slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(vars))); diff != "" {
			t.Errorf("%s: variables (-read +set):\n%s", f.address, diff)
		}
		got, err := app.ConfigFromEnv(func(name string) string { return vars[name] })
		if err != nil {
			t.Fatal(err)
		}
		want := app.Config{Project: project, Store: "firestore:books", Prefix: "dev-", Shadow: "shadow_", ReadOnly: true, Claim: 2 * time.Minute, Lease: lease.Max, LogLevel: "debug", Slack: got.Slack, Page: "https://status.example.com"}
		if got != want || got.Slack.String() != "Slack, #alerts" {
			t.Errorf("%s: %+v, want %+v and a channel", f.address, got, want)
		}
	}
	// With Terraform's defaults, the configuration has the defaults of the code.
	for _, f := range planned(t, nil).some("google_cloudfunctions2_function") {
		vars := f.at("service_config", "0", "environment_variables").AsValueMap()
		got, err := app.ConfigFromEnv(func(name string) string {
			if v, ok := vars[name]; ok {
				return v.AsString()
			}
			return ""
		})
		want, wantErr := app.ConfigFromEnv(func(name string) string {
			return map[string]string{"GOOGLE_CLOUD_PROJECT": project, "LOG_LEVEL": "info"}[name]
		})
		if err != nil || wantErr != nil || got != want {
			t.Errorf("%s: %+v, want the defaults %+v: %v %v", f.address, got, want, err, wantErr)
		}
	}
}

func TestF54_EveryScheduleOfThePipelineIsAJobInItsTimeZone(t *testing.T) {
	p, jobs := nba(t), map[string]instance{}
	for _, j := range planned(t, nil).some("google_cloud_scheduler_job") {
		jobs[j.key] = j
	}
	if len(jobs) != len(p.Schedules) {
		t.Errorf("%d jobs, %d schedules", len(jobs), len(p.Schedules))
	}
	for _, s := range p.Schedules {
		j := jobs[s.Name]
		zone := p.Zone(s).String()
		if zone == "UTC" {
			zone = "Etc/UTC"
		}
		if j.text("schedule") != s.Cron || j.text("time_zone") != zone || j.text("name") != "phasegate-"+s.Name {
			t.Errorf("%s: %q in %q", s.Name, j.text("schedule"), j.text("time_zone"))
		}
		if topic := j.text("pubsub_target", "0", "topic_name"); topic != "projects/"+project+"/topics/"+s.Topic() {
			t.Errorf("%s: sent to %s", s.Name, topic)
		}
		data, err := base64.StdEncoding.DecodeString(j.text("pubsub_target", "0", "data"))
		if err != nil {
			t.Fatal(err)
		}
		if job, err := wire.DecodeJob(wire.Envelope{Data: data}); err != nil || job.Job != s.Job {
			t.Errorf("%s: %s is not job %s: %v", s.Name, data, s.Job, err)
		}
		if j.at("attempt_deadline") != cty.NilVal {
			t.Errorf("%s: an attempt_deadline differs in every plan", s.Name)
		}
	}
}

// A database takes 200 settings of single fields (https://cloud.google.com/firestore/quotas).
func TestFirestore_FieldsOfTwoEnvironmentsFitIntoOneDatabase(t *testing.T) {
	n := len(planned(t, nil).some("google_firestore_field"))
	if 2*n > 200 {
		t.Errorf("an environment has %d settings of fields", n)
	}
	page, err := os.ReadFile("../../../docs/reference/limits.md")
	if err != nil || !strings.Contains(string(page), fmt.Sprintf("an environment has %d |", n)) {
		t.Errorf("limits.md does not say that an environment has %d settings of fields: %v", n, err)
	}
}

// Terraform sets fields that the code writes. Those without an index are maps, lists and stored messages,
// which would need many index entries.
func TestFirestore_CollectionsAndFieldsMatchCode(t *testing.T) {
	recordings(t)
	written := sharedRecordings.written
	for _, f := range planned(t, map[string]cty.Value{"prefix": cty.StringVal("dev-")}).some("google_firestore_field") {
		collection, ok := strings.CutPrefix(f.text("collection"), "dev-")
		of := collection
		for strings.HasPrefix(of, "shadow_") {
			of = strings.TrimPrefix(of, "shadow_")
		}
		collection = of
		switch field := f.text("field"); {
		case !ok || written[collection] == nil:
			t.Errorf("%s: nothing is written to %s", f.address, f.text("collection"))
		case f.name == "unindexed" && !written[collection][field]:
			t.Errorf("%s: no document of %s has %s", f.address, collection, field)
		case f.name == "expires" && (field != store.ExpiresAt || !written[collection][field]):
			t.Errorf("%s: no document of %s has %s", f.address, collection, field)
		}
	}
	// The database expires exactly the collections whose documents have expires_at.
	p := planned(t, nil)
	ends := map[string]bool{}
	for _, f := range p.some("google_firestore_field") {
		if f.at("ttl_config") != cty.NilVal {
			ends[f.text("collection")] = true
		}
	}
	for collection, fields := range written {
		if fields["expires_at"] != ends[collection] {
			t.Errorf("%s: documents have expires_at: %v, the database expires them: %v", collection, fields["expires_at"], ends[collection])
		}
	}
	unindexed := p.local("wide").AsValueMap()
	for collection, fields := range sharedRecordings.wide {
		for field := range fields {
			v, ok := unindexed[strings.TrimPrefix(collection, "shadow_")]
			if !ok && collection != nba(t).Transitions[0].CompatibilityCollection || ok && !strings.Contains(v.GoString(), strconv.Quote(field)) {
				t.Errorf("%s.%s is a map, a list or a stored message, and indexed", collection, field)
			}
		}
	}
}

// The archive's name has the source hash. If the archive is missing or of another checkout, the error says
// how to make it.
func TestArchives_AreFoundBySourceHash(t *testing.T) {
	for _, o := range planned(t, nil).some("google_storage_bucket_object") {
		if !regexp.MustCompile(`^[a-z]+-` + hash + `\.zip$`).MatchString(o.text("name")) {
			t.Errorf("%s: object %s", o.address, o.text("name"))
		}
	}
	p := planned(t, map[string]cty.Value{"source_hash": cty.StringVal("fedcba987654")})
	if len(p.failed) != 4 || !strings.Contains(p.failed[0], "-fedcba987654.zip is missing") || !strings.Contains(p.failed[0], "make package") {
		t.Errorf("stale archives: %q", p.failed)
	}
}
