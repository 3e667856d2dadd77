package warehouse

import (
	"context"
	"errors"
	"fmt"
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

// Contents are the slices of one table.
type Contents struct {
	Slices  map[pipeline.Period]Slice // those with rows
	Problem string                    // why they are not known; "" when they are
}

// Contents asks what tables hold of the periods from one to another, by table: in one
// query with literal dates. When that is refused, each table is asked by itself, so that
// one that is gone does not hide the others.
func (w *Warehouse) Contents(ctx context.Context, cal pipeline.Calendar, processors []pipeline.Processor, from, to pipeline.Period) map[string]Contents {
	out := map[string]Contents{}
	all, err := w.contents(ctx, cal, processors, from, to)
	if err == nil || len(processors) == 1 || !refused(err) || tooExpensive(err) {
		for _, p := range processors {
			c := Contents{Slices: all[p.Table]}
			if err != nil {
				c.Problem = problem(err)
			}
			out[p.Table] = c
		}
		return out
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, p := range processors {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			one := w.Contents(ctx, cal, []pipeline.Processor{p}, from, to)
			mu.Lock()
			defer mu.Unlock()
			out[p.Table] = one[p.Table]
		})
	}
	wg.Wait()
	return out
}

func (w *Warehouse) contents(ctx context.Context, cal pipeline.Calendar, processors []pipeline.Processor, from, to pipeline.Period) (map[string]map[pipeline.Period]Slice, error) {
	var sqls []string
	for i, p := range processors {
		t := Target{Processor: p}
		date := quote(p.DateColumn)
		sqls = append(sqls, fmt.Sprintf(`SELECT %d, t.%s, COUNT(*), COUNT(*) - COUNT(DISTINCT %s), UNIX_MICROS(MIN(t.%s)), UNIX_MICROS(MAX(t.%[4]s))
FROM %s AS t WHERE t.%[2]s BETWEEN %[6]s AND %[7]s GROUP BY t.%[2]s`,
			i, date, t.keyOf("t."), quote(p.OrderBy), quoted(p.Table), literal(cal, from), literal(cal, to)))
	}
	out := map[string]map[pipeline.Period]Slice{}
	err := w.rows(ctx, strings.Join(sqls, "\nUNION ALL\n"), "reconcile", nil, func(row []bigquery.Value) error {
		i, ok := row[0].(int64)
		period, isPeriod := periodOf(cal, row[1])
		if !ok || !isPeriod || i < 0 || i >= int64(len(processors)) {
			return fmt.Errorf("BigQuery answered %v", row)
		}
		var s Slice
		s.Rows, _ = row[2].(int64)
		s.Surplus, _ = row[3].(int64)
		s.Oldest, s.Newest = instant(row[4]), instant(row[5])
		table := processors[i].Table
		if out[table] == nil {
			out[table] = map[pipeline.Period]Slice{}
		}
		out[table][period] = s
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
// bring, in one query. A period that is missing is not known.
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
			return fmt.Errorf("expected_by_period: %v is no period of the calendar", row[0])
		}
		m := measurement(row[1])
		if n := int64(m.Value); m.Problem == "" && n >= 0 && float64(n) == m.Value && m.Value < math.MaxInt32 {
			out[period] = n
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("how much to expect: %s", problem(err))
	}
	return out, nil
}

// rows runs a query on behalf of whoever the label names, and hands over each row.
func (w *Warehouse) rows(ctx context.Context, sql, label string, parameters []bigquery.QueryParameter, each func([]bigquery.Value) error) error {
	client, err := w.Client(ctx)
	if err != nil {
		return err
	}
	q := client.Query(sql)
	q.MaxBytesBilled, q.Parameters, q.Labels = maxWindowBytes, parameters, map[string]string{purposeLabel: label}
	it, err := q.Read(ctx)
	for err == nil {
		var row []bigquery.Value
		if err = it.Next(&row); err == nil {
			err = each(row)
		}
	}
	if errors.Is(err, iterator.Done) {
		return nil
	}
	return err
}
