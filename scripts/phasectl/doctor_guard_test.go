package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// guardedCloud is a sound deployment whose last phase is guarded, and the pipeline file.
func guardedCloud(t *testing.T) (*cloud, string) {
	t.Helper()
	const service = "    service: nba-phase4-precompute-processors\n"
	file := filepath.Join(t.TempDir(), "guarded.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(pipeline.Default()), service, service+"    guard: {paths: [/process]}\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := soundCloud(t)
	c.answers["/v1/projects/p/topics/nba-phase4-trigger/subscriptions"] = `{"subscriptions":["projects/p/subscriptions/phase4","projects/p/subscriptions/pulled","projects/p/subscriptions/other","_deleted-subscription_"]}`
	push := func(name, endpoint string) {
		c.answers["/v1/projects/p/subscriptions/"+name] = fmt.Sprintf(`{"name":"projects/p/subscriptions/%s","ackDeadlineSeconds":600,"pushConfig":{"pushEndpoint":%q},
			"retryPolicy":{"minimumBackoff":"10s","maximumBackoff":"600s"},"deadLetterPolicy":{"deadLetterTopic":"projects/p/topics/dead","maxDeliveryAttempts":20}}`, name, endpoint)
	}
	push("phase4", "https://phase4.run.app/process?x=1")
	push("pulled", "")
	push("other", "https://other.run.app/")
	return c, file
}

func TestDoctor_ChecksTheSubscriptionsOfAGuardedService(t *testing.T) {
	const path = "/v1/projects/p/subscriptions/phase4"
	for name, tc := range map[string]struct {
		change func(*cloud)
		code   int
		parts  []string
	}{
		"sound": {func(*cloud) {}, 0, []string{"ok       subscription phase4: a message is not dead-lettered during a run of an hour"}},
		"no_retry_policy": {func(c *cloud) { c.change(path, `"retryPolicy":{"minimumBackoff":"10s","maximumBackoff":"600s"},`, "") }, 1,
			[]string{"failing  subscription phase4: it has no retry policy", "gcloud pubsub subscriptions update phase4 --ack-deadline=600 --min-retry-delay=10s --max-retry-delay=600s --project=p --max-delivery-attempts=100"}},
		"few_attempts": {func(c *cloud) { c.change(path, ":20}", ":19}") }, 1, []string{"failing  subscription phase4: it dead-letters after 19 attempts, which a long run uses: 20 are needed"}},
		"no_dead_letter": {func(c *cloud) {
			c.change(path, `,"deadLetterPolicy":{"deadLetterTopic":"projects/p/topics/dead","maxDeliveryAttempts":20}`, "")
		}, 0, []string{"ok       subscription phase4: "}},
		"short_deadline": {func(c *cloud) { c.change(path, ":600", ":10") }, 1, []string{"failing  subscription phase4: its ack deadline is 10 s"}},
		"other_path":     {func(c *cloud) { c.change(path, "/process", "/other") }, 0, []string{"ok       subscriptions of guarded nba-phase4-precompute-processors: topic nba-phase4-trigger has none yet that pushes to /process"}},
		"no_topic": {func(c *cloud) { delete(c.answers, "/v1/projects/p/topics/nba-phase4-trigger/subscriptions") }, 1,
			[]string{"failing  subscriptions of guarded nba-phase4-precompute-processors: topic nba-phase4-trigger does not exist"}},
		"not_allowed": {func(c *cloud) { c.answers["/v1/projects/p/topics/nba-phase4-trigger/subscriptions"] = "403 denied" }, 2, []string{"unknown  subscriptions of guarded", "--role=roles/pubsub.viewer"}},
		"one_is_not":  {func(c *cloud) { c.answers[path] = "403 denied" }, 2, []string{"unknown  subscription phase4: ", "--role=roles/pubsub.viewer"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, file := guardedCloud(t)
			tc.change(c)
			c.serve()
			if out := diagnose(t, tc.code, tc.parts, "--pipeline", file); strings.Contains(out, "subscription other") || strings.Contains(out, "subscription pulled") {
				t.Errorf("doctor checks a subscription that is not guarded:\n%s", out)
			}
		})
	}
}
