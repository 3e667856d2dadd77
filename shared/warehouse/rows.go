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

// maxRowErrors bounds what is told about rows that are all alike.
const maxRowErrors = 10

// fit makes each value what its column holds, so that what is compared before the write
// is what will stand in the table.
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
			v, err := fitField(f, row[f.Name])
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
	if v == nil {
		if f.Required {
			return nil, errors.New("is required, and NULL")
		}
		return nil, nil
	}
	fitted, ok := fitValue(f, v)
	if !ok {
		return nil, fmt.Errorf("%T %.60v is no %s", v, v, f.Type)
	}
	if err, bad := fitted.(error); bad {
		return nil, err
	}
	return fitted, nil
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

// fitValue returns the value as the column's type; an error where only a part of a
// record does not fit.
func fitValue(f *bigquery.FieldSchema, v any) (any, bool) {
	switch f.Type {
	case bigquery.StringFieldType, bigquery.GeographyFieldType:
		s, ok := v.(string)
		return s, ok
	case bigquery.BooleanFieldType:
		b, ok := v.(bool)
		return b, ok
	case bigquery.BytesFieldType:
		b, ok := v.([]byte)
		return b, ok
	case bigquery.IntegerFieldType:
		return fitInteger(v)
	case bigquery.FloatFieldType:
		return fitFloat(v)
	case bigquery.NumericFieldType, bigquery.BigNumericFieldType:
		if s, isText := v.(string); isText {
			v = json.Number(s)
		}
		r, ok := dedup.Rational(v)
		return r, ok
	case bigquery.TimestampFieldType:
		return fitTime(v)
	case bigquery.DateFieldType:
		return fitCivil(v, civil.ParseDate)
	case bigquery.DateTimeFieldType:
		return fitCivil(v, civil.ParseDateTime)
	case bigquery.TimeFieldType:
		return fitCivil(v, civil.ParseTime)
	case bigquery.JSONFieldType:
		return fitJSON(v)
	case bigquery.RecordFieldType:
		return fitRecord(f, v)
	}
	return nil, false
}

func fitFloat(v any) (any, bool) {
	if f, special := v.(float64); special && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return f, true
	}
	r, ok := dedup.Rational(v)
	if !ok {
		return nil, false
	}
	f, _ := r.Float64()
	return f, !math.IsInf(f, 0)
}

func fitInteger(v any) (any, bool) {
	r, ok := dedup.Rational(v)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return nil, false
	}
	return r.Num().Int64(), true
}

// fitTime takes an instant, in the microseconds that BigQuery keeps.
func fitTime(v any) (any, bool) {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Truncate(time.Microsecond), true
	case string:
		t, err := time.Parse(time.RFC3339Nano, v)
		return t.UTC().Truncate(time.Microsecond), err == nil
	}
	return nil, false
}

func fitCivil[T civil.Date | civil.Time | civil.DateTime](v any, parse func(string) (T, error)) (any, bool) {
	switch v := v.(type) {
	case T:
		return v, true
	case string:
		t, err := parse(v)
		return t, err == nil
	}
	return nil, false
}

// fitJSON takes any value that has a JSON, and keeps what that is read as.
func fitJSON(v any) (any, bool) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out any
	if err := dec.Decode(&out); err != nil {
		return nil, false
	}
	return out, true
}

func fitRecord(f *bigquery.FieldSchema, v any) (any, bool) {
	in, ok := v.(map[string]any)
	if !ok {
		values, isRow := v.(map[string]bigquery.Value)
		if !isRow {
			return nil, false
		}
		in = make(map[string]any, len(values))
		for k, e := range values {
			in[k] = e
		}
	}
	fitted, err := fit(f.Schema, []dedup.Row{in})
	if err != nil {
		var row *RowError
		if errors.As(err, &row) {
			return fmt.Errorf("%s: %s", row.Column, row.Problem), true
		}
		return err, true
	}
	return fitted[0], true
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
		return bigquery.BigNumericString(v)
	case time.Time:
		return v.Format("2006-01-02T15:04:05.999999Z")
	case civil.Date, civil.Time:
		return fmt.Sprint(v)
	case civil.DateTime:
		return bigquery.CivilDateTimeString(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	}
	return v
}
