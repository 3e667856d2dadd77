package terraform

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

// policies returns the alert policies by key.
func policies(t *testing.T, p *plan) map[string]instance {
	t.Helper()
	out := map[string]instance{}
	for _, i := range p.some("google_monitoring_alert_policy") {
		out[i.key] = i
	}
	return out
}

func page(key string) string {
	name, _, _ := strings.Cut(key, ":")
	name, _, _ = strings.Cut(name, "/")
	return name
}

// conditions returns the conditions of a policy.
func conditions(policy instance) []cty.Value { return policy.at("conditions").AsValueSlice() }

var (
	counted  = regexp.MustCompile(`logging_googleapis_com:user_([a-z0-9_]+)\{([^}]*)\}`)
	selector = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

// counts returns the filter of the entries that a query over a counted event counts: the filter of
// the metric with the labels that the query selects. It returns nil for other queries, and for
// queries about absence.
func counts(t *testing.T, p *plan, query string) filter {
	t.Helper()
	m := counted.FindStringSubmatch(query)
	if m == nil || strings.Contains(query, "vector(0)") {
		return nil
	}
	for _, metric := range p.some("google_logging_metric") {
		if metric.text("name") != m[1] {
			continue
		}
		f, err := parseFilter(metric.text("filter"))
		if err != nil {
			t.Errorf("%s: %v", metric.address, err)
		}
		for _, l := range selector.FindAllStringSubmatch(m[2], -1) {
			path := "resource.labels." + l[1]
			if x := extractor.FindStringSubmatch(text(metric.at("label_extractors"), l[1])); x != nil {
				path = x[1]
			}
			if l[1] != "monitored_resource" {
				f = append(f, comparison{path: path, op: "=", value: strconv.Quote(l[2])})
			}
		}
		return f
	}
	t.Errorf("%s: no metric %s", query, m[1])
	return nil
}

// filters returns every log filter of the alerts, by the alert's key and the condition's title.
// They are those of log matches, and those of counted entries.
func filters(t *testing.T, p *plan) map[string]filter {
	t.Helper()
	out := map[string]filter{}
	for key, policy := range policies(t, p) {
		for _, c := range conditions(policy) {
			f := counts(t, p, text(c, "condition_prometheus_query_language", "0", "query"))
			if filterText := text(c, "condition_matched_log", "0", "filter"); filterText != "" {
				var err error
				if f, err = parseFilter(filterText); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
			if f != nil {
				out[key+": "+text(c, "display_name")] = f
			}
		}
	}
	return out
}

// Log lines of programs that are not ours: the platform's scheduler, and processors in other
// languages. The text is as these programs write it.
var (
	strangers = map[string]string{
		"scheduler-failed": `{"severity":"ERROR","logName":"projects/nba-test-project/logs/cloudscheduler.googleapis.com%2Fexecutions","resource":{"type":"cloud_scheduler_job","labels":{"job_id":"phasegate-relay","location":"us-central1"}},
			"jsonPayload":{"@type":"type.googleapis.com/google.cloud.scheduler.logging.AttemptFinished","status":"PERMISSION_DENIED","targetType":"PUB_SUB"}}`,
		"processor-errors": `{"severity":"ERROR","logName":"projects/nba-test-project/logs/python","resource":{"type":"cloud_run_revision","labels":{"service_name":"nba-phase3-analytics-processors"}},
			"jsonPayload":{"message":"Traceback (most recent call last): …"}}`,
	}
	fineStrangers = []string{
		`{"severity":"INFO","logName":"projects/nba-test-project/logs/cloudscheduler.googleapis.com%2Fexecutions","resource":{"type":"cloud_scheduler_job","labels":{"job_id":"phasegate-relay","location":"us-central1"}},
			"jsonPayload":{"@type":"type.googleapis.com/google.cloud.scheduler.logging.AttemptFinished","targetType":"PUB_SUB"}}`,
		`{"severity":"INFO","logName":"projects/nba-test-project/logs/python","resource":{"type":"cloud_run_revision","labels":{"service_name":"nba-phase3-analytics-processors"}},"jsonPayload":{"message":"done"}}`,
		`{"severity":"ERROR","logName":"projects/nba-test-project/logs/run.googleapis.com%2Frequests","resource":{"type":"cloud_run_revision","labels":{"service_name":"nba-phase3-analytics-processors"}},
			"httpRequest":{"status":503}}`, // which is counted with the requests
		`{"severity":"ERROR","logName":"projects/nba-test-project/logs/run.googleapis.com%2Frequests","resource":{"type":"cloud_run_revision","labels":{"service_name":"phasegate-transition"}},
			"httpRequest":{"status":503}}`,
		`{"severity":"ERROR","logName":"projects/nba-test-project/logs/run.googleapis.com%2Fstdout","resource":{"type":"cloud_run_revision","labels":{"service_name":"somebody-elses-service"}},"jsonPayload":{"message":"not ours"}}`,
		`{"severity":"ERROR","logName":"projects/nba-test-project/logs/cloudscheduler.googleapis.com%2Fexecutions","resource":{"type":"cloud_scheduler_job","labels":{"job_id":"dev-phasegate-relay"}},"jsonPayload":{"message":"of another environment"}}`,
		`{"severity":"ERROR","logName":"projects/nba-test-project/logs/run.googleapis.com%2Fstdout","resource":{"type":"cloud_run_revision","labels":{"service_name":"dev-phasegate-reconcile"}},"jsonPayload":{"event":"cycle_overdue","message":"of another environment"}}`,
		`{"severity":"ERROR","resource":{"type":"cloud_run_job","labels":{"job_name":"a-job"}},"jsonPayload":{"event":"lock_lost","collection":"dev-processing_locks","message":"of another environment"}}`,
	}
)

func stranger(t *testing.T, s string) (e entry) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestF37_EachFilterFiresOnARecordedBadLineAndIsSilentOnAGoodNight(t *testing.T) {
	good, bad, _ := recordings(t)
	for _, s := range fineStrangers {
		good = append(good, stranger(t, s))
	}
	quiet := map[string]bool{} // keys of filters that match no bad line
	all := filters(t, withGuard(t))
	for key, f := range all {
		t.Run(key, func(t *testing.T) {
			for _, e := range good {
				if f.matches(e) {
					t.Errorf("fires on a good night: %+v", e)
				}
			}
		})
		wrong := bad[page(key)]
		if s, ok := strangers[page(key)]; ok {
			wrong = []entry{stranger(t, s), stranger(t, strings.ReplaceAll(s, "nba-phase3-analytics-processors", "nba-phase4-precompute-processors")),
				stranger(t, strings.ReplaceAll(s, "phasegate-relay", "phasegate-nightly")),
				stranger(t, strings.ReplaceAll(s, "phasegate-relay", "phasegate-sweep")),
				stranger(t, strings.ReplaceAll(s, "phasegate-relay", "phasegate-health"))}
		}
		if !slices.ContainsFunc(wrong, f.matches) {
			quiet[key] = true
		}
	}
	for key := range quiet {
		t.Errorf("%s fires on none of the lines that were recorded for it", key)
	}
	for page := range bad {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(key string) bool { return strings.HasPrefix(key, page) }) {
			t.Errorf("the recorded fault %s has no alert", page)
		}
	}
}

// A log line matches one alert, apart from the two alerts that count all errors. The report of
// reconciliation is an exception: it has several results.
func TestAlerts_LogLineTriggersOneAlert(t *testing.T) {
	_, bad, _ := recordings(t)
	all := filters(t, withGuard(t))
	both := map[string]bool{}
	for _, lines := range bad {
		for _, e := range lines {
			pages := map[string]bool{}
			for key, f := range all {
				if general := strings.HasPrefix(key, "function-errors") || strings.HasPrefix(key, "processor-errors"); !general && f.matches(e) && e.JSONPayload["event"] != "report" {
					pages[page(key)] = true
				}
			}
			if len(pages) > 1 {
				both[strings.Join(slices.Sorted(maps.Keys(pages)), " and ")] = true
			}
		}
	}
	if len(both) > 0 {
		t.Errorf("one line fires several alerts: %v", slices.Sorted(maps.Keys(both)))
	}
}

// An operator decides to hold a cycle: the hold is logged, and fires no alert while it lasts.
func TestAlerts_HoldByPersonSetsOffNone(t *testing.T) {
	r := record(t)
	onHold(r)
	logged := 0
	for _, e := range r.entries {
		if e.JSONPayload["event"] == "cycle_on_hold" {
			logged++
		}
		for key, f := range filters(t, withGuard(t)) {
			if f.matches(e) {
				t.Errorf("%s fires: %+v", key, e)
			}
		}
	}
	if logged == 0 {
		t.Error("no line says that the cycle is on hold")
	}
}

// A smoke test completes a cycle past its deadline in shadow: none of its lines may fire an alert.
func TestAlerts_ShadowTriggersNone(t *testing.T) {
	recordings(t)
	events, all := 0, filters(t, withGuard(t))
	for _, e := range sharedRecordings.shadow {
		if name, _ := e.JSONPayload["shadow_event"].(string); name == "cycle_overdue" || name == "batch_published" {
			events++
		}
		for key, f := range all {
			if f.matches(e) {
				t.Errorf("%s fires: %+v", key, e)
			}
		}
	}
	if events < 5 {
		t.Errorf("only %d lines that would fire an alert outside shadow mode, want 5", events)
	}
}

func TestAlerts_LatencySeparatesWarnFromCritical(t *testing.T) {
	all := filters(t, withGuard(t))
	fires := func(key string, seconds float64) bool {
		e := logged("phasegate-transition", map[string]any{"severity": "INFO", "event": "batch_published",
			"transition": "phase3_to_phase4", "seconds": seconds})
		for name, f := range all {
			if strings.HasPrefix(name, "hand-over-latency/"+key) {
				return f.matches(e)
			}
		}
		t.Fatalf("no alert on latency %s", key)
		return false
	}
	for seconds, want := range map[float64][2]bool{299.9: {false, false}, 300: {true, false}, 899.9: {true, false}, 900: {true, true}} {
		if got := [2]bool{fires("warn", seconds), fires("critical", seconds)}; got != want {
			t.Errorf("%v s: warn and critical %v, want %v", seconds, got, want)
		}
	}
}

// eventNames are the constants of shared/telemetry.
func eventNames(t *testing.T) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../../shared/telemetry/telemetry.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, v := range s.(*ast.ValueSpec).Values {
				if l, ok := v.(*ast.BasicLit); ok {
					name, err := strconv.Unquote(l.Value)
					if err != nil {
						t.Fatal(err)
					}
					names[name] = true
				}
			}
		}
	}
	if len(names) < 7 {
		t.Fatalf("only %d event names found: %v", len(names), names)
	}
	return names
}

