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

// Critical alerts go to the pager, the others to Slack or tickets. An alert without a channel of its
// own goes to the mail address. The alert on failed Slack messages also goes there.
func TestF38_EveryAlertReachesAPersonWhoCanAct(t *testing.T) {
	const email, slack = "projects/" + project + "/notificationChannels/email", "projects/" + project + "/notificationChannels/slack"
	const pager, tickets = "projects/" + project + "/notificationChannels/1", "projects/" + project + "/notificationChannels/2"
	withSlack := map[string]cty.Value{"slack_channel": cty.StringVal("#alerts"), "slack_token": cty.StringVal("xoxb-secret")}
	one := func(id string) cty.Value { return cty.SetVal([]cty.Value{cty.StringVal(id)}) }
	for name, tc := range map[string]struct {
		vars                      map[string]cty.Value
		critical, other, ofNotify []string
	}{
		"mail":              {nil, []string{email}, []string{email}, []string{email}},
		"mail_and_slack":    {withSlack, []string{email}, []string{slack}, []string{slack, email}},
		"pager":             {map[string]cty.Value{"critical_channels": one(pager)}, []string{pager}, []string{email}, []string{email}},
		"pager_and_tickets": {map[string]cty.Value{"critical_channels": one(pager), "other_channels": one(tickets)}, []string{pager}, []string{tickets}, []string{tickets, email}},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, tc.vars)
			for key, policy := range policies(t, p) {
				var to []string
				for _, c := range policy.at("notification_channels").AsValueSlice() {
					to = append(to, c.AsString())
				}
				want := tc.other
				switch {
				case policy.text("severity") == "CRITICAL":
					want = tc.critical
				case page(key) == "notify-failed":
					want = tc.ofNotify
				}
				if !slices.Equal(to, want) {
					t.Errorf("%s, %s, goes to %v, want %v", key, policy.text("severity"), to, want)
				}
				checkPolicy(t, key, policy)
			}
		})
	}
	for _, variable := range []string{"critical_channels", "other_channels"} {
		q, err := tryPlan(t, map[string]cty.Value{variable: one("#alerts")})
		if err != nil || len(q.failed) != 1 || !strings.Contains(q.failed[0], variable+": #alerts") {
			t.Errorf("%v %q", err, q.failed)
		}
	}
}

