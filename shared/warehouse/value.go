package warehouse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

	"github.com/phasegate/phasegate/shared/dedup"
)

// misfit is the error for a value that is not of a column's type; want is what is.
func misfit(f *bigquery.FieldSchema, v any, want string) error {
	return fmt.Errorf("%T %s is no %s: want %s", v, shown(v), f.Type, want)
}

// shown is a value for an error, cut if it is long.
func shown(v any) string { return fmt.Sprintf("%.60s", fmt.Sprint(v)) }

// writable reports whether values of a type can be written.
func writable(t bigquery.FieldType) bool {
	switch t {
	case bigquery.StringFieldType, bigquery.GeographyFieldType, bigquery.BooleanFieldType, bigquery.BytesFieldType, bigquery.IntegerFieldType,
		bigquery.FloatFieldType, bigquery.NumericFieldType, bigquery.BigNumericFieldType, bigquery.TimestampFieldType, bigquery.DateFieldType,
		bigquery.DateTimeFieldType, bigquery.TimeFieldType, bigquery.JSONFieldType, bigquery.RecordFieldType:
		return true
	}
	return false
}

// fitValue returns the value as the column will hold it.
func fitValue(f *bigquery.FieldSchema, v any) (any, error) {
	switch f.Type {
	case bigquery.StringFieldType, bigquery.GeographyFieldType:
		return fitString(f, v)
	case bigquery.BooleanFieldType:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, misfit(f, v, "true or false")
	case bigquery.BytesFieldType:
		return fitBytes(f, v)
	case bigquery.IntegerFieldType:
		if r, ok := dedup.Rational(v); ok && r.IsInt() && r.Num().IsInt64() {
			return r.Num().Int64(), nil
		}
		return nil, misfit(f, v, "a whole number from -2^63 to 2^63-1")
	case bigquery.FloatFieldType:
		return fitFloat(f, v)
	case bigquery.NumericFieldType, bigquery.BigNumericFieldType:
		return fitNumeric(f, v)
	case bigquery.TimestampFieldType:
		return fitTime(f, v)
	case bigquery.DateFieldType:
		return fitCivil(f, v, dateForm, func(d civil.Date) (civil.Date, bool) { return d, d.IsValid() && inYears(d) }, civil.DateOf)
	case bigquery.DateTimeFieldType:
		return fitCivil(f, v, dateTimeForm, func(d civil.DateTime) (civil.DateTime, bool) {
			d.Time = inMicros(d.Time)
			return d, d.IsValid() && inYears(d.Date)
		}, civil.DateTimeOf)
	case bigquery.TimeFieldType:
		return fitCivil(f, v, timeForm, func(t civil.Time) (civil.Time, bool) { return inMicros(t), t.IsValid() }, civil.TimeOf)
	case bigquery.JSONFieldType:
		return fitJSON(f, v)
	case bigquery.RecordFieldType:
		return fitRecord(f, v)
	}
	return nil, fmt.Errorf("values of type %s cannot be written", f.Type)
}

// fitString refuses bytes that are not UTF-8: BigQuery would replace them, and two keys could
// become one.
// Of STRING(n), https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types:
// "Sequence of Unicode characters with a maximum of L characters"; beyond it a write fails.
func fitString(f *bigquery.FieldSchema, v any) (any, error) {
	s, ok := v.(string)
	switch {
	case !ok:
		return nil, misfit(f, v, "a string")
	case !utf8.ValidString(s):
		return nil, fmt.Errorf("%.60q is not UTF-8: decode the text before it is written", s)
	case f.MaxLength > 0 && int64(utf8.RuneCountInString(s)) > f.MaxLength:
		return nil, fmt.Errorf("%.60q has %d characters, the column is STRING(%d)", s, utf8.RuneCountInString(s), f.MaxLength)
	}
	return s, nil
}

func fitBytes(f *bigquery.FieldSchema, v any) (any, error) {
	b, ok := v.([]byte)
	switch {
	case !ok || b == nil:
		return nil, misfit(f, v, "a []byte")
	case f.MaxLength > 0 && int64(len(b)) > f.MaxLength:
		return nil, fmt.Errorf("%d bytes, the column is BYTES(%d)", len(b), f.MaxLength)
	}
	return b, nil
}

