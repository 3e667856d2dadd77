package sweep

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Operators compare neither JSON nor a NaN with itself: the sweep takes the text of a key, as
// writes do. (The emulator has no NaN.)
func TestRun_ComparesScalarsOfJSONAsKeys(t *testing.T) {
	t.Parallel()
	w := withScores(t, "game_date DATE, grade JSON, points INT64, processed_at TIMESTAMP")
	for _, r := range []string{"1|12", "2|12", "3|12", "4|12", "4|30"} {
		grade, second, _ := strings.Cut(r, "|")
		w.insert("DATE '2026-02-03', JSON '" + grade + "', 1, TIMESTAMP '2026-02-04 11:03:" + second + "'")
	}
	parsed, err := pipeline.Parse([]byte(w.Definition("key: [game_date, player_lookup]", "key: [game_date, grade]")))
	if err != nil {
		t.Fatal(err)
	}
	w.pipeline = parsed
	before := w.json("nba_analytics.player_game_summary")
	p := w.process()
	removed := p.sweep(order(all))
	p.wantPart(removed, Removed, 1, 1, "")
	w.want("nba_analytics.player_game_summary", append(before[:3:3], before[4]))
	if _, err := p.Undo(t.Context(), removed.ID, "ada", "to see"); err != nil {
		t.Error(err)
	}
	w.want("nba_analytics.player_game_summary", before)
}
