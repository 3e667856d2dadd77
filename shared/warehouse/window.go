package warehouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// maxWindowBytes bounds what one look at many periods may read: keys, dates and times of
// all tables, a year of them, are far below it.
const maxWindowBytes = 50 << 30

// Slice is what a table holds of one period. The zero Slice is an empty one.
type Slice struct {
	Rows    int64
	Surplus int64     // rows that have the key of another
	Oldest  time.Time // by the table's order_by, UTC; zero when no row has it
	Newest  time.Time
}

// Stray are rows within a period that belong to no period: their date is not its beginning.
type Stray struct {
	Rows    int64
	Example string // the earliest of their dates
}

// Contents are the slices of one table.
type Contents struct {
	Slices  map[pipeline.Period]Slice // those with rows
	Strays  map[pipeline.Period]Stray
	Problem string // why they are not known; "" when they are
}

// Contents asks what tables hold of the periods from one to another, by table: in one
// query with literal dates. When that is refused or cannot be read, each table is asked by
// itself, so that one that is gone does not hide the others.
func (w *Warehouse) Contents(ctx context.Context, cal pipeline.Calendar, processors []pipeline.Processor, from, to pipeline.Period) map[string]Contents {
	out := map[string]Contents{}
	all, err := w.contents(ctx, cal, processors, from, to)
	if err == nil || len(processors) == 1 || !refused(err) && !errors.Is(err, errUnreadable) || tooExpensive(err) {
		for _, p := range processors {
			c := all[p.Table]
			if err != nil {
				c = Contents{Problem: problem(err)}
			}
			out[p.Table] = c
		}
		return out
	}
	var mu sync.Mutex
	SideBySide(len(processors), func(i int) {
		one := w.Contents(ctx, cal, processors[i:i+1], from, to)
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(out, one)
	})
	return out
}

func (w *Warehouse) contents(ctx context.Context, cal pipeline.Calendar, processors []pipeline.Processor, from, to pipeline.Period) (map[string]Contents, error) {
	var sqls []string
	for i, p := range processors {
		t := Target{Processor: p}
		date := "t." + quote(p.DateColumn)
		sqls = append(sqls, fmt.Sprintf(`SELECT %d, MIN(%s), COUNT(*), COUNT(*) - COUNT(DISTINCT %s), UNIX_MICROS(MIN(t.%s)), UNIX_MICROS(MAX(t.%[4]s))
FROM %s AS t WHERE %s GROUP BY %s`,
			i, date, t.keyOf("t."), quote(p.OrderBy), quoted(p.Table), within(cal, date, from, to), groups(cal, date)))
	}
	out := map[string]Contents{}
	err := w.rows(ctx, strings.Join(sqls, "\nUNION ALL\n"), "reconcile", nil, func(row []bigquery.Value) error {
		i, ok := row[0].(int64)
		if !ok || i < 0 || i >= int64(len(processors)) {
			return fmt.Errorf("%w: %v", errUnreadable, row)
		}
		period, stray, err := placed(cal, processors[i], row[1])
		if err != nil {
			return err
		}
		var s Slice
		s.Rows, _ = row[2].(int64)
		s.Surplus, _ = row[3].(int64)
		s.Oldest, s.Newest = instant(row[4]), instant(row[5])
		c := out[processors[i].Table]
		if c.Slices == nil {
			c = Contents{Slices: map[pipeline.Period]Slice{}, Strays: map[pipeline.Period]Stray{}}
		}
		if stray != "" {
			c.Strays[period] = Stray{s.Rows, stray}
		} else {
			c.Slices[period] = s
		}
		out[processors[i].Table] = c
		return nil
	})
	return out, err
}

func instant(v bigquery.Value) time.Time {
	micros, ok := v.(int64)
	if !ok {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// ExpectedByPeriod asks how many units of work the periods from one to another should
// bring, in one query. A period that is missing is not known. What could be read comes with
// an error about the rest.
func (w *Warehouse) ExpectedByPeriod(ctx context.Context, t *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
	if t.Checks == nil || t.Checks.ExpectedByPeriod == "" {
		return nil, fmt.Errorf("%s does not say how much to expect of a period", t.ID)
	}
	out := map[pipeline.Period]int64{}
	err := w.rows(ctx, t.Checks.ExpectedByPeriod, "reconcile", window(t.Calendar(), from, to), func(row []bigquery.Value) error {
		if len(row) != 2 {
			return fmt.Errorf("expected_by_period has %d columns, not a period and a number", len(row))
		}
		period, ok := periodOf(t.Calendar(), row[0])
		if !ok {
			return fmt.Errorf("%w: expected_by_period names %v, which is no period of the calendar", errUnreadable, row[0])
		}
		m := measurement(row[1])
		if n := int64(m.Value); m.Problem == "" && n >= 0 && float64(n) == m.Value && m.Value < math.MaxInt32 {
			out[period] = n
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("how much to expect: %s", problem(err))
	}
	return out, err
}

// rows runs a query for the purpose that the label names, and hands over each row. One that
// cannot be read does not hide the others.
func (w *Warehouse) rows(ctx context.Context, sql, label string, parameters []bigquery.QueryParameter, each func([]bigquery.Value) error) error {
	client, err := w.Client(ctx)
	if err != nil {
		return err
	}
	q := client.Query(sql)
	q.MaxBytesBilled, q.Parameters, q.Labels = maxWindowBytes, parameters, map[string]string{purposeLabel: label}
	it, cancel, err := w.begun(ctx, q)
	defer cancel()
	var unreadable []error
	for err == nil {
		var row []bigquery.Value
		if err = it.Next(&row); err != nil {
			break
		}
		if err = each(row); errors.Is(err, errUnreadable) && len(unreadable) < maxRowErrors {
			unreadable, err = append(unreadable, err), nil
		}
	}
	switch {
	case errors.Is(err, iterator.Done):
		return errors.Join(unreadable...)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}
