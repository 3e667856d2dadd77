package processor

import (
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// BigQuery runs 2 mutating statements of a table at once and queues 20. The others are refused,
// and have to be tried again.
func TestBackfill_WritesThirtyDatesAtOnce(t *testing.T) {
	const dates = 30
	w := newWorld(t)
	p := w.Platform()
	arrived := make(chan bool, 10*dates)
	p.Held, p.Arrived = make(chan struct{}), func(queued bool) { arrived <- queued }
	m := w.machine()
	m.runner.Warehouse = p.As("processor")
	var periods []pipeline.Period
	ended := make(chan error, dates)
	for i := range dates {
		period := pipeline.Period(start.AddDate(0, 0, -i).Format(time.DateOnly))
		periods = append(periods, period)
		go func() {
			out, err := m.run(period, Request{TriggerID: fmt.Sprint("t/", i)}, making(10, 3))
			if err != nil || out.Written.Rows != 3 {
				err = fmt.Errorf("%s: %+v, %w", period, out, err)
			}
			ended <- err
		}()
	}
	queued := 0
	for range dates {
		if <-arrived {
			queued++
		}
	}
	if queued != 22 {
		t.Errorf("%d statements were queued", queued)
	}
	close(p.Held)
	for range dates {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, period := range periods {
		w.want(period, "3 3 10 10")
		if got := w.statuses(period); got != "success" {
			t.Errorf("%s: published %q", period, got)
		}
	}
}
