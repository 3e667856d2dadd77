package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline/pipelinetest"
)

// change returns the default definition with the first occurrence of each text
// replaced, and the line at which the last replacement begins. Texts come in pairs.
func change(t *testing.T, pairs ...string) (definition string, line int) {
	t.Helper()
	definition = string(Default())
	for i := 0; i < len(pairs); i += 2 {
		before, after, found := strings.Cut(definition, pairs[i])
		if !found {
			t.Fatalf("%q is not in the definition", pairs[i])
		}
		definition = before + pairs[i+1] + after
		line = 1 + strings.Count(before, "\n")
	}
	return definition, line
}

// Places in the default definition.
const (
	firstProcessor = `      - name: player_game_summary
        kind: player
        table: nba_analytics.player_game_summary
        date_column: game_date
        key: [game_date, player_lookup]
        order_by: processed_at
        duplicates: remove
`
	relay = `  - name: relay
    cron: "*/5 * * * *"
    function: reconcile
    job: relay
`
)

func atLine(want string, line int) string {
	return strings.NewReplacer("{line}", fmt.Sprint(line), "{line+1}", fmt.Sprint(line+1)).Replace(want)
}

func wantProblem(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %q", want)
	}
	for line := range strings.Lines(err.Error()) {
		if strings.HasPrefix(strings.TrimPrefix(line, "pipeline definition: "), want) {
			return
		}
	}
	t.Errorf("no line begins with %q in:\n%v", want, err)
}

func TestParse_ReportsAllProblemsAtOnce(t *testing.T) {
	var pairs, wants []string
	for _, name := range []string{
		"unknown_field", "wrong_type", "schema", "zone", "kind_unknown", "key_empty", "partition", "downstream_topic",
		"trigger_within", "order_missing", "counts_from", "second_runs", "earlier_stranger", "cron",
	} {
		pairs = append(pairs, problems[name].from, problems[name].to)
		if want := problems[name].want; !strings.HasPrefix(want, "line") {
			wants = append(wants, want)
		}
	}
	definition, _ := change(t, pairs...)
	_, err := Parse([]byte(definition))
	for i, line := range strings.Split(definition, "\n") {
		switch {
		case strings.HasPrefix(line, "color"):
			wants = append(wants, fmt.Sprintf("line %d: field color not found", i+1))
		case strings.Contains(line, "sixty"):
			wants = append(wants, fmt.Sprintf("line %d: cannot unmarshal !!str `sixty`", i+1))
		}
	}
	if len(wants) != 14 {
		t.Fatalf("%d problems to look for, not 14: %q", len(wants), wants)
	}
	for _, want := range wants {
		wantProblem(t, err, want)
	}
}

// A mistyped key, or a value of another form, is one problem: nothing is said of what it leaves out.
func TestParse_ReportsAMistypedKeyOnce(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"time_zone: A", "time_zonee: A", `line {line}: field time_zonee not found; did you mean "time_zone"?`},
		{"order_by: processed_at", "orderby: processed_at", `line {line}: field orderby not found in phases[0].processors[0]; did you mean "order_by"?`},
		{"    upstream:\n", "    upstraem:\n", `line {line}: field upstraem not found in transitions[0]; did you mean "upstream"?`},
		{"key: [game_date, player_lookup]", "keys: [game_date, player_lookup]", `line {line}: field keys not found in phases[0].processors[0]; did you mean "key"?`},
		{"    upstream:\n      phase: phase_3_analytics\n      topic: nba-phase3-analytics-complete\n", "    upstream: marts\n",
			"line {line}: transitions[0].upstream: wants keys phase and topic, such as {phase: marts, topic: shop-marts-complete}"},
		{"key: [game_date, player_lookup]", "key: game_date", "line {line}: phases[0].processors[0].key: wants a list, such as [a, b]"},
	} {
		definition, line := change(t, tc.from, tc.to)
		_, err := Parse([]byte(definition))
		wantProblem(t, err, atLine(tc.want, line))
		if err != nil && (strings.Contains(err.Error(), "is required") || strings.Contains(err.Error(), "struct {") || strings.Contains(err.Error(), "pipeline.")) {
			t.Errorf("%s: %v", tc.to, err)
		}
	}
}

// The YAML library names the line where the section around the problem began.
func TestParse_NamesTheLineOfASyntaxError(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"        deadline: \"13:00\"", "       deadline: \"13:00\"", `line {line}: "deadline: \"13:00\"": did not find expected`},
		{"key: [game_date, player_lookup]", "key: [game_date, player_lookup", `line {line}: "key: [game_date, player_lookup": did not find expected ',' or ']'`},
		{"name: nba\n", "\tname: nba\n", `line {line}: "name: nba": found a tab character that violates indentation`},
	} {
		definition, line := change(t, tc.from, tc.to)
		_, err := Parse([]byte(definition))
		wantProblem(t, err, atLine(tc.want, line))
	}
}

