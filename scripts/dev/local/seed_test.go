package local

import (
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

// rows counts those of a table.
func (w *world) rows(table string) int64 {
	w.t.Helper()
	client, err := w.App.Warehouse.Client(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	it, err := client.Query("SELECT COUNT(*) FROM `" + table + "`").Read(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		w.t.Fatal(err)
	}
	return row[0].(int64)
}

// For another pipeline file, Seed makes its tables, and rows in the tables whose processors report.
// A sweep works on them. A second environment on the same BigQuery adds no rows.
func TestSeed_MakesTheTablesOfThePipelineFileOnce(t *testing.T) {
	program := emulatortest.BigQuery(t)
	first := newWorld(t, "memory", func(o *Options) {
		o.BigQuery, o.Seed, o.Config.PipelineFile = program, true, "../demo/retail.yaml"
	})
	second := newWorld(t, "memory", func(o *Options) {
		o.Config.BigQueryHost, o.Seed, o.Config.PipelineFile, o.Config.Lease = first.BigQuery, true, "../demo/retail.yaml", lease.Max
	})
	seeded := 0
	for _, phase := range second.App.Pipeline.Phases {
		for _, p := range phase.Processors {
			want := int64(0)
			if second.App.Pipeline.ReportsTo(p.Name) != nil {
				want = 24 * sampleRows
			}
			if n := second.rows(p.Table); n != want {
				t.Errorf("%s has %d rows, want %d", p.Table, n, want)
			}
			seeded++
		}
	}
	if seeded != 40 {
		t.Errorf("%d tables", seeded)
	}
	w := second
	p, cal := w.App.Pipeline.Phases[0].Processors[0], w.App.Pipeline.Calendar
	client, err := w.App.Warehouse.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := (sample.Data{Client: client}).Exec(t.Context(), "INSERT INTO "+p.Table+" SELECT * FROM "+p.Table+" WHERE store_id = 'sample 3'"); err != nil {
		t.Fatal(err)
	}
	s, err := sweep.New(w.App)
	if err != nil {
		t.Fatal(err)
	}
	last := cal.Add(cal.At(w.App.Now()), -1)
	r, err := s.Run(t.Context(), sweep.Order{Table: p.Table, From: last, To: last, Fix: func(pipeline.Processor) bool { return true }, Actor: "ada", Reason: "a test"})
	if err != nil || r.Left() != 0 || w.rows(p.Table) != 24*sampleRows+23 {
		t.Errorf("%+v, %v; %d rows", r.Tables[0], err, w.rows(p.Table))
	}
}

// Seed makes all tables and rows that the checks of the embedded pipeline read, so a complete night
// is handed over.
func TestSeed_LetsANightOfTheEmbeddedPipelinePassItsChecks(t *testing.T) {
	program := emulatortest.BigQuery(t)
	w := newWorld(t, "sqlite", func(o *Options) {
		o.BigQuery, o.Seed, o.Clock = program, true, NewClock(at("2026-02-04 05:00"))
	})
	w.atTime("2026-02-04 06:05", morning()...)
	w.wantPublishedOnce("overnight")
	for _, dataset := range []string{w.App.Config.Staging(), w.App.Config.Archive()} {
		client, err := w.App.Warehouse.Client(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Dataset(dataset).Metadata(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Health runs at the start, so that the status page has a report at once.
func TestSchedule_RunsHealthAtTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory", func(o *Options) { o.Schedule = true })
	w.settle()
	docs := w.documents("function_status")
	if len(docs) != 1 || !strings.Contains(fmt.Sprint(docs[0].Data["heartbeats"]), "health") {
		t.Errorf("%v", docs)
	}
}
