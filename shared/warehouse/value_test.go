package warehouse

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/dedup"
)

// nested puts a column into a record and into a list.
func nested(f bigquery.FieldSchema) map[string]*bigquery.FieldSchema {
	one, many := f, f
	many.Repeated = true
	return map[string]*bigquery.FieldSchema{
		"alone": &one, "in_a_list": &many,
		"in_a_record": {Name: "c", Type: bigquery.RecordFieldType, Schema: bigquery.Schema{&one}},
	}
}

func holding(form string, v any) any {
	switch form {
	case "in_a_list":
		return []any{v}
	case "in_a_record":
		return map[string]any{"c": v}
	}
	return v
}

// Each value becomes what the column will hold, or an error names its column and value.
func TestValues_BecomeWhatTheColumnHolds(t *testing.T) {
	numeric := func(p, s int64) bigquery.FieldSchema {
		return bigquery.FieldSchema{Type: bigquery.NumericFieldType, Precision: p, Scale: s}
	}
	of := func(typ bigquery.FieldType) bigquery.FieldSchema { return bigquery.FieldSchema{Type: typ} }
	big30 := strings.Repeat("9", 30)
	for _, c := range []struct {
		column bigquery.FieldSchema
		value  any
		want   string // the loaded text; after "!" what the refusal says
	}{
		{of(bigquery.StringFieldType), "a\xff", `!"a\xff" is not UTF-8`},
		{of(bigquery.StringFieldType), "a\ufffd", `"a` + "\ufffd" + `"`},
		{bigquery.FieldSchema{Type: bigquery.StringFieldType, MaxLength: 2}, "éé", `"éé"`},
		{bigquery.FieldSchema{Type: bigquery.StringFieldType, MaxLength: 2}, "ééé", `!"ééé" has 3 characters, the column is STRING(2)`},
		{bigquery.FieldSchema{Type: bigquery.BytesFieldType, MaxLength: 2}, []byte{1, 2, 3}, "!3 bytes, the column is BYTES(2)"},
		{of(bigquery.GeographyFieldType), "POINT(1 \xff)", "!is not UTF-8"},

		{of(bigquery.IntegerFieldType), int64(1) << 53, `"9007199254740992"`},
		{of(bigquery.IntegerFieldType), uint64(1) << 63, "!uint64 9223372036854775808 is no INTEGER: want a whole number from -2^63 to 2^63-1"},
		{of(bigquery.FloatFieldType), math.Copysign(0, -1), `0`},
		{of(bigquery.FloatFieldType), float32(math.Inf(-1)), `"-Inf"`},

		{of(bigquery.NumericFieldType), "0.1234567894", `"0.123456789"`},
		{of(bigquery.NumericFieldType), "0.1234567895", `"0.12345679"`},
		{of(bigquery.NumericFieldType), "-0.1234567895", `"-0.12345679"`},
		{of(bigquery.NumericFieldType), "0.0000000004", `"0"`},
		{of(bigquery.NumericFieldType), "-0.0000000004", `"0"`},
		{of(bigquery.NumericFieldType), strings.Repeat("9", 29) + ".9999999994", `"` + strings.Repeat("9", 29) + `.999999999"`},
		{of(bigquery.NumericFieldType), strings.Repeat("9", 29) + ".9999999995", "!has more than 29 digits before the point"},
		{of(bigquery.NumericFieldType), big30, "!" + big30 + " has more than 29 digits before the point"},
		{of(bigquery.NumericFieldType), big.NewRat(1, 3), `"0.333333333"`},
		{bigquery.FieldSchema{Type: bigquery.NumericFieldType, RoundingMode: bigquery.RoundHalfEven}, "0.0000000025", `"0.000000002"`},
		{bigquery.FieldSchema{Type: bigquery.NumericFieldType, RoundingMode: bigquery.RoundHalfEven}, "0.0000000035", `"0.000000004"`},
		{bigquery.FieldSchema{Type: bigquery.NumericFieldType, RoundingMode: bigquery.RoundHalfEven}, "-0.00000000251", `"-0.000000003"`},
		{numeric(5, 2), "123.455", `"123.46"`},
		{numeric(5, 2), "999.995", "!has more than 3 digits before the point"},
		{numeric(5, 0), 99999.4, `"99999"`},
		{numeric(3, 3), 1, "!has more than 0 digits before the point"},
		{of(bigquery.BigNumericFieldType), "0." + strings.Repeat("0", 38) + "4", `"0"`},
		{of(bigquery.BigNumericFieldType), "0." + strings.Repeat("0", 37) + "15", `"0.` + strings.Repeat("0", 37) + `2"`},
		{of(bigquery.BigNumericFieldType), "578960446186580977117854925043439539266.34992332820282019728792003956564819967", `"578960446186580977117854925043439539266.34992332820282019728792003956564819967"`},
		{of(bigquery.BigNumericFieldType), "578960446186580977117854925043439539266.34992332820282019728792003956564819968", "!the last BIGNUMERIC"},
		{of(bigquery.BigNumericFieldType), "-578960446186580977117854925043439539266.34992332820282019728792003956564819968", `"-578960446186580977117854925043439539266.34992332820282019728792003956564819968"`},

		{of(bigquery.DateTimeFieldType), "2026-02-03T19:30:00.9999997", `"2026-02-03 19:30:00.999999"`},
		{of(bigquery.DateTimeFieldType), civil.DateTime{Date: civil.Date{Year: 2026, Month: 2, Day: 3}, Time: civil.Time{Hour: 19, Minute: 30, Nanosecond: 999_999_700}}, `"2026-02-03 19:30:00.999999"`},
		{of(bigquery.DateTimeFieldType), "2026-02-03 19:30:00", `"2026-02-03 19:30:00"`},
		{of(bigquery.DateTimeFieldType), "2026-02-03 19:30:00.123456", `"2026-02-03 19:30:00.123456"`},
		{of(bigquery.DateTimeFieldType), "2026-02-03 19:30:00Z", "!want the form 2026-02-03 19:30:00"},
		{of(bigquery.DateTimeFieldType), civil.DateTime{}, "!is no DATETIME"},
		{of(bigquery.TimeFieldType), "19:30:00.9999997", `"19:30:00.999999"`},
		{of(bigquery.TimeFieldType), civil.Time{Hour: 24}, "!is no TIME: want the form 19:30:00"},
		{of(bigquery.DateFieldType), "0000-12-31", "!is no DATE"},
		{of(bigquery.DateFieldType), civil.Date{Year: 10000, Month: 1, Day: 1}, "!years 1 to 9999"},
		{of(bigquery.DateFieldType), civil.Date{Year: 2026, Month: 2, Day: 30}, "!is no DATE"},
		{of(bigquery.DateFieldType), "02/03/2026", "!string 02/03/2026 is no DATE: want the form 2026-02-03"},
		{of(bigquery.TimestampFieldType), time.Date(2026, 2, 3, 0, 0, 0, 1999, time.UTC), `"2026-02-03T00:00:00.000001Z"`},
		{of(bigquery.TimestampFieldType), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "!10000-01-01T00:00:00Z is not within the years 1 to 9999"},
		{of(bigquery.TimestampFieldType), "9999-12-31T23:30:00-01:00", "!is not within the years 1 to 9999"},
		{of(bigquery.TimestampFieldType), time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC), "!is not within the years 1 to 9999"},
		{of(bigquery.TimestampFieldType), "2026-02-03 19:30:00 UTC", `"2026-02-03T19:30:00Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-03 19:30:00.25 UTC", `"2026-02-03T19:30:00.25Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-03 19:30:00+00", `"2026-02-03T19:30:00Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-03 14:30:00.123456789-05", `"2026-02-03T19:30:00.123456Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-04 01:00:00+05:30", `"2026-02-03T19:30:00Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-03t19:30:00z", `"2026-02-03T19:30:00Z"`},
		{of(bigquery.TimestampFieldType), "2026-02-03 19:30:00", "!want an instant with its zone, such as 2026-02-03T19:30:00Z"},

		{of(bigquery.JSONFieldType), map[string]any{"a": "x\xff"}, "!a text in the JSON is not UTF-8"},
		{of(bigquery.JSONFieldType), map[string]any{"a\xff": 1}, "!a text in the JSON is not UTF-8"},
		{of(bigquery.JSONFieldType), "x\ufffd", `"x` + "\ufffd" + `"`},
		{of(bigquery.JSONFieldType), json.RawMessage(`[1.0, 1e2, 0.10, -0.0, 18446744073709551615]`), `[1,100,0.1,0,18446744073709551615]`},
		{of(bigquery.JSONFieldType), json.RawMessage(`18446744073709551617`), "!the number 18446744073709551617 in the JSON has more digits than BigQuery holds"},
		{of(bigquery.JSONFieldType), json.RawMessage(`0.12345678901234567890`), "!has more digits than BigQuery holds"},
		{of(bigquery.JSONFieldType), json.RawMessage(`1e-400`), "!has more digits than BigQuery holds"},
		{of(bigquery.JSONFieldType), json.RawMessage(strings.Repeat("[", 600) + strings.Repeat("]", 600)), "!nested in more than 500 levels"},
		{of(bigquery.IntervalFieldType), "1-0 0 0:0:0", "!values of type INTERVAL cannot be written"},
	} {
		c.column.Name = "c"
		for form, column := range nested(c.column) {
			rows, err := fit(bigquery.Schema{column}, []dedup.Row{{"c": holding(form, c.value)}})
			if says, refused := strings.CutPrefix(c.want, "!"); refused {
				if err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), "row 0: c: ") {
					t.Errorf("%s %v %s: %v, want %q", c.column.Type, c.value, form, err, says)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s %v %s: %v", c.column.Type, c.value, form, err)
				continue
			}
			got, err := lines(rows)
			want := map[string]string{"alone": c.want, "in_a_list": "[" + c.want + "]", "in_a_record": `{"c":` + c.want + "}"}[form]
			if err != nil || string(got) != `{"c":`+want+"}\n" {
				t.Errorf("%s %v %s: %s, want %s: %v", c.column.Type, c.value, form, got, want, err)
			}
		}
	}
}

// A row may leave out a column with a default, in each mode of the column.
func TestDefaults_AreStagedAsNothing(t *testing.T) {
	for want, f := range map[string]*bigquery.FieldSchema{
		`{"c":null}`: {Name: "c", Type: bigquery.StringFieldType, Required: true, DefaultValueExpression: "'x'"},
		`{"c":[]}`:   {Name: "c", Type: bigquery.StringFieldType, Repeated: true, DefaultValueExpression: "['x']"},
	} {
		rows, err := fit(bigquery.Schema{f}, []dedup.Row{{}})
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		if got, err := lines(rows); err != nil || string(got) != want+"\n" {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
		if s := staged(bigquery.Schema{f}); s[0].Required || s[0].DefaultValueExpression != "" {
			t.Errorf("staged as %+v", s[0])
		}
	}
	if _, err := fit(bigquery.Schema{{Name: "c", Type: bigquery.StringFieldType, Required: true}}, []dedup.Row{{}}); err == nil {
		t.Error("a REQUIRED column without a default is left out")
	}
}

// anyValue is a value that a processor may give for a column of a type, sound or not.
func anyValue(f *bigquery.FieldSchema) *rapid.Generator[any] {
	number := rapid.OneOf(rapid.Int64().AsAny(), rapid.Float64().AsAny(), rapid.Float32().AsAny(), rapid.Just[any](math.NaN()),
		rapid.Map(rapid.StringMatching(`-?[0-9]{1,40}(\.[0-9]{1,40})?(e-?[0-9]{1,2})?`), func(s string) any { return json.Number(s) }))
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(-70_000_000_000, 260_000_000_000).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds"))
	})
	printed := func(forms ...string) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			return instant.Draw(t, "at").UTC().Format(rapid.SampledFrom(forms).Draw(t, "form"))
		})
	}
	text := rapid.OneOf(rapid.String().AsAny(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return string(b) }))
	switch f.Type {
	case bigquery.StringFieldType:
		return text
	case bigquery.BytesFieldType:
		return rapid.SliceOf(rapid.Byte()).AsAny()
	case bigquery.BooleanFieldType:
		return rapid.Bool().AsAny()
	case bigquery.NumericFieldType, bigquery.BigNumericFieldType, bigquery.IntegerFieldType, bigquery.FloatFieldType:
		return number
	case bigquery.TimestampFieldType:
		return rapid.OneOf(instant.AsAny(), printed(time.RFC3339Nano, "2006-01-02 15:04:05.999999 UTC", "2006-01-02 15:04:05-07"))
	case bigquery.DateFieldType:
		return rapid.OneOf(rapid.Map(instant, func(at time.Time) any { return civil.DateOf(at) }), printed("2006-01-02"))
	case bigquery.DateTimeFieldType:
		return rapid.OneOf(rapid.Map(instant, func(at time.Time) any { return civil.DateTimeOf(at) }), printed("2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05"))
	case bigquery.TimeFieldType:
		return rapid.OneOf(rapid.Map(instant, func(at time.Time) any { return civil.TimeOf(at) }), printed("15:04:05.999999999"))
	case bigquery.JSONFieldType:
		return rapid.OneOf(number, text, rapid.Map(rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.Float64Range(-1e30, 1e30))), func(m map[string][]float64) any { return m }))
	}
	panic(f.Type)
}

var propertyTypes = []bigquery.FieldSchema{
	{Type: bigquery.StringFieldType}, {Type: bigquery.StringFieldType, MaxLength: 5}, {Type: bigquery.BytesFieldType}, {Type: bigquery.BooleanFieldType},
	{Type: bigquery.IntegerFieldType}, {Type: bigquery.FloatFieldType}, {Type: bigquery.NumericFieldType}, {Type: bigquery.NumericFieldType, Precision: 10, Scale: 3},
	{Type: bigquery.NumericFieldType, RoundingMode: bigquery.RoundHalfEven}, {Type: bigquery.BigNumericFieldType}, {Type: bigquery.TimestampFieldType},
	{Type: bigquery.DateFieldType}, {Type: bigquery.DateTimeFieldType}, {Type: bigquery.TimeFieldType}, {Type: bigquery.JSONFieldType},
}

// Normalising is idempotent, and two values are the same key exactly if their loaded texts are
// the same.
func TestValues_NormaliseIdempotently(t *testing.T) {
	for _, column := range propertyTypes {
		column.Name = "c"
		t.Run(fmt.Sprintf("%s_%d_%d_%d_%s", column.Type, column.MaxLength, column.Precision, column.Scale, column.RoundingMode), func(t *testing.T) {
			rule := dedup.Rule{Key: []string{"c"}, OrderBy: "c", Columns: []string{"c"}}
			rapid.Check(t, func(t *rapid.T) {
				form := rapid.SampledFrom([]string{"alone", "in_a_list", "in_a_record"}).Draw(t, "form")
				schema := bigquery.Schema{nested(column)[form]}
				a, b := anyValue(&column).Draw(t, "a"), anyValue(&column).Draw(t, "b")
				rows, err := fit(schema, []dedup.Row{{"c": holding(form, a)}, {"c": holding(form, b)}})
				if err != nil {
					t.SkipNow()
				}
				again, err := fit(schema, rows)
				if err != nil {
					t.Fatalf("%v becomes %v, which is refused: %v", a, rows[0]["c"], err)
				}
				first, err := lines(rows)
				if err != nil {
					t.Fatal(err)
				}
				second, err := lines(again)
				if err != nil || string(first) != string(second) || rule.Hash(rows[0]) != rule.Hash(again[0]) {
					t.Fatalf("%s becomes %s: %v", first, second, err)
				}
				texts := strings.Split(string(first), "\n")
				if result, err := rule.Apply(rows); err == nil && (result.Removed == 1) != (texts[0] == texts[1]) {
					t.Fatalf("%s and %s: %d rows removed", texts[0], texts[1], result.Removed)
				}
			})
		})
	}
}
