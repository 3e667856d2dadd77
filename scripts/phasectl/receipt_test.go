package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/receipt"
)

// delivered claims a delivery to the service "reports", with a claim that lasts for a while.
func (s *system) delivered(key string, ttl time.Duration) (*receipt.Claim, string) {
	s.t.Helper()
	n := 0
	r := receipt.New(receipt.Config{Store: s.App.Store, Now: s.App.Now, NewID: func() string { n++; return fmt.Sprint(key, n) }, TTL: ttl, Instance: "i1", Log: slog.New(slog.DiscardHandler)})
	d := receipt.Delivery{Scope: "reports", Route: "/process", Key: key, MessageID: "m-" + key, Data: []byte(key)}
	c, err := r.Claim(s.t.Context(), d)
	if err != nil {
		s.t.Fatal(err)
	}
	return c, d.ID()
}

func TestReceipt_ListsShowsAndForgets(t *testing.T) {
	s := running(t)
	want(t, 0, []string{"deliveries at work: 0; receipts that may need a person: 0"}, "receipt", "list")
	want(t, 0, []string{`reports has no receipts`}, "receipt", "list", "--scope", "reports")
	_, atWork := s.delivered("at~work", 100_000*time.Hour) // the commands have this machine's clock
	_, lost := s.delivered("lost", -time.Hour)
	c, done := s.delivered("done", time.Hour)
	if _, err := c.Done(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	want(t, 0, []string{"deliveries at work: 1; receipts that may need a person: 1", "lost ", "reports/process", "fix: phasectl receipt show " + lost}, "receipt", "list")
	if out := want(t, 0, []string{`"at_work":1`, `"problem":"lost"`}, "receipt", "list", "--json"); strings.Contains(out, done) {
		t.Errorf("done, and listed: %s", out)
	}

	all := want(t, 0, []string{atWork, lost, done}, "receipt", "list", "--scope", "reports")
	pages, after := 0, ""
	for more := true; more; pages++ {
		args := []string{"receipt", "list", "--scope", "reports", "--limit", "1", "--json"}
		if after != "" {
			args = append(args, "--after", after)
		}
		page := object(t, want(t, 0, nil, args...))
		id := page["receipts"].([]any)[0].(map[string]any)["id"].(string)
		if !strings.Contains(all, id) {
			t.Errorf("page %d: %v", pages, page)
		}
		all = strings.ReplaceAll(all, id, "")
		more = page["more"].(bool)
		after, _ = page["after"].(string)
	}
	if pages != 3 {
		t.Errorf("%d pages of one receipt, want 3", pages)
	}

	want(t, 0, []string{"state     done", "status    200", "attempt 1", "phasectl receipt forget " + done}, "receipt", "show", done)
	want(t, 0, []string{"state     done"}, "receipt", "show", "done", "--scope", "reports", "--route", "/process")
	want(t, 0, []string{"fix       wait: it is at work", "key       at~work"}, "receipt", "show", atWork)
	want(t, 0, []string{"working, and its claim has expired", "a dead letter of the service's subscription"}, "receipt", "show", lost)
	want(t, 0, []string{`"live":true`}, "receipt", "show", atWork, "--json")

	want(t, 64, []string{"--scope: name the service that receives done"}, "receipt", "show", "done")
	want(t, 1, []string{"no receipt of done on the route / of reports", "--route"}, "receipt", "show", "done", "--scope", "reports")
	want(t, 64, []string{"--reason"}, "receipt", "forget", done)
	want(t, 1, []string{"is worked by i1"}, "receipt", "forget", atWork, "--reason", "a test message")
	want(t, 1, []string{"is worked by i1"}, "receipt", "forget", atWork, "--dry-run")
	want(t, 0, []string{"would forget done of reports: it was done"}, "receipt", "forget", done, "--dry-run")
	if n := s.audits("receipt_forget"); n != 0 {
		t.Errorf("%d records of what was refused", n)
	}
	want(t, 0, []string{"the next delivery of done to reports works again; it was done"}, "receipt", "forget", "done", "--scope", "reports", "--route", "/process", "--reason", "a test message")
	want(t, 0, []string{`"dry_run":false`, `"state":"working"`}, "receipt", "forget", lost, "--reason", "a test message", "--json")
	if n := s.audits("receipt_forget"); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	want(t, 0, []string{"deliveries at work: 1; receipts that may need a person: 0"}, "receipt", "list")
	if c, _ := s.delivered("done", time.Hour); c.Attempt() != 2 {
		t.Errorf("attempt %d after the forget", c.Attempt())
	}
}

// guardedShop is a pipeline file whose second phase has a guard.
func guardedShop(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(`
schema: 1
name: shop
time_zone: UTC
phases:
  - name: marts
    processors: [{name: orders, table: shop.orders, date_column: day, key: [id], order_by: at}]
  - name: reports
    guard: {scope: reports, paths: [/process], success_json: {status: [completed]}, serial: {orders: [RevenueProcessor]}, cooldown: true, on_lost: kill}
    processors: [{name: revenue, table: shop.revenue, date_column: day, key: [day], order_by: at}]
transitions:
  - id: marts_to_reports
    upstream: {phase: marts, topic: shop-marts}
    downstream: {phase: reports, topic: shop-reports}
    modes: [{name: daily, event: after, deadline: "+1d 12:00"}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestReceipt_TakesServiceAndRouteFromThePipelineFile(t *testing.T) {
	s := running(t)
	s.delivered("k", time.Hour)
	want(t, 0, []string{"service   reports, route /process"}, "receipt", "show", "k", "--pipeline", guardedShop(t))
	want(t, 1, []string{"no receipt of k on the route / of other"}, "receipt", "show", "k", "--scope", "other", "--pipeline", guardedShop(t))
}

func TestPipeline_SaysWhatAGuardDoes(t *testing.T) {
	file := guardedShop(t)
	words := "receipts of reports; paths /process; success 200 201 202 204, status completed; a run 1h at most, a claim 2m; on lost kill; others pass; waits after a failure; orders locks RevenueProcessor"
	want(t, 0, []string{"guard: " + words}, "pipeline", "check", file)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(before), "scope: reports", "scope: renamed", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	running(t)
	_, out, _ := command(t, "pipeline", "diff", changed, "--pipeline", file)
	if !strings.Contains(out, "~ guard of reports: "+words) {
		t.Errorf("a guard of another scope: %s", out)
	}
}
