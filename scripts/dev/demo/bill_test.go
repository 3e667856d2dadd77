package demo

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// metered counts the reads and writes that Firestore bills. A read is each requested document, even
// a missing one, and a query without a result. A write is each written document.
type metered struct {
	store.Store
	reads, writes *atomic.Int64
}

func (m metered) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	m.reads.Add(int64(len(refs)))
	return m.Store.Get(ctx, refs...)
}

func (m metered) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	m.writes.Add(int64(len(ws)))
	return m.Store.Apply(ctx, ws...)
}

func (m metered) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		n := int64(0)
		defer func() { m.reads.Add(max(n, 1)) }()
		for doc, err := range m.Store.Scan(ctx, collection, from, to) {
			n++
			if !yield(doc, err) {
				return
			}
		}
	}
}

// counted counts the bytes of what is logged.
type counted struct{ bytes atomic.Int64 }

func (c *counted) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b)))
	return len(b), nil
}

// large is the retail pipeline with 300 processors in its first phase, and no second
// transition.
func large(retail string) string {
	var processors, order strings.Builder
	for i := range 300 {
		fmt.Fprintf(&processors, "      - {name: feed_%d, kind: store, table: retail_enriched.feed_%[1]d, date_column: hour, key: [hour, id], order_by: at}\n", i)
		fmt.Fprintf(&order, "        - feed_%d\n", i)
	}
	names := strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(order.String(), "        - ", " ")), "\n", ",")
	return `schema: 1
name: large
time_zone: Europe/Berlin
calendar: hour
kinds: {store: stores}
phases:
  - name: one
    processors:
` + processors.String() + `  - name: two
    processors:
      - {name: last, kind: store, table: retail_forecasts.last, date_column: hour, key: [hour, id], order_by: at}
transitions:
  - id: one_to_two
    upstream: {phase: one, topic: ones}
    downstream:
      phase: two
      topic: twos
      triggered_by: x
      parent_processor: X
      order:
` + order.String() + `    compatibility_collection: ones_done
    trigger_within: 48h
    modes:
      - {name: hourly, event: after, critical: [` + names + `], complete: all, counts_from: "+1h :00", deadline: "+1h :50", second_runs: ignore}
schedules:
  - {name: relay, cron: "*/5 * * * *", function: reconcile, job: relay}
  - {name: nightly, cron: "40 6 * * *", function: reconcile, job: nightly}
  - {name: health, cron: "5 * * * *", function: health, job: health}
`
}

// List prices in dollars, without what is free: Firestore and Cloud Run in us-central1,
// Pub/Sub, BigQuery on demand.
const (
	perRead    = 0.03 / 1e5
	perWrite   = 0.09 / 1e5
	perRequest = 0.40 / 1e6
	perSecond  = 0.000024 + 0.25*0.0000025 // one vCPU and 256 MiB
	perMessage = 2048 * 40.0 / (1 << 40)   // published and delivered, a kilobyte each at least
	perByte    = 6.25 / (1 << 40)
	perJob     = 0.10 // of the scheduler, a month
	perLogged  = 0.50 / (1 << 30)
	// In a multi-region such as nam5 Firestore costs twice as much as in a region.
	multiRegion = 2
	// Of each request Cloud Run keeps an entry; of each line its labels and times.
	requestEntry, lineOverhead = 1 << 10, 512
	minBytes                   = 10 << 20
)

// The longest time of a request, in seconds. It is measured on the emulator, see
// docs/explanation/performance.md. The time to check the tables is BigQuery's.
const (
	completionSeconds, lookSeconds, readSeconds = 0.3, 10.0, 0.005
)

// large300 also plays the pipeline of 300 processors: 15 s, where the two others take one.
var large300 = flag.Bool("bill.large", false, "TestBill_MonthlyCostOfPipelines plays a pipeline of 300 processors, too")

