package processors

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

func retail(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "demo", "retail.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Both hours are 02:00 to 03:00 on the pipeline's clock.
const summer, winter = pipeline.Period("2026-10-25T00"), pipeline.Period("2026-10-25T01")

func TestRetail_WritesTablesOfHourlyPipeline(t *testing.T) {
	w, p := warehousetest.Alone(t), retail(t)
	data := sample.Data{Client: w.Sample().Client}
	if err := createRetail(t.Context(), data, p); err != nil {
		t.Fatal(err)
	}
	for hour, shops := range map[pipeline.Period]int{summer: Shops, winter: Shops - 1} {
		if err := errors.Join(open(t.Context(), data, p.Calendar, hour), read(t.Context(), data, p.Calendar, hour, shops, "north")); err != nil {
			t.Fatal(err)
		}
	}
	log, err := telemetry.New(io.Discard, "error")
	if err != nil {
		t.Fatal(err)
	}
	mem := memory.New(time.Now)
	ps := Processors{processor.New(processor.Config{Pipeline: p, Store: mem, Warehouse: w.Warehouse, Now: time.Now, NewID: rand.Text, Staging: w.Staging(), TimeLimit: timeLimit, Log: log,
		Locks: lease.New(lease.Config{Store: mem, Now: time.Now, NewID: rand.Text, Lease: lease.Max, Instance: "m", Log: log}),
		Publish: func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
			return []cycle.Published{{ID: rand.Text()}}
		}}), data}
	run := func(name string, hour pipeline.Period, rows int) {
		t.Helper()
		if out, err := ps.Run(t.Context(), name, hour, processor.Request{}, ps.Work); err != nil || out.Written.Rows != rows {
			t.Errorf("%s %s: %+v, %v, want %d rows", name, hour, out, err, rows)
		}
	}
	run("sales_north", summer, Shops)
	run("sales_north", winter, Shops-1)
	run("sales_north", summer, Shops) // replaces the rows of its own hour only
	if name, out, err := ps.Next(t.Context(), wire.Trigger{SourceTable: "sales_north", GameDate: summer, TriggerID: "t"}, time.Now()); name != "region_totals_north" || err != nil || out.Written.Rows != Shops {
		t.Errorf("%s: %+v, %v", name, out, err)
	}
	if name, _, err := ps.Next(t.Context(), wire.Trigger{SourceTable: "footfall_north", GameDate: summer, TriggerID: "t"}, time.Now()); name != "" || err != nil {
		t.Errorf("a trigger of footfall runs %q, %v, want no processor", name, err)
	}

	_, sales, _ := p.Processor("sales_north")
	tr := p.Transitions[0]
	contents := w.Contents(t.Context(), p.Calendar, []pipeline.Processor{sales}, summer, p.Calendar.Add(winter, 1))[sales.Table]
	rows := map[pipeline.Period]int64{}
	for hour, s := range contents.Slices {
		rows[hour] = s.Rows
	}
	if diff := cmp.Diff(map[pipeline.Period]int64{summer: Shops, winter: Shops - 1}, rows); diff != "" || contents.Problem != "" {
		t.Errorf("%s %s", contents.Problem, diff)
	}
	expected, err := w.ExpectedByPeriod(t.Context(), tr, summer, p.Calendar.Add(winter, 1))
	shops := int64(Shops * len(Regions))
	if diff := cmp.Diff(map[pipeline.Period]int64{summer: shops, winter: shops}, expected); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for hour, want := range map[pipeline.Period]policy.Outcome{summer: policy.Passed, p.Calendar.Add(winter, 1): policy.Failed} {
		if r := w.Check(t.Context(), tr, hour, "hourly", []string{"sales_north"}); r.Outcome != want {
			t.Errorf("%s: %+v, want %s", hour, r, want)
		}
	}
	if err := data.Exec(t.Context(), "INSERT INTO retail_enriched.sales_north SELECT * FROM retail_enriched.sales_north WHERE sold_hour = TIMESTAMP '2026-10-25 01:00:00+00' LIMIT 2"); err != nil {
		t.Fatal(err)
	}
	found, _, err := w.Duplicates(t.Context(), p.Calendar, sales, summer, winter)
	if err != nil || len(found) != 1 || found[0].Period != winter || found[0].Surplus != 2 {
		t.Errorf("duplicates %+v, %v", found, err)
	}
	s, err := w.Survey(t.Context(), warehouse.Target{Processor: sales, Period: winter, Calendar: p.Calendar})
	if err != nil || s.Surplus != 2 {
		t.Errorf("survey %+v, %v", s, err)
	}

	// A row whose time is not the start of an hour belongs to no period.
	out, err := ps.Run(t.Context(), "sales_north", summer, processor.Request{}, func(context.Context, processor.Run) (processor.Output, error) {
		return processor.Output{Rows: []map[string]any{{"sold_hour": "2026-10-25T00:30:00Z", "store_id": "north-1", "amount": 1, "receipts": 1, "loaded_at": "2026-10-25T01:00:00Z"}}}, nil
	})
	if err != nil || out.Status != wire.StatusFailed || out.Category != processor.FailedData {
		t.Errorf("a row of 00:30: %+v, %v", out, err)
	}
}

