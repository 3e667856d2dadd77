package terraform

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
)

// variants are deployments that every invariant must hold for.
func variants(t *testing.T) map[string]map[string]cty.Value {
	t.Helper()
	return map[string]map[string]cty.Value{
		"default": nil,
		"everything": {"prefix": cty.StringVal("dev-"), "database": cty.StringVal("books"), "database_location": cty.StringVal("nam5"),
			"slack_channel": cty.StringVal("#alerts"), "slack_token": cty.StringVal("xoxb-secret"),
			"existing_topics": cty.SetVal([]cty.Value{cty.StringVal("nba-phase4-trigger")})},
		"shadow":          {"shadow": cty.True},
		"two_transitions": {"pipeline_file": cty.StringVal(twoTransitions(t))},
	}
}

// twoTransitions is a pipeline with a second transition that follows the first one. The second has
// no latencies, its phase has no service, and there are more schedules.
func twoTransitions(t *testing.T) string {
	t.Helper()
	text := string(pipeline.Default())
	_, rest, _ := strings.Cut(text, "transitions:\n")
	first, jobs, _ := strings.Cut(rest, "\n# Jobs")
	second := strings.NewReplacer("id: phase3_to_phase4", "id: phase4_to_phase5", "topic: nba-phase3-analytics-complete", "topic: nba-phase4-complete",
		"topic: nba-phase4-trigger", "topic: nba-phase5-trigger", "compatibility_collection: phase3_completion", "compatibility_collection: phase4_completion",
		"    hand_over: {warn: 5m, critical: 15m}\n", "").Replace(first)
	text = strings.Replace(text, first+"\n# Jobs"+jobs, first+second+"\n# Jobs"+jobs+"  - name: again\n    cron: \"30 6 * * *\"\n    function: reconcile\n    job: relay\n", 1)
	text = strings.Replace(text, "    service: nba-phase4-precompute-processors\n", "", 1)
	return definition(t, text)
}

// definition writes a valid pipeline to a file.
func definition(t *testing.T, text string) string {
	t.Helper()
	if _, err := pipeline.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// inEveryVariant runs a test on each variant. No variant may fail a validation.
func inEveryVariant(t *testing.T, test func(t *testing.T, p *plan)) {
	for name, vars := range variants(t) {
		t.Run(name, func(t *testing.T) {
			p := planned(t, vars)
			if len(p.failed) > 0 {
				t.Fatalf("refused: %q", p.failed)
			}
			test(t, p)
		})
	}
}

func TestF41_EverySubscriptionHasADeadLetterThatStaysAndAnAlertOnIt(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		dead, kept := map[string]bool{}, map[string]string{} // topics; topic → subscription that keeps it
		for _, topic := range p.some("google_pubsub_topic") {
			dead[topic.text("id")] = topic.name == "dead_letter"
		}
		var queries strings.Builder
		for _, policy := range p.some("google_monitoring_alert_policy") {
			if page(policy.key) == "dead-letters" {
				queries.WriteString(text(conditions(policy)[0], "condition_prometheus_query_language", "0", "query"))
			}
		}
		pushes := 0
		for _, s := range p.some("google_pubsub_subscription") {
			if ttl := s.at("expiration_policy", "0", "ttl"); ttl == cty.NilVal || ttl.AsString() != "" {
				t.Errorf("%s expires", s.address)
			}
			if s.name == "dead_letter" {
				kept[s.text("topic")] = s.text("name")
				if s.text("message_retention_duration") != "2678400s" { // 31 days, the longest retention
					t.Errorf("%s keeps messages for %s", s.address, s.text("message_retention_duration"))
				}
			}
		}
		for _, s := range p.some("google_pubsub_subscription") {
			if s.name == "dead_letter" {
				continue
			}
			pushes++
			to := s.text("dead_letter_policy", "0", "dead_letter_topic")
			if !dead[to] || kept[to] == "" {
				t.Errorf("%s: dead letter %q is no topic with a subscription", s.address, to)
			}
			if !slices.Contains(subscriptionsIn(queries.String()), kept[to]) || !strings.HasSuffix(queries.String(), "}) > 0") {
				t.Errorf("%s: no alert on %s in %s", s.address, kept[to], queries.String())
			}
			backoff := "300s" // of jobs: their next one is the relay's retry
			if strings.HasSuffix(s.text("name"), "-transition") {
				backoff = "10s"
			}
			for path, want := range map[string]string{"dead_letter_policy.0.max_delivery_attempts": "100",
				"retry_policy.0.minimum_backoff": backoff, "retry_policy.0.maximum_backoff": "600s", "ack_deadline_seconds": "600"} {
				if got := s.text(strings.Split(path, ".")...); got != want {
					t.Errorf("%s: %s is %q, want %q", s.address, path, got, want)
				}
			}
		}
		if pushes != len(kept) {
			t.Errorf("%d subscriptions, %d dead letters", pushes, len(kept))
		}
	})
}

