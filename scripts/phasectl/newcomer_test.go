package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

const chain = `schema: 1
name: shop
time_zone: Europe/Berlin
phases:
  - name: ingest
    processors:
      - {name: orders, table: shop.orders, date_column: order_date, key: [order_id], order_by: loaded_at}
      - {name: stock, table: shop.stock, date_column: stock_date, key: [sku], order_by: loaded_at}
  - name: clean
    processors:
      - {name: sales, table: shop.sales, date_column: order_date, key: [order_id], order_by: loaded_at}
  - name: marts
    processors:
      - {name: revenue, table: shop.revenue, date_column: order_date, key: [order_date], order_by: loaded_at}
transitions:
  - id: ingest_to_clean
    upstream: {phase: ingest, topic: shop-ingest-complete}
    downstream: {phase: clean, topic: shop-clean-trigger}
    modes:
      - {name: daily, event: after, optional: [stock], grace: {quorum_pct: 50, after: 12m}, deadline: "+1d 18:00"}
  - id: clean_to_marts
    upstream: {phase: clean, topic: shop-clean-complete}
    downstream: {phase: marts, topic: shop-marts-trigger}
    modes:
      - {name: daily, event: after, deadline: "+1d 20:00"}
schedules:
  - {name: nightly, cron: "30 22 * * *", function: reconcile, job: nightly}
  - {name: sweep, cron: "50 22 * * *", function: sweep, job: sweep}
  - {name: health, cron: "5 * * * *", function: health, job: health}
`

// firstDay is a system of a new user: two transitions in a chain, at 12:05 in Berlin.
func firstDay(t *testing.T) *system {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(chain), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_FILE", file)
	s := running(t)
	before := clock
	clock = s.Clock.Now
	t.Cleanup(func() { clock = before })
	return s
}

func TestComplete_SaysWhenRunsOfThePeriodCountAndWhichPeriodWasMeant(t *testing.T) {
	firstDay(t)
	said := []string{"a run that ends now belongs to no mode of ingest_to_clean\n  daily counts runs that end at or after 00:00 on the next day (2026-02-05 00:00 CET)\n" +
		`  did you mean yesterday, 2026-02-03? phasectl complete orders 2026-02-03 --reason "…"`}
	want(t, 0, said, "complete", "orders", "today", "--reason", "try it", "--dry-run")
	want(t, 0, said, "complete", "orders", "today", "--reason", "try it")
}

func TestStatus_ShowsARunThatNoModeCounts(t *testing.T) {
	firstDay(t)
	want(t, 0, []string{"no completions are recorded from 2026-02-02 to 2026-02-05\n  to report one: phasectl complete PROCESSOR yesterday --reason"}, "status")
	want(t, 0, []string{"no completions are recorded for 2026-02-03\n"}, "status", "yesterday")
	want(t, 0, nil, "complete", "orders", "today", "--reason", "try it")
	const why = "it completed too early: daily counts runs that end at or after 2026-02-05 00:00 CET; did you mean 2026-02-03?"
	want(t, 0, []string{"2026-02-04  daily of ingest_to_clean  waiting", "does not count: orders reported success, ended 2026-02-04 12:05 CET: " + why}, "status")
	want(t, 0, []string{"does not count: " + why}, "explain", "today", "--transition", "ingest_to_clean")
	want(t, 0, []string{"2026-02-03 daily of ingest_to_clean is grace"}, "complete", "orders", "yesterday", "--reason", "try it")
}

func TestGrammar_OffersACommandForEachTransitionOrMode(t *testing.T) {
	firstDay(t)
	want(t, 64, []string{"--transition is required:\n  phasectl hold yesterday --for=2h0m0s --reason='it is wrong' --transition ingest_to_clean\n" +
		"  phasectl hold yesterday --for=2h0m0s --reason='it is wrong' --transition clean_to_marts\n"}, "hold", "yesterday", "--for", "2h", "--reason", "it is wrong")
	want(t, 64, []string{`--transition: "clean_to_mart": the pipeline has ingest_to_clean, clean_to_marts; did you mean "clean_to_marts"?`}, "explain", "yesterday", "--transition", "clean_to_mart")
	t.Setenv("PIPELINE_FILE", "")
	want(t, 64, []string{"MODE is required:\n  phasectl explain 2026-02-03 --mode tomorrow\n"}, "explain", "2026-02-03")
}

func TestOpen_WithoutAProjectNamesBothWaysOut(t *testing.T) {
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	want(t, 64, []string{"GOOGLE_CLOUD_PROJECT: is required\n", `while phasectl local runs: eval "$(phasectl env)"`, "add --project PROJECT"}, "status")
}

func TestHold_NamesAllMissingFlagsInOneCommandAndTheTransition(t *testing.T) {
	firstDay(t)
	want(t, 64, []string{"--transition, --for and --reason are required:\n  phasectl hold yesterday --transition ingest_to_clean --for 6h --reason \"…\"\n  phasectl hold yesterday --transition clean_to_marts --for 6h"}, "hold", "yesterday")
	want(t, 0, []string{"would put 2026-02-03 daily of ingest_to_clean on hold for 2h\n"}, "hold", "yesterday", "--transition", "ingest_to_clean", "--for", "2h", "--dry-run")
}

