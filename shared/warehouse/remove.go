package warehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
)

// Removal is one removal of duplicates from a period of a table.
type Removal struct {
	Target Target // Staging and ByKey mean nothing here
	// Archive is the table, dataset.table, that holds all rows of the keys concerned,
	// as they were, with a column phasegate_kept: false for those that go.
	Archive       string
	Before, After Fingerprint

	standIn string // a query for the rows of the archive, where that does not exist: in a dry run
}

// rows are those of the archive, for behind FROM or USING.
func (r Removal) rows() string {
	if r.standIn != "" {
		return "(" + r.standIn + ")"
	}
	return quoted(r.Archive)
}

// ArchiveKept is how long removed rows are kept.
const ArchiveKept = 30 * 24 * time.Hour

const kept = ours + "kept"

// ErrChanged says that the rows concerned are not any more what a removal was planned on.
var ErrChanged = errors.New("the rows have changed since")

// Archive copies all rows of the keys of a survey into the removal's archive table, by one statement
// within BigQuery. Then it checks that the table holds exactly the rows of the survey: if not, they
// have changed since ([ErrChanged]). No table of another removal may have the name.
func (w *Warehouse) Archive(ctx context.Context, r Removal, s Survey) error {
	t := r.Target
	meta, err := w.metadata(ctx, t.Processor.Table)
	if err != nil {
		return err
	}
	_, name, _ := strings.Cut(r.Archive, ".")
	job, _, err := w.begin(ctx, exclusive{id: "phasegate-archive-" + name, location: meta.Location, sql: r.copy(), purpose: "archive", parameters: survivors(s.survivors)})
	if err != nil {
		return err
	}
	failure, unknown := ended(ctx, job)
	if err := errors.Join(failure, unknown); err != nil {
		return fmt.Errorf("archive table %s: %w", r.Archive, err)
	}
	return w.intact(ctx, r)
}

// copy is the statement that makes the archive. It names the parameter of [survivors].
func (r Removal) copy() string {
	t := r.Target
	return fmt.Sprintf(`CREATE TABLE %s OPTIONS (expiration_timestamp = TIMESTAMP '%s', description = 'Rows of %s for %s that shared their keys before a sweep. %s is false for those that it removed.')
AS SELECT %s.*, ROW_NUMBER() OVER (PARTITION BY %s ORDER BY IF(%s IN UNNEST(@survivors), 0, 1)) = 1 AS %[5]s
FROM %[9]s AS %[6]s WHERE %[10]s QUALIFY COUNT(*) OVER (PARTITION BY %[7]s) > 1`,
		quoted(r.Archive), time.Now().Add(ArchiveKept).UTC().Format("2006-01-02 15:04:05"), t.Processor.Table, t.Period, kept,
		rowAlias, t.key(), hash, quoted(t.Processor.Table), t.slice(rowAlias+"."))
}

func survivors(hashes []string) []bigquery.QueryParameter {
	return []bigquery.QueryParameter{{Name: "survivors", Value: hashes}}
}

// intact makes sure that the archive holds what the removal was planned on.
func (w *Warehouse) intact(ctx context.Context, r Removal) error {
	columns, err := w.archived(ctx, r)
	if err != nil {
		return err
	}
	before, after, err := w.fingerprints(ctx, r.held(columns, ""), r.held(columns, " WHERE "+kept))
	if err != nil {
		return fmt.Errorf("archive table %s: %w", r.Archive, err)
	}
	if before != r.Before || after != r.After {
		return fmt.Errorf("%w: in the archive lie %+v of which %+v stay, planned were %+v and %+v", ErrChanged, before, after, r.Before, r.After)
	}
	return nil
}

// archived are the columns of the table as they were when its rows were archived. An
// [ErrTarget] says that they are not there any more.
func (w *Warehouse) archived(ctx context.Context, r Removal) (bigquery.Schema, error) {
	meta, err := w.metadata(ctx, r.Archive)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(meta.Schema), func(f *bigquery.FieldSchema) bool { return f.Name == kept }), nil
}

// held are the rows in the archive, for behind a FROM.
func (r Removal) held(columns bigquery.Schema, where string) string {
	return fmt.Sprintf("(SELECT %s FROM %s%s) AS %s", columnsOf(columns, ""), r.rows(), where, rowAlias)
}

// Remove replaces the rows of the keys concerned by those that stay, by one statement under a job id
// of the right. If these rows or those of the archive are not as planned then, it changes nothing
// and returns [ErrChanged]. Serialization conflicts are retried with a new token.
func (w *Warehouse) Remove(ctx context.Context, right Right, r Removal) error {
	return w.replace(ctx, right, r, r.Before, ours+"source."+kept)
}

// Restorable returns an [ErrTarget] where Restore has to refuse for any rows: the table or its columns
// have changed. It writes nothing.
func (w *Warehouse) Restorable(ctx context.Context, r Removal) error {
	_, _, err := w.unchanged(ctx, r)
	return err
}

