package warehouse

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/dedup"
)

func field(typ bigquery.FieldType) *bigquery.FieldSchema {
	return &bigquery.FieldSchema{Name: "c", Type: typ, Schema: bigquery.Schema{{Name: "n", Type: bigquery.IntegerFieldType, Required: true}}}
}

// Each value is loaded as the wanted line. An empty line means that the column refuses the value.
func TestValues_AreLoadedByColumnType(t *testing.T) {
	at := time.Date(2026, 2, 4, 6, 3, 12, 123456789, time.FixedZone("", -5*3600))
	for _, c := range []struct {
		typ   bigquery.FieldType
		value any
		want  string
	}{
		{bigquery.StringFieldType, "a\u2028<b>", `"a\u2028<b>"`}, {bigquery.StringFieldType, 1, ""}, {bigquery.StringFieldType, nil, `null`},
		{bigquery.IntegerFieldType, 1, `1`}, {bigquery.IntegerFieldType, int64(math.MinInt64), `"-9223372036854775808"`}, {bigquery.IntegerFieldType, 2.0, `2`},
		{bigquery.IntegerFieldType, json.Number("3"), `3`}, {bigquery.IntegerFieldType, "3", ""}, {bigquery.IntegerFieldType, 1.5, ""}, {bigquery.IntegerFieldType, 1e30, ""},
		{bigquery.IntegerFieldType, uint64(math.MaxUint64), ""}, {bigquery.IntegerFieldType, true, ""}, {bigquery.IntegerFieldType, json.Number("1e999999999"), ""},
		{bigquery.FloatFieldType, 1, `1`}, {bigquery.FloatFieldType, 0.1, `0.1`}, {bigquery.FloatFieldType, math.NaN(), `"NaN"`}, {bigquery.FloatFieldType, math.Inf(1), `"+Inf"`},
		{bigquery.FloatFieldType, float32(0.5), `0.5`}, {bigquery.FloatFieldType, "0.5", ""}, {bigquery.FloatFieldType, json.Number("1e400"), ""},
		{bigquery.NumericFieldType, "47.60", `"47.6"`}, {bigquery.NumericFieldType, big.NewRat(1, 4), `"0.25"`},
		{bigquery.NumericFieldType, 1, `"1"`}, {bigquery.NumericFieldType, "x", ""}, {bigquery.NumericFieldType, "1/3", ""},
		{bigquery.BooleanFieldType, false, `false`}, {bigquery.BooleanFieldType, "true", ""},
		{bigquery.BytesFieldType, []byte{0, 0xff}, `"AP8="`}, {bigquery.BytesFieldType, "AP8=", ""},
		{bigquery.TimestampFieldType, at, `"2026-02-04T11:03:12.123456Z"`}, {bigquery.TimestampFieldType, "2026-02-04T06:03:12-05:00", `"2026-02-04T11:03:12Z"`},
		{bigquery.TimestampFieldType, "yesterday", ""}, {bigquery.TimestampFieldType, 12, ""},
		{bigquery.DateFieldType, civil.Date{Year: 2026, Month: 2, Day: 3}, `"2026-02-03"`}, {bigquery.DateFieldType, "2026-02-03", `"2026-02-03"`},
		{bigquery.DateFieldType, "2026-02-30", ""}, {bigquery.DateFieldType, at, ""},
		{bigquery.DateTimeFieldType, "2026-02-03T19:30:00", `"2026-02-03 19:30:00"`}, {bigquery.TimeFieldType, "01:02:03", `"01:02:03"`}, {bigquery.TimeFieldType, "25:00:00", ""},
		{bigquery.JSONFieldType, map[string]any{"a": 1.5, "b": nil}, `{"a":1.5,"b":null}`}, {bigquery.JSONFieldType, json.RawMessage(`{"n":12345678901234567890}`), `{"n":12345678901234567890}`},
		{bigquery.JSONFieldType, func() {}, ""},
		{bigquery.RecordFieldType, map[string]any{"n": 1}, `{"n":1}`}, {bigquery.RecordFieldType, map[string]bigquery.Value{"n": int64(1)}, `{"n":1}`},
		{bigquery.RecordFieldType, map[string]any{}, ""}, {bigquery.RecordFieldType, map[string]any{"n": 1, "m": 2}, ""}, {bigquery.RecordFieldType, "n", ""},
	} {
		rows, err := fit(bigquery.Schema{field(c.typ)}, []dedup.Row{{"c": c.value}})
		if (err == nil) != (c.want != "") {
			t.Errorf("%s %T %v: %v", c.typ, c.value, c.value, err)
		}
		if err != nil {
			continue
		}
		got, err := lines([]dedup.Row{{"c": rows[0]["c"]}})
		want := `{"c":` + c.want + "}\n"
		if err != nil || string(got) != want {
			t.Errorf("%s %T %v: %s, want %s: %v", c.typ, c.value, c.value, got, want, err)
		}
	}
}

func TestValues_ListsAreLoadedAsLists(t *testing.T) {
	list := field(bigquery.StringFieldType)
	list.Repeated = true
	for _, c := range []struct {
		value any
		want  []any
	}{{nil, []any{}}, {[]any{"a"}, []any{"a"}}, {[]string{"a", "b"}, []any{"a", "b"}}, {[]bigquery.Value{"a"}, []any{"a"}}, {[]any{"a", nil}, nil}, {"a", nil}, {[]any{1}, nil}} {
		rows, err := fit(bigquery.Schema{list}, []dedup.Row{{"c": c.value}})
		if c.want == nil {
			if err == nil {
				t.Errorf("%v: %v", c.value, rows)
			}
			continue
		}
		if diff := cmp.Diff(any(c.want), rows[0]["c"]); diff != "" || err != nil {
			t.Errorf("%v: %v %s", c.value, err, diff)
		}
	}
}
