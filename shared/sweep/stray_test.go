package sweep

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

func TestRun_RemovesDuplicatesNextToRowsBetweenTheHours(t *testing.T) {
	t.Parallel()
	w := newWorld(t, warehousetest.Empty(t))
	var tables []pipeline.Processor
	for _, name := range []string{"sales", "stock"} {
		rows := []string{"14:20", "15:00", "15:00", "15:00", "15:00", "15:00"} // the last one twice
		for i, at := range rows {
			rows[i] = "(TIMESTAMP '2026-02-03 " + at + ":00+00', 'n" + string("012344"[i]) + "', TIMESTAMP '2026-02-03 18:00:00+00')"
		}
		if name == "stock" {
			rows = rows[1:]
		}
		w.Exec("CREATE TABLE nba_analytics."+name+" (sold_hour TIMESTAMP, store_id STRING, loaded_at TIMESTAMP)", "INSERT INTO nba_analytics."+name+" VALUES "+strings.Join(rows, ", "))
		tables = append(tables, pipeline.Processor{Name: name, Class: name + "Processor", Table: w.Rename("nba_analytics." + name), DateColumn: "sold_hour", Key: []string{"sold_hour", "store_id"}, OrderBy: "loaded_at"})
	}
	w.pipeline = &pipeline.Pipeline{Calendar: pipeline.NewHourly(time.UTC), Phases: []pipeline.Phase{{Name: "p", Processors: tables}}}
	p := w.process()
	for _, o := range []Order{{From: "2026-02-03T13", To: "2026-02-03T16", Fix: all}, {From: "2026-02-03T14", To: "2026-02-03T14", Fix: all}} {
		r, err := p.Run(t.Context(), o)
		if err != nil || len(r.Tables) < 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		stray := *r.Tables[0]
		p.wantPart(stray, Refused, 0, 0, "1 row belongs to no period: sold_hour is 2026-02-03T14:20:00Z")
		if stray.Table != tables[0].Table || stray.Period != "2026-02-03T14" || r.Open() != 1 || r.Unknown() != 0 || r.Left() != 0 {
			t.Errorf("%+v, %d open", stray, r.Open())
		}
		for _, part := range r.Tables[1:] {
			if o.To == "2026-02-03T16" {
				p.wantPart(*part, Removed, 1, 1, "")
			} else {
				p.wantPart(*part, Clean, 0, 0, "")
			}
		}
	}
	if n := w.Count("nba_analytics.sales"); n != 5 || w.Count("nba_analytics.stock") != 4 {
		t.Errorf("sales has %d rows, stock %d", n, w.Count("nba_analytics.stock"))
	}
	if !strings.Contains(p.logs.String(), `"type":"stray_rows"`) {
		t.Errorf("the log does not name the rows: %s", p.logs.String())
	}
}

// withSales has one table of an hourly pipeline with rows of these times, one a store.
func withSales(t *testing.T, times ...string) *world {
	t.Helper()
	w := newWorld(t, warehousetest.Empty(t))
	w.Exec("CREATE TABLE nba_analytics.sales (sold_hour TIMESTAMP, store_id STRING, loaded_at TIMESTAMP)")
	w.sell(times...)
	w.pipeline = &pipeline.Pipeline{Calendar: pipeline.NewHourly(time.UTC), Phases: []pipeline.Phase{{Name: "p", Processors: []pipeline.Processor{{Name: "sales", Class: "SalesProcessor",
		Table: w.Rename("nba_analytics.sales"), DateColumn: "sold_hour", Key: []string{"sold_hour", "store_id"}, OrderBy: "loaded_at"}}}}}
	return w
}

// sell adds a row for each time, such as "15:00 a": the store is a.
func (w *world) sell(times ...string) {
	w.t.Helper()
	for i, at := range times {
		hour, name, _ := strings.Cut(at, " ")
		times[i] = "(TIMESTAMP '2026-02-03 " + hour + ":00+00', '" + name + "', TIMESTAMP '2026-02-03 18:00:00+00')"
	}
	w.Exec("INSERT INTO nba_analytics.sales VALUES " + strings.Join(times, ", "))
}

var hours = Order{From: "2026-02-03T13", To: "2026-02-03T16", Fix: all, Actor: "ada", Reason: "the test"}

func TestRun_EndsAnUnfinishedRemovalNextToRowsBetweenTheHours(t *testing.T) {
	t.Parallel()
	w := withSales(t, "15:00 a", "15:00 b", "15:00 c", "15:00 d", "15:00 d")
	p := w.process()
	p.diesAt("MERGE")
	if _, err := p.Run(context.Background(), hours); err != nil || !p.dead {
		t.Fatal(err, p.dead)
	}
	w.advance(11 * time.Minute)
	w.sell("15:20 a")
	next := w.process()
	r, err := next.Run(t.Context(), hours)
	if err != nil || len(r.Tables) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	next.wantPart(*r.Tables[0], Refused, 0, 0, "1 row belongs to no period: sold_hour is 2026-02-03T15:20:00Z")
	next.wantPart(*r.Tables[1], Clean, 0, 0, "the duplicates no longer exist")
	if got := w.states(); got != "applied" || r.Tables[0].Period != r.Tables[1].Period {
		t.Errorf("the removal is %q, %+v", got, r.Tables)
	}
}

// Between the search and the lock another program may have removed the duplicates, but not the
// rows between the hours.
func TestRun_TakesRowsBetweenTheHoursForNoDuplicatesUnderTheLock(t *testing.T) {
	t.Parallel()
	w := withSales(t, "15:00 a", "15:00 b", "15:00 c", "15:00 d", "15:00 d", "15:20 a")
	p := w.process()
	p.before[">= TIMESTAMP '2026-02-03 15:00:00+00'"] = func() { // only the search under the lock is about this hour alone
		w.Exec("DELETE FROM nba_analytics.sales WHERE store_id = 'd'")
		w.sell("15:00 d")
	}
	p.before[`\u003e= TIMESTAMP '2026-02-03 15:00:00+00'`] = p.before[">= TIMESTAMP '2026-02-03 15:00:00+00'"]
	r, err := p.Run(t.Context(), hours)
	if err != nil || len(r.Tables) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	p.wantPart(*r.Tables[0], Clean, 0, 0, "the duplicates no longer exist")
	p.wantPart(*r.Tables[1], Refused, 0, 0, "1 row belongs to no period")
	if r.Tables[0].Identical != nil {
		t.Error("the rows of no key were compared")
	}
	if got := w.states(); got != "" || w.Count("nba_analytics.sales") != 5 {
		t.Errorf("the removals are %q, and %d rows are left", got, w.Count("nba_analytics.sales"))
	}
}

func TestRun_ReportsTheBytesOfASearchThatFoundRowsBetweenTheHoursAlone(t *testing.T) {
	t.Parallel()
	w := withSales(t, "14:20 a", "15:00 a")
	p := w.process()
	p.answer = func(r *http.Request, answer map[string]any) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/jobs/") {
			answer["statistics"] = map[string]any{"totalBytesProcessed": "4096"}
		}
	}
	part := p.sweep(hours)
	p.wantPart(part, Refused, 0, 0, "1 row belongs to no period")
	if part.Bytes != 4096 {
		t.Errorf("%d bytes", part.Bytes)
	}
}
