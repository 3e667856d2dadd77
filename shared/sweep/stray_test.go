package sweep

import (
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
		p.wantPart(stray, Refused, 0, 0, "1 rows belong to no period: sold_hour is 2026-02-03T14:20:00Z")
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
