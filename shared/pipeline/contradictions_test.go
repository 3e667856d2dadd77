package pipeline

import (
	"strings"
	"testing"
)

// Graces and deadlines of runs that two modes expect: they count in a mode's own time alone.
func TestGrace_BeginsWhenTheLastCriticalProcessorCanCount(t *testing.T) {
	night := `      - {name: night, event: after, critical: [orders], optional: [refunds], counts_from: "18:00", deadline: "+1d 01:00", grace: {quorum_pct: 50, after: 2h}`
	day := `      - {name: day, event: within, critical: [orders]}` + "\n"
	for name, tc := range map[string]struct{ modes, want string }{
		"of one mode alone it counts from counts_from on": {night + "}\n", ""},
		"of two modes it has to end after the period":     {day + night + "}\n", `transitions[0].modes[1].grace.after: 2h0m0s from "+1d 00:00" on, when orders can count first, ends after the deadline, "+1d 01:00"`},
		"accepted from the earlier one it counts earlier": {day + night + ", accept_earlier: [orders]}\n", ""},
	} {
		from, to := strings.Index(bare, "      - {name: early"), strings.Index(bare, "    checks:")
		_, err := Parse([]byte(bare[:from] + tc.modes + bare[to:]))
		if tc.want != "" {
			wantProblem(t, err, tc.want)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRelay_HasToComeBetweenTheEndOfAGraceAndTheDeadline(t *testing.T) {
	mode := `{name: daily, event: after, optional: [refunds], deadline: "+1d 09:00", grace: {quorum_pct: 50, after: 1h}}`
	definition := strings.Replace(bare, `{name: daily, event: after, optional: [refunds], deadline: "+1d 09:00"}`, mode, 1)
	for cron, want := range map[string]string{
		"0 8 * * *":   "",
		"0 */8 * * *": "",
		"0 12 * * *":  `schedules[0].cron: "0 12 * * *" sends no relay between the first end of grace, 1h0m0s after "+1d 00:00", and the deadline, "+1d 09:00", of transitions[0].modes[1]`,
	} {
		_, err := Parse([]byte(definition + "schedules:\n  - {name: relay, cron: \"" + cron + "\", function: reconcile, job: relay}\n"))
		if want != "" {
			wantProblem(t, err, want)
		} else if err != nil {
			t.Errorf("%s: %v", cron, err)
		}
	}
}

// Two transitions that set each other off would never end.
func TestTransitions_FormNoCircle(t *testing.T) {
	back := `  - id: back
    upstream: {phase: totals, topic: shop-totals-complete}
    downstream: {phase: raw, topic: shop-raw-trigger}
    modes: [{name: daily, event: after}]
`
	_, err := Parse([]byte(bare + back))
	wantProblem(t, err, `transitions[1].downstream.phase: "raw" leads back to upstream.phase, "totals": hand-overs would never end`)
	_, err = Parse([]byte(bare + strings.Replace(back, "topic: shop-raw-trigger", "topic: shop-raw-complete", 1)))
	wantProblem(t, err, `transitions[1].downstream.topic: "shop-raw-complete" is also transitions[0].upstream.topic`)
	if err == nil || strings.Contains(err.Error(), "panic") {
		t.Error(err)
	}
}

func TestWarnings_NameWhatHasNoEffect(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"complete: all\n        grace", "complete: critical\n        grace", "transitions[0].modes[2].grace has no effect: complete is critical"},
		{"quorum_pct: 60", "quorum_pct: 81", "transitions[0].modes[2].grace has no effect: 81 % of 5 processors are all of them; write quorum_pct: 80 at most"},
		{"        deadline: \"13:00\"", "        deadline: \"13:00\"\n        at_deadline: hand_over", "transitions[0].modes[1].at_deadline: hand_over has no effect"},
		{"        deadline: \"13:00\"", "        deadline: \"13:00\"\n        not_before: \"09:00\"", `transitions[0].modes[1].not_before, "09:00", has no effect: runs count from "10:00" on; a time of the next period begins with +1d`},
		{"accept_earlier: [upcoming_player_game_context,", "accept_earlier: [player_game_summary,", "transitions[0].modes[2].accept_earlier has no effect for player_game_summary"},
		{"        deadline: \"13:00\"\n", "", "transitions[0].modes[1] has no deadline"},
		{`warn: "< 90"`, `warn: "< 70"`, "transitions[0].checks.before_hand_over: warn of minutes_coverage_pct has no effect: block applies first"},
		{"        grace: {quorum_pct: 60, after: 30m}\n", "", "transitions[0].modes[2].optional has no effect: without grace or at_deadline: hand_over"},
		{"    function: sweep\n    job: sweep\n", "    function: reconcile\n    job: nightly\n", "schedules has no job sweep: duplicate rows"},
		{"job: nightly", "job: relay", "schedules has no job nightly"},
	} {
		definition, _ := change(t, tc.from, tc.to)
		p, err := Parse([]byte(definition))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Warnings(); len(got) != 1 || !strings.HasPrefix(got[0], tc.want) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	p, err := Parse(Default())
	if err != nil || len(p.Warnings()) > 0 {
		t.Errorf("of the default pipeline: %q, %v", p.Warnings(), err)
	}
}

func TestSuggest_FindsWhatWasMeant(t *testing.T) {
	names := []string{"player_game_summary", "team_game_summary", "all", "critical"}
	for typed, want := range map[string]string{
		"player_game_sumary": "player_game_summary", "Player_Game_Summary": "player_game_summary", "plaeyr_game_summary": "player_game_summary",
		"al": "all", "lal": "all", "criticla": "critical", "roster": "", "": "", "x": "",
		strings.Repeat("x", 5000): "", "pläyer_game_summary": "player_game_summary",
	} {
		if got := suggest(typed, names); got != want {
			t.Errorf("%.30q: %q, want %q", typed, got, want)
		}
	}
}
