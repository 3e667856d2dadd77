package warehouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// Target is what is written: one period of a processor's table.
type Target struct {
	Processor pipeline.Processor
	Period    pipeline.Period
	Calendar  pipeline.Calendar // of the period
	// Staging is the dataset for what is loaded before it is merged, in the table's
	// location.
	Staging string
	// ByKey: the rows take the place of those with their keys. Else they are all that
	// the period has.
	ByKey bool
}

// Right is the right to write once, under the job id of a lock's token.
type Right struct {
	JobID string
	// Next returns the job id of a new token. It is asked when the job of the present
	// one has been tried and failed.
	Next func(ctx context.Context) (string, error)
}

// Under is the right to write under the token of a lock, and under those that follow it.
func Under(held *lease.Lease) Right {
	key := held.Key().String()
	return Right{JobID: JobID(key, held.Token().Nonce), Next: func(ctx context.Context) (string, error) {
		t, err := held.Rearm(ctx)
		return JobID(key, t.Nonce), err
	}}
}

// Written is what a write did.
type Written struct {
	Rows     int             // now in the table, by this write; 0: nothing was written
	Removed  int             // that had the key of another row
	Examples []dedup.Example // of such keys
	JobID    string          // that wrote
	// Doubled is how many rows too many the period has after the write, all writers
	// together; -1 when that could not be found out, and then Problem says why.
	Doubled int64
	Problem string
}

// ErrTarget says that rows cannot be written into a table as it is, and a retry does not help.
var ErrTarget = errors.New("the table does not take the rows")

const (
	// stagingKept is how long the loaded rows are kept: longer than a merge of them can still
	// begin. The table is not removed: that would be one more call for each write.
	stagingKept = 24 * time.Hour
	// maxTries bounds how often a write is tried that a rival's keeps from happening, or
	// a quota.
	maxTries = 6
)

// Write de-duplicates rows, stages them by a load job, and merges them into their table by one
// statement, which either happens or does not. It has a job id of the right and happens once: an
// answer that is lost is read again. A writer whose lock was taken meanwhile gets [ErrFenced] and
// changes nothing. A transient conflict (two statements on one partition, a quota) is retried with a
// new token.
//
// Every row is of the period. Without rows nothing is written. An [ErrTarget], a [*RowError] or a
// [*dedup.KeyError] is permanent. Duplicates in the table after the write are counted and reported;
// they are no error, because the write has happened.
func (w *Warehouse) Write(ctx context.Context, right Right, t Target, rows []dedup.Row) (Written, error) {
	meta, err := w.metadata(ctx, t.Processor.Table)
	if err != nil {
		return Written{}, err
	}
	clean, err := t.prepare(meta, rows)
	if err != nil {
		return Written{}, err
	}
	out := Written{Rows: len(clean.Rows), Removed: clean.Removed, Examples: clean.Examples}
	if out.Rows == 0 {
		return out, nil
	}
	staging := notInTableNames.ReplaceAllString(right.JobID, "_")
	sql, err := t.merge(meta.Schema, clean.Rows, quoted(t.Processor.Table), quoted(t.Staging+"."+staging))
	if err != nil {
		return Written{}, err
	}
	if err := w.stage(ctx, staging, t, meta, clean.Rows); err != nil {
		return Written{}, asTarget(err)
	}
	job, err := w.once(ctx, right, meta.Location, sql)
	if err != nil {
		return Written{}, asTarget(err)
	}
	out.JobID = job.ID()
	if out.Doubled, err = w.doubled(ctx, t); err != nil {
		out.Doubled, out.Problem = -1, problem(err)
	}
	return out, nil
}

func (w *Warehouse) metadata(ctx context.Context, name string) (*bigquery.TableMetadata, error) {
	client, err := w.Client(ctx)
	if err != nil {
		return nil, err
	}
	dataset, table, _ := strings.Cut(name, ".")
	var meta *bigquery.TableMetadata
	err = patiently(ctx, func() (err error) { meta, err = client.Dataset(dataset).Table(table).Metadata(ctx); return err })
	if answered(err, http.StatusNotFound) {
		return nil, fmt.Errorf("%w: %s does not exist", ErrTarget, name)
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", name, err)
	}
	return meta, nil
}

// replaceable refuses what is no table of its own, or has no partition for a period: its rows
// cannot be replaced, or not without reading all of it.
func replaceable(name string, meta *bigquery.TableMetadata) error {
	if meta.Type != bigquery.RegularTable {
		return fmt.Errorf("%w: %s is of type %s: name a table of type %s instead", ErrTarget, name, meta.Type, bigquery.RegularTable)
	}
	if p := meta.TimePartitioning; p != nil && p.Field == "" {
		return fmt.Errorf("%w: %s is partitioned by ingestion time, which no column holds: partition it by its date column", ErrTarget, name)
	}
	return nil
}

