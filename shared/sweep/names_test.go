package sweep

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestOrder_OfAMistypedTableIsAnsweredWithASuggestion(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	s := &Sweeper{Pipeline: p}
	for typed, want := range map[string]string{
		"nba_analytics.player_game_sumary": `; did you mean "nba_analytics.player_game_summary"?`,
		"player_daily_cash":                `; did you mean "player_daily_cache"?`,
	} {
		if _, err := s.tables(typed); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", typed, err, want)
		}
	}
}