var subscriptionForm = regexp.MustCompile(`subscription_id=~"([^"]*)"`)

// subscriptionsIn are those that a query selects.
func subscriptionsIn(query string) (out []string) {
	for _, m := range subscriptionForm.FindAllStringSubmatch(query, -1) {
		out = append(out, strings.Split(m[1], "|")...)
	}
	return out
}

// Pub/Sub's agent dead-letters a message only if it may publish to the dead-letter topic and
// acknowledge the original. It signs pushes in the name of the delivering identity.
func TestPubSubAgent_HasRightsForDeadLetters(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		const agent = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
		granted := map[string]bool{}
		for kind, target := range map[string]string{"google_pubsub_topic_iam_member": "topic",
			"google_pubsub_subscription_iam_member": "subscription", "google_service_account_iam_member": "service_account_id"} {
			for _, m := range p.some(kind) {
				if m.text("member") == agent {
					granted[m.text("role")+" "+m.text(target)] = true
				}
			}
		}
		for _, s := range p.some("google_pubsub_subscription") {
			if s.name == "dead_letter" {
				continue
			}
			signer := "projects/" + project + "/serviceAccounts/" + s.text("push_config", "0", "oidc_token", "0", "service_account_email")
			for _, want := range []string{"roles/pubsub.publisher " + s.text("dead_letter_policy", "0", "dead_letter_topic"),
				"roles/pubsub.subscriber " + s.text("id"), "roles/iam.serviceAccountTokenCreator " + signer} {
				if !granted[want] {
					t.Errorf("%s: the agent lacks %s", s.address, want)
				}
			}
		}
	})
}

func TestF49_OnlyTheDeliveringIdentityMayCallAFunction(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		callers := map[string]string{} // service → who may call it
		for _, m := range p.some("google_cloud_run_v2_service_iam_member") {
			if m.name == "view" {
				continue // people: TestStatusPage_IsOnlyForNamedViewers
			}
			if m.text("role") != "roles/run.invoker" || callers[m.text("name")] != "" {
				t.Errorf("%s: role %s, the service already has the caller %q", m.address, m.text("role"), callers[m.text("name")])
			}
			callers[m.text("name")] = m.text("member")
		}
		byURI, identities := map[string]instance{}, map[string]bool{}
		for _, f := range p.some("google_cloudfunctions2_function") {
			byURI[f.text("service_config", "0", "uri")] = f
			identities["serviceAccount:"+f.text("service_config", "0", "service_account_email")] = true
			if ingress := f.text("service_config", "0", "ingress_settings"); ingress != "ALLOW_INTERNAL_ONLY" && f.text("build_config", "0", "entry_point") != "health" {
				t.Errorf("%s: %s", f.address, ingress)
			}
		}
		if len(byURI) != len(callers) || len(identities) != len(byURI) {
			t.Errorf("%d functions, %d with a caller, %d identities", len(byURI), len(callers), len(identities))
		}
		for _, s := range p.some("google_pubsub_subscription") {
			if s.name == "dead_letter" {
				continue
			}
			token := at(s.value, "push_config", "0", "oidc_token", "0")
			f, ok := byURI[text(token, "audience")]
			if !ok || !strings.HasPrefix(s.text("push_config", "0", "push_endpoint"), text(token, "audience")+"/") {
				t.Errorf("%s: audience %s", s.address, text(token, "audience"))
				continue
			}
			caller := callers[f.text("service_config", "0", "service")]
			if caller != "serviceAccount:"+text(token, "service_account_email") || identities[caller] {
				t.Errorf("%s: delivered by %s, may be called by %s", s.address, text(token, "service_account_email"), caller)
			}
		}
	})
}

