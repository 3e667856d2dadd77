package terraform

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

const example = root + "/examples/guarded-service"

// exampled evaluates the example of a guarded service, with guard as settings of its phase.
func exampled(t *testing.T, mode, guard string, more map[string]cty.Value) *plan {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(`
phases:
  - {name: marts}
  - name: reports
    service: shop-reports
    `+guard+`
transitions:
  - {id: marts_to_reports, downstream: {phase: reports, topic: shop-reports-trigger}}
  - {id: raw_to_marts, downstream: {phase: marts, topic: shop-marts-trigger}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := map[string]cty.Value{"project": cty.StringVal(project), "region": cty.StringVal(region), "pipeline_file": cty.StringVal(file), "phase": cty.StringVal("reports"),
		"mode": cty.StringVal(mode), "image": cty.StringVal("shop"), "prefix": cty.StringVal("dev-")}
	for name, value := range more {
		vars[name] = value
	}
	p := &plan{t: t}
	var err error
	if p.module, err = p.load(example, "", vars); err == nil {
		err = p.module.everything()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGuardedService_HasASubscriptionThatOutlastsARunOfAnHour(t *testing.T) {
	p := exampled(t, "parent", "guard: {paths: [/process, /other]}", nil)
	pushes := 0
	for _, s := range p.some("google_pubsub_subscription") {
		if s.name != "push" {
			continue
		}
		pushes++
		attempts, err := strconv.Atoi(s.text("dead_letter_policy", "0", "max_delivery_attempts"))
		if s.text("name") != "dev-shop-reports-trigger-shop-reports" || !strings.HasSuffix(s.text("topic"), "/topics/dev-shop-reports-trigger") || s.text("ack_deadline_seconds") != "600" ||
			err != nil || attempts < 20 || s.text("retry_policy", "0", "minimum_backoff") != "10s" || s.text("retry_policy", "0", "maximum_backoff") != "600s" ||
			!strings.HasSuffix(s.text("push_config", "0", "push_endpoint"), ".run.app/process") {
			t.Errorf("%v", s.value)
		}
	}
	if pushes != 1 {
		t.Errorf("%d subscriptions, want that of the one topic of the phase", pushes)
	}
	agent := "serviceAccount:service-" + projectNumber + "@gcp-sa-pubsub.iam.gserviceaccount.com"
	for _, kind := range []string{"google_pubsub_topic_iam_member", "google_pubsub_subscription_iam_member", "google_service_account_iam_member"} {
		if got := p.some(kind)[0].text("member"); got != agent {
			t.Errorf("%s of %s", kind, got)
		}
	}
	if role := p.some("google_cloud_run_v2_service_iam_member")[0]; role.text("role") != "roles/run.invoker" || !strings.HasPrefix(role.text("member"), "serviceAccount:dev-push-") {
		t.Errorf("%v", role.value)
	}
}

func TestGuardedService_HasTheContainersOfItsMode(t *testing.T) {
	for mode, want := range map[string][]string{"parent": {"service"}, "sidecar": {"guard", "service"}} {
		t.Run(mode, func(t *testing.T) {
			p := exampled(t, mode, "guard: {}", map[string]cty.Value{"guard_image": cty.StringVal("guard")})
			if len(p.failed) > 0 {
				t.Fatalf("%q", p.failed)
			}
			template := p.some("google_cloud_run_v2_service")[0].at("template", "0")
			containers := at(template, "containers").AsValueSlice()
			if len(containers) != len(want) || text(template, "timeout") != "3600s" || text(template, "max_instance_request_concurrency") != "1" {
				t.Fatalf("%v", template)
			}
			for i, c := range containers {
				if text(c, "name") != want[i] || text(c, "resources", "0", "cpu_idle") != "false" {
					t.Errorf("container %d: %v", i, c)
				}
				// The first is the ingress container, and it alone reads the state.
				env := map[string]string{}
				for n := range at(c, "env").LengthInt() {
					env[text(c, "env", strconv.Itoa(n), "name")] = text(c, "env", strconv.Itoa(n), "value")
				}
				if port := text(c, "ports", "0", "container_port"); (port == "8080") != (i == 0) || (env["PHASEGATE_STORE"] == "firestore:(default)" && env["PHASEGATE_PREFIX"] == "dev-" && env["GOOGLE_CLOUD_PROJECT"] == project) != (i == 0) {
					t.Errorf("container %s: port %s, %v", want[i], port, env)
				}
			}
			last := containers[len(containers)-1]
			if probe := text(last, "startup_probe", "0", "tcp_socket", "0", "port"); probe != map[string]string{"parent": "8080", "sidecar": "8081"}[mode] {
				t.Errorf("the startup probe of the service uses port %s", probe)
			}
			if mode == "sidecar" && (text(containers[0], "depends_on", "0") != "service" || text(containers[0], "args", "0") != "--phase=reports" || text(containers[0], "args", "1") != "--upstream=http://127.0.0.1:8081") {
				t.Errorf("%v", containers[0])
			}
		})
	}
}

func TestGuardedService_NamesWrongSettings(t *testing.T) {
	image := map[string]cty.Value{"guard_image": cty.StringVal("guard")}
	for name, tc := range map[string]struct {
		mode, guard string
		more        map[string]cty.Value
		want        string
	}{
		"no guard":            {"parent", "processors: []", nil, `phase: "reports" has no key guard`},
		"no image":            {"sidecar", "guard: {}", nil, `guard_image: is required with mode = "sidecar"`},
		"kill of a neighbour": {"sidecar", "guard: {on_lost: kill}", image, `needs mode = "parent"`},
		"unknown mode":        {"proxy", "guard: {}", image, `mode: "proxy" is not parent or sidecar`},
	} {
		if p := exampled(t, tc.mode, tc.guard, tc.more); len(p.failed) == 0 || !strings.Contains(strings.Join(p.failed, "\n"), tc.want) {
			t.Errorf("%s: %q, want %q", name, p.failed, tc.want)
		}
	}
}
