package terraform

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// The deployment reads the pipeline file itself, so it needs the defaults of the parser.
func TestTerraform_GivesKeysThatAreLeftOutTheDefaultsOfTheParser(t *testing.T) {
	const definition = `
schema: 1
name: shop
time_zone: Europe/Berlin
phases:
  - name: raw
    processors:
      - {name: orders, table: shop_raw.orders, date_column: day, key: [day, id], order_by: written_at}
      - {name: refunds, table: shop_extra.refunds, date_column: day, key: [day, id], order_by: written_at}
  - name: totals
    processors:
      - {name: revenue, table: shop_totals.revenue, date_column: day, key: [day], order_by: written_at}
transitions:
  - id: raw_to_totals
    upstream: {phase: raw, topic: shop-raw-complete}
    downstream: {phase: totals, topic: shop-totals-trigger}
    modes:
      - {name: daily, event: after}
    checks:
      before_hand_over:
        - {name: row_count, sql: "SELECT COUNT(*) FROM {table} WHERE {date_column} = @period", block: "< 1"}
`
	p, err := pipeline.Parse([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	plan := planned(t, map[string]cty.Value{"pipeline_file": cty.StringVal(file)})
	if len(plan.failed) > 0 {
		t.Errorf("%q", plan.failed)
	}
	jobs := plan.some("google_cloud_scheduler_job")
	if len(jobs) != 1 || jobs[0].key != p.Schedules[0].Name || jobs[0].text("schedule") != p.Schedules[0].Cron || jobs[0].text("time_zone") != "Etc/UTC" {
		t.Errorf("%d scheduler jobs, the parser has %+v", len(jobs), p.Schedules)
	}
	var read []string
	for _, v := range plan.local("read_datasets").AsValueSlice() {
		read = append(read, v.AsString())
	}
	slices.Sort(read)
	if want := slices.Sorted(slices.Values(p.Transitions[0].Checks.Datasets)); !slices.Equal(read, want) {
		t.Errorf("checks may read %q, the parser has %q", read, want)
	}
	if got := plan.local("orchestrators").AsString(); strings.ReplaceAll(got, " ", "") != p.Transitions[0].ParentProcessor {
		t.Errorf("alerts name %q, the parser has %q", got, p.Transitions[0].ParentProcessor)
	}
}
