package warehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// Duplicates is what a table holds of one period too often.
type Duplicates struct {
	Period pipeline.Period
	// Stray is the date of rows within the period that belong to no period: they do not lie
	// at its beginning. Then nothing but their number is known.
	Stray   string
	Rows    int64 // of the period
	Keys    int64 // that have several rows
	Surplus int64 // rows beyond one a key
	// SameTime is of how many of these keys all rows have one time, by the table's
	// order_by: written at once, or never told.
	SameTime int64
	NoKey    int64     // rows with NULL in a key column: of those it cannot be said
	Oldest   time.Time // of the rows of these keys, UTC; zero when none has a time
	Newest   time.Time
}

// Duplicates finds the periods of a table, from one to another, with rows that share a key, have no
// key, or belong to no period. It is one query with literal dates, over the key's columns and
// order_by alone. bytes is what it read.
func (w *Warehouse) Duplicates(ctx context.Context, cal pipeline.Calendar, p pipeline.Processor, from, to pipeline.Period) (found []Duplicates, bytes int64, err error) {
	t := Target{Processor: p}
	stray := ""
	if cal.Hourly() {
		stray = "OR LOGICAL_OR(day != TIMESTAMP_TRUNC(day, HOUR)) "
	}
	sql := fmt.Sprintf(`SELECT MIN(day), SUM(n), COUNTIF(n > 1), SUM(n - 1), COUNTIF(n > 1 AND times < 2), SUM(IF(without, n, 0)), UNIX_MICROS(MIN(IF(n > 1, oldest, NULL))), UNIX_MICROS(MAX(IF(n > 1, newest, NULL)))
FROM (SELECT %s AS day, %s AS k, COUNT(*) AS n, COUNT(DISTINCT %[3]s) AS times, MIN(%[3]s) AS oldest, MAX(%[3]s) AS newest, LOGICAL_OR(%[4]s) AS without
FROM %[5]s AS %[6]s WHERE %[7]s GROUP BY 1, 2)
GROUP BY %[8]s HAVING COUNTIF(n > 1) > 0 OR LOGICAL_OR(without) %[9]sORDER BY 1`,
		col(p.DateColumn), t.key(), col(p.OrderBy), t.withoutKey(), quoted(p.Table), rowAlias, within(cal, col(p.DateColumn), from, to), groups(cal, "day"), stray)
	bytes, err = w.scan(ctx, sql, func(it *reading) error {
		var row []bigquery.Value
		if err := it.Next(&row); err != nil {
			return err
		}
		d := Duplicates{Oldest: instant(row[6]), Newest: instant(row[7])}
		var err error
		if d.Period, d.Stray, err = placed(cal, p, row[0]); err != nil {
			return err
		}
		var ok bool
		for i, into := range []*int64{&d.Rows, &d.Keys, &d.Surplus, &d.SameTime, &d.NoKey} {
			if *into, ok = row[i+1].(int64); !ok {
				return fmt.Errorf("%w: %v", errUnreadable, row)
			}
		}
		if d.Stray != "" {
			d = Duplicates{Period: d.Period, Stray: d.Stray, Rows: d.Rows}
		}
		found = append(found, d)
		return nil
	})
	if err != nil {
		return nil, bytes, fmt.Errorf("duplicates in %s: %w", p.Table, err)
	}
	return found, bytes, nil
}

// rowAlias is what statements about duplicates call a row. It begins as no column may
// (see [Warehouse.Survey]), so that it stands for the row with any columns.
const (
	ours     = "phasegate_"
	rowAlias = ours + "row"
)

func col(name string) string { return rowAlias + "." + quote(name) }

func (t Target) key() string { return t.keyOf(rowAlias + ".") }

func (t Target) withoutKey() string {
	var out []string
	for _, c := range t.Processor.Key {
		out = append(out, col(c)+" IS NULL")
	}
	return strings.Join(out, " OR ")
}

// hash tells rows apart by everything that stands in them.
const hash = "TO_HEX(SHA256(TO_JSON_STRING(" + rowAlias + ")))"

// Fingerprint stands for a multiset of rows: how many there are, and the sums of two
// parts of their SHA-256, of 40 bits each. So it depends on no order, and two equal rows count
// twice. Eight million rows stay below 2^63.
type Fingerprint struct{ Rows, A, B int64 }

