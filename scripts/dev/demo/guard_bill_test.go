package demo

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/guard"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
)

const (
	perDelete = 0.01 / 1e5
	perStored = 0.15 / (1 << 30) // a month
	// A receipt with the entries of its fields in the indexes, at most.
	receiptSize = 4 << 10
	// The guard adds the time of three Firestore calls to a request, 20 ms each at most in a region.
	guardSeconds = 0.06
)

// TestBill_MonthlyCostOfAGuard delivers triggers and a copy of each to a real guard, and computes
// the cost of 30 days. docs/explanation/performance.md has the table.
func TestBill_MonthlyCostOfAGuard(t *testing.T) {
	const played = 50
	m := metered{memory.New(time.Now), &atomic.Int64{}, &atomic.Int64{}}
	logs := &counted{}
	log, err := telemetry.New(logs, "info")
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer service.Close()
	upstream, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	const ttl = 2 * time.Minute
	var ids atomic.Int64
	newID := func() string { return fmt.Sprintf("%026d", ids.Add(1)) }
	g, err := guard.New(guard.Config{Upstream: upstream, Scope: "phase4-processors", Paths: []string{"/"}, Success: []int{200}, Limit: time.Hour, NewID: newID, Log: log,
		Receipts: receipt.New(receipt.Config{Store: m, Now: time.Now, NewID: newID, TTL: ttl, Instance: "localhost 1", Log: log})})
	if err != nil {
		t.Fatal(err)
	}
	deliver := func(want int) {
		for i := range played {
			data := base64.StdEncoding.EncodeToString([]byte(`{"source_table":"team_offense_game_summary","game_date":"2026-02-03"}`))
			body := fmt.Appendf(nil, `{"message":{"attributes":{"trigger_id":"phase3_to_phase4_2026-02-03_overnight~%d/team_offense_game_summary"},"data":%q,"messageId":"1234567890123456","publishTime":"2026-02-04T11:00:00Z"},"subscription":"projects/p/subscriptions/phase4"}`, i, data)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			if g.ServeHTTP(w, r); w.Code != want {
				t.Fatalf("answer %d, want %d", w.Code, want)
			}
		}
	}
	deliver(http.StatusOK)
	reads, writes := float64(m.reads.Load())/played, float64(m.writes.Load())/played
	// Times in the lines differ by some digits.
	logged := float64((logs.bytes.Load()/played+50)/100*100) + 2*lineOverhead
	deliver(http.StatusNoContent)
	copyReads, copyWrites := float64(m.reads.Load())/played-reads, float64(m.writes.Load())/played-writes
	if copyReads != 2 || copyWrites != 0 {
		t.Errorf("a copy reads %v documents and writes %v, want 2 and 0", copyReads, copyWrites)
	}
	page, err := os.ReadFile("../../../docs/explanation/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, deliveries := range []float64{150, 25920, 216000} {
		cost := func(run time.Duration) float64 {
			renewals := float64(run / (ttl / 3))
			stored := deliveries * receipt.Keep.Hours() / 24 / 30 * receiptSize
			return deliveries*(reads*perRead+(writes+renewals)*perWrite+perDelete+logged*perLogged+guardSeconds*perSecond) + stored*perStored
		}
		row := fmt.Sprintf("| %.0f | %.0f | %.0f | %.0f | $%.2f | $%.2f |", deliveries, deliveries*reads, deliveries*writes,
			deliveries*(writes+15), cost(30*time.Second), cost(10*time.Minute))
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/explanation/performance.md has no row %s", row)
		}
	}
}