func TestParse_RefusesInvalidDefinition(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "comment": "# nothing\n", "null": "null", "number": "5", "list": "- a\n", "not_yaml": "a: [", "tab": "a:\n\t- b\n", "binary": "\x00\xff",
	} {
		if p, err := Parse([]byte(data)); err == nil || p != nil || !strings.HasPrefix(err.Error(), "pipeline definition: ") {
			t.Errorf("%s: %v, error %v", name, p, err)
		}
	}
}

func TestParse_RefusesTransitionsWithMixedDocuments(t *testing.T) {
	_, rest, _ := strings.Cut(string(Default()), "transitions:\n")
	first, _, _ := strings.Cut(rest, "\n# Jobs")
	for id, want := range map[string]string{
		"phase3_to_phase4_fast": `transitions[0].id: "phase3_to_phase4" followed by _ begins the id "phase3_to_phase4_fast"`,
		"phase3_to_phase4":      `transitions[1].id: transition "phase3_to_phase4" is declared twice`,
		"phase3_to_phase4fast":  "",
	} {
		second := strings.NewReplacer("id: phase3_to_phase4", "id: "+id, "topic: nba-phase3-analytics-complete", "topic: other-complete",
			"compatibility_collection: phase3_completion", "compatibility_collection: other_completion").Replace(first)
		definition, _ := change(t, first, first+second)
		p, err := Parse([]byte(definition))
		if want != "" {
			wantProblem(t, err, want)
		} else if err != nil || p.TransitionIDs() != "phase3_to_phase4, "+id {
			t.Errorf("%s: error %v", id, err)
		}
	}
}

func TestParse_RefusesSharedTopicOrCollection(t *testing.T) {
	_, rest, _ := strings.Cut(string(Default()), "transitions:\n")
	first, _, _ := strings.Cut(rest, "\n# Jobs")
	definition, _ := change(t, first, first+strings.Replace(first, "id: phase3_to_phase4", "id: other", 1))
	_, err := Parse([]byte(definition))
	wantProblem(t, err, `transitions[1].upstream.topic: a transition from topic "nba-phase3-analytics-complete" is declared twice`)
	wantProblem(t, err, `transitions[1].compatibility_collection: collection "phase3_completion" is declared twice`)
	definition, _ = change(t, "compatibility_collection: phase3_completion", "compatibility_collection: phase_periods")
	_, err = Parse([]byte(definition))
	wantProblem(t, err, `transitions[0].compatibility_collection: "phase_periods" is one of our own collections`)
}

// wide returns the default definition with more optional processors, n in all, whose names begin so.
func wide(t *testing.T, n int, prefix string, maxBytes int) string {
	t.Helper()
	var processors, order, optional strings.Builder
	for i := 5; i < n; i++ {
		name := fmt.Sprintf("%s_%d", prefix, i)
		fmt.Fprint(&processors, strings.ReplaceAll(firstProcessor, "- name: player_game_summary", "- name: "+name))
		fmt.Fprintf(&order, "        - %s\n", name)
		optional.WriteString(name + ", ")
	}
	definition, _ := change(t, firstProcessor, firstProcessor+processors.String(),
		"        - team_offense_game_summary\n", "        - team_offense_game_summary\n"+order.String(),
		"optional: [team_defense", "optional: ["+optional.String()+"team_defense",
		"max_bytes_billed: 1000000000", fmt.Sprint("max_bytes_billed: ", maxBytes))
	return definition
}

// A batch has the names of all processors in one document.
func TestParse_LimitsNamesOfProcessorsTo512KiB(t *testing.T) {
	_, err := Parse([]byte(wide(t, 5_400, strings.Repeat("n", 95), 1_000_000_000)))
	wantProblem(t, err, "transitions[0].downstream.order: the names of its 5400 processors have 538528 bytes together, and one document takes 524288: shorten names, or move processors to another transition")
}

// BigQuery refuses such a query at each hand-over, and nothing would be handed over any more.
func TestParse_RefusesChecksOfMoreTablesThanOneQueryTakes(t *testing.T) {
	for _, tc := range []struct {
		processors, maxBytes int
		want                 string
	}{
		{95, 1_000_000_000, ""},
		{96, 1_000_000_000, "transitions[0].checks.max_bytes_billed: 1000000000 is less than BigQuery bills for the 96 tables of mode overnight, 10 MiB each: write 1006632960 or more, or name fewer tables in the processors of the checks"},
		{1000, 1000 << 20 * 10, ""},
		{1001, 1001 << 20 * 10, "transitions[0].checks.before_hand_over: asks about 1001 tables before a hand-over of mode overnight, and one query takes 1000: name fewer tables in the processors of the checks"},
	} {
		_, err := Parse([]byte(wide(t, tc.processors, "extra", tc.maxBytes)))
		if tc.want != "" {
			wantProblem(t, err, tc.want)
		} else if err != nil {
			t.Errorf("%d processors: %v", tc.processors, err)
		}
	}
}

