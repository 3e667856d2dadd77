package warehouse

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

	"github.com/phasegate/phasegate/shared/dedup"
)

// RowError says what in a row does not fit its table. Trying again cannot help.
type RowError struct {
	Row     int // from 0
	Column  string
	Problem string
}

func (e *RowError) Error() string {
	return fmt.Sprintf("row %d: %s: %s", e.Row, e.Column, e.Problem)
}

// maxRowErrors bounds the errors about similar rows.
const maxRowErrors = 10

// fit makes each value exactly what its column will hold, or refuses it. Rows are compared
// after that: if two keys became one in the table, the write would double its own rows. It
// is idempotent.
func fit(schema bigquery.Schema, rows []dedup.Row) ([]dedup.Row, error) {
	known := map[string]bool{}
	for _, f := range schema {
		known[f.Name] = true
	}
	var problems []error
	out := make([]dedup.Row, len(rows))
	for i, row := range rows {
		fitted := make(dedup.Row, len(schema))
		for _, f := range schema {
			v, given := row[f.Name]
			if !given && f.DefaultValueExpression != "" { // the default fills it, even if it is REQUIRED
				optional := *f
				optional.Required = false
				f = &optional
			}
			v, err := fitField(f, v)
			if err != nil {
				problems = append(problems, &RowError{i, f.Name, err.Error()})
			}
			fitted[f.Name] = v
		}
		for column := range row {
			if !known[column] {
				problems = append(problems, &RowError{i, column, "the table has no such column"})
			}
		}
		if len(problems) >= maxRowErrors {
			break
		}
		out[i] = fitted
	}
	return out, errors.Join(problems...)
}

func fitField(f *bigquery.FieldSchema, v any) (any, error) {
	if f.Repeated {
		return fitList(f, v)
	}
	var err error
	if v != nil {
		v, err = fitValue(f, v)
	}
	if err == nil && v == nil && f.Required { // also for a JSON null
		err = errors.New("is required, and NULL")
	}
	return v, err
}

func fitList(f *bigquery.FieldSchema, v any) (any, error) {
	one := *f
	one.Repeated, one.Required = false, true // an array holds no NULL
	var list []any
	switch v := v.(type) {
	case nil:
	case []any:
		list = v
	case []bigquery.Value:
		for _, e := range v {
			list = append(list, e)
		}
	case []string:
		for _, e := range v {
			list = append(list, e)
		}
	default:
		return nil, fmt.Errorf("%T is no list of %s", v, f.Type)
	}
	out := make([]any, len(list))
	for i, e := range list {
		var err error
		if out[i], err = fitField(&one, e); err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return out, nil
}

func fitRecord(f *bigquery.FieldSchema, v any) (any, error) {
	in, ok := v.(map[string]any)
	if !ok {
		values, isRow := v.(map[string]bigquery.Value)
		if !isRow {
			return nil, misfit(f, v, "a map[string]any")
		}
		in = make(map[string]any, len(values))
		for k, e := range values {
			in[k] = e
		}
	}
	fitted, err := fit(f.Schema, []dedup.Row{in})
	if err != nil {
		if row, ok := errors.AsType[*RowError](err); ok {
			return nil, fmt.Errorf("%s: %s", row.Column, row.Problem)
		}
		return nil, err
	}
	return fitted[0], nil
}

// lines are rows as a load job reads them, one JSON object a line.
func lines(rows []dedup.Row) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, row := range rows {
		if err := enc.Encode(loadable(row)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// loadable is a fitted value in the form that BigQuery loads from JSON.
func loadable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = loadable(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = loadable(e)
		}
		return out
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case *big.Rat:
		return decimal(v)
	case int64:
		// "If you use the BigQuery API to load an integer outside the range of [-2^53+1, 2^53-1] […],
		// pass it as a string to avoid data corruption."
		// https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json
		if v <= -1<<53 || v >= 1<<53 {
			return fmt.Sprint(v)
		}
	case time.Time:
		return v.Format("2006-01-02T15:04:05.999999Z")
	case civil.Date:
		return v.String()
	case civil.Time:
		return bigquery.CivilTimeString(v)
	case civil.DateTime:
		return bigquery.CivilDateTimeString(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	}
	return v
}
