package warehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/dedup"
)

// CheckTarget checks, before rows are made, that they can be written into the target's table.
// An [ErrTarget] names what prevents it. It returns the table's location.
func (w *Warehouse) CheckTarget(ctx context.Context, t Target) (location string, err error) {
	meta, err := w.metadata(ctx, t.Processor.Table)
	if err != nil {
		return "", err
	}
	_, err = t.takes(meta)
	return meta.Location, err
}

// takes returns the rule of a table into which rows can be written, else an [ErrTarget].
func (t Target) takes(meta *bigquery.TableMetadata) (dedup.Rule, error) {
	rule, err := t.rule(meta)
	if err != nil {
		return rule, err
	}
	refuse := func(format string, args ...any) (dedup.Rule, error) {
		return rule, fmt.Errorf("%w: %s: %s", ErrTarget, t.Processor.Table, fmt.Sprintf(format, args...))
	}
	if p := meta.TimePartitioning; p != nil && meta.RequirePartitionFilter && p.Field != t.Processor.DateColumn {
		return refuse("it requires a filter by %s, which is not its date column %s: partition it by that, or require no filter", p.Field, t.Processor.DateColumn)
	}
	if path, typ, ok := unwritable(meta.Schema); ok {
		return refuse("column %s is of type %s, whose values cannot be written: use another type, such as STRING", path, typ)
	}
	for _, f := range meta.Schema {
		if strings.EqualFold(f.Name, leftOut) {
			return refuse("a column must not be called %s: rename it", leftOut)
		}
	}
	if len(defaulted(meta.Schema)) > 0 {
		rule.Columns = append(rule.Columns, leftOut) // rows that differ in it are different
	}
	return rule, nil
}

// unwritable finds a column, also within records, whose values cannot be written.
func unwritable(schema bigquery.Schema) (path string, typ bigquery.FieldType, found bool) {
	for _, f := range schema {
		if !writable(f.Type) {
			return f.Name, f.Type, true
		}
		if path, typ, found = unwritable(f.Schema); found {
			return f.Name + "." + path, typ, true
		}
	}
	return "", "", false
}

// leftOut is a column of staging tables only. For each column with a default, in the table's
// order, it has a 1 if the row leaves it out, else a 0.
const leftOut = ours + "left_out"

// defaulted are the columns that have a default value.
func defaulted(schema bigquery.Schema) []*bigquery.FieldSchema {
	return slices.DeleteFunc(slices.Clone(schema), func(f *bigquery.FieldSchema) bool { return f.DefaultValueExpression == "" })
}

// markLeftOut sets leftOut in fitted rows. A column that a row sets to NULL is not left out.
func markLeftOut(schema bigquery.Schema, rows, fitted []dedup.Row) {
	columns := defaulted(schema)
	if len(columns) == 0 {
		return
	}
	for i, row := range rows {
		marks := make([]byte, len(columns))
		for j, f := range columns {
			marks[j] = '1'
			if _, given := row[f.Name]; given {
				marks[j] = '0'
			}
		}
		fitted[i][leftOut] = string(marks)
	}
}

// staged is the schema of a staging table: without policy tags and defaults, which need rights
// that only owners have, and with the column leftOut.
func staged(schema bigquery.Schema) bigquery.Schema {
	var out bigquery.Schema
	for _, f := range schema {
		out = append(out, &bigquery.FieldSchema{Name: f.Name, Type: f.Type, Repeated: f.Repeated, Required: f.Required && f.DefaultValueExpression == "", Schema: staged(f.Schema)})
	}
	if len(defaulted(schema)) > 0 {
		out = append(out, &bigquery.FieldSchema{Name: leftOut, Type: bigquery.StringFieldType})
	}
	return out
}
