package pipeline

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bare is a pipeline that leaves out each key with a default.
const bare = `
schema: 1
name: shop
time_zone: Europe/Berlin
phases:
  - name: raw
    processors:
      - {name: orders, table: shop_raw.orders, date_column: day, key: [day, id], order_by: written_at}
      - {name: refunds, table: shop_extra.refunds, date_column: day, key: [day, id], order_by: written_at}
      - {name: visits, table: shop_raw.visits, date_column: day, key: [day, id], order_by: written_at}
  - name: totals
    processors:
      - {name: revenue, table: shop_totals.revenue, date_column: day, key: [day], order_by: written_at}
transitions:
  - id: raw_to_totals
    upstream: {phase: raw, topic: shop-raw-complete}
    downstream: {phase: totals, topic: shop-totals-trigger}
    modes:
      - {name: early, event: before, critical: [visits]}
      - {name: daily, event: after, optional: [refunds], deadline: "+1d 09:00"}
    checks:
      before_hand_over:
        - {name: row_count, sql: "SELECT COUNT(*) FROM {table} WHERE {date_column} = @period", block: "< 1"}
`

func TestDefaults_FillInWhatAFileLeavesOut(t *testing.T) {
	p, err := Parse([]byte(bare))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range p.Defaults {
		if !strings.Contains(d.Path, "processors[1]") && !strings.Contains(d.Path, "processors[2]") && !strings.HasPrefix(d.Path, "phases[1]") {
			got = append(got, d.Path+": "+d.Value)
		}
	}
	want := []string{
		"calendar: day",
		"phases[0].processors[0].kind: entity", "phases[0].processors[0].class: OrdersProcessor",
		"phases[0].processors[0].partition: by_date", "phases[0].processors[0].duplicates: report", "kinds.entity: entities",
		"transitions[0].modes[0].complete: all", "transitions[0].modes[0].counts_from: -1d 00:00",
		"transitions[0].modes[0].second_runs: resend_if_changed", "transitions[0].modes[0].second_runs_every: 2m",
		"transitions[0].modes[1].critical: orders, visits", "transitions[0].modes[1].complete: all", "transitions[0].modes[1].counts_from: +1d 00:00",
		"transitions[0].modes[1].at_deadline: hold", "transitions[0].modes[1].second_runs: resend_if_changed", "transitions[0].modes[1].second_runs_every: 2m",
		"transitions[0].downstream.triggered_by: raw_to_totals", "transitions[0].downstream.parent_processor: RawToTotalsOrchestrator",
		"transitions[0].compatibility_collection: raw_to_totals_completion", "transitions[0].downstream.order: orders, refunds, visits",
		"transitions[0].trigger_within: 72h", "transitions[0].checks.timeout: 30s", "transitions[0].checks.max_bytes_billed: 1000000000",
		"transitions[0].checks.datasets: shop_raw, shop_extra", "schedules: relay, */5 * * * *",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	tr := p.Transitions[0]
	if fmt.Sprintf("%v %v %v %s %v", tr.Order, tr.Modes[1].Critical, tr.Checks.Datasets, tr.EntitiesKey("orders"), p.Schedules) !=
		"[orders refunds visits] [orders visits] [shop_raw shop_extra] entities [{relay */5 * * * * reconcile relay}]" {
		t.Errorf("%v %v %v %q %v", tr.Order, tr.Modes[1].Critical, tr.Checks.Datasets, tr.EntitiesKey("orders"), p.Schedules)
	}
}

// The names of messages and documents stay when a transition is renamed.
func TestDefaults_KeepTheNamesOfARenamedTransition(t *testing.T) {
	before, err := Parse([]byte(bare))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Parse([]byte(strings.Replace(bare, "- id: raw_to_totals", "- id: up_to_down\n    formerly: [raw_to_totals]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Transitions[0], after.Transitions[0]
	if a.TriggeredBy != b.TriggeredBy || a.ParentProcessor != b.ParentProcessor || a.CompatibilityCollection != b.CompatibilityCollection {
		t.Errorf("%s %s %s, before %s %s %s", b.TriggeredBy, b.ParentProcessor, b.CompatibilityCollection, a.TriggeredBy, a.ParentProcessor, a.CompatibilityCollection)
	}
}

func TestDefaults_ByTheHour(t *testing.T) {
	p, err := Parse([]byte(strings.NewReplacer("time_zone", "calendar: hour\ntime_zone", "+1d 09:00", "+1h :40").Replace(bare)))
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Transitions[0].Modes; m[0].CountsFrom.String() != "-1h :00" || m[1].CountsFrom.String() != "+1h :00" {
		t.Errorf("%s, %s", m[0].CountsFrom, m[1].CountsFrom)
	}
}

// The pipelines that were written before these defaults take none of them, so they mean what they
// meant.
func TestDefaults_ChangeNothingOfPipelinesThatWriteTheKeys(t *testing.T) {
	retail, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"nba": Default(), "retail": retail} {
		p, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		taken := map[string]bool{}
		for _, d := range p.Defaults {
			taken[d.Path[strings.LastIndex(d.Path, ".")+1:]] = true
		}
		for _, old := range []string{"class", "partition", "duplicates", "at_deadline", "second_runs_every"} {
			delete(taken, old) // these had the same defaults before
		}
		if len(taken) > 0 {
			t.Errorf("%s takes defaults of %v", name, taken)
		}
	}
}

// A new pipeline that has only what no default can know: the first attempt is valid.
func TestParse_AsksForNothingThatADefaultFills(t *testing.T) {
	for key, want := range map[string]string{
		"schema: 1":                  "schema: is required: write schema: 1",
		"name: shop":                 `name: is required, such as name: orders`,
		"time_zone: Europe/Berlin":   `time_zone: is required, such as time_zone: Europe/Berlin`,
		"table: shop_raw.orders, ":   `phases[0].processors[0].table: is required, such as table: shop_raw.orders`,
		"topic: shop-raw-complete":   `transitions[0].upstream.topic: is required, such as topic: shop-marts-complete`,
		"event: after, ":             `transitions[0].modes[1].event: is required: one of before, within, after`,
		"{phase: totals, ":           `transitions[0].downstream.phase: is required, such as phase: marts`,
		"order_by: written_at}\n   ": `phases[0].processors[0].order_by: is required, such as order_by: loaded_at`,
	} {
		_, err := Parse([]byte(strings.Replace(bare, key, map[bool]string{true: "{", false: ""}[key[0] == '{']+map[bool]string{true: "}\n   ", false: ""}[strings.HasSuffix(key, "}\n   ")], 1)))
		wantProblem(t, err, want)
		if n := strings.Count(err.Error(), "\n"); n > 0 {
			t.Errorf("without %q there are %d problems, and one is enough: %v", key, n+1, err)
		}
	}
}

// An error names the index of a schedule in the file: the default schedules come after those of the file.
func TestDefaults_MoveNoScheduleToAnotherPlace(t *testing.T) {
	_, err := Parse([]byte(bare + "schedules:\n  - {name: nightly, cron: never, function: reconcile, job: nightly}\n"))
	wantProblem(t, err, `schedules[0].cron: "never" is no cron expression`)
	p, err := Parse([]byte(bare + "schedules:\n  - {name: nightly, cron: \"30 13 * * *\", function: reconcile, job: nightly}\n"))
	if err != nil || len(p.Schedules) != 2 || p.Schedules[1].Job != "relay" {
		t.Errorf("%v", err)
	}
}