// retailColumns are the columns of the retail tables besides those that the definition names.
var retailColumns = map[string]string{
	"sales": "store_id STRING, amount INT64, receipts INT64", "stock": "sku STRING, units INT64", "returns": "store_id STRING, sku STRING, units INT64",
	"footfall": "store_id STRING, visitors INT64", "region_totals": "store_id STRING, amount INT64, returned INT64", "region_stock": "sku STRING, units INT64",
	"demand_forecast": "store_id STRING, value FLOAT64", "staffing": "store_id STRING, value FLOAT64",
	"replenishment": "sku STRING, value FLOAT64", "price_suggestions": "sku STRING, value FLOAT64",
}

// createRetail makes the retail pipeline's tables, empty.
func createRetail(ctx context.Context, data sample.Data, p *pipeline.Pipeline) error {
	for _, dataset := range []string{"retail_raw", "retail_reference", "retail_orchestration", "retail_enriched", "retail_aggregates", "retail_forecasts"} {
		if err := data.Client.Dataset(dataset).Create(ctx, nil); err != nil {
			return fmt.Errorf("create dataset %s: %w", dataset, err)
		}
	}
	tables := []string{
		"CREATE TABLE retail_raw.readings (kind STRING, region STRING, reading_hour TIMESTAMP, store_id STRING, sku STRING, value INT64)",
		"CREATE TABLE retail_reference.open_shops (open_hour TIMESTAMP, region STRING, shops INT64)",
		"CREATE TABLE retail_orchestration.feed_log (feed STRING, started_at TIMESTAMP)",
	}
	for _, phase := range p.Phases {
		for _, pr := range phase.Processors {
			kind, _ := ofRegion(pr.Name)
			ddl := fmt.Sprintf("CREATE TABLE %s (%s TIMESTAMP, %s, %s TIMESTAMP)", pr.Table, pr.DateColumn, retailColumns[kind], pr.OrderBy)
			if pr.Partition != pipeline.PartitionNone {
				ddl += fmt.Sprintf(" PARTITION BY TIMESTAMP_TRUNC(%s, HOUR)", pr.DateColumn)
			}
			tables = append(tables, ddl)
		}
	}
	for _, ddl := range tables {
		if err := data.Exec(ctx, ddl); err != nil {
			return err
		}
	}
	return nil
}

// read inserts the readings of some shops of a region for an hour into the raw table.
func read(ctx context.Context, data sample.Data, cal pipeline.Calendar, hour pipeline.Period, shops int, region string) error {
	at := cal.Start(hour).Format("2006-01-02 15:04:05+00")
	return data.Exec(ctx, fmt.Sprintf(`INSERT INTO retail_raw.readings
		SELECT kind, region, TIMESTAMP '%s', FORMAT('%%s-%%d', region, shop), FORMAT('sku-%%d', article), 1 + MOD(ABS(FARM_FINGERPRINT(CONCAT(kind, region, '%[1]s'))) + 7 * shop + article, 90)
		FROM UNNEST(['sales', 'stock', 'returns', 'footfall']) AS kind, UNNEST(['%s']) AS region, UNNEST(GENERATE_ARRAY(1, %d)) AS shop, UNNEST(GENERATE_ARRAY(1, %d)) AS article`,
		at, region, shops, Articles))
}

// open inserts the number of open shops of an hour.
func open(ctx context.Context, data sample.Data, cal pipeline.Calendar, hour pipeline.Period) error {
	return data.Exec(ctx, fmt.Sprintf("INSERT INTO retail_reference.open_shops SELECT TIMESTAMP '%s', region, %d FROM UNNEST(['%s']) AS region",
		cal.Start(hour).Format("2006-01-02 15:04:05+00"), Shops, strings.Join(Regions, "', '")))
}
