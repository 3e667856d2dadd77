package warehouse

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// NaN = NaN is false in a statement, so a write by key with operators would add such a row each
// time. For de-duplication and sweeps it is one key.
func TestKeys_AreComparedAsOneTextByWritesAndSweeps(t *testing.T) {
	target := Target{Period: "2026-02-03", ByKey: true, Processor: pipeline.Processor{Table: "d.scores", DateColumn: "game_date", Key: []string{"game_date", "grade", "team"}}}
	write, err := target.merge(nil, nil, "`d`.`scores`", "`s`.`rows`")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ statement, want string }{
		"a_write":   {write, "TO_JSON_STRING(STRUCT(t.`grade`, t.`team`)) IN (SELECT TO_JSON_STRING(STRUCT(s.`grade`, s.`team`)) FROM `s`.`rows` AS s)"},
		"a_removal": {Removal{Target: target, Archive: "q.rows"}.statement(nil, Fingerprint{}, "TRUE"), "TO_JSON_STRING(STRUCT(phasegate_target.`grade`, phasegate_target.`team`)) IN (SELECT TO_JSON_STRING(STRUCT(phasegate_row.`grade`, phasegate_row.`team`)) FROM `q`.`rows` AS phasegate_row)"},
	} {
		if !strings.Contains(c.statement, c.want) {
			t.Errorf("%s compares otherwise: %s", name, c.statement)
		}
	}
}

// Each set of columns that rows leave out is an INSERT of its own, and BigQuery takes 1 MB.
func TestWrite_RefusesAStatementThatBigQueryWouldNotTake(t *testing.T) {
	target := Target{Period: "2026-02-03", Processor: pipeline.Processor{Table: "d.scores", DateColumn: "game_date", Key: []string{"game_date", "team"}}}
	schema := bigquery.Schema{{Name: "game_date", Type: bigquery.DateFieldType}, {Name: "team", Type: bigquery.StringFieldType}}
	for i := range 16 {
		schema = append(schema, &bigquery.FieldSchema{Name: fmt.Sprintf("a_column_with_a_default_%02d", i), Type: bigquery.IntegerFieldType, DefaultValueExpression: "7"})
	}
	rows := func(sets int) (out []dedup.Row) {
		for i := range sets {
			out = append(out, dedup.Row{leftOut: fmt.Sprintf("%016b", i)})
		}
		return out
	}
	sql, err := target.merge(schema, rows(100), "`d`.`scores`", "`s`.`rows`")
	if err != nil || strings.Count(sql, "INSERT") != 100 {
		t.Errorf("%d INSERTs, %v", strings.Count(sql, "INSERT"), err)
	}
	sql, err = target.merge(schema, rows(1<<16), "`d`.`scores`", "`s`.`rows`")
	if !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "d.scores: the rows leave out 65536 different sets of columns with a default") {
		t.Errorf("%d bytes, %v", len(sql), err)
	}
}
