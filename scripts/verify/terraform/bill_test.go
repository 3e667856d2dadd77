package terraform

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

// The monthly cost of alerts at Google's list prices: for each condition, and for each time series
// that a query returns at each evaluation.
// Prices: https://cloud.google.com/products/observability/pricing, "Cloud Monitoring", "Alerting".
// How a query is counted: https://docs.cloud.google.com/monitoring/alerts/cost-control.
// Copies of the second page of 2024 and 2025 announce $1.50 a condition and the same $0.35.
const (
	perCondition   = 0.10
	perSeries      = 0.35 / 1e6
	secondsAMonth  = 30 * 24 * 3600
	cyclesAtOnce   = 2 // for which an alert fires at the same time
	evaluationForm = "60s"
)

// TestAlerts_AMonthsBill computes the cost of the alerts of a deployment, which docs/explanation/performance.md
// must have, and adds it to the other costs there. README.md must have the sums.
func TestAlerts_AMonthsBill(t *testing.T) {
	read := func(file string) string {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	performance, readme := read("../../../docs/explanation/performance.md"), strings.ReplaceAll(read("../../../README.md"), "\n", " ")
	for name, path := range map[string]string{"nba": "../../../shared/pipeline/nba.yaml", "retail": "../../dev/demo/retail.yaml"} {
		t.Run(name, func(t *testing.T) {
			file, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			p := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
			functions, subscriptions := len(p.some("google_cloudfunctions2_function")), len(p.some("google_pubsub_subscription"))/2
			all, series := 0, 0
			for _, policy := range policies(t, p) {
				for _, c := range conditions(policy) {
					all++
					q := at(c, "condition_prometheus_query_language", "0")
					if q == cty.NilVal {
						continue
					}
					if text(q, "evaluation_interval") != evaluationForm {
						t.Errorf("%s is evaluated each %s", policy.address, text(q, "evaluation_interval"))
					}
					each := 1
					switch by := groupedBy.FindStringSubmatch(text(q, "query")); {
					case by == nil:
					case by[1] == "service_name":
						each = functions
					case by[1] == "subscription_id":
						each = subscriptions
					default:
						each = cyclesAtOnce
					}
					series += each * len(metricForm.FindAllString(text(q, "query"), -1)) // each clause is a query of its own
				}
			}
			evaluations := float64(series) * secondsAMonth / 60
			t.Logf("%s: %d conditions $%.2f; at most %d series an evaluation, %.1f million a month $%.2f", name, all, float64(all)*perCondition, series, evaluations/1e6, evaluations*perSeries)
			if series == 0 {
				t.Error("no query returns a time series")
			}
			alerts := float64(all)*perCondition + evaluations*perSeries
			row := fmt.Sprintf("| %s | %d | %d | %d | $%.2f | %d an evaluation, %.1f million, $%.2f | $%.2f |", name, len(policies(t, p)), all,
				len(p.some("google_logging_metric")), float64(all)*perCondition, series, evaluations/1e6, evaluations*perSeries, alerts)
			if !strings.Contains(performance, row) {
				t.Errorf("docs/explanation/performance.md does not have %s", row)
			}
			rest := regexp.MustCompile(`(?m)^\| ` + name + `: .* \| (\$[0-9.]+) \| \$[0-9.]+ \|$`).FindStringSubmatch(performance)
			if rest == nil {
				t.Fatalf("docs/explanation/performance.md has no bill of %s", name)
			}
			without, err := strconv.ParseFloat(rest[1][1:], 64)
			sum := fmt.Sprintf("$%.2f", without+alerts)
			if err != nil || !strings.Contains(performance, name+" "+sum) || !strings.Contains(readme, sum+": "+rest[1]) || !strings.Contains(readme, fmt.Sprintf("$%.2f", alerts)) {
				t.Errorf("README.md and docs/explanation/performance.md do not say that %s costs %s, %s without alerts: %v", name, sum, rest[1], err)
			}
		})
	}
}