// Named viewers may open the status page of health, and no other function. Without viewers, no
// function accepts requests from outside.
func TestStatusPage_IsOnlyForNamedViewers(t *testing.T) {
	for name, viewers := range map[string][]string{"nobody": nil, "two": {"group:data@example.com", "user:ada@example.com"}} {
		t.Run(name, func(t *testing.T) {
			set := cty.SetValEmpty(cty.String)
			if len(viewers) > 0 {
				set = cty.SetVal([]cty.Value{cty.StringVal(viewers[0]), cty.StringVal(viewers[1])})
			}
			p := planned(t, map[string]cty.Value{"viewers": set})
			var got, want []string
			for _, viewer := range viewers { // run.viewer has run.services.get, which the proxy needs
				want = append(want, viewer+" roles/run.invoker", viewer+" roles/run.viewer")
			}
			for _, m := range p.some("google_cloud_run_v2_service_iam_member") {
				if m.name == "view" {
					got = append(got, m.text("member")+" "+m.text("role"))
					if !strings.HasSuffix(m.text("name"), "/phasegate-health") {
						t.Errorf("%s: %s on %s", m.address, m.text("role"), m.text("name"))
					}
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			for _, f := range p.some("google_cloudfunctions2_function") {
				want := "ALLOW_INTERNAL_ONLY"
				if len(viewers) > 0 && f.text("build_config", "0", "entry_point") == "health" {
					want = "ALLOW_ALL"
				}
				if got := f.text("service_config", "0", "ingress_settings"); got != want {
					t.Errorf("%s: %s, want %s", f.address, got, want)
				}
			}
		})
	}
	for _, everybody := range []string{"allUsers", "allAuthenticatedUsers", "ada@example.com", "user:"} {
		q, err := tryPlan(t, map[string]cty.Value{"viewers": cty.SetVal([]cty.Value{cty.StringVal(everybody)})})
		if err != nil || len(q.failed) != 1 || !strings.Contains(q.failed[0], everybody) {
			t.Errorf("%s: %v %q", everybody, err, q.failed)
		}
	}
}

// The test reads the HCL, because lifecycle blocks have no value in a plan.
func TestF49_ACallersRightComesBackWithTheFunction(t *testing.T) {
	m := planned(t, nil)
	child, err := m.load(root+"/modules/function", "", map[string]cty.Value{"project": cty.StringVal(project), "region": cty.StringVal(region),
		"prefix": cty.StringVal(""), "name": cty.StringVal("transition"), "description": cty.StringVal("d"),
		"archive": cty.StringVal(root + "/tests/archives/transition-" + hash + ".zip"), "bucket": cty.StringVal("b"), "build_agent": cty.StringVal("a"),
		"memory": cty.StringVal("256M"), "cpu": cty.StringVal("1"), "concurrency": cty.NumberIntVal(1), "timeout": cty.NumberIntVal(60),
		"max_instances": cty.NumberIntVal(1), "environment": cty.EmptyObjectVal})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range child.blocks["google_cloud_run_v2_service_iam_member.push"].Body.Blocks {
		if a := b.Body.Attributes["replace_triggered_by"]; b.Type == "lifecycle" && a != nil {
			for _, tr := range a.Expr.Variables() {
				if tr.RootName() != "google_cloudfunctions2_function" || tr[1].(hcl.TraverseAttr).Name != "this" {
					continue
				}
				// With the whole function as a trigger, each update would replace the binding.
				if len(tr) != 3 || tr[2].(hcl.TraverseAttr).Name != "id" {
					t.Error("every update of a function replaces the right to call it")
				}
				return
			}
		}
	}
	t.Error("the right to call a function is not replaced together with the function")
}

// Above 1,000 processors, completions wait longer for their shared document. Five instances have to hold
// all completions that arrive in that time.
func TestTransition_HasMoreRequestsAtOnceAboveAThousandProcessors(t *testing.T) {
	for processors, want := range map[int]string{5: "80", 1000: "80", 1001: "250"} {
		file := filepath.Join(t.TempDir(), "wide.yaml")
		if err := os.WriteFile(file, []byte(pipelinetest.Wide(processors, "processor")), 0o600); err != nil {
			t.Fatal(err)
		}
		p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
		for _, f := range p.some("google_cloudfunctions2_function") {
			got, is := f.text("service_config", "0", "max_instance_request_concurrency"), "4"
			if strings.HasSuffix(f.address, `["transition"].google_cloudfunctions2_function.this`) {
				is = want
			}
			if got != is {
				t.Errorf("%d processors: %s has %s requests at once, not %s", processors, f.address, got, is)
			}
		}
	}
}

// settings are those of a function that another way of deploying would reset to the platform's
// defaults.
var settings = []string{"service_account_email", "available_memory", "available_cpu", "max_instance_request_concurrency",
	"timeout_seconds", "max_instance_count", "environment_variables", "ingress_settings", "all_traffic_on_latest_revision"}

func TestF51_EverySettingStandsInTheOnePathThatDeploys(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		for _, f := range p.some("google_cloudfunctions2_function") {
			for _, name := range settings {
				if v := f.at("service_config", "0", name); v == cty.NilVal || v.IsNull() {
					t.Errorf("%s: %s is left to the platform", f.address, name)
				}
			}
			if f.at("event_trigger").LengthInt() > 0 {
				t.Errorf("%s: a subscription of an event trigger can have no dead letter", f.address)
			}
		}
	})
	another := regexp.MustCompile(`gcloud (beta )?(functions deploy|run deploy|run services (update|replace)|pubsub (topics|subscriptions) (create|update)|scheduler jobs (create|update|delete))`)
	read := 0
	for _, pattern := range []string{"../../../Makefile", "../../../README.md", "../../../docs/*.md", "../../../docs/*/*.md", "../../../docs/how-to/runbooks/*.md", "../../../.github/workflows/*.yml", "../../../terraform/*.md", "../../../.ci/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			read++
			if filepath.Base(file) == "flask-on-cloud-run.md" {
				continue // it deploys the reader's own service
			}
			if m := another.Find(b); m != nil {
				t.Errorf("%s deploys without terraform/: %s", file, m)
			}
		}
	}
	if read < 18 {
		t.Errorf("only %d files read", read)
	}
}

