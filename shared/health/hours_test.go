package health

import (
	"os"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// In a pipeline of hourly periods, people and windows still count in days.
func TestRun_HourlyPipeline(t *testing.T) {
	file, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 25, 6, 30, 0, 0, time.UTC) // 07:30 in Berlin, a day of 25 hours
	tr, other := p.Transitions[0], p.Transitions[1]
	f := &facts{pipeline: p, now: now, today: "2026-10-25", day: "2026-10-25", dayAt: now, comparedErr: map[string]error{}, compared: map[string]reconcile.Report{}}
	expect := func(hours map[pipeline.Period]int64) {
		f.compared[tr.ID], f.compared[other.ID] = reconcile.Report{Expected: hours}, reconcile.Report{Expected: hours}
	}

	expect(map[pipeline.Period]int64{"2026-10-24T21": 0, "2026-10-24T22": 5, "2026-10-25T22": 0}) // the day begins with 22
	for day, want := range map[pipeline.Period][2]bool{"2026-10-24": {false, true}, "2026-10-25": {true, true}, "2026-10-23": {false, false}} {
		if yes, known := f.anything(day); [2]bool{yes, known} != want {
			t.Errorf("%s: something to do %v, known %v", day, yes, known)
		}
	}
	if yes, known := f.todo(tr, "2026-10-25"); yes || !known {
		t.Errorf("before today: %v, %v", yes, known)
	}
	if yes, _ := f.todo(tr, "2026-10-26"); !yes {
		t.Error("before tomorrow nothing was to do")
	}

	f.runs = []warehouse.ProcessorRun{{Processor: "sales_north", Period: "2026-10-17T21", Began: now}, // of a day too early
		{Processor: "sales_north", Period: "2026-10-17T22", Began: now.Add(-2 * time.Hour)}, {Processor: "sales_north", Period: "2026-10-25T05", Began: now.Add(-time.Hour)},
		{Processor: "stranger", Period: "2026-10-25T05", Began: now}}
	if runs := f.lockedRuns(); len(runs) != 1+1 || runs[0].Period != "2026-10-25T05" || runs[1].Period != "2026-10-17T22" {
		t.Errorf("%+v", runs)
	}

	p.Health.Maintenance = []pipeline.Maintenance{{From: "2026-10-25T03", To: "2026-10-25T04", Reason: "tables move"}, {From: "2026-09-01T00", To: "2026-09-02T00", Reason: "long ago"}}
	if planned := f.planned(); len(planned) != 1 {
		t.Errorf("planned: %q", planned)
	}

	for at, due := range map[time.Time]bool{now.Add(-31 * time.Minute): false, now.Add(-30 * time.Minute): true} { // 07:00 in Berlin
		n, told := Report{At: at}.Digest(p, "")
		if told != due || due && n.State != "2026-10-25" {
			t.Errorf("%s: due %v, %q", at, told, n.State)
		}
	}
}
