package terraform

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

func TestF38_EveryAlertReachesSomebodyWhoCanAct(t *testing.T) {
	for name, vars := range map[string]map[string]cty.Value{
		"mail": nil, "mail_and_slack": {"slack_channel": cty.StringVal("#alerts"), "slack_token": cty.StringVal("xoxb-secret")},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, vars)
			channels := map[string]bool{}
			for _, c := range p.some("google_monitoring_notification_channel") {
				channels[c.text("id")] = true
			}
			if want := 1 + len(vars)/2; len(channels) != want {
				t.Errorf("%d channels, want %d", len(channels), want)
			}
			for key, policy := range policies(t, p) {
				var to []string
				for _, c := range policy.at("notification_channels").AsValueSlice() {
					to = append(to, c.AsString())
				}
				if len(to) != len(channels) || slices.ContainsFunc(to, func(c string) bool { return !channels[c] }) {
					t.Errorf("%s goes to %v, there are %v", key, to, channels)
				}
				checkPolicy(t, key, policy)
			}
		})
	}
}

func checkPolicy(t *testing.T, key string, policy instance) {
	t.Helper()
	link := policy.text("documentation", "0", "links", "0", "url")
	if want := "https://github.com/phasegate/phasegate/blob/main/docs/runbooks/" + page(key) + ".md"; link != want ||
		!strings.Contains(policy.text("documentation", "0", "content"), link) {
		t.Errorf("%s: runbook %q, want %q, in the text as well", key, link, want)
	}
	if !regexp.MustCompile(`\n    (gcloud|phasectl) \S`).MatchString(policy.text("documentation", "0", "content")) {
		t.Errorf("%s names no first command:\n%s", key, policy.text("documentation", "0", "content"))
	}
	if !slices.Contains([]string{"WARNING", "ERROR", "CRITICAL"}, policy.text("severity")) {
		t.Errorf("%s: severity %q", key, policy.text("severity"))
	}
	if policy.text("alert_strategy", "0", "auto_close") == "" {
		t.Errorf("%s never closes", key)
	}
	if n := policy.at("conditions").LengthInt(); n != 1 {
		t.Errorf("%s has %d conditions", key, n)
	}
	matched := policy.text("conditions", "0", "condition_matched_log", "0", "filter") != ""
	query := policy.text("conditions", "0", "condition_prometheus_query_language", "0", "query")
	if matched == (query != "") {
		t.Errorf("%s: a log match and a query, or neither", key)
	}
	// The platform wants a rate limit of a log match, and of nothing else.
	if limit := policy.text("alert_strategy", "0", "notification_rate_limit", "0", "period"); (limit != "") != matched {
		t.Errorf("%s: rate limit %q", key, limit)
	}
	if query != "" && policy.text("conditions", "0", "condition_prometheus_query_language", "0", "disable_metric_validation") != "true" {
		t.Errorf("%s cannot be made before its metric has a value", key)
	}
}

// The metrics that queries read: the platform's by name, with what each is about, and
// counted events, which must be planned.
var (
	metricForm = regexp.MustCompile(`([a-z_]+_googleapis_com:[a-z0-9_]+)\{([^}]*)\}(\[[0-9]+s\])?`)
	platforms  = map[string]string{
		"run_googleapis_com:request_count":                              "cloud_run_revision",
		"pubsub_googleapis_com:subscription_num_undelivered_messages":   "pubsub_subscription",
		"pubsub_googleapis_com:subscription_oldest_unacked_message_age": "pubsub_subscription",
		"pubsub_googleapis_com:subscription_push_request_count":         "pubsub_subscription",
	}
	labelForm = regexp.MustCompile(`([a-z_]+)!?="`)
	labelsOf  = map[string][]string{ // that queries may select by, beside a counted event's own
		"cloud_run_revision":  {"service_name", "response_code_class"},
		"pubsub_subscription": {"subscription_id", "response_class"},
	}
	counters = []string{"request_count", "push_request_count", "user_"}
)

