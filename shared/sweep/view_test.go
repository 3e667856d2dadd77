package sweep

import (
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestRun_RefusesAViewByNameAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	w.Exec("CREATE TABLE nba_analytics.all_players (" + scores + ")")
	for _, r := range twice() {
		w.Exec("INSERT INTO nba_analytics.all_players VALUES (" + r + ")")
	}
	w.Exec("DROP TABLE nba_analytics.player_game_summary", "CREATE VIEW nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.all_players")
	p := w.process()
	for _, fix := range []func(pipeline.Processor) bool{nil, all} {
		o := order(fix)
		o.Force = true
		p.wantPart(p.sweep(o), Refused, 1, 0, w.table()+" is of type VIEW: name a table of type TABLE instead")
	}
	if got := w.states(); got != "" {
		t.Errorf("the removals are %q, want none", got)
	}
	client, err := w.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if archive, err := client.Dataset(w.archive).Tables(t.Context()).Next(); err == nil {
		t.Errorf("table %s is left", archive.TableID)
	}
}
