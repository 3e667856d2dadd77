package warehouse_test

import (
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// The values that are read back are those that were compared before the write. The emulator
// keeps BYTES as their base64, has no NaN and reads texts in JSON as JSON. It cannot insert a
// list or record of FLOAT. The client cannot read the dates and times in its lists and records.
// Unit tests cover these types.
func TestWrite_StoresTheValuesThatWereCompared(t *testing.T) {
	columns := map[string]bigquery.FieldType{"text": bigquery.StringFieldType, "flag": bigquery.BooleanFieldType, "whole": bigquery.IntegerFieldType,
		"fraction": bigquery.FloatFieldType, "amount": bigquery.NumericFieldType, "exact": bigquery.BigNumericFieldType, "moment": bigquery.TimestampFieldType,
		"day": bigquery.DateFieldType, "local": bigquery.DateTimeFieldType, "clock": bigquery.TimeFieldType}
	plain := map[bigquery.FieldType]bool{bigquery.FloatFieldType: true, bigquery.TimestampFieldType: true,
		bigquery.DateFieldType: true, bigquery.DateTimeFieldType: true, bigquery.TimeFieldType: true}
	declared := "game_date DATE, player_lookup STRING, processed_at TIMESTAMP"
	for name, typ := range columns {
		sql := map[bigquery.FieldType]string{bigquery.BooleanFieldType: "BOOL", bigquery.IntegerFieldType: "INT64", bigquery.FloatFieldType: "FLOAT64"}[typ]
		if sql == "" {
			sql = string(typ)
		}
		declared += fmt.Sprintf(", %s %s", name, sql)
		if !plain[typ] {
			declared += fmt.Sprintf(", %s_list ARRAY<%s>, %[1]s_record STRUCT<c %[2]s>", name, sql)
		}
	}
	b := newBooks(t, declared, "")
	meta, err := b.client().Dataset("nba_analytics" + b.Suffix()).Table("scores").Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows, want []dedup.Row
	for i := range 40 {
		row := dedup.Row{"game_date": string(night), "player_lookup": fmt.Sprintf("p%02d", i), "processed_at": first}
		for name, typ := range columns {
			f := &bigquery.FieldSchema{Name: name, Type: typ}
			for try := i * 100; ; try++ {
				v := warehouse.AnyValue(f).Example(try)
				if fitted, err := warehouse.Fit(bigquery.Schema{f}, []dedup.Row{{name: v}}); err == nil && !isNaN(fitted[0][name]) {
					row[name] = v
					if !plain[typ] {
						row[name+"_list"], row[name+"_record"] = []any{v, v}, map[string]any{"c": v}
					}
					break
				}
			}
		}
		rows = append(rows, row)
	}
	if want, err = warehouse.Fit(meta.Schema, rows); err != nil {
		t.Fatal(err)
	}
	b.mustWrite(rows...)
	it, err := b.client().Query(b.Rename("SELECT * FROM nba_analytics.scores ORDER BY player_lookup")).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		var values map[string]bigquery.Value
		if err := it.Next(&values); err != nil {
			t.Fatal(err)
		}
		got, err := warehouse.Scanned(meta.Schema, values)
		if err != nil {
			t.Fatal(err)
		}
		for column := range want[i] {
			text := func(row dedup.Row) [32]byte { return dedup.Rule{Columns: []string{column}}.Hash(row) }
			if text(got) != text(want[i]) {
				t.Errorf("%s: %v, of which was made: %s", column, rows[i][column], cmp.Diff(fmt.Sprint(want[i][column]), fmt.Sprint(got[column])))
			}
		}
	}
}

func isNaN(v any) bool { f, ok := v.(float64); return ok && f != f }

// Two values that become one in the table are one before the write, too: a write must not
// double its own rows.
func TestWrite_DoublesNoRowsOfItsOwn(t *testing.T) {
	for typ, c := range map[string]struct {
		values []any
		rows   int // 0: refused
	}{
		"STRING":  {[]any{"a\xff", "a\xfe"}, 0},
		"NUMERIC": {[]any{"0.1234567891", "0.1234567892", "0.123456789"}, 1},
		"TIME":    {[]any{"19:30:00.0000001", "19:30:00.0000002", "19:30:00.9999997"}, 2},
	} {
		t.Run(typ, func(t *testing.T) {
			b := newBooks(t, "game_date DATE, grade "+typ+", processed_at TIMESTAMP", "")
			b.target.Processor.Key = []string{"game_date", "grade"}
			var rows []dedup.Row
			for _, v := range c.values {
				rows = append(rows, dedup.Row{"game_date": string(night), "grade": v, "processed_at": first})
			}
			got, err := b.write(b.right(), rows...)
			if c.rows == 0 {
				if err == nil || !strings.Contains(err.Error(), "row 0: grade: ") {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			distinct := b.query("SELECT COUNT(*), COUNT(DISTINCT grade) FROM nba_analytics.scores")[0]
			if err != nil || got.Rows != c.rows || got.Doubled != 0 || fmt.Sprint(distinct) != fmt.Sprint([]int{c.rows, c.rows}) {
				t.Errorf("%+v, %v; rows and different ones in the table: %v", got, err, distinct)
			}
		})
	}
}
