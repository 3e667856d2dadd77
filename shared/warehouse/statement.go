package warehouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/dedup"
)

// quote makes an identifier of any text.
func quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// quoted is a table, dataset.table, as statements name it.
func quoted(table string) string {
	dataset, name, _ := strings.Cut(table, ".")
	return quote(dataset) + "." + quote(name)
}

// slice is the condition for the target's rows of the period.
func (t Target) slice(alias string) string {
	return alias + quote(t.Processor.DateColumn) + " = " + literal(t.Calendar, t.Period)
}

// keys lists the key's columns but the date, which is one in a period; all when there is
// no other.
func (t Target) keys(alias string) string {
	var out []string
	for _, c := range t.Processor.Key {
		if c != t.Processor.DateColumn || len(t.Processor.Key) == 1 {
			out = append(out, alias+quote(c))
		}
	}
	return strings.Join(out, ", ")
}

// keyOf is a row's key as text. Two rows have the same text exactly if they have the same key.
// It is the only comparison of keys, in writes and sweeps: operators do not compare JSON, and
// say that NaN differs from NaN. Writes store a FLOAT64 of -0.0 as 0.0. Rows with -0.0 from
// another program have a text of their own: they are not duplicates of rows with 0.0.
func (t Target) keyOf(alias string) string { return "TO_JSON_STRING(STRUCT(" + t.keys(alias) + "))" }

// merge is the statement that puts the staged rows in the place of the period's, or of
// those with their keys, at once. It joins nothing, so it also replaces duplicates. Rows that leave out the same columns share an INSERT without these columns, so
// that BigQuery fills in the defaults. An [ErrTarget] says that the statement would be too long.
func (t Target) merge(schema bigquery.Schema, rows []dedup.Row, target, staging string) (string, error) {
	scope := t.slice("t.")
	if t.ByKey {
		scope += fmt.Sprintf(" AND %s IN (SELECT %s FROM %s AS s)", t.keyOf("t."), t.keyOf("s."), staging)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "MERGE %s AS t USING %s AS s ON FALSE\nWHEN NOT MATCHED BY SOURCE AND %s THEN DELETE", target, staging, scope)
	patterns := map[string]bool{}
	for _, row := range rows {
		marks, _ := row[leftOut].(string)
		patterns[marks] = true
	}
	for _, marks := range slices.Sorted(maps.Keys(patterns)) {
		condition := ""
		if len(patterns) > 1 {
			condition = fmt.Sprintf(" AND s.%s = '%s'", leftOut, marks)
		}
		var columns, values []string
		for _, f := range schema {
			if f.DefaultValueExpression != "" {
				out := marks[0] == '1'
				if marks = marks[1:]; out {
					continue
				}
			}
			columns = append(columns, quote(f.Name))
			values = append(values, "s."+quote(f.Name))
		}
		fmt.Fprintf(&b, "\nWHEN NOT MATCHED BY TARGET%s THEN INSERT (%s) VALUES (%s)", condition, strings.Join(columns, ", "), strings.Join(values, ", "))
		if b.Len() > maxStatement {
			return "", fmt.Errorf("%w: %s: the rows leave out %d different sets of columns with a default, so the statement exceeds %d bytes: set these columns in every row, or in none",
				ErrTarget, t.Processor.Table, len(patterns), maxStatement)
		}
	}
	return b.String(), nil
}

// maxStatement is the longest statement, in bytes. BigQuery takes 1024K characters:
// https://cloud.google.com/bigquery/quotas#query_jobs, "Maximum unresolved GoogleSQL query length".
const maxStatement = 1_000_000

// doubled counts how many rows too many the period has.
func (w *Warehouse) doubled(ctx context.Context, t Target) (int64, error) {
	client, err := w.Client(ctx)
	if err != nil {
		return 0, err
	}
	q := client.Query(fmt.Sprintf("SELECT COUNT(*) - COUNT(DISTINCT %s) FROM %s AS t WHERE %s",
		t.keyOf("t."), quoted(t.Processor.Table), t.slice("t.")))
	q.Labels = map[string]string{purposeLabel: "verify"}
	it, cancel, err := w.begun(ctx, q)
	defer cancel()
	if err != nil {
		return 0, err
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		if errors.Is(err, iterator.Done) {
			err = errors.New("BigQuery answered without a row")
		}
		return 0, err
	}
	n, ok := row[0].(int64)
	if !ok {
		return 0, fmt.Errorf("BigQuery counted %v rows", row[0])
	}
	return n, nil
}
