package wire

import (
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestDidYouMean_FindsTheNearestProcessor(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	for reported, want := range map[string]string{
		"player_gam_summary":           "player_game_summary", // one missing
		"player_game_sumary":           "player_game_summary",
		"player_game_summmary":         "player_game_summary", // one too many
		"palyer_game_summary":          "player_game_summary", // two swapped
		"plaier_gane_summary":          "player_game_summary", // two that are others
		"PLAYER_GAME_SUMMARY":          "player_game_summary",
		"PlayerGameSumaryProcessor":    "player_game_summary",
		"team_ofense_game_summary":     "team_offense_game_summary",
		"player_daily_cache":           "", // of another phase
		"RosterHistoryProcessor":       "",
		"game_summary":                 "",
		"x":                            "",
		"":                             "",
		"plaier_gane_sumary":           "", // three errors
		"player_game_summary\x00\xffé": "",
	} {
		if got := DidYouMean(reported, p.Transitions[0]); got != want {
			t.Errorf("%q: %q, want %q", reported, got, want)
		}
	}
}