const fingerprintDigits = 10 // hexadecimal, of each part

func (f *Fingerprint) add(hash string) error {
	a, errA := strconv.ParseInt(hash[:fingerprintDigits], 16, 64)
	b, errB := strconv.ParseInt(hash[fingerprintDigits:2*fingerprintDigits], 16, 64)
	f.Rows, f.A, f.B = f.Rows+1, f.A+a, f.B+b
	return errors.Join(errA, errB)
}

// fingerprint is the query for the three numbers of rows, which stand behind FROM and are
// called rowAlias there.
func fingerprint(rows string) string {
	part := func(from int) string {
		return fmt.Sprintf("IFNULL(SUM(CAST(CONCAT('0x', SUBSTR(h, %d, %d)) AS INT64)), 0)", from, fingerprintDigits)
	}
	return fmt.Sprintf("SELECT COUNT(*) AS n, %s AS a, %s AS b FROM (SELECT %s AS h FROM %s)", part(1), part(1+fingerprintDigits), hash, rows)
}

// Survey says what is to be removed from a period of a table, and what shall be left.
type Survey struct {
	Keys, Surplus int
	Identical     int             // keys whose rows differ in nothing
	Examples      []dedup.Example // the first ones
	Before, After Fingerprint     // of all rows of these keys, and of those that stay
	Bytes         int64           // read to find out

	survivors []string // hashes of those that stay
}

// maxKeys bounds what one removal can be about: its survivors go along in one request.
const maxKeys = 50_000

// Survey reads the rows that share a key, and decides which of each key stays. The rule is that by
// which rows are de-duplicated before they are written. It changes nothing. An [ErrTarget] says that nothing can be removed from the table as it is.
func (w *Warehouse) Survey(ctx context.Context, t Target) (Survey, error) {
	meta, err := w.metadata(ctx, t.Processor.Table)
	if err != nil {
		return Survey{}, err
	}
	rule, err := t.rule(meta)
	if err != nil {
		return Survey{}, err
	}
	for _, f := range meta.Schema {
		if strings.HasPrefix(strings.ToLower(f.Name), ours) {
			return Survey{}, fmt.Errorf("%w: %s has a column %s: names that begin with %s are ours here", ErrTarget, t.Processor.Table, f.Name, ours)
		}
	}
	// https://cloud.google.com/bigquery/docs/data-manipulation-language#limitations
	if b := meta.StreamingBuffer; b != nil {
		return Survey{}, fmt.Errorf("%w: %s has some %d rows in its streaming buffer, since %s: they cannot be removed before they have left it",
			ErrTarget, t.Processor.Table, b.EstimatedRows, b.OldestEntryTime.UTC().Format(time.RFC3339))
	}
	sql := fmt.Sprintf("SELECT %s AS %skey, %s AS %[2]shash, %[4]s.* FROM %[5]s AS %[4]s WHERE %[6]s QUALIFY COUNT(*) OVER (PARTITION BY %[1]s) > 1 ORDER BY %[2]skey",
		t.key(), ours, hash, rowAlias, quoted(t.Processor.Table), t.slice(rowAlias+"."))
	var s Survey
	var group []dedup.Row     // of one key: those that are not compared yet, after the surviving one
	var example dedup.Example // of this key
	compare := func() error {
		if len(group) < 2 {
			return nil
		}
		r, err := rule.Apply(group)
		if err == nil && len(r.Rows) != 1 {
			err = fmt.Errorf("BigQuery takes %d keys for one, %v", len(r.Rows), group[0][ours+"key"])
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrTarget, t.Processor.Table, err)
		}
		first := example.Rows == 0
		example = dedup.Example{Key: r.Examples[0].Key, Rows: example.Rows + r.Removed, Identical: (first || example.Identical) && r.Examples[0].Identical}
		if first {
			example.Rows++
		}
		clear(group)
		group = append(group[:0], r.Rows[0])
		return nil
	}
	finish := func() error {
		if len(group) == 0 {
			return nil
		}
		if err := compare(); err != nil {
			return err
		}
		survivor := group[0][ours+"hash"].(string)
		s.survivors = append(s.survivors, survivor)
		s.Keys, s.Surplus = s.Keys+1, s.Surplus+example.Rows-1
		if example.Identical {
			s.Identical++
		}
		if len(s.Examples) < maxExamples {
			s.Examples = append(s.Examples, example)
		}
		example = dedup.Example{}
		if s.Keys > maxKeys {
			return fmt.Errorf("%w: %s: more than %d keys of %s have several rows", ErrTarget, t.Processor.Table, maxKeys, t.Period)
		}
		return s.After.add(survivor)
	}
	s.Bytes, err = w.scan(ctx, sql, func(it *reading) error {
		var values map[string]bigquery.Value
		if err := it.Next(&values); err != nil {
			if errors.Is(err, iterator.Done) {
				if err := finish(); err != nil {
					return err
				}
			}
			return err
		}
		row, err := scanned(meta.Schema, values)
		if err != nil {
			return err
		}
		key, isText := values[ours+"key"].(string)
		h, isHash := values[ours+"hash"].(string)
		if !isText || !isHash || len(h) < 2*fingerprintDigits {
			return fmt.Errorf("%w: key %v, hash %v", errUnreadable, values[ours+"key"], values[ours+"hash"])
		}
		row[ours+"key"], row[ours+"hash"] = key, h
		if len(group) > 0 && group[0][ours+"key"] != key {
			if err := finish(); err != nil {
				return err
			}
			clear(group)
			group = group[:0]
		}
		if group = append(group, row); len(group) > scanRows {
			if err := compare(); err != nil {
				return err
			}
		}
		return s.Before.add(h)
	})
	switch {
	case errors.Is(err, ErrTarget):
		return Survey{}, err
	case err != nil:
		return Survey{}, fmt.Errorf("duplicates in %s of %s: %w", t.Processor.Table, t.Period, err)
	}
	return s, nil
}