func TestF37_QueriesReadMetricsThatExistAndCountsAreCounts(t *testing.T) {
	p := planned(t, nil)
	planned, labels := map[string]bool{}, map[string][]string{}
	for _, m := range p.some("google_logging_metric") {
		name := "logging_googleapis_com:user_" + m.text("name")
		planned[name] = true
		for n := range 5 {
			key := m.text("metric_descriptor", "0", "labels", strconv.Itoa(n), "key")
			if key == "" {
				break
			}
			labels[name] = append(labels[name], key)
			if text(m.at("label_extractors"), key) == "" {
				t.Errorf("%s: nothing is extracted for label %s", m.address, key)
			}
		}
	}
	var queries []string
	for _, i := range p.some("google_monitoring_alert_policy") {
		if q := i.text("conditions", "0", "condition_prometheus_query_language", "0", "query"); q != "" {
			queries = append(queries, q)
		}
	}
	alerts := len(queries)
	for _, q := range regexp.MustCompile(`"prometheusQuery":("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(p.some("google_monitoring_dashboard")[0].text("dashboard_json"), -1) {
		text, err := strconv.Unquote(q[1])
		if err != nil {
			t.Fatal(err)
		}
		queries = append(queries, text)
	}
	if alerts < 15 || len(queries) < alerts+20 {
		t.Fatalf("only %d queries of alerts, %d with the dashboard's", alerts, len(queries))
	}
	for _, q := range queries {
		metrics := metricForm.FindAllStringSubmatch(q, -1)
		if len(metrics) == 0 || strings.Count(q, "_googleapis_com:") != len(metrics) {
			t.Errorf("%s: metrics are not of the form NAME{LABELS}", q)
		}
		for _, m := range metrics {
			resource := "cloud_run_revision"
			if !planned[m[1]] {
				resource = platforms[m[1]]
			}
			if resource == "" {
				t.Errorf("%s: no metric %s", q, m[1])
			}
			if !strings.Contains(m[2], `monitored_resource="`+resource+`"`) {
				t.Errorf("%s: %s is not of %s", q, m[1], resource)
			}
			for _, l := range labelForm.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "monitored_resource" && !slices.Contains(append(labelsOf[resource], labels[m[1]]...), l[1]) {
					t.Errorf("%s: %s has no label %s", q, m[1], l[1])
				}
			}
			counter := slices.ContainsFunc(counters, func(c string) bool { return strings.Contains(m[1], c) })
			if counted := strings.Contains(q, "increase("+m[0]+")"); counted != counter {
				t.Errorf("%s: %s is a counter: %v, its increase is taken: %v", q, m[1], counter, counted)
			}
		}
		if strings.Contains(q, "rate(") {
			t.Errorf("%s: a rate is per second and no count", q)
		}
		if strings.Contains(q, "cloud_function\"") {
			t.Errorf("%s: functions log and measure as cloud_run_revision", q)
		}
	}
}

// What is said about cycles opens an incident a cycle: one that has been open for hours
// does not hide the next.
func TestWhatIsSaidAboutCyclesIsCountedByCycle(t *testing.T) {
	p := planned(t, nil)
	policies := policies(t, p)
	for key, by := range map[string][]string{
		"cycle-blocked": {"mode", "period", "transition"}, "cycle-overdue": {"mode", "period", "transition"},
		"left-unfinished": {"mode", "period", "transition", "type"},
	} {
		policy, ok := policies[key]
		if !ok {
			t.Errorf("there is no alert %s", key)
			continue
		}
		query := policy.text("conditions", "0", "condition_prometheus_query_language", "0", "query")
		if !strings.HasPrefix(query, "sum by ("+strings.Join(by, ", ")+") (increase(") {
			t.Errorf("%s is not counted by %v: %s", key, by, query)
		}
		for _, m := range p.some("google_logging_metric") {
			if m.name != "errors" || m.key != key {
				continue
			}
			for _, l := range by {
				if got, want := text(m.at("label_extractors"), l), "EXTRACT(jsonPayload."+l+")"; got != want {
					t.Errorf("%s: label %s is %q, want %q", m.address, l, got, want)
				}
			}
		}
	}
}

// Pages of docs/runbooks and alerts stand for each other.
func TestEveryAlertHasItsRunbookAndEveryRunbookItsAlert(t *testing.T) {
	p := planned(t, nil)
	pages := map[string]bool{}
	for key := range policies(t, p) {
		pages[page(key)] = true
	}
	files, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if !pages[name] {
			t.Errorf("%s belongs to no alert", file)
		}
		delete(pages, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(string(b), "# "+name+"\n")
		if !ok {
			t.Errorf("%s does not begin with its name", file)
		}
		for _, heading := range []string{"## Meaning\n", "## Look\n", "## Repair\n", "## Prevent\n", "## Escalate\n"} {
			_, after, ok := strings.Cut(rest, heading)
			if !ok {
				t.Errorf("%s: no %q after what comes before it", file, heading)
				break
			}
			if section, _, _ := strings.Cut(after, "\n## "); len(strings.TrimSpace(section)) < 20 {
				t.Errorf("%s: %q says nothing", file, heading)
			}
			rest = after
		}
	}
	for name := range pages {
		t.Errorf("docs/runbooks/%s.md is missing", name)
	}
}