var eventComparison = regexp.MustCompile(`jsonPayload\.event=\(?"([^"]*(?:" OR "[^"]*)*)"`)

func TestAlerts_FilterEventsAreLoggedByCode(t *testing.T) {
	_, _, all := recordings(t)
	emitted := map[string]bool{}
	for _, e := range all {
		if name, ok := e.JSONPayload["event"].(string); ok {
			emitted[name] = true
		}
	}
	p, names := withGuard(t), eventNames(t)
	var texts []string
	for _, i := range p.some("google_logging_metric") {
		texts = append(texts, i.text("filter"))
	}
	for _, i := range p.some("google_monitoring_alert_policy") {
		texts = append(texts, i.text("documentation", "0", "content"))
		for _, c := range conditions(i) {
			texts = append(texts, text(c, "condition_matched_log", "0", "filter"))
		}
	}
	found := 0
	for _, text := range texts {
		for _, m := range eventComparison.FindAllStringSubmatch(text, -1) {
			for _, event := range strings.Split(m[1], `" OR "`) {
				found++
				if !names[event] {
					t.Errorf("%s: %s is no event of shared/telemetry", text, event)
				}
				if !emitted[event] {
					t.Errorf("%s: no recorded run has logged %s", text, event)
				}
			}
		}
	}
	if found < 14 {
		t.Errorf("only %d events in filters", found)
	}
}