func TestF52_ADeploymentsSourceGetsAllTraffic(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		for _, f := range p.some("google_cloudfunctions2_function") {
			if f.text("service_config", "0", "all_traffic_on_latest_revision") != "true" {
				t.Errorf("%s: traffic may stay with an old revision", f.address)
			}
			name := f.text("build_config", "0", "source", "0", "storage_source", "0", "object")
			if name != f.text("build_config", "0", "entry_point")+"-"+hash+".zip" {
				t.Errorf("%s: source %s is not named by its hash: another source would not be deployed", f.address, name)
			}
		}
	})
}

// A million redelivered requests went unseen. Each subscription has an alert on the age of its
// oldest message and one on its refused deliveries.
func TestF47_EverySubscriptionHasAnAlertOnRedeliveries(t *testing.T) {
	inEveryVariant(t, func(t *testing.T, p *plan) {
		all := policies(t, p)["deliveries-failing"]
		found := 0
		for _, s := range p.some("google_pubsub_subscription") {
			if s.name != "push" {
				continue
			}
			found++
			for metric, parts := range map[string][]string{
				"subscription_oldest_unacked_message_age": {"max by (subscription_id)", "}) > "},
				"subscription_push_request_count":         {"sum by (subscription_id) (increase(", `response_class!="ack"`, "> 50"},
			} {
				watched := 0
				for _, c := range conditions(all) {
					query := text(c, "condition_prometheus_query_language", "0", "query")
					if !strings.Contains(query, metric) {
						continue
					}
					for _, name := range subscriptionsIn(query) {
						if name == s.text("name") {
							watched++
						}
					}
					if missing := inOrder(query, parts...); missing != "" {
						t.Errorf("no %s in %q", missing, query)
					}
				}
				if watched != 1 {
					t.Errorf("%s: %s is watched %d times", s.key, metric, watched)
				}
			}
		}
		if found < 3 {
			t.Errorf("only %d subscriptions", found)
		}
	})
}
