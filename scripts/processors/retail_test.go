package processors

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
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

func TestTablesOfAPipelineByTheHour(t *testing.T) {
	w, p := warehousetest.Alone(t), retail(t)
	data := sample.Data{Client: w.Sample().Client}
	if err := CreateRetail(t.Context(), data, p); err != nil {
		t.Fatal(err)
	}
	for hour, shops := range map[pipeline.Period]int{summer: Shops, winter: Shops - 1} {
		if err := errors.Join(Open(t.Context(), data, p.Calendar, hour), Read(t.Context(), data, p.Calendar, hour, 1, shops, "north")); err != nil {
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
		Publish: func(_ context.Context, _ string, msgs []message.Outgoing) []cycle.Published {
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
	run("sales_north", summer, Shops) // in the place of its own hour's rows, and of no others
	if name, out, err := ps.Next(t.Context(), message.Trigger{SourceTable: "sales_north", GameDate: summer, TriggerID: "t"}, time.Now()); name != "region_totals_north" || err != nil || out.Written.Rows != Shops {
		t.Errorf("%s: %+v, %v", name, out, err)
	}
	if name, _, err := ps.Next(t.Context(), message.Trigger{SourceTable: "footfall_north", GameDate: summer, TriggerID: "t"}, time.Now()); name != "" || err != nil {
		t.Errorf("footfall sets off %q, %v", name, err)
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
	for hour, want := range map[pipeline.Period]gate.Outcome{summer: gate.Passed, p.Calendar.Add(winter, 1): gate.Failed} {
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

	// A row in the middle of an hour belongs to none.
	out, err := ps.Run(t.Context(), "sales_north", summer, processor.Request{}, func(context.Context, processor.Run) (processor.Output, error) {
		return processor.Output{Rows: []map[string]any{{"sold_hour": "2026-10-25T00:30:00Z", "store_id": "north-1", "amount": 1, "receipts": 1, "loaded_at": "2026-10-25T01:00:00Z"}}}, nil
	})
	if err != nil || out.Status != message.StatusFailed || out.Category != processor.FailedData {
		t.Errorf("a row of 00:30: %+v, %v", out, err)
	}
}
