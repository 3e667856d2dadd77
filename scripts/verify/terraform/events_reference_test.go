package terraform

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/events.md")

const eventsIntro = `# Events and alerts

This page is generated from ` + "`shared/telemetry` and `terraform/`" + `:
` + "`go test ./scripts/verify/terraform -run Reference -update`" + `. The alerts are those of the NBA pipeline.
[contracts.md](../contracts.md#log-events-that-alerts-read) lists the fields of the events that alerts read.

`

// meaning is one event constant of shared/telemetry with its comment.
type meaning struct{ event, words string }

func meanings(t *testing.T) (out []meaning) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../../shared/telemetry/telemetry.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || v.Comment == nil {
			return true
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			event, _ := strconv.Unquote(lit.Value)
			out = append(out, meaning{event, strings.TrimSpace(v.Comment.Text())})
		}
		return true
	})
	if len(out) != len(eventNames(t)) {
		t.Fatalf("%d of %d events have a meaning", len(out), len(eventNames(t)))
	}
	return out
}

// alertsByEvent returns the alerts that read each event, by log filter or by log metric, and
// under "" those that read metrics of the platform.
func alertsByEvent(t *testing.T) map[string][]string {
	p := withGuard(t)
	metrics := map[string]string{} // filter by name
	for _, m := range p.some("google_logging_metric") {
		metrics[m.text("name")] = m.text("filter")
	}
	read := map[string][]string{}
	for key, policy := range policies(t, p) {
		var filters strings.Builder
		for _, c := range conditions(policy) {
			filters.WriteString(text(c, "condition_matched_log", "0", "filter") + "\n")
			for _, m := range counted.FindAllStringSubmatch(text(c, "condition_prometheus_query_language", "0", "query"), -1) {
				var selected []string // by a label of the metric
				for _, label := range selector.FindAllStringSubmatch(m[2], -1) {
					if label[1] == "event" {
						selected = append(selected, label[2])
					}
				}
				if len(selected) > 0 {
					fmt.Fprintf(&filters, "jsonPayload.event=\"%s\"\n", strings.Join(selected, `" OR "`))
					continue
				}
				for name, filter := range metrics {
					if strings.NewReplacer("-", "_", "/", "_", ".", "_").Replace(name) == m[1] {
						filters.WriteString(filter + "\n")
					}
				}
			}
		}
		line := fmt.Sprintf("[%s](../how-to/runbooks/%s.md), %s: %s", key, page(key), strings.ToLower(policy.text("severity")), policy.text("documentation", "0", "subject"))
		found := map[string]bool{}
		for _, m := range eventComparison.FindAllStringSubmatch(filters.String(), -1) {
			for _, event := range strings.Split(m[1], `" OR "`) {
				found[event] = true
			}
		}
		if len(found) == 0 {
			found[""] = true
		}
		for event := range maps.Keys(found) {
			read[event] = append(read[event], line)
		}
	}
	return read
}

func TestReferenceOfEvents_IsWhatTheCodeLogsAndAlertsRead(t *testing.T) {
	const path = "../../../docs/reference/events.md"
	read := alertsByEvent(t)
	var b strings.Builder
	b.WriteString(eventsIntro + "| Event | Meaning | Alerts, with their runbook page |\n|---|---|---|\n")
	for _, m := range meanings(t) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.event, m.words, strings.Join(slices.Sorted(slices.Values(read[m.event])), ". <br>"))
	}
	b.WriteString("\nThese alerts read metrics or logs of Google Cloud:\n\n")
	for _, line := range slices.Sorted(slices.Values(read[""])) {
		b.WriteString("- " + line + "\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != b.String() {
		t.Errorf("%s is out of date (%v): go test ./scripts/verify/terraform -run Reference -update", path, err)
	}
}
