package warehouse

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// NaN = NaN is false in a statement, so a write by key with operators would add such a row each
// time. For de-duplication and sweeps it is one key.
func TestKeys_AreComparedAsOneTextByWritesAndSweeps(t *testing.T) {
	target := Target{Period: "2026-02-03", ByKey: true, Processor: pipeline.Processor{Table: "d.scores", DateColumn: "game_date", Key: []string{"game_date", "grade", "team"}}}
	for name, c := range map[string]struct{ statement, want string }{
		"a_write":   {target.merge(nil, nil, "`d`.`scores`", "`s`.`rows`"), "TO_JSON_STRING(STRUCT(t.`grade`, t.`team`)) IN (SELECT TO_JSON_STRING(STRUCT(s.`grade`, s.`team`)) FROM `s`.`rows` AS s)"},
		"a_removal": {Removal{Target: target, Archive: "q.rows"}.statement(nil, Fingerprint{}, "TRUE"), "TO_JSON_STRING(STRUCT(phasegate_target.`grade`, phasegate_target.`team`)) IN (SELECT TO_JSON_STRING(STRUCT(phasegate_row.`grade`, phasegate_row.`team`)) FROM `q`.`rows` AS phasegate_row)"},
	} {
		if !strings.Contains(c.statement, c.want) {
			t.Errorf("%s compares otherwise: %s", name, c.statement)
		}
	}
}
