package warehouse_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// hourly returns two tables of a pipeline by the hour. sales has a shop twice at 15:00, and
// rows of 14:00, of 14:20 twice, of 14:40 and of 16:59; stock has one row of 14:00.
func hourly(t *testing.T) (w *warehousetest.World, cal pipeline.Calendar, sales, stock pipeline.Processor) {
	t.Helper()
	w = warehousetest.Empty(t)
	table := func(name string, rows string) pipeline.Processor {
		w.Exec("CREATE TABLE nba_analytics."+name+" (sold_hour TIMESTAMP, store_id STRING, loaded_at TIMESTAMP)",
			"INSERT INTO nba_analytics."+name+" VALUES "+rows)
		return pipeline.Processor{Name: name, Table: w.Rename("nba_analytics." + name), DateColumn: "sold_hour", Key: []string{"sold_hour", "store_id"}, OrderBy: "loaded_at"}
	}
	at := func(hour, store string) string {
		return "(TIMESTAMP '2026-02-03 " + hour + ":00+00', '" + store + "', TIMESTAMP '2026-02-03 18:00:00+00')"
	}
	sales = table("sales", at("14:00", "n1")+", "+at("14:20", "n1")+", "+at("14:20", "n1")+", "+at("14:40", "n2")+", "+at("15:00", "n1")+", "+at("15:00", "n1")+", "+at("16:59", "n1"))
	stock = table("stock", at("14:00", "n1"))
	return w, pipeline.NewHourly(time.UTC), sales, stock
}

var strays = map[pipeline.Period]warehouse.Stray{
	"2026-02-03T14": {Rows: 3, Example: "2026-02-03T14:20:00Z"},
	"2026-02-03T16": {Rows: 1, Example: "2026-02-03T16:59:00Z"},
}

func TestContents_NamesRowsBetweenTheHoursAndAnswersTheRest(t *testing.T) {
	t.Parallel()
	w, cal, sales, stock := hourly(t)
	got := w.Contents(t.Context(), cal, []pipeline.Processor{sales, stock}, "2026-02-03T13", "2026-02-03T16")
	rows := map[string]int64{}
	for _, p := range []pipeline.Processor{sales, stock} {
		if got[p.Table].Problem != "" {
			t.Errorf("%s: %s", p.Table, got[p.Table].Problem)
		}
		for hour, s := range got[p.Table].Slices {
			rows[p.Name+" "+string(hour)] = s.Rows*10 + s.Surplus
		}
	}
	if diff := cmp.Diff(map[string]int64{"sales 2026-02-03T14": 10, "sales 2026-02-03T15": 21, "stock 2026-02-03T14": 10}, rows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(strays, got[sales.Table].Strays); diff != "" || len(got[stock.Table].Strays) != 0 {
		t.Errorf("%s, %v", diff, got[stock.Table].Strays)
	}
}

func TestDuplicates_NamesRowsBetweenTheHoursAndAnswersTheRest(t *testing.T) {
	t.Parallel()
	w, cal, sales, _ := hourly(t)
	found, _, err := w.Duplicates(t.Context(), cal, sales, "2026-02-03T13", "2026-02-03T16")
	if err != nil || len(found) != 3 || found[1].Period != "2026-02-03T15" || found[1].Surplus != 1 || found[1].Rows != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, d := range []warehouse.Duplicates{found[0], found[2]} {
		if s := strays[d.Period]; d != (warehouse.Duplicates{Period: d.Period, Stray: s.Example, Rows: s.Rows}) {
			t.Errorf("%+v, want %+v", d, s)
		}
	}
}

// A DATETIME can be compared with a DATE, and makes DATETIMEs of all dates next to it in a
// UNION. (The emulator compares the two otherwise: what it says of b is not asked.)
func TestContents_ATableWithAnotherTypeOfDateHidesNoOther(t *testing.T) {
	t.Parallel()
	w := warehousetest.Empty(t)
	w.Exec("CREATE TABLE nba_analytics.a (day DATE, k STRING, seen TIMESTAMP)", "CREATE TABLE nba_analytics.b (day DATETIME, k STRING, seen TIMESTAMP)",
		"INSERT INTO nba_analytics.a VALUES (DATE '2026-02-03', 'x', NULL)", "INSERT INTO nba_analytics.b VALUES (DATETIME '2026-02-03 00:00:00', 'x', NULL)")
	processor := func(name string) pipeline.Processor {
		return pipeline.Processor{Name: name, Table: w.Rename("nba_analytics." + name), DateColumn: "day", Key: []string{"day", "k"}, OrderBy: "seen"}
	}
	a, b := processor("a"), processor("b")
	got := w.Contents(t.Context(), pipeline.NewCalendar(time.UTC), []pipeline.Processor{a, b}, "2026-02-02", "2026-02-04")
	if c := got[a.Table]; c.Problem != "" || c.Slices["2026-02-03"].Rows != 1 {
		t.Errorf("%+v", c)
	}
	if c := got[b.Table]; w.Host == "" && !strings.Contains(c.Problem, "column day of "+b.Table+" holds 2026-02-03T00:00:00: make it a DATE") {
		t.Errorf("%+v", c)
	}
}

func TestExpectedByPeriod_ADateBetweenTheHoursHidesNoOther(t *testing.T) {
	t.Parallel()
	w := warehousetest.Empty(t)
	definition, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(definition)
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Transitions[0]
	tr.Checks.ExpectedByPeriod = `SELECT TIMESTAMP_ADD(@first, INTERVAL m MINUTE), m FROM UNNEST([0, 20, 60]) AS m WHERE @last > @first ORDER BY m`
	got, err := w.ExpectedByPeriod(t.Context(), tr, "2026-02-03T13", "2026-02-03T16")
	if diff := cmp.Diff(map[pipeline.Period]int64{"2026-02-03T13": 0, "2026-02-03T14": 60}, got); diff != "" {
		t.Error(diff)
	}
	if err == nil || !strings.Contains(err.Error(), "expected_by_period names 2026-02-03 13:20:00") {
		t.Errorf("%v", err)
	}
}

func TestProcessorRuns_ARunWithoutAPeriodHidesNoOther(t *testing.T) {
	t.Parallel()
	w := warehousetest.Empty(t)
	p := &pipeline.Pipeline{Calendar: pipeline.NewCalendar(time.UTC), Health: pipeline.Health{Runs: `SELECT processor, day, 'r', TIMESTAMP '2026-02-03 14:00:00+00', CAST(NULL AS TIMESTAMP)
FROM (SELECT 'a' AS processor, DATE '2026-02-02' AS day UNION ALL SELECT 'b', CAST(NULL AS DATE) UNION ALL SELECT 'c', DATE '2026-02-03') WHERE @first < @last ORDER BY 1`}}
	got, err := w.ProcessorRuns(t.Context(), p, "2026-02-01", "2026-02-04")
	if len(got) != 2 || got[0].Processor != "a" || got[1].Processor != "c" || got[1].Period != "2026-02-03" {
		t.Errorf("%+v", got)
	}
	if err == nil || !strings.Contains(err.Error(), "[b <nil> r") {
		t.Errorf("%v", err)
	}
}