// Fields that filters and extractors read are fields that the code writes.
func TestAlerts_FilterFieldsAreWrittenByCode(t *testing.T) {
	_, _, all := recordings(t)
	p := withGuard(t)
	for _, i := range p.some("google_logging_metric") {
		checkFields(t, all, i.text("filter"), i.at("label_extractors"))
	}
	for _, i := range p.some("google_monitoring_alert_policy") {
		c := at(conditions(i)[0], "condition_matched_log", "0")
		if c != cty.NilVal && text(c, "filter") != "" && !strings.Contains(text(c, "filter"), "cloud_scheduler_job") {
			checkFields(t, all, text(c, "filter"), at(c, "label_extractors"))
		}
	}
}

var (
	payloadField = regexp.MustCompile(`jsonPayload\.[a-z_]+`)
	extractor    = regexp.MustCompile(`^EXTRACT\((jsonPayload\.[a-z_]+)\)$`)
)

// checkFields checks that the entries of the filter's event have the fields of the filter.
func checkFields(t *testing.T, all []entry, filterText string, extractors cty.Value) {
	t.Helper()
	m := eventComparison.FindStringSubmatch(filterText)
	if m == nil {
		return
	}
	paths := payloadField.FindAllString(filterText, -1)
	if extractors != cty.NilVal {
		for label, v := range extractors.AsValueMap() {
			x := extractor.FindStringSubmatch(v.AsString())
			if x == nil {
				t.Errorf("label %s: %s", label, v.AsString())
				continue
			}
			paths = append(paths, x[1])
		}
	}
	for _, path := range paths {
		if !slices.ContainsFunc(all, func(e entry) bool {
			event, _ := e.JSONPayload["event"].(string)
			return slices.Contains(strings.Split(m[1], `" OR "`), event) && e.field(path) != nil
		}) {
			t.Errorf("%s: no entry of %s has %s", filterText, m[1], path)
		}
	}
}