// maxExamples bounds the examples of a period with only duplicates.
const maxExamples = 5

// scanned makes a row as it was read what it was before it was written.
func scanned(schema bigquery.Schema, values map[string]bigquery.Value) (dedup.Row, error) {
	row := make(dedup.Row, len(schema)+2)
	for _, f := range schema {
		v, err := scannedField(f, values[f.Name])
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		row[f.Name] = v
	}
	return row, nil
}

func scannedField(f *bigquery.FieldSchema, v bigquery.Value) (any, error) {
	if f.Repeated {
		one := *f
		one.Repeated = false
		list, _ := v.([]bigquery.Value)
		out := make([]any, len(list))
		for i, e := range list {
			var err error
			if out[i], err = scannedField(&one, e); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	switch v := v.(type) {
	case map[string]bigquery.Value:
		return scanned(f.Schema, v)
	case time.Time:
		return v.UTC(), nil
	case string:
		if f.Type != bigquery.JSONFieldType {
			return v, nil
		}
		dec := json.NewDecoder(strings.NewReader(v))
		dec.UseNumber()
		var out any
		if err := dec.Decode(&out); err != nil {
			return nil, fmt.Errorf("%w: %.60q is no JSON: %w", errUnreadable, v, err)
		}
		return out, nil
	}
	return v, nil
}

// scanRows bounds the rows that a sweep holds at once: those of a page, and those of one key. BigQuery
// limits a page to 10 MB alone, which is some 80 MB as values in memory:
// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults
const scanRows = 500

// scan runs a query of a sweep and hands over its rows until next returns what the
// iterator ends with. bytes is what the query read.
func (w *Warehouse) scan(ctx context.Context, sql string, next func(*reading) error) (bytes int64, err error) {
	client, err := w.Client(ctx)
	if err != nil {
		return 0, err
	}
	q := client.Query(sql)
	q.MaxBytesBilled, q.Labels = maxWindowBytes, map[string]string{purposeLabel: "sweep"}
	it, cancel, err := w.begun(ctx, q)
	defer cancel()
	if err != nil {
		return 0, err
	}
	it.page = scanRows
	for err == nil {
		err = next(it)
	}
	if !errors.Is(err, iterator.Done) {
		return 0, err
	}
	var status *bigquery.JobStatus
	if err := again(ctx, passesInReads, func() (err error) { status, err = it.job.Status(ctx); return err }); err != nil {
		return 0, err
	}
	if status.Statistics != nil {
		bytes = status.Statistics.TotalBytesProcessed
	}
	return bytes, nil
}