// fitFloat makes -0.0 a 0.0: the two are equal, but their texts differ.
func fitFloat(f *bigquery.FieldSchema, v any) (any, error) {
	switch x := v.(type) {
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return x, nil
		}
	case float32:
		if x := float64(x); math.IsNaN(x) || math.IsInf(x, 0) {
			return x, nil
		}
	}
	if r, ok := dedup.Rational(v); ok {
		if x, _ := r.Float64(); !math.IsInf(x, 0) {
			return x, nil
		}
	}
	return nil, misfit(f, v, "a number that a FLOAT64 holds")
}

// The digits of a type without parameters, https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types:
// NUMERIC has "Precision: 38", "Scale: 9"; BIGNUMERIC has "Scale: 38" and values from
// -5.7896044618658097711785492504343953926634992332820282019728792003956564819968E+38, which
// is -2^255 units of its last digit.
const (
	numericDigits, numericScale = 29, 9
	bigNumericScale             = 38
)

// fitNumeric rounds to the column's scale, as BigQuery does when it writes: RoundingMode says
// how, and "If unspecified, default value is RoundHalfAwayFromZero". It refuses more digits
// before the point than the column's precision allows.
func fitNumeric(f *bigquery.FieldSchema, v any) (any, error) {
	if s, isText := v.(string); isText {
		v = json.Number(s)
	}
	r, ok := dedup.Rational(v)
	if !ok {
		return nil, misfit(f, v, "a number, or a text of one such as 47.60")
	}
	scale, digits := int64(numericScale), int64(numericDigits)
	if f.Type == bigquery.BigNumericFieldType {
		scale, digits = bigNumericScale, -1 // its limit is no number of digits
	}
	if f.Precision > 0 {
		scale, digits = f.Scale, f.Precision-f.Scale
	}
	units := rounded(new(big.Rat).Mul(r, new(big.Rat).SetInt(power(scale))), f.RoundingMode == bigquery.RoundHalfEven)
	if digits >= 0 && units.CmpAbs(power(digits+scale)) >= 0 {
		return nil, fmt.Errorf("%s has more than %d digits before the point, all that the column holds", shown(v), digits)
	}
	least := new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 255))
	if f.Type == bigquery.BigNumericFieldType {
		wide := new(big.Int).Mul(units, power(bigNumericScale-scale))
		if wide.Cmp(least) < 0 || wide.Cmp(new(big.Int).Neg(least)) >= 0 {
			return nil, fmt.Errorf("%s is beyond 5.7896044618658097711785492504343953926634992332820282019728792003956564819967E+38, the last BIGNUMERIC", shown(v))
		}
	}
	return new(big.Rat).SetFrac(units, power(scale)), nil
}

func power(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }

// rounded is the nearest whole number; of two equally near ones, the one farther from zero or the even one.
func rounded(r *big.Rat, even bool) *big.Int {
	twice := new(big.Int).Lsh(new(big.Int).Abs(r.Num()), 1)
	double := new(big.Int).Lsh(r.Denom(), 1)
	n, rest := new(big.Int).QuoRem(twice.Add(twice, r.Denom()), double, new(big.Int))
	if even && rest.Sign() == 0 && n.Bit(0) == 1 {
		n.Sub(n, big.NewInt(1))
	}
	if r.Sign() < 0 {
		n.Neg(n)
	}
	return n
}