// rule returns how the rows of the target are de-duplicated. An [ErrTarget] means that the present
// table does not allow that, or that its rows cannot be replaced.
func (t Target) rule(meta *bigquery.TableMetadata) (dedup.Rule, error) {
	if err := replaceable(t.Processor.Table, meta); err != nil {
		return dedup.Rule{}, err
	}
	rule := dedup.Rule{Key: t.Processor.Key, OrderBy: t.Processor.OrderBy}
	var date *bigquery.FieldSchema
	for _, f := range meta.Schema {
		rule.Columns = append(rule.Columns, f.Name)
		if f.Name == t.Processor.DateColumn {
			date = f
		}
		if slices.Contains(rule.Key, f.Name) && (f.Repeated || f.Type == bigquery.RecordFieldType || f.Type == bigquery.GeographyFieldType) {
			return rule, fmt.Errorf("%w: %s: key column %s is of type %s, whose values cannot be compared: use a column of another type", ErrTarget, t.Processor.Table, f.Name, typeOf(f))
		}
	}
	if err := rule.Check(); err != nil {
		return rule, fmt.Errorf("%w: %s: %w", ErrTarget, t.Processor.Table, err)
	}
	if want := columnType(t.Calendar); date == nil || date.Type != want || date.Repeated {
		return rule, fmt.Errorf("%w: %s has no column %s of type %s", ErrTarget, t.Processor.Table, t.Processor.DateColumn, want)
	}
	return rule, nil
}

// prepare makes the rows what will stand in the table.
func (t Target) prepare(meta *bigquery.TableMetadata, rows []dedup.Row) (dedup.Result, error) {
	rule, err := t.takes(meta)
	if err != nil {
		return dedup.Result{}, err
	}
	fitted, err := fit(meta.Schema, rows)
	if err != nil {
		return dedup.Result{}, err
	}
	var problems []error
	for i, row := range fitted {
		if p, _ := periodOf(t.Calendar, row[t.Processor.DateColumn]); p != t.Period && len(problems) < maxRowErrors {
			problems = append(problems, &RowError{i, t.Processor.DateColumn, fmt.Sprintf("%v is not %s, the period that is written", row[t.Processor.DateColumn], t.Period)})
		}
	}
	if err := errors.Join(problems...); err != nil {
		return dedup.Result{}, err
	}
	markLeftOut(meta.Schema, rows, fitted)
	return rule.Apply(fitted)
}

var notInTableNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// stage loads the rows into a table of this token's own.
func (w *Warehouse) stage(ctx context.Context, name string, t Target, meta *bigquery.TableMetadata, rows []dedup.Row) error {
	client, err := w.Client(ctx)
	if err != nil {
		return err
	}
	data, err := lines(rows)
	if err != nil {
		return err
	}
	table := client.Dataset(t.Staging).Table(name)
	err = patiently(ctx, func() error {
		return table.Create(ctx, &bigquery.TableMetadata{Schema: staged(meta.Schema), ExpirationTime: time.Now().Add(stagingKept)})
	})
	if err != nil && !answered(err, http.StatusConflict) {
		return fmt.Errorf("staging table %s.%s: %w", t.Staging, table.TableID, err)
	}
	for try := 0; ; try++ {
		err := w.load(ctx, table, staged(meta.Schema), meta.Location, data)
		if err == nil {
			return nil
		}
		if !passing(err) || try == maxTries {
			return fmt.Errorf("load %d rows for %s: %w", len(rows), t.Processor.Table, err)
		}
		if err := pause(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

func (w *Warehouse) load(ctx context.Context, table *bigquery.Table, schema bigquery.Schema, location string, data []byte) error {
	source := bigquery.NewReaderSource(bytes.NewReader(data))
	source.SourceFormat, source.Schema = bigquery.JSON, schema
	loader := table.LoaderFrom(source)
	loader.WriteDisposition, loader.Location = bigquery.WriteTruncate, location // a second try replaces the first
	loader.Labels = map[string]string{purposeLabel: "stage"}
	job, err := loader.Run(ctx)
	if err != nil {
		return err
	}
	failure, unknown := ended(ctx, job)
	return errors.Join(failure, unknown)
}

// once runs a statement that may happen once, as the job of a right.
func (w *Warehouse) once(ctx context.Context, right Right, location, sql string) (*bigquery.Job, error) {
	for try := 0; ; try++ {
		job, mine, err := w.begin(ctx, exclusive{id: right.JobID, location: location, sql: sql, purpose: forWrite})
		if err != nil {
			return nil, err
		}
		if !mine {
			return nil, fmt.Errorf("%w: %s", ErrFenced, right.JobID)
		}
		failure, unknown := ended(ctx, job)
		switch {
		case unknown != nil:
			return nil, unknown
		case failure == nil:
			return job, nil
		case !passing(failure) || try == maxTries:
			return nil, failure
		}
		if err := pause(ctx, backoff(try)); err != nil {
			return nil, err
		}
		if right.JobID, err = right.Next(ctx); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
