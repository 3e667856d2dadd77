package warehouse

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// FirstRun is when a source has run first on a day.
type FirstRun struct {
	Source string
	Day    pipeline.Period
	At     time.Time // UTC
}

// FirstRuns asks for the first runs of sources upstream on the days from one to another.
func (w *Warehouse) FirstRuns(ctx context.Context, p *pipeline.Pipeline, from, to pipeline.Period) ([]FirstRun, error) {
	var out []FirstRun
	err := w.rows(ctx, p.Health.Upstream.SQL, "health", window(p.Calendar.Daily(), from, to), func(row []bigquery.Value) error {
		if len(row) != 3 {
			return fmt.Errorf("it has %d columns, not a name, a date and a time", len(row))
		}
		name, isText := row[0].(string)
		day, isDate := periodOf(p.Calendar.Daily(), row[1])
		at, isTime := row[2].(time.Time)
		if !isText || !isDate || !isTime {
			return fmt.Errorf("%v is not a name, a date and a time", row)
		}
		out = append(out, FirstRun{name, day, at.UTC()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("first runs upstream: %s", problem(err))
	}
	return out, nil
}

// ProcessorRun is one run of a processor, as its own history tells.
type ProcessorRun struct {
	Processor string // its name or its class
	Period    pipeline.Period
	ID        string
	Began     time.Time // UTC
	Ended     time.Time // UTC; zero when it has not, or died
}

// ProcessorRuns reads the runs that began on the days from one to another, also where periods are
// hours. What could be read comes with an error about the rest.
func (w *Warehouse) ProcessorRuns(ctx context.Context, p *pipeline.Pipeline, from, to pipeline.Period) ([]ProcessorRun, error) {
	var out []ProcessorRun
	err := w.rows(ctx, p.Health.Runs, "health", window(p.Calendar.Daily(), from, to), func(row []bigquery.Value) error {
		if len(row) != 5 {
			return fmt.Errorf("the statement health.runs returns %d columns: it must return processor, date, run id, begin and end", len(row))
		}
		name, isText := row[0].(string)
		period, isPeriod := periodOf(p.Calendar, row[1])
		began, isTime := row[3].(time.Time)
		ended, hasEnded := row[4].(time.Time)
		if !isText || !isPeriod || !isTime || !hasEnded && row[4] != nil {
			return fmt.Errorf("%w: health.runs returned %v instead of processor, date, run id, begin and end", errUnreadable, row)
		}
		r := ProcessorRun{Processor: name, Period: period, ID: fmt.Sprint(row[2]), Began: began.UTC()}
		if hasEnded {
			r.Ended = ended.UTC()
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("run history: %s", problem(err))
	}
	return out, err
}
