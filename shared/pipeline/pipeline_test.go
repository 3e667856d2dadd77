package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func nbaPipeline(t *testing.T) *Pipeline {
	t.Helper()
	p, err := Parse(Default())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefault_TablesAndKeys(t *testing.T) {
	class := map[string]string{"player_game_summary": "PlayerGameSummaryProcessor", "team_defense_game_summary": "TeamDefenseGameSummaryProcessor",
		"team_offense_game_summary": "TeamOffenseGameSummaryProcessor", "upcoming_player_game_context": "AsyncUpcomingPlayerGameContextProcessor",
		"upcoming_team_game_context": "UpcomingTeamGameContextProcessor", "player_composite_factors": "PlayerCompositeFactorsProcessor",
		"player_daily_cache": "PlayerDailyCacheProcessor", "player_shot_zone_analysis": "PlayerShotZoneAnalysisProcessor",
		"team_defense_zone_analysis": "TeamDefenseZoneAnalysisProcessor"}
	analytics := func(name, kind string, key string, filled ...string) Processor {
		return Processor{Name: name, Class: class[name], Kind: kind, Table: "nba_analytics." + name, DateColumn: "game_date",
			Key: []string{"game_date", key}, OrderBy: "processed_at", Partition: PartitionByDate, Filled: filled, Duplicates: DuplicatesRemove}
	}
	precompute := func(name, kind, date, key string) Processor {
		return Processor{Name: name, Class: class[name], Kind: kind, Table: "nba_precompute." + name, DateColumn: date,
			Key: []string{date, key}, OrderBy: "processed_at", Partition: PartitionByDate, Duplicates: DuplicatesReport}
	}
	offense := analytics("team_offense_game_summary", "team", "team_abbr", "points_scored")
	offense.Partition = PartitionByDateFilter
	want := []Phase{
		{Name: "phase_3_analytics", Service: "nba-phase3-analytics-processors", Processors: []Processor{
			analytics("player_game_summary", "player", "player_lookup", "team_abbr", "points"),
			analytics("team_defense_game_summary", "team", "defending_team_abbr", "points_allowed"),
			offense,
			analytics("upcoming_player_game_context", "player", "player_lookup", "team_abbr", "opponent_team_abbr"),
			analytics("upcoming_team_game_context", "team", "team_abbr", "opponent_team_abbr"),
		}},
		{Name: "phase_4_precompute", Service: "nba-phase4-precompute-processors", Processors: []Processor{
			precompute("player_composite_factors", "player", "game_date", "player_lookup"),
			precompute("player_daily_cache", "player", "cache_date", "player_lookup"),
			precompute("player_shot_zone_analysis", "player", "analysis_date", "player_lookup"),
			precompute("team_defense_zone_analysis", "team", "analysis_date", "team_abbr"),
			{Name: "ml_feature_store_v2", Class: "MLFeatureStoreProcessor", Kind: "player", Table: "nba_predictions.ml_feature_store_v2", DateColumn: "game_date",
				Key: []string{"game_date", "player_lookup"}, OrderBy: "processed_at", Partition: PartitionNone, Duplicates: DuplicatesReport},
		}},
	}
	if diff := cmp.Diff(want, nbaPipeline(t).Phases); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProcessor_IsFoundByNameOrClass(t *testing.T) {
	p := nbaPipeline(t)
	for name, want := range map[string]string{"player_game_summary": "phase_3_analytics player_game_summary", "PlayerGameSummaryProcessor": "phase_3_analytics player_game_summary",
		"MLFeatureStoreProcessor": "phase_4_precompute ml_feature_store_v2", "MlFeatureStoreV2Processor": " ", "": " "} {
		ph, pr, ok := p.Processor(name)
		if got := ph.Name + " " + pr.Name; got != want || ok != (want != " ") {
			t.Errorf("%q: %q, %t, want %q", name, got, ok, want)
		}
	}
}

func TestReportsTo_FindsTransitionOfProcessor(t *testing.T) {
	p := nbaPipeline(t)
	if tr := p.ReportsTo("player_game_summary"); tr != p.Transitions[0] {
		t.Errorf("%v", tr)
	}
	if tr := p.ReportsTo("ml_feature_store_v2"); tr != nil {
		t.Errorf("%v", tr)
	}
}

func TestDefault_Transition(t *testing.T) {
	p := nbaPipeline(t)
	want := &Transition{
		ID: "phase3_to_phase4", UpstreamPhase: "phase_3_analytics", UpstreamTopic: "nba-phase3-analytics-complete",
		DownstreamPhase: "phase_4_precompute", DownstreamTopic: "nba-phase4-trigger",
		TriggeredBy: "phase3_to_phase4_orchestrator", ParentProcessor: "Phase3Orchestrator",
		Order: []string{"player_game_summary", "team_defense_game_summary", "team_offense_game_summary",
			"upcoming_player_game_context", "upcoming_team_game_context"},
		CompatibilityCollection: "phase3_completion", TriggerWithin: 72 * time.Hour, HandOver: &HandOver{Warn: 5 * time.Minute, Critical: 15 * time.Minute},
		Modes: []Mode{{
			Name: "tomorrow", Event: Before, Critical: []string{"upcoming_player_game_context"}, Optional: []string{"upcoming_team_game_context"},
			Complete: CompleteCritical, CountsFrom: Offset{Periods: -1, Minute: 16*60 + 30}, Deadline: &Offset{Periods: -1, Minute: 21 * 60}, AtDeadline: DeadlineHold, SecondRuns: SecondRunsIgnore,
		}, {
			Name: "same_day", Event: Within, Critical: []string{"upcoming_player_game_context"}, Optional: []string{"upcoming_team_game_context"},
			Complete: CompleteCritical, CountsFrom: Offset{Minute: 10 * 60}, Deadline: &Offset{Minute: 13 * 60}, AtDeadline: DeadlineHold, SecondRuns: SecondRunsIgnore,
		}, {
			Name: "overnight", Event: After,
			Critical: []string{"player_game_summary", "upcoming_player_game_context"},
			Optional: []string{"team_defense_game_summary", "team_offense_game_summary", "upcoming_team_game_context"},
			Complete: CompleteAll, Grace: &Grace{QuorumPct: 60, After: 30 * time.Minute}, CountsFrom: Offset{Minute: 18 * 60},
			AcceptEarlier: []string{"upcoming_player_game_context", "upcoming_team_game_context"},
			NotBefore:     &Offset{Periods: 1, Minute: 5 * 60}, Deadline: &Offset{Periods: 1, Minute: 10 * 60}, AtDeadline: DeadlineHold, SecondRuns: SecondRunsResend, SecondRunsEvery: 2 * time.Minute,
		}},
	}
	// The checks have a test of their own.
	if diff := cmp.Diff([]*Transition{want}, p.Transitions, cmpopts.IgnoreUnexported(Transition{}, Mode{}), cmp.AllowUnexported(Offset{}), cmpopts.IgnoreFields(Transition{}, "Checks")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.Name != "nba" || p.Calendar.Zone().String() != "America/New_York" {
		t.Errorf("pipeline %s in %v", p.Name, p.Calendar.Zone())
	}
}

func TestTransition_KnowsItsPipeline(t *testing.T) {
	p := nbaPipeline(t)
	tr := p.Transitions[0]
	if tr.Calendar() != p.Calendar || tr.Definition() != p.Hash || len(p.Hash) != 12 {
		t.Errorf("calendar %v, definition %s of %s", tr.Calendar(), tr.Definition(), p.Hash)
	}
	for name, key := range map[string]string{"player_game_summary": "players", "upcoming_player_game_context": "players", "team_offense_game_summary": "teams"} {
		if got := tr.EntitiesKey(name); got != key || !tr.Expects(name) {
			t.Errorf("%s: key %q, expected %v", name, got, tr.Expects(name))
		}
	}
	for _, name := range []string{"", "roster_history", "PlayerGameSummaryProcessor", "player_composite_factors"} {
		if tr.Expects(name) {
			t.Errorf("%q is expected", name)
		}
	}
	if m, ok := tr.Mode("weekly"); ok {
		t.Errorf("weekly: %+v", m)
	}
}

func TestMode_NamesItsProcessors(t *testing.T) {
	tr := nbaPipeline(t).Transitions[0]
	for mode, names := range map[string]map[string]bool{
		"tomorrow":  {"upcoming_player_game_context": true, "upcoming_team_game_context": true, "player_game_summary": false, "": false},
		"overnight": {"upcoming_player_game_context": true, "player_game_summary": true, "team_offense_game_summary": true, "player_daily_cache": false},
	} {
		m, ok := tr.Mode(mode)
		if !ok {
			t.Fatalf("no mode %s", mode)
		}
		for name, want := range names {
			if m.Names(name) != want {
				t.Errorf("%s names %q: %v, want %v", mode, name, !want, want)
			}
		}
		if want := len(m.Critical) + len(m.Optional); m.Size() != want {
			t.Errorf("%s has size %d, want %d", mode, m.Size(), want)
		}
	}
}

func TestTransition_IsFoundByID(t *testing.T) {
	p := nbaPipeline(t)
	for id, want := range map[string]bool{"": true, "phase3_to_phase4": true, "phase4_to_phase5": false} {
		if tr, ok := p.Transition(id); ok != want || ok && tr != p.Transitions[0] {
			t.Errorf("%q: %v, %v", id, tr, ok)
		}
	}
	p.Transitions = append(p.Transitions, &Transition{ID: "other"})
	if tr, ok := p.Transition(""); ok {
		t.Errorf("of two transitions no id means %s", tr.ID)
	}
}

func TestPipeline_TopicAndSubscriptionNames(t *testing.T) {
	p := nbaPipeline(t)
	for got, want := range map[string]string{
		p.Transitions[0].Subscription():                  "nba-phase3-analytics-complete-transition",
		DeadLetterTopic(p.Transitions[0].UpstreamTopic):  "nba-phase3-analytics-complete-dead-letter",
		Schedule{Function: "reconcile"}.Topic():          "phasegate-reconcile",
		Subscription("phasegate-reconcile", "reconcile"): "phasegate-reconcile-reconcile",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestHash_CoversBytesOfFile(t *testing.T) {
	hashes := map[string]bool{}
	for _, definition := range []string{string(Default()), strings.Replace(string(Default()), "quorum_pct: 60", "quorum_pct: 61", 1), string(Default()) + "#\n"} {
		p, err := Parse([]byte(definition))
		if err != nil {
			t.Fatal(err)
		}
		hashes[p.Hash] = true
	}
	if len(hashes) != 3 {
		t.Errorf("three files have the hashes %v", hashes)
	}
}

func TestDefault_CannotBeModified(t *testing.T) {
	clear(Default())
	nbaPipeline(t)
}