func TestStatus_ABatchInGraceHasNoMessagesYet(t *testing.T) {
	firstDay(t)
	want(t, 0, nil, "complete", "orders", "yesterday", "--reason", "try it")
	want(t, 0, []string{"batch 1  grace  no messages yet\n"}, "status")
	want(t, 0, []string{"missing  stock (optional), 0 attempts"}, "explain", "yesterday", "--transition", "ingest_to_clean")
	want(t, 0, nil, "complete", "stock", "yesterday", "--status", "failed", "--reason", "try it")
	want(t, 0, []string{"missing  stock (optional), 1 attempt\n  the last one ended"}, "explain", "yesterday", "--transition", "ingest_to_clean")
}

func TestTrigger_WithoutCriticalProcessorsNamesForce(t *testing.T) {
	firstDay(t)
	want(t, 0, nil, "complete", "stock", "yesterday", "--reason", "try it")
	for _, dry := range [][]string{{"--dry-run"}, nil} {
		want(t, 1, []string{"critical processors are missing: orders; to hand over without them, add --force\n"},
			append([]string{"trigger", "yesterday", "--transition", "ingest_to_clean", "--reason", "now"}, dry...)...)
	}
}

// Without --transition, explain explains the cycle of each transition that has the mode.
func TestExplain_WithoutATransitionExplainsTheCycleOfEach(t *testing.T) {
	firstDay(t)
	want(t, 0, nil, "complete", "sales", "yesterday", "--reason", "try it")
	for _, args := range [][]string{{"yesterday"}, {"yesterday", "daily"}} {
		want(t, 0, []string{"ingest_to_clean_2026-02-03_daily is waiting\n", "\n\nclean_to_marts_2026-02-03_daily is published\n"}, append([]string{"explain"}, args...)...)
	}
	if out := want(t, 0, []string{"clean_to_marts_2026-02-03_daily is published\n"}, "explain", "yesterday", "--transition", "clean_to_marts"); strings.Contains(out, "ingest_to_clean_") {
		t.Errorf("%s", out)
	}
	want(t, 64, []string{`MODE: "dayly": ingest_to_clean has daily; clean_to_marts has daily; did you mean "daily"?`}, "explain", "yesterday", "dayly")
	_, out, _ := command(t, "explain", "yesterday", "--json")
	cycles := object(t, out)["cycles"].([]any)
	if len(cycles) != 2 || cycles[1].(map[string]any)["transition"] != "clean_to_marts" {
		t.Errorf("%s", out)
	}
	// Only one of the two transitions has the mode.
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte(strings.Replace(chain, `- {name: daily, event: after, deadline: "+1d 20:00"}`, `- {name: late, event: after, deadline: "+1d 20:00"}`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := want(t, 0, []string{"clean_to_marts_2026-02-03_late is "}, "explain", "yesterday", "late", "--pipeline", other); strings.Contains(out, "ingest_to_clean_") {
		t.Errorf("%s", out)
	}
}

// In the grace period, and after it until the relay has run, the next check is a run of the relay.
func TestStatus_NamesTheNextRunOfTheRelayInAndAfterTheGracePeriod(t *testing.T) {
	s := firstDay(t) // 12:05
	want(t, 0, nil, "complete", "orders", "yesterday", "--reason", "try it")
	want(t, 0, []string{"daily of ingest_to_clean  grace", "grace until 2026-02-04 12:17 CET", "; next check 2026-02-04 12:20:00 CET\n"}, "status")
	s.Clock.AdvanceTo(s.Clock.Now().Add(13 * time.Minute))
	for _, args := range [][]string{{"status"}, {"explain", "yesterday", "--transition", "ingest_to_clean"}} {
		want(t, 0, []string{"next check", "2026-02-04 12:20:00 CET"}, args...)
	}
	s.Clock.AdvanceTo(s.Clock.Now().Add(2 * time.Minute))
	s.jobs(wire.JobRelay)
	want(t, 0, []string{"daily of ingest_to_clean  published without all  orders complete, 1 of 2, grace ended 2026-02-04 12:17 CET; missing stock (optional)\n" +
		"  batch 1  published  critical_plus_majority_50pct (50 % were complete, every critical one among them), 1 of 1 message sent\n"}, "status")
	want(t, 0, []string{"is published\n", "missing    stock (optional), 0 attempts\n", "batch 1    published: critical_plus_majority_50pct (50 % were complete, every critical one among them) by engine"},
		"explain", "yesterday", "--transition", "ingest_to_clean")
}

// The status distinguishes ignored reports from failed ones, and says why.
func TestStatus_SaysWhyAReportIsIgnoredAndHowAProcessorFailed(t *testing.T) {
	s := firstDay(t)
	stranger, bad := completion("weather", "2026-02-03"), completion("orders", "2026-02-03")
	bad["status"], bad["error_type"], bad["error_message"] = "failed", "exit_status", "orders: exit status 3"
	s.report(stranger, bad)
	out := want(t, 0, []string{"missing orders (critical), stock (optional); orders reported failed at 2026-02-04 12:05 CET (exit_status: orders: exit status 3)",
		"\n  ignored: weather reported, and is no processor of ingest_to_clean\n"}, "status", "yesterday", "--transition", "ingest_to_clean")
	if strings.Contains(out, "ignored: orders") {
		t.Errorf("a failure is not ignored: %s", out)
	}
}
