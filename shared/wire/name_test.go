package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestF19_EverySpellingOfAProcessorIsOneName(t *testing.T) {
	for _, tc := range []struct{ reported, outputTable, want string }{
		{"player_game_summary", "", "player_game_summary"},
		{"PlayerGameSummaryProcessor", "player_game_summary", "player_game_summary"},
		{"PlayerGameSummaryProcessor", "", "player_game_summary"},
		{"PlayerGameSummary", "", "player_game_summary"},
		{"AsyncUpcomingPlayerGameContextProcessor", "", "upcoming_player_game_context"},
		{"AsyncUpcomingPlayerGameContextProcessor", "upcoming_player_game_context", "upcoming_player_game_context"},
		{"UpcomingTeamGameContextProcessor", "", "upcoming_team_game_context"},
		{"TeamDefenseGameSummaryProcessor", "", "team_defense_game_summary"},
		{"TeamOffenseGameSummaryProcessor", "", "team_offense_game_summary"},
		// The name that is expected goes before the table, the table before the class.
		{"player_game_summary", "team_offense_game_summary", "player_game_summary"},
		{"PlayerGameSummaryProcessor", "team_offense_game_summary", "team_offense_game_summary"},
		{"SomeNewWriter", "team_offense_game_summary", "team_offense_game_summary"},
		{"PlayerGameSummaryProcessor", "some_new_table", "player_game_summary"},
		{"a.b/__c__", "player_game_summary", "player_game_summary"},
	} {
		c, _ := decode(t, report(fmt.Sprintf(`"processor_name":%q,"output_table":%q`, tc.reported, tc.outputTable)))
		if c.Processor != tc.want || c.Reported != tc.reported {
			t.Errorf("%q into %q: processor %q, reported %q, want %q", tc.reported, tc.outputTable, c.Processor, c.Reported, tc.want)
		}
	}
}

func TestF19_AcronymsAndDigitsOfAClassName(t *testing.T) {
	for class, table := range map[string]string{
		"MLFeatureStoreV3Processor":       "ml_feature_store_v3",
		"MlFeatureStoreV3":                "ml_feature_store_v3",
		"NBATeamProcessor":                "nba_team",
		"Game2VecProcessor":               "game2_vec",
		"AsyncAsyncJobProcessorProcessor": "async_job_processor", // one of each is dropped
		"SummaryNBAProcessor":             "summary_nba",
	} {
		definition := strings.ReplaceAll(string(pipeline.Default()), "player_game_summary", table)
		c, _, err := wire.DecodeCompletion(delivered(report(fmt.Sprintf(`"processor_name":%q`, class))), parse(t, definition))
		if err != nil || c.Processor != table {
			t.Errorf("%s: processor %q, error %v, want %s", class, c.Processor, err, table)
		}
	}
}

// strangers are names that no pipeline expects.
var strangers = []string{
	"defense_zone_analytics", "roster_history", "DefenseZoneAnalyticsProcessor", "player_composite_factors",
	"Player_Game_Summary", "PLAYER_GAME_SUMMARY", "playerGameSummaryProcessor", "Player Game Summary", " player_game_summary",
	"player_game_summary\n", "player_game_summary.", "player_game_summaryProcessor", "Asyncplayer_game_summary", "asyncPlayerGameSummary",
	"AsyncAsyncPlayerGameSummaryProcessor", "PlayerGameSummaryProcessorProcessor", "PlayerGameSummaryProcessorAsync",
	"Async", "Processor", "AsyncProcessor", "_", "__name__", "_completed_count", "_triggered", "runs.player_game_summary", "a/b", "..", "`x`",
	"рlayer_game_summary",          // Cyrillic р
	"РlayerGameSummaryProcessor",   // Cyrillic Р
	"player_gаme_summary",          // Cyrillic а
	"ｐlayer_game_summary",          // full width
	"player_game_summary\u200b",    // zero width space
	"player\u0332_game_summary",    // combining low line
	"player_game_ſummary",          // long s
	"\u0000player_game_summary",    // NUL
	strings.Repeat("player_", 300), // 2,100 bytes
	strings.Repeat("P", 2000) + "Processor",
}

func TestF13_UnknownNamesAreNeverExpected(t *testing.T) {
	for _, name := range strangers {
		written := strings.ReplaceAll(strings.ReplaceAll(name, "\n", `\n`), "\x00", `\u0000`)
		for _, data := range []string{
			report(`"processor_name":"` + written + `"`),
			report(`"processor_name":"Stranger"`, `"output_table":"`+written+`"`),
		} {
			if c, _ := decode(t, data); c.Processor != "" || c.Reported == "" {
				t.Errorf("%.60q: processor %q, reported %q", name, c.Processor, c.Reported)
			}
		}
	}
}

func TestF13_LettersWhoseLowerCaseIsASCIIAreStrangers(t *testing.T) {
	transition := parse(t, strings.ReplaceAll(string(pipeline.Default()), "player_game_summary", "kelvin_index"))
	for name, want := range map[string]string{"KelvinIndexProcessor": "kelvin_index", "\u212aelvinIndexProcessor": ""} {
		c, _, err := wire.DecodeCompletion(delivered(report(fmt.Sprintf(`"processor_name":%q`, name))), transition)
		if err != nil || c.Processor != want {
			t.Errorf("%q: processor %q, error %v, want %q", name, c.Processor, err, want)
		}
	}
}
