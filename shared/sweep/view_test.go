package sweep

import (
	"errors"
	"strings"
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

func TestUndo_RefusesAViewByNameAndLeavesTheRemovalApplied(t *testing.T) {
	t.Parallel()
	w := withScores(t, scores, twice()...)
	p := w.process()
	removed := p.sweep(order(all))
	p.wantPart(removed, Removed, 1, 1, "")
	w.Exec("CREATE TABLE nba_analytics.all_players ("+scores+")", "DROP TABLE nba_analytics.player_game_summary",
		"CREATE VIEW nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.all_players")
	out, err := p.Undo(t.Context(), removed.ID, "ada", "the wrong one stayed")
	if !errors.Is(err, errNotUndone) || !strings.Contains(err.Error(), w.table()+" is of type VIEW: name a table of type TABLE instead") {
		t.Errorf("%v", err)
	}
	if got := w.states(); got != "applied" || len(out) != 1 || out[0].State != applied || out[0].Unknown || out[0].Restored != 0 {
		t.Errorf("the removal is %q, %+v", got, out)
	}
	if n := w.Count("nba_analytics.all_players"); n != 0 {
		t.Errorf("%d rows behind the view", n)
	}
}