// decimal is a fitted NUMERIC or BIGNUMERIC as it is loaded.
func decimal(r *big.Rat) string {
	s := r.FloatString(bigNumericScale)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// The forms in which BigQuery prints dates and times, with a T or a space between them:
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types. A fraction may
// follow the seconds, as Go reads times.
const (
	dateForm     = "2006-01-02"
	timeForm     = "15:04:05"
	dateTimeForm = dateForm + " " + timeForm
)

// zones are the ways in which a TIMESTAMP's zone is printed or written in RFC 3339.
var zones = []string{"Z07:00", " UTC", "-07", " Z07:00", " -07", "-0700"}

// inYears: "0001-01-01 to 9999-12-31" is the range of DATE, DATETIME and TIMESTAMP.
func inYears(d civil.Date) bool { return d.Year >= 1 && d.Year <= 9999 }

// inMicros drops digits beyond microseconds, the precision of DATETIME, TIME and TIMESTAMP.
func inMicros(t civil.Time) civil.Time {
	t.Nanosecond -= t.Nanosecond % 1000
	return t
}

// spaced is a text with a space in place of a T between date and time.
func spaced(s string) string {
	if i := len(dateForm); len(s) > i && (s[i] == 'T' || s[i] == 't') {
		return s[:i] + " " + s[i+1:]
	}
	return s
}

// fitTime takes an instant. A text must name its zone: BigQuery would assume UTC, and the
// processor may have meant a local time.
func fitTime(f *bigquery.FieldSchema, v any) (any, error) {
	at, isTime := v.(time.Time)
	if s, isText := v.(string); isText {
		if n := len(s); n > 0 && s[n-1] == 'z' {
			s = s[:n-1] + "Z"
		}
		for _, zone := range zones {
			t, err := time.Parse(dateTimeForm+zone, spaced(s))
			if err == nil {
				at, isTime = t, true
				break
			}
		}
	}
	if !isTime {
		return nil, misfit(f, v, "an instant with its zone, such as 2026-02-03T19:30:00Z or 2026-02-03 19:30:00+00")
	}
	at = at.UTC().Truncate(time.Microsecond)
	if !inYears(civil.DateOf(at)) {
		return nil, fmt.Errorf("%s is not within the years 1 to 9999 in UTC", at.Format(time.RFC3339Nano))
	}
	return at, nil
}

func fitCivil[T civil.Date | civil.Time | civil.DateTime](f *bigquery.FieldSchema, v any, form string, valid func(T) (T, bool), of func(time.Time) T) (any, error) {
	t, ok := v.(T)
	if s, isText := v.(string); isText {
		if f.Type == bigquery.DateTimeFieldType {
			s = spaced(s)
		}
		at, err := time.Parse(form, s)
		t, ok = of(at), err == nil
	}
	if ok {
		t, ok = valid(t)
	}
	if !ok {
		return nil, misfit(f, v, "the form "+time.Date(2026, 2, 3, 19, 30, 0, 0, time.UTC).Format(form)+", years 1 to 9999")
	}
	return t, nil
}

// fitJSON takes any value that encoding/json can write, and returns it as it would be read.
func fitJSON(f *bigquery.FieldSchema, v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, misfit(f, v, "a value that encoding/json can write")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out any
	if err := dec.Decode(&out); err != nil {
		return nil, misfit(f, v, "a value that encoding/json can write")
	}
	if out, err = jsonNumbers(out, 0); err != nil {
		return nil, err
	}
	// The library replaces bytes that are not UTF-8 by U+FFFD.
	again, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	const replaced = "\uFFFD"
	if bytes.Count(again, []byte(replaced)) > bytes.Count(b, []byte(replaced)) {
		return nil, errors.New("a text in the JSON is not UTF-8: decode it before it is written")
	}
	return out, nil
}

// jsonNumbers makes each number exactly what BigQuery will store. Its JSON holds INT64, UINT64 and
// FLOAT64: "Only accept numbers that can be stored without loss"
// (https://cloud.google.com/bigquery/docs/reference/standard-sql/json_functions#parse_json).
// https://cloud.google.com/bigquery/docs/json-data: "nesting limit of 500".
func jsonNumbers(v any, depth int) (any, error) {
	if depth > 500 {
		return nil, errors.New("the JSON is nested in more than 500 levels")
	}
	var err error
	switch v := v.(type) {
	case []any:
		for i := range v {
			if v[i], err = jsonNumbers(v[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = jsonNumbers(v[k], depth+1); err != nil {
				return nil, err
			}
		}
	case json.Number:
		r, ok := dedup.Rational(v)
		if ok && r.IsInt() && (r.Num().IsInt64() || r.Num().IsUint64()) {
			return json.Number(r.Num().String()), nil
		}
		x, err := strconv.ParseFloat(v.String(), 64)
		text := strconv.FormatFloat(x, 'g', -1, 64)
		if back, _ := dedup.Rational(json.Number(text)); ok && err == nil && back != nil && back.Cmp(r) == 0 {
			return json.Number(text), nil
		}
		return nil, fmt.Errorf("the number %.60s in the JSON has more digits than BigQuery holds: write it as a text", v)
	}
	return v, nil
}