func TestParse_LimitsTransitionTo10000Processors(t *testing.T) {
	for n, want := range map[int]string{10_000: "", 10_001: "transitions[0].downstream.order: 10001 processors: a transition takes at most 10000"} {
		_, err := Parse([]byte(pipelinetest.Wide(n, "processor")))
		if want != "" {
			wantProblem(t, err, want)
		} else if err != nil {
			t.Errorf("%d processors: %v", n, err)
		}
	}
}

func TestTimesOfHours_AreCompared(t *testing.T) {
	hours := strings.NewReplacer("calendar: day", "calendar: hour", `counts_from: "18:00"`, `counts_from: "+1h :10", deadline: "+2h :05"`)
	for _, tc := range []struct{ from, to, want string }{
		{"", "", ""},
		{`deadline: "+2h :05"`, `deadline: "+1h :10"`, ""},
		{`deadline: "+2h :05"`, `deadline: "+1h :05"`, `transitions[0].modes[0].deadline: "+1h :05" is before counts_from, "+1h :10"`},
		{`+2h :05"`, `+2h :05", not_before: "+2h :06"`, `transitions[0].modes[0].deadline: "+2h :05" is before not_before, "+2h :06"`},
		{"trigger_within: 72h", "trigger_within: 1h", `transitions[0].modes[0].deadline: "+2h :05" is later than trigger_within, 1h0m0s`},
		{"trigger_within: 72h", "trigger_within: 65m", ""},
		{"trigger_within: 72h", "trigger_within: 4m", `transitions[0].trigger_within: "4m" is less than 5m0s`},
	} {
		_, err := Parse([]byte(strings.Replace(hours.Replace(string(minimal)), tc.from, tc.to, 1)))
		if tc.want != "" {
			wantProblem(t, err, tc.want)
		} else if err != nil {
			t.Errorf("%s: %v", tc.to, err)
		}
	}
}

func TestFormerNames_KeepWhatIsStored(t *testing.T) {
	definition, _ := change(t, "- id: phase3_to_phase4", "- id: up_to_down\n    formerly: [phase3_to_phase4, three_to_four]",
		"- name: overnight", "- name: late\n        formerly: [overnight, night]")
	definition = strings.ReplaceAll(definition, "player_game_summary", "box_scores")
	definition = strings.Replace(definition, "- name: box_scores\n", "- name: box_scores\n        formerly: [player_game_summary, scores]\n", 1)
	definition = strings.ReplaceAll(definition, "modes: [overnight]", "modes: [late]")
	p, err := Parse([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"up_to_down", "three_to_four", "phase3_to_phase4"} {
		if tr, ok := p.Transition(id); !ok || tr.ID != "up_to_down" || tr.StoredID() != "phase3_to_phase4" {
			t.Errorf("transition %s: found %v", id, ok)
		}
	}
	tr := p.Transitions[0]
	for _, name := range []string{"late", "night", "overnight"} {
		if tr.PresentMode(name) != "late" || tr.StoredMode(name) != "overnight" {
			t.Errorf("mode %s: %s, stored as %s", name, tr.PresentMode(name), tr.StoredMode(name))
		}
	}
	for _, name := range []string{"box_scores", "scores", "player_game_summary"} {
		_, pr, ok := p.Processor(name)
		if tr.Present(name) != "box_scores" || !ok || pr.Class != "PlayerGameSummaryProcessor" || tr.Stored(tr.Present(name)) != "player_game_summary" {
			t.Errorf("processor %s: %s, class %s", name, tr.Present(name), pr.Class)
		}
	}
	if tr.StoredMode("noon") != "noon" || tr.PresentMode("noon") != "noon" || tr.Present("x") != "x" || tr.Stored("x") != "x" {
		t.Error("an unknown name has become another")
	}
}

func TestReplaces_TakesNamesAndPatternsOfOthersAlone(t *testing.T) {
	for replaces, problem := range map[string]bool{
		"nba-phase3-orchestrator-sub": false, "eventarc-*-phase3-to-phase4-orchestrator-*": false, "old-*": false,
		"nba-phase3-analytics-complete-transition": true, "*": true, "nba-phase3-*": true, "a b": true, "[old]": true, "?": true,
	} {
		definition := strings.Replace(string(Default()), "topic: nba-phase3-analytics-complete\n", "topic: nba-phase3-analytics-complete\n      replaces: ['"+replaces+"']\n", 1)
		_, err := Parse([]byte(definition))
		if (err != nil) != problem || problem && !strings.Contains(err.Error(), "upstream.replaces[0]: \""+replaces+"\" is no name of another's subscription") {
			t.Errorf("%s: %v", replaces, err)
		}
	}
}