// unchanged returns the table, and its columns in the archive, if they are the same.
func (w *Warehouse) unchanged(ctx context.Context, r Removal) (*bigquery.TableMetadata, bigquery.Schema, error) {
	name := r.Target.Processor.Table
	meta, err := w.metadata(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if err := replaceable(name, meta); err != nil {
		return nil, nil, err
	}
	columns, err := w.archived(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if field := changed(meta.Schema, columns, ""); field != "" {
		return nil, nil, fmt.Errorf("%w: the columns of %s have changed: %s", ErrTarget, name, field)
	}
	return meta, columns, nil
}

// Restore undoes Remove: it restores all rows of the keys concerned, if they are what Remove has left
// and the archive still has the others. An [ErrTarget] means that this is no longer possible.
func (w *Warehouse) Restore(ctx context.Context, right Right, r Removal) error {
	if err := w.intact(ctx, r); err != nil { // the statement asks again, unless there is nothing at all
		return err
	}
	return w.replace(ctx, right, r, r.After, "TRUE")
}

// replace deletes the rows of the keys in the archive and inserts those of the archive
// for which a condition holds.
func (w *Warehouse) replace(ctx context.Context, right Right, r Removal, planned Fingerprint, which string) error {
	meta, columns, err := w.unchanged(ctx, r)
	if err != nil {
		return err
	}
	_, err = w.once(ctx, right, meta.Location, r.statement(columns, planned, which))
	switch {
	case err != nil && strings.Contains(err.Error(), changedMark):
		return fmt.Errorf("%w: %s of %s", ErrChanged, r.Target.Processor.Table, r.Target.Period)
	// https://cloud.google.com/bigquery/docs/data-manipulation-language#limitations
	case err != nil && strings.Contains(err.Error(), "streaming buffer"):
		return fmt.Errorf("%w: %s: %w", ErrTarget, r.Target.Processor.Table, err)
	}
	return err
}

// changedMark is what the statement fails with when the rows are not as planned.
const changedMark = "phasegate: the rows have changed"

// statement replaces rows if their fingerprint is the planned one, and the archive is
// whole. The guard of the rows is in the INSERT clause, and fails the whole statement: a condition
// that is false in both clauses would not show that nothing has happened. The guard of the archive is
// in both clauses: without a row to insert, the first is never evaluated, and then nothing may be
// deleted either. No guard is correlated. So each is evaluated once, on the tables as they were when
// the statement began.
func (r Removal) statement(columns bigquery.Schema, planned Fingerprint, which string) string {
	const target, source = ours + "target", ours + "source"
	t := r.Target
	whole := is(r.Before, r.held(columns, "")) + " AND " + is(r.After, r.held(columns, " WHERE "+kept))
	return fmt.Sprintf(`MERGE %s AS %s USING %s AS %s ON FALSE
WHEN NOT MATCHED BY TARGET AND %s AND IF(%s AND %s, TRUE, ERROR('%s')) THEN INSERT (%s) VALUES (%s)
WHEN NOT MATCHED BY SOURCE AND %s AND %s IN (SELECT %s FROM %s AS %s) AND %s THEN DELETE`,
		quoted(t.Processor.Table), target, r.rows(), source,
		which, is(planned, r.concerned(columns)), whole, changedMark, columnsOf(columns, ""), columnsOf(columns, source+"."),
		t.slice(target+"."), t.keyOf(target+"."), t.key(), r.rows(), rowAlias, whole)
}

// is the condition that rows, for behind a FROM, have a fingerprint.
func is(f Fingerprint, rows string) string {
	return fmt.Sprintf("(SELECT n = %d AND a = %d AND b = %d FROM (%s))", f.Rows, f.A, f.B, fingerprint(rows))
}

// concerned are the table's rows of the keys in the archive, in the columns that they had
// then, for behind a FROM.
func (r Removal) concerned(columns bigquery.Schema) string {
	t := r.Target
	return fmt.Sprintf("(SELECT %s FROM %s AS %s WHERE %s AND %s IN (SELECT %[5]s FROM %[6]s AS %[3]s)) AS %[3]s",
		columnsOf(columns, rowAlias+"."), quoted(t.Processor.Table), rowAlias, t.slice(rowAlias+"."), t.key(), r.rows())
}

// Standing returns the fingerprint of the present rows of the keys concerned. An [ErrTarget] means
// that it can no longer be read.
func (w *Warehouse) Standing(ctx context.Context, r Removal) (Fingerprint, error) {
	columns, err := w.archived(ctx, r)
	if err != nil {
		return Fingerprint{}, err
	}
	// A table that cannot be read is for the query to name: it may come back with its rows. A
	// column that came since is no matter, since the query asks for those of then.
	if meta, err := w.metadata(ctx, r.Target.Processor.Table); err == nil {
		common := slices.DeleteFunc(slices.Clone(meta.Schema), func(f *bigquery.FieldSchema) bool { return named(columns, f.Name) < 0 })
		if field := changed(common, columns, ""); field != "" {
			return Fingerprint{}, fmt.Errorf("%w: the columns of %s have changed: %s", ErrTarget, r.Target.Processor.Table, field)
		}
	}
	rows := r.concerned(columns)
	now, _, err := w.fingerprints(ctx, rows, rows)
	if err != nil {
		return now, fmt.Errorf("%s of %s: %w", r.Target.Processor.Table, r.Target.Period, err)
	}
	return now, nil
}

func (w *Warehouse) fingerprints(ctx context.Context, first, second string) (a, b Fingerprint, err error) {
	into := []*Fingerprint{&a, &b}
	sql := fmt.Sprintf("SELECT 0, f.* FROM (%s) AS f", fingerprint(first))
	if second != first {
		sql += fmt.Sprintf(" UNION ALL SELECT 1, f.* FROM (%s) AS f", fingerprint(second))
	}
	err = w.rows(ctx, sql, "sweep", nil, func(row []bigquery.Value) error {
		which, ok := row[0].(int64)
		n, okN := row[1].(int64)
		x, okA := row[2].(int64)
		y, okB := row[3].(int64)
		if !ok || !okN || !okA || !okB {
			return fmt.Errorf("%w: %v", errUnreadable, row)
		}
		*into[which] = Fingerprint{n, x, y}
		return nil
	})
	return a, b, err
}

func columnsOf(schema bigquery.Schema, alias string) string {
	var out []string
	for _, f := range schema {
		out = append(out, alias+quote(f.Name))
	}
	return strings.Join(out, ", ")
}
