package cycle

import (
	"os"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// The relay covers as many days of hourly periods as of daily ones.
func TestRelay_CoversSameDaysForHourlyPeriods(t *testing.T) {
	file, err := os.ReadFile("../../scripts/dev/demo/retail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "memory")
	w.tr = p.Transitions[0]
	w.clock.set(time.Date(2026, 10, 25, 1, 10, 0, 0, time.UTC))
	hour := pipeline.Period("2026-10-25T00")
	for _, name := range w.tr.Order {
		c := wire.Completion{Processor: name, Reported: name, Period: hour, Status: wire.StatusSuccess, EventTime: w.clock.now(), ExecutionID: name, CorrelationID: "x"}
		if err := w.engine.Record(t.Context(), w.key(hour), c); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.set(w.clock.now().Add(40 * time.Hour)) // no relay has run
	if err := w.engine.Relay(t.Context(), w.tr, "m", nil); err != nil {
		t.Fatal(err)
	}
	st, err := w.engine.Status(t.Context(), w.key(hour))
	if err != nil || st[0].State != string(StatePublished) || len(st[0].Satisfied) != 24 {
		t.Errorf("%+v, %v", st, err)
	}
}