// TestBill_MonthlyCostOfPipelines plays a day, or two of its hours, of three pipelines after a fortnight of
// others, and prints the cost of thirty such days. docs/explanation/performance.md has the table.
func TestBill_MonthlyCostOfPipelines(t *testing.T) {
	retail, err := os.ReadFile("retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("| pipeline | completions | messages handed over | documents read | written | BigQuery | logs | a month | in nam5 |")
	for _, size := range []struct{ name, definition string }{{"nba", string(pipeline.Default())}, {"retail", string(retail)}, {"large", large(string(retail))}} {
		t.Run(size.name, func(t *testing.T) {
			if size.name == "large" && !*large300 {
				t.Skip("a pipeline of 300 processors takes 15 s, and make test-all plays it")
			}
			bill(t, size.name, size.definition)
		})
	}
}

func bill(t *testing.T, name, definition string) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	server := pstest.NewServer()
	defer server.Close()
	at := time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)
	now := func() time.Time { return at }
	m := metered{memory.New(now), &atomic.Int64{}, &atomic.Int64{}}
	logs := &counted{}
	a, err := app.Open(t.Context(), app.Config{Project: "test", PipelineFile: file, Claim: time.Minute, Lease: lease.Max, Local: true, PubSubHost: server.Addr},
		func(context.Context, app.Config) (store.Store, error) { return m, nil }, now, logs)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, tr := range a.Pipeline.Transitions {
		if _, err := a.Broker.Client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/test/topics/" + tr.DownstreamTopic}); err != nil {
			t.Fatal(err)
		}
	}
	cal := a.Pipeline.Calendar
	completions := 0
	play := func(periods int, each bool) {
		for range periods {
			at = at.Add(24 * time.Hour / time.Duration(cal.PerDay()))
			for _, tr := range a.Pipeline.Transitions {
				p := cal.Add(cal.At(at), -1)
				for i, processor := range tr.Order {
					c := wire.Completion{Processor: processor, Reported: processor, Period: p, Status: wire.StatusSuccess, EventTime: cal.End(p).Add(10*time.Minute + time.Duration(i)*time.Millisecond), ExecutionID: processor, CorrelationID: "x"}
					if c.EventTime.After(at) {
						at = c.EventTime
					}
					key := cycle.Key{Transition: tr, Period: p}
					if err := a.Engine.Record(t.Context(), key, c); err != nil {
						t.Fatal(err)
					}
					completions++
					if !each && i < len(tr.Order)-1 { // earlier days only need their final state
						continue
					}
					if _, err := a.Engine.Converge(t.Context(), key, "m"); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	relay := func() {
		for _, tr := range a.Pipeline.Transitions {
			if err := a.Engine.Relay(t.Context(), tr, "m", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 15 { // more days than the relay evaluates
		play(cal.PerDay(), false)
		relay() // marks what is finished
	}
	m.reads.Store(0)
	m.writes.Store(0)
	logs.bytes.Store(0)
	completions = 0
	before := len(server.Messages())
	measured := min(cal.PerDay(), 2)
	play(measured, true)
	scale := cal.PerDay() / measured
	handed := (len(server.Messages()) - before) * scale
	completions *= scale
	m.reads.Store(m.reads.Load() * int64(scale))
	m.writes.Store(m.writes.Load() * int64(scale))
	logs.bytes.Store(logs.bytes.Load() * int64(scale))
	const relays, looks = 288, 24
	times := func(n int64, do func()) (reads int64) { // counts it as n times
		r, w, l := m.reads.Load(), m.writes.Load(), logs.bytes.Load()
		do()
		logs.bytes.Add((n - 1) * (logs.bytes.Load() - l))
		reads = m.reads.Load() - r
		m.reads.Add((n - 1) * reads)
		m.writes.Add((n - 1) * (m.writes.Load() - w))
		return reads
	}
	unmarked := m.writes.Load()
	relay() // marks what has been finished since
	m.writes.Add((int64(scale) - 1) * (m.writes.Load() - unmarked))
	perRelay := times(relays, relay)
	c := health.New(a)
	c.Dead = func(context.Context) (map[string]int64, error) { return nil, nil }
	perLook := times(looks, func() {
		r := c.Run(t.Context())
		c.LogReport(t.Context(), r)
		if err := c.Remember(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	})
	for _, tr := range a.Pipeline.Transitions {
		from, to := tr.Window(at, 7)
		if _, err := reconcile.New(a).Run(t.Context(), tr, from, to, ""); err != nil {
			t.Fatal(err)
		}
	}
	// BigQuery bills at least 10 MB for each table that a query names. An evaluation of health
	// queries the tables of both phases, each upstream one twice.
	tables, checked := 0, 0
	for _, tr := range a.Pipeline.Transitions {
		tables += 2*len(tr.Order) + 1
		if tr.Checks != nil {
			checked += len(tr.Order) * cal.PerDay()
		}
	}
	bytes := float64((looks+1)*tables+checked) * minBytes * 30
	reads, writes := float64(m.reads.Load()*30), float64(m.writes.Load()*30)
	seconds := 30 * (float64(completions)*completionSeconds + relays*float64(perRelay)*readSeconds + looks*(lookSeconds+float64(perLook)*readSeconds))
	requests := 30 * float64(completions+relays+looks+2)
	dollars := reads*perRead + writes*perWrite + requests*perRequest + seconds*perSecond + 30*float64(completions+handed+relays+looks)*perMessage + bytes*perByte + perJob*float64(len(a.Pipeline.Schedules))
	// Each completion and each job writes one log line at least.
	logged := 30*float64(logs.bytes.Load()) + requests*requestEntry + (requests+30*float64(looks*len(c.Pipeline.Schedules)))*lineOverhead
	dollars += logged * perLogged
	firestore := reads*perRead + writes*perWrite
	if dollars <= 0 || math.IsNaN(dollars) || handed < completions {
		t.Errorf("%v dollars, %d completions, %d messages", dollars, completions, handed)
	}
	t.Logf("| %s | %d | %d | %.1f million | %.0f thousand | %.0f GB | %.2f GB | $%.2f | $%.2f |", name, 30*completions, 30*handed, reads/1e6, writes/1e3, bytes/(1<<30), logged/(1<<30), dollars, dollars+(multiRegion-1)*firestore)
	t.Logf("a relay reads %d documents, a look %d; Firestore $%.2f, functions $%.2f, BigQuery $%.2f, logs $%.2f", perRelay, perLook, firestore, seconds*perSecond, bytes*perByte, logged*perLogged)
}