// The number of alerts is limited, because Monitoring charges for each condition, and a project may have
// some 500 log metrics.
func TestAlerts_StayFew(t *testing.T) {
	type counts struct{ policies, conditions, metrics int }
	for name, tc := range map[string]struct {
		file  string
		limit counts
	}{
		"nba":    {"../../../shared/pipeline/nba.yaml", counts{25, 30, 12}},
		"retail": {"../../dev/demo/retail.yaml", counts{26, 32, 12}}, // one more phase of processors
	} {
		t.Run(name, func(t *testing.T) {
			file, err := filepath.Abs(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
			got := counts{policies: len(policies(t, p)), metrics: len(p.some("google_logging_metric"))}
			for _, policy := range policies(t, p) {
				got.conditions += len(conditions(policy))
			}
			t.Logf("%d policies, %d conditions, %d log metrics", got.policies, got.conditions, got.metrics)
			if got.policies > tc.limit.policies || got.conditions > tc.limit.conditions || got.metrics > tc.limit.metrics {
				t.Errorf("%+v, at most %+v", got, tc.limit)
			}
		})
	}
}

// The names of alerts on errors come from the names of the pipeline.
func TestAlerts_AreNamedAfterThePipeline(t *testing.T) {
	for name, tc := range map[string]struct {
		file, prefix string
		want         []string
	}{
		"nba": {"../../../shared/pipeline/nba.yaml", "",
			[]string{"Phase 3 Analytics Processors High Error Rate", "Phase 3 Orchestrator High Error Rate", "Phase 4 Precompute Processors High Error Rate"}},
		"retail": {"../../dev/demo/retail.yaml", "", []string{"Enrich Orchestrator, Aggregate Orchestrator High Error Rate", "Phase 2 Enrich Processors High Error Rate",
			"Phase 3 Aggregate Processors High Error Rate", "Phase 4 Forecast Processors High Error Rate"}},
		"another environment": {"../../../shared/pipeline/nba.yaml", "dev-",
			[]string{"dev: Phase 3 Analytics Processors High Error Rate", "dev: Phase 3 Orchestrator High Error Rate", "dev: Phase 4 Precompute Processors High Error Rate"}},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := filepath.Abs(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, policy := range policies(t, planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file), "prefix": cty.StringVal(tc.prefix)})) {
				if strings.HasSuffix(policy.text("display_name"), "High Error Rate") {
					got = append(got, policy.text("display_name"))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

var (
	placeholder = regexp.MustCompile(`\$\{(log\.extracted_label|metric_or_resource\.label)\.([a-z_]+)\}`)
	groupedBy   = regexp.MustCompile(`(?:sum|max) by \(([a-z_, ]+)\)`)
)

// An alert's text names labels such as the period, the mode and the check. Only labels that a log match
// extracts or that the query groups by have a value.
func TestAlerts_TextsNameLabelsThatHaveValues(t *testing.T) {
	named := map[string]bool{}
	for key, policy := range policies(t, withGuard(t)) {
		content := policy.text("documentation", "0", "content")
		if regexp.MustCompile(`\b(PERIOD|MODE|SERVICE|TABLE)\b`).MatchString(content) {
			t.Errorf("%s has a placeholder that a reader would have to replace:\n%s", key, content)
		}
		for _, m := range placeholder.FindAllStringSubmatch(content, -1) {
			named[m[2]] = true
			for _, c := range conditions(policy) {
				extracted := text(c, "condition_matched_log", "0", "label_extractors", m[2]) != ""
				by := groupedBy.FindStringSubmatch(text(c, "condition_prometheus_query_language", "0", "query"))
				grouped := by != nil && slices.Contains(strings.Split(by[1], ", "), m[2])
				if m[1] == "log.extracted_label" && !extracted || m[1] != "log.extracted_label" && !grouped {
					t.Errorf("%s: %s: nothing gives label %s a value", key, text(c, "display_name"), m[0])
				}
			}
		}
	}
	if content := policies(t, planned(t, nil))["left-unfinished"].text("documentation", "0", "content"); !regexp.MustCompile(`phasectl status \$\{[a-z_.]+\.period\} --project`).MatchString(content) || !strings.Contains(content, "label.type}") {
		t.Errorf("left-unfinished names no command for a finding without a mode:\n%s", content) // as of period_full
	}
	for _, key := range []string{"hand-over-latency/critical-900s", "cycle-overdue", "cycle-blocked"} {
		content := policies(t, planned(t, nil))[key].text("documentation", "0", "content")
		if !regexp.MustCompile(`phasectl explain \$\{[a-z_.]+\.period\} \$\{[a-z_.]+\.mode\}`).MatchString(content) {
			t.Errorf("%s does not name the cycle:\n%s", key, content)
		}
	}
	for _, label := range []string{"period", "mode", "service_name", "subscription_id", "lock", "table", "check", "receipt", "key"} {
		if !named[label] {
			t.Errorf("no text names a %s", label)
		}
	}
}

func checkPolicy(t *testing.T, key string, policy instance) {
	t.Helper()
	link := policy.text("documentation", "0", "links", "0", "url")
	if want := "https://github.com/phasegate/phasegate/blob/main/docs/how-to/runbooks/" + page(key) + ".md"; link != want ||
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
	all := conditions(policy)
	for _, c := range all {
		matched := text(c, "condition_matched_log", "0", "filter") != ""
		query := text(c, "condition_prometheus_query_language", "0", "query")
		if matched == (query != "") {
			t.Errorf("%s: want either a log match or a query", key)
		}
		if matched && len(all) > 1 {
			t.Errorf("%s: a log match must be the only condition of its policy", key)
		}
		// The platform requires a rate limit for a log match, and for no other condition.
		if limit := policy.text("alert_strategy", "0", "notification_rate_limit", "0", "period"); (limit != "") != matched {
			t.Errorf("%s: rate limit %q", key, limit)
		}
		if query != "" && text(c, "condition_prometheus_query_language", "0", "disable_metric_validation") != "true" {
			t.Errorf("%s cannot be created before its metric has a value", key)
		}
	}
}

// The metrics that queries read: those of the platform by name, with their resource types, and
// those of counted events, which must be planned.
var (
	metricForm = regexp.MustCompile(`([a-z_]+_googleapis_com:[a-z0-9_]+)\{([^}]*)\}(\[[0-9]+s\])?`)
	platforms  = map[string]string{
		"run_googleapis_com:request_count":                              "cloud_run_revision",
		"pubsub_googleapis_com:subscription_num_undelivered_messages":   "pubsub_subscription",
		"pubsub_googleapis_com:subscription_oldest_unacked_message_age": "pubsub_subscription",
		"pubsub_googleapis_com:subscription_push_request_count":         "pubsub_subscription",
	}
	labelForm = regexp.MustCompile(`([a-z_]+)(?:!=|=~|=)"`)
	labelsOf  = map[string][]string{ // that queries may select by, besides a counted event's own
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
		for n := range 10 { // as many as a metric may have
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
		for _, c := range conditions(i) {
			if q := text(c, "condition_prometheus_query_language", "0", "query"); q != "" {
				queries = append(queries, q)
			}
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
	if alerts < 15 || len(queries) < alerts+13 {
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

// Alerts on cycles open one incident for each cycle, so that an open incident does not hide the next
// cycle.
func TestAlerts_CountPerCycle(t *testing.T) {
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
		query := text(conditions(policy)[0], "condition_prometheus_query_language", "0", "query")
		if !strings.HasPrefix(query, "sum by ("+strings.Join(by, ", ")+") (increase(") {
			t.Errorf("%s is not counted by %v: %s", key, by, query)
		}
		m := counted.FindStringSubmatch(query)
		for _, metric := range p.some("google_logging_metric") {
			if m == nil || metric.text("name") != m[1] {
				continue
			}
			for _, l := range by {
				if got, want := text(metric.at("label_extractors"), l), "EXTRACT(jsonPayload."+l+")"; got != want {
					t.Errorf("%s: label %s is %q, want %q", metric.address, l, got, want)
				}
			}
		}
	}
}

// Each alert has one page in docs/how-to/runbooks, and each page has an alert.
func TestRunbooks_MatchAlertsOneToOne(t *testing.T) {
	p := withGuard(t)
	pages := map[string]bool{}
	for key := range policies(t, p) {
		pages[page(key)] = true
	}
	files, err := filepath.Glob("../../../docs/how-to/runbooks/*.md")
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
				t.Errorf("%s: no heading %q in its order", file, heading)
				break
			}
			if section, _, _ := strings.Cut(after, "\n## "); len(strings.TrimSpace(section)) < 20 {
				t.Errorf("%s: section %q is empty", file, heading)
			}
			rest = after
		}
	}
	for name := range pages {
		t.Errorf("docs/how-to/runbooks/%s.md is missing", name)
	}
}
