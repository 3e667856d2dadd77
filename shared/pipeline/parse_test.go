package pipeline

import (
	"fmt"
	"strings"
	"testing"
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

// problems are changes to the default definition, each with what its report must
// name: path or line ({line} is the line of the change), and the value.
var problems = map[string]struct {
	from, to string
	want     string
}{
	"unknown_field":         {"name: nba\n", "name: nba\ncolor: red\n", "line {line+1}: field color not found"},
	"unknown_field_deep":    {"quorum_pct: 60", "quorum: 60", "line {line}: field quorum not found"},
	"field_of_another_case": {"time_zone: A", "Time_Zone: A", "line {line}: field Time_Zone not found"},
	"wrong_type":            {"quorum_pct: 60", "quorum_pct: sixty", "line {line}: cannot unmarshal !!str `sixty`"},
	"list_for_a_name":       {"name: nba\n", "name: [nba]\n", "line {line}: cannot unmarshal !!seq"},
	"field_twice":           {"name: nba\n", "name: nba\nname: nba2\n", `line {line+1}: mapping key "name" already defined`},
	"second_document":       {relay, relay + "---\nschema: 1\n", "a second document"},

	"schema":          {"schema: 1", "schema: 2", "schema: must be 1, is 2"},
	"name":            {"name: nba\n", "name: NBA\n", `name: "NBA" is no safe name`},
	"name_missing":    {"name: nba\n", "", `name: is required, such as name: orders`},
	"zone":            {"America/New_York", "America/New_Yorck", `time_zone: unknown time zone "America/New_Yorck"`},
	"zone_missing":    {"time_zone: America/New_York", "", `time_zone: is required, such as time_zone: Europe/Berlin`},
	"zone_local":      {"America/New_York", "Local", `time_zone: unknown time zone "Local"`},
	"zone_path":       {"America/New_York", "../../etc/passwd", `time_zone: unknown time zone "../../etc/passwd"`},
	"calendar":        {"calendar: day", "calendar: week", `calendar: "week" is not one of day, hour`},
	"kind_name":       {"player: players", "Play.er: players", `kinds: "Play.er" is no safe name`},
	"kind_key":        {"player: players", "player: pla/yers", `kinds.player: "pla/yers" is no safe name`},
	"phase_name":      {"- name: phase_4_precompute", "- name: phase 4", `phases[1].name: "phase 4" is no safe name`},
	"phase_twice":     {"- name: phase_4_precompute", "- name: phase_3_analytics", `phases[1].name: phase "phase_3_analytics" is declared twice`},
	"phase_empty":     {"# What the health checks", "  - name: phase_5\n# What the health checks", "phases[2].processors: is empty"},
	"processor_name":  {"- name: player_composite_factors", "- name: __x__", `phases[1].processors[0].name: "__x__" is no safe name`},
	"processor_long":  {"- name: player_composite_factors", "- name: " + strings.Repeat("x", 2000), `phases[1].processors[0].name: "` + strings.Repeat("x", 80) + "…"},
	"processor_twice": {"- name: player_composite_factors", "- name: player_game_summary", `phases[1].processors[0].name: processor "player_game_summary" is declared twice, first at phases[0].processors[0]`},
	"class":           {"class: MLFeatureStoreProcessor", "class: ML/Store", `phases[1].processors[4].class: "ML/Store" is no class name`},
	"class_twice":     {"class: MLFeatureStoreProcessor", "class: PlayerDailyCacheProcessor", `phases[1].processors[4].class: class "PlayerDailyCacheProcessor" is declared twice`},
	"kind_unknown":    {"kind: team", "kind: referee", `phases[0].processors[1].kind: unknown kind "referee"`},
	"kind_missing":    {"        kind: team\n", "", `phases[0].processors[1].kind: unknown kind ""`},
	"table":           {"table: nba_analytics.player_game_summary", "table: player_game_summary", `phases[0].processors[0].table: "player_game_summary" is no table`},
	"table_injection": {"table: nba_analytics.player_game_summary", "table: a.b` WHERE 1=1 --", "phases[0].processors[0].table: \"a.b` WHERE 1=1 --\" is no table"},
	"date_column":     {"date_column: cache_date", "date_column: cache-date", `phases[1].processors[1].date_column: "cache-date" is no column`},
	"order_by":        {"order_by: processed_at", "order_by: processed_at DESC", `phases[0].processors[0].order_by: "processed_at DESC" is no column`},
	"key_column":      {"key: [game_date, player_lookup]", "key: [game_date, player lookup]", `phases[0].processors[0].key[1]: "player lookup" is no column`},
	"key_empty":       {"key: [game_date, player_lookup]", "key: []", "phases[0].processors[0].key: is empty"},
	"key_twice":       {"key: [game_date, player_lookup]", "key: [game_date, game_date]", `phases[0].processors[0].key[1]: column "game_date" is declared twice`},
	"partition":       {"partition: none", "partition: monthly", `phases[1].processors[4].partition: "monthly" is not one of by_date, by_date_filter_required, none`},

	"transition_id":       {"id: phase3_to_phase4", "id: phase3~phase4", `transitions[0].id: "phase3~phase4" is no safe name`},
	"upstream_phase":      {"phase: phase_3_analytics", "phase: phase_2", `transitions[0].upstream.phase: unknown phase "phase_2"`},
	"downstream_phase":    {"phase: phase_4_precompute", "phase: phase_9", `transitions[0].downstream.phase: unknown phase "phase_9"`},
	"upstream_topic":      {"topic: nba-phase3-analytics-complete", "topic: google-topic", `transitions[0].upstream.topic: "google-topic" is no topic`},
	"downstream_topic":    {"topic: nba-phase4-trigger", "topic: a b", `transitions[0].downstream.topic: "a b" is no topic`},
	"collection":          {"compatibility_collection: phase3_completion", "compatibility_collection: a/b", `transitions[0].compatibility_collection: "a/b" is no safe name`},
	"trigger_within":      {"trigger_within: 72h", "trigger_within: 3 days", `transitions[0].trigger_within: "3 days" is no positive duration`},
	"trigger_within_zero": {"trigger_within: 72h", "trigger_within: 0s", `transitions[0].trigger_within: "0s" is no positive duration`},
	"service":             {"service: nba-phase3-analytics-processors", "service: nba_phase3", `phases[0].service: "nba_phase3" is no Cloud Run service name`},
	"hand_over_form":      {"warn: 5m", "warn: 0.5h", `transitions[0].hand_over.warn: "0.5h" is no duration of whole seconds`},
	"hand_over_zero":      {"warn: 5m", "warn: 0s", `transitions[0].hand_over.warn: "0s" is no positive duration`},
	"hand_over_missing":   {", critical: 15m}", "}", `transitions[0].hand_over.critical: is required, such as critical: 15m`},
	"hand_over_order":     {"warn: 5m", "warn: 15m", `transitions[0].hand_over.warn: 15m0s is not less than critical, 15m0s`},
	"order_missing":       {"        - team_offense_game_summary\n", "", `transitions[0].downstream.order: "team_offense_game_summary" is missing`},
	"order_stranger":      {"        - team_offense_game_summary\n", "        - team_offense_game_summary\n        - roster_history\n", `transitions[0].downstream.order[3]: "roster_history" is expected by no mode`},
	"order_twice":         {"        - team_offense_game_summary\n", "        - team_offense_game_summary\n        - player_game_summary\n", `transitions[0].downstream.order[3]: processor "player_game_summary" is declared twice`},

	"duplicates":       {"duplicates: remove", "duplicates: delete", `phases[0].processors[0].duplicates: "delete" is not one of report, remove`},
	"same_table_key":   {"table: nba_analytics.team_defense_game_summary", "table: nba_analytics.player_game_summary", `phases[0].processors[1].key: is another than that of "player_game_summary", which fills nba_analytics.player_game_summary too`},
	"same_table_order": {"table: nba_analytics.upcoming_player_game_context\n        date_column: game_date\n        key: [game_date, player_lookup]\n        order_by: processed_at", "table: nba_analytics.player_game_summary\n        date_column: game_date\n        key: [game_date, player_lookup]\n        order_by: updated_at", `phases[0].processors[3].order_by: is another than that of "player_game_summary"`},

	"health_unseen":    {"unseen_days: 3", "unseen_days: 7", "health.unseen_days: must be 1 to 6, is 7"},
	"health_digest":    {"digest_at: \"11:00\"", "digest_at: noon", `health.digest_at: "noon" is no local time`},
	"planned_from":     {"  unseen_days: 3", "  maintenance: [{from: july, to: 2026-07-03, reason: x}]\n  unseen_days: 3", `health.maintenance[0].from: "july" is no date`},
	"planned_to":       {"  unseen_days: 3", "  maintenance: [{from: 2026-07-01, to: 2026-06-31, reason: x}]\n  unseen_days: 3", `health.maintenance[0].to: "2026-06-31" is no date`},
	"planned_order":    {"  unseen_days: 3", "  maintenance: [{from: 2026-07-03, to: 2026-07-01, reason: x}]\n  unseen_days: 3", `health.maintenance[0].to: "2026-07-01" is before from, "2026-07-03"`},
	"planned_for_long": {"  unseen_days: 3", "  maintenance: [{from: 2026-02-02, to: 2062-02-03, reason: x}]\n  unseen_days: 3", `health.maintenance[0].to: "2062-02-03" is more than 92 days after from, "2026-02-02"`},
	"planned_reason":   {"  unseen_days: 3", "  maintenance: [{from: 2026-07-01, to: 2026-07-01}]\n  unseen_days: 3", "health.maintenance[0].reason: is required"},
	"health_dataset":   {"[nba_orchestration, nba_reference]", "[nba-orchestration]", `health.datasets[0]: "nba-orchestration" is no dataset`},
	"health_parameter": {"WHERE DATE(started_at, 'America/New_York') BETWEEN @first", "WHERE DATE(started_at, 'America/New_York') BETWEEN @since", `health.runs: unknown parameter "@since"; there is @first and @last`},
	"health_upstream":  {"expected_by: \"08:00\"", "expected_by: \"8:00\"", `health.upstream.expected_by: "8:00" is no local time`},
	"health_other_day": {"failing_after: \"10:00\"", "failing_after: \"+1d 10:00\"", `health.upstream.failing_after: "+1d 10:00" is of another day`},
	"health_order":     {"failing_after: \"10:00\"", "failing_after: \"07:00\"", `health.upstream.failing_after: "07:00" is before expected_by, "08:00"`},
	"health_job":       {"function: health\n    job: health", "function: health\n    job: sweep", `schedules[3].job: "sweep" is not one of health`},

	"mode_name":                {"name: tomorrow", "name: to~morrow", `transitions[0].modes[0].name: "to~morrow" is no safe name`},
	"mode_twice":               {"name: same_day", "name: tomorrow", `transitions[0].modes[1].name: mode "tomorrow" is declared twice`},
	"event":                    {"event: before", "event: earlier", `transitions[0].modes[0].event: "earlier" is not one of before, within, after`},
	"event_twice":              {"event: within", "event: before", `transitions[0].modes[1].event: a mode for event "before" is declared twice`},
	"event_order":              {"event: before", "event: after", `transitions[0].modes[1].event: within comes before the mode above`},
	"complete":                 {"complete: all", "complete: most", `transitions[0].modes[2].complete: "most" is not one of all, critical`},
	"second_runs":              {"second_runs: resend_if_changed", "second_runs: resend", `transitions[0].modes[2].second_runs: "resend" is not one of ignore, resend_if_changed`},
	"counts_from":              {`counts_from: "10:00"`, `counts_from: "10.00"`, `transitions[0].modes[1].counts_from: "10.00" is no local time`},
	"not_before":               {`not_before: "+1d 05:00"`, `not_before: "1d 05:00"`, `transitions[0].modes[2].not_before: "1d 05:00" is no local time`},
	"every_none":               {"second_runs: resend_if_changed", "second_runs: resend_if_changed\n        second_runs_every: 0s", `transitions[0].modes[2].second_runs_every: "0s" is no positive duration`},
	"every_too_long":           {"second_runs: resend_if_changed", "second_runs: resend_if_changed\n        second_runs_every: 25h", `transitions[0].modes[2].second_runs_every: "25h" is more than 24h`},
	"every_ignored":            {"second_runs: resend_if_changed", "second_runs: ignore\n        second_runs_every: 5m", `transitions[0].modes[2].second_runs_every: means nothing with second_runs: ignore`},
	"at_deadline":              {`deadline: "+1d 10:00"`, "deadline: \"+1d 10:00\"\n        at_deadline: give_up", `transitions[0].modes[2].at_deadline: "give_up" is not one of hold, hand_over`},
	"at_no_deadline":           {`deadline: "+1d 10:00"`, "at_deadline: hand_over", `transitions[0].modes[2].at_deadline: means nothing without a deadline`},
	"deadline":                 {`deadline: "+1d 10:00"`, `deadline: "24:00"`, `transitions[0].modes[2].deadline: "24:00" is no local time`},
	"quorum_0":                 {"quorum_pct: 60", "quorum_pct: 0", "transitions[0].modes[2].grace.quorum_pct: must be 1 to 100, is 0"},
	"quorum_101":               {"quorum_pct: 60", "quorum_pct: 101", "transitions[0].modes[2].grace.quorum_pct: must be 1 to 100, is 101"},
	"grace_after":              {"after: 30m", "after: -30m", `transitions[0].modes[2].grace.after: "-30m" is no positive duration`},
	"octal":                    {"quorum_pct: 60", "quorum_pct: 060", "transitions[0].modes[2].grace.quorum_pct: 060 is no plain number: YAML reads it as 48; write 60"},
	"octal_of_yaml_1_2":        {"quorum_pct: 60", "quorum_pct: 0o74", "transitions[0].modes[2].grace.quorum_pct: 0o74 is no plain number: YAML reads it as 60; write 74"},
	"octal_negative":           {"quorum_pct: 60", "quorum_pct: -060", "transitions[0].modes[2].grace.quorum_pct: -060 is no plain number: YAML reads it as -48; write a whole number"},
	"hexadecimal":              {"schema: 1", "schema: 0x1", "schema: 0x1 is no plain number: write 1"},
	"binary":                   {"unseen_days: 3", "unseen_days: 0b11", "health.unseen_days: 0b11 is no plain number: YAML reads it as 3; write 11"},
	"underscores":              {"max_bytes_billed: 1000000000", "max_bytes_billed: 1_000_000_000", "transitions[0].checks.max_bytes_billed: 1_000_000_000 is no plain number: write 1000000000"},
	"fraction":                 {"quorum_pct: 60", "quorum_pct: 60.9", "transitions[0].modes[2].grace.quorum_pct: 60.9 is no plain number: YAML reads it as 60; write a whole number"},
	"exponent":                 {"max_bytes_billed: 1000000000", "max_bytes_billed: 1e9", "transitions[0].checks.max_bytes_billed: 1e9 is no plain number: write 1000000000"},
	"sign":                     {"unseen_days: 3", "unseen_days: +3", "health.unseen_days: +3 is no plain number: write 3"},
	"sexagesimal":              {"quorum_pct: 60", "quorum_pct: 1:00", "line {line}: cannot unmarshal !!str `1:00`"},
	"octal_behind_an_alias":    {"quorum_pct: 60, after: 30m}", "<<: {quorum_pct: 060}, after: 30m}", "transitions[0].modes[2].grace.quorum_pct: 060 is no plain number"},
	"unseen_0":                 {"unseen_days: 3", "unseen_days: 0", "health.unseen_days: must be 1 to 6, is 0"},
	"slo_0":                    {"unseen_days: 3", "unseen_days: 3\n  slo_pct: 0", "health.slo_pct: must be 1 to 100, is 0"},
	"deadline_not_before":      {`not_before: "+1d 05:00"`, `not_before: "+1d 10:01"`, `transitions[0].modes[2].deadline: "+1d 10:00" is before not_before, "+1d 10:01": move one of them`},
	"deadline_counts_from":     {`counts_from: "10:00"`, `counts_from: "13:01"`, `transitions[0].modes[1].deadline: "13:00" is before counts_from, "13:01": no run could be in time`},
	"deadline_event_after":     {`not_before: "+1d 05:00"` + "\n" + `        deadline: "+1d 10:00"`, `deadline: "23:59"`, `transitions[0].modes[2].deadline: "23:59" is before the first run of event after`},
	"deadline_event_within":    {`counts_from: "10:00"` + "\n" + `        deadline: "13:00"`, `counts_from: "-1d 10:00"` + "\n" + `        deadline: "-1d 23:00"`, `transitions[0].modes[1].deadline: "-1d 23:00" is before the first run of event within`},
	"counts_from_event_before": {`counts_from: "-1d 16:30"` + "\n" + `        deadline: "-1d 21:00"`, `counts_from: "00:00"`, `transitions[0].modes[0].counts_from: "00:00" is after the last run of event before`},
	"counts_from_event_within": {`counts_from: "10:00"` + "\n" + `        deadline: "13:00"`, `counts_from: "+1d 00:00"`, `transitions[0].modes[1].counts_from: "+1d 00:00" is after the last run of event within`},
	"within_1s":                {"trigger_within: 72h", "trigger_within: 1s", `transitions[0].trigger_within: "1s" is less than 1h0m0s: write a longer time, such as 72h`},
	"within_deadline":          {"trigger_within: 72h", "trigger_within: 9h", `transitions[0].modes[2].deadline: "+1d 10:00" is later than trigger_within, 9h0m0s after the period's end`},
	"within_not_before":        {"trigger_within: 72h", "trigger_within: 4h", `transitions[0].modes[2].not_before: "+1d 05:00" is later than trigger_within, 4h0m0s after the period's end`},
	"within_counts_from":       {`counts_from: "18:00"`, `counts_from: "+5d 05:00"`, `transitions[0].modes[2].counts_from: "+5d 05:00" is later than trigger_within, 72h0m0s after the period's end`},
	"grace_deadline":           {"after: 30m", "after: 50h", `transitions[0].modes[2].grace.after: 50h0m0s from "18:00" on, when player_game_summary can count first, ends after the deadline, "+1d 10:00": shorten grace.after or move the deadline`},
	"grace_of_a_processor":     {"after: 30m", "after: 16h", `transitions[0].modes[2].grace.after: 16h0m0s from "18:00" on, when player_game_summary can count first, ends after the deadline`},
	"relay_after_deadline":     {`cron: "*/5 * * * *"`, `cron: "0 12 * * *"`, `schedules[0].cron: "0 12 * * *" sends no relay between not_before, "+1d 05:00", and the deadline, "+1d 10:00", of transitions[0].modes[2], for example of 2026-01-12. Nothing would end the wait in time: let the relay run more often, or move one of the times`},
	"relay_not_on_mondays":     {`cron: "*/5 * * * *"`, `cron: "0 8 * * 2-6"`, `schedules[0].cron: "0 8 * * 2-6" sends no relay between not_before, "+1d 05:00", and the deadline, "+1d 10:00", of transitions[0].modes[2], for example of 2026-01-17`},
	"topic_of_both":            {"topic: nba-phase4-trigger", "topic: nba-phase3-analytics-complete", `transitions[0].downstream.topic: "nba-phase3-analytics-complete" is also transitions[0].upstream.topic: triggers would be read as completions`},
	"topic_of_ours":            {"topic: nba-phase4-trigger", "topic: phasegate-reconcile", `transitions[0].downstream.topic: "phasegate-reconcile": topics that begin with phasegate- are Phasegate's own`},
	"phase_to_itself":          {"      phase: phase_4_precompute", "      phase: phase_3_analytics", `transitions[0].downstream.phase: "phase_3_analytics" leads back to upstream.phase, "phase_3_analytics": hand-overs would never end`},
	"order_by_key":             {"key: [cache_date, player_lookup]", "key: [cache_date, player_lookup, processed_at]", `phases[1].processors[1].order_by: "processed_at" is in key, so rows with one key never differ in it`},
	"order_by_date":            {"key: [cache_date, player_lookup]\n        order_by: processed_at", "key: [player_lookup]\n        order_by: cache_date", `phases[1].processors[1].order_by: "cache_date" is date_column, which is the same in all rows of a period`},
	"check_never_asked":        {"modes: [overnight]\n          processors: [player_game_summary]", "modes: [same_day]\n          processors: [player_game_summary]", `transitions[0].checks.before_hand_over[1]: none of its modes, same_day, expects one of its processors, player_game_summary: it would never be asked`},

	"key_meant":            {"quorum_pct: 60", "quorum_pc: 60", `line {line}: field quorum_pc not found in transitions[0].modes[2].grace; did you mean "quorum_pct"?`},
	"key_elsewhere":        {"trigger_within: 72h", "trigger_within: 72h\n    deadline: 10h", `line {line+1}: field deadline not found in transitions[0]; "deadline" is a key of transitions[].modes[]`},
	"key_of_none":          {"quorum_pct: 60", "color: 60", "line {line}: field color not found in transitions[0].modes[2].grace; the keys here are quorum_pct, after"},
	"value_meant":          {"complete: all", "complete: al", `transitions[0].modes[2].complete: "al" is not one of all, critical; did you mean "all"?`},
	"phase_meant":          {"phase: phase_3_analytics", "phase: phase_3_analytic", `transitions[0].upstream.phase: unknown phase "phase_3_analytic": phases has phase_3_analytics, phase_4_precompute; did you mean "phase_3_analytics"?`},
	"processor_meant":      {"critical: [player_game_summary,", "critical: [player_game_sumary,", `transitions[0].modes[2].critical[0]: unknown processor "player_game_sumary" in phase "phase_3_analytics"; did you mean "player_game_summary"?`},
	"processor_where":      {"critical: [player_game_summary,", "critical: [player_daily_cache,", `transitions[0].modes[2].critical[0]: unknown processor "player_daily_cache" in phase "phase_3_analytics"; it is in phase "phase_4_precompute"`},
	"kind_meant":           {"kind: team", "kind: teams", `phases[0].processors[1].kind: unknown kind "teams": kinds has player, team; did you mean "team"?`},
	"mode_meant":           {"modes: [overnight]\n          processors", "modes: [overnigth]\n          processors", `transitions[0].checks.before_hand_over[1].modes[0]: unknown mode "overnigth"; did you mean "overnight"?`},
	"grace_short":          {"after: 30m", "after: 1ms", `transitions[0].modes[2].grace.after: "1ms" is less than 1s: write a longer time, such as 30m`},
	"checks_timeout_short": {"timeout: 30s", "timeout: 30ms", `transitions[0].checks.timeout: "30ms" is less than 1s: write a longer time, such as 30s`},
	"cron_never":           {"*/5 * * * *", "*/5 * 30 2 *", `schedules[0].cron: "*/5 * 30 2 *" never comes`},

	"formerly_present":    {"- name: player_daily_cache", "- name: player_daily_cache\n        formerly: [player_game_summary]", `phases[1].processors[1].formerly[0]: "player_game_summary" is the name of a processor now: give that one a name that was never used`},
	"formerly_swapped":    {"- name: tomorrow\n", "- name: tomorrow\n        formerly: [same_day]\n", `transitions[0].modes[0].formerly[0]: "same_day" is the name of a mode now`},
	"formerly_itself":     {"- name: tomorrow\n", "- name: tomorrow\n        formerly: [tomorrow]\n", `transitions[0].modes[0].formerly[0]: "tomorrow" is the name of a mode now`},
	"formerly_twice":      {"- name: tomorrow\n", "- name: tomorrow\n        formerly: [a, a]\n", `transitions[0].modes[0].formerly[1]: "a" is a former name already, at transitions[0].modes[0].formerly[0]`},
	"formerly_of_two":     {"- name: tomorrow", "- name: tomorrow\n        formerly: [x]\n      - name: y\n        formerly: [x]", `transitions[0].modes[1].formerly[0]: "x" is a former name already, at transitions[0].modes[0].formerly[0]`},
	"formerly_transition": {"- id: phase3_to_phase4", "- id: phase3_to_phase4\n    formerly: [phase3_to_phase4]", `transitions[0].formerly[0]: "phase3_to_phase4" is the name of a transition now`},
	"formerly_name":       {"- id: phase3_to_phase4", "- id: phase3_to_phase4\n    formerly: [a~b]", `transitions[0].formerly[0]: "a~b" is no safe name`},

	"critical_empty":        {"critical: [upcoming_player_game_context]", "critical: []", "transitions[0].modes[0].critical: is empty"},
	"critical_unknown":      {"critical: [player_game_summary,", "critical: [player_gаme_summary,", `transitions[0].modes[2].critical[0]: unknown processor "player_gаme_summary"`},
	"of_another_phase":      {"optional: [upcoming_team_game_context]", "optional: [ml_feature_store_v2]", `transitions[0].modes[0].optional[0]: unknown processor "ml_feature_store_v2" in phase "phase_3_analytics"`},
	"critical_twice":        {"critical: [player_game_summary,", "critical: [upcoming_player_game_context,", `transitions[0].modes[2].critical[1]: "upcoming_player_game_context" stands twice`},
	"critical_and_optional": {"optional: [upcoming_team_game_context]", "optional: [upcoming_player_game_context]", `transitions[0].modes[0].optional[0]: "upcoming_player_game_context" is both critical and optional`},
	"earlier_stranger":      {"accept_earlier: [upcoming_player_game_context,", "accept_earlier: [player_daily_cache,", `transitions[0].modes[2].accept_earlier[0]: "player_daily_cache" is neither`},
	"earlier_twice":         {"accept_earlier: [upcoming_player_game_context,", "accept_earlier: [upcoming_team_game_context,", `transitions[0].modes[2].accept_earlier[1]: processor "upcoming_team_game_context" is declared twice`},

	"schedule_name":      {"- name: relay", "- name: Relay", `schedules[0].name: "Relay" is no safe name`},
	"schedule_twice":     {relay, relay + relay, `schedules[1].name: schedule "relay" is declared twice`},
	"schedule_function":  {"function: reconcile", "function: re-concile", `schedules[0].function: "re-concile" is not one of reconcile, sweep, health`},
	"schedule_job_of":    {"function: sweep\n    job: sweep", "function: sweep\n    job: relay", `schedules[2].job: "relay" is not one of sweep`},
	"schedule_job":       {"job: relay", "job: ''", `schedules[0].job: is required: one of relay`},
	"no_relay":           {"    job: relay", "    job: nightly", `schedules[0].name: "relay" is the name of another job than relay`},
	"cron":               {"*/5 * * * *", "*/5 * * *", `schedules[0].cron: "*/5 * * *" is no cron expression of five fields`},
	"cron_seconds":       {"*/5 * * * *", "0 */5 * * * *", `schedules[0].cron: "0 */5 * * * *" is no cron expression`},
	"cron_descriptor":    {"*/5 * * * *", "@hourly", `schedules[0].cron: "@hourly" is no cron expression`},
	"cron_skipped_hour":  {"30 10 * * *", "30 2 * * *", `schedules[1].cron: "30 2 * * *": the clock of America/New_York skips 2026-03-08 02:30: Cloud Scheduler leaves the job out; move it to another hour`},
	"cron_hours":         {"30 10 * * *", "0 0-4 * * *", `schedules[1].cron: "0 0-4 * * *": the clock of America/New_York skips 2026-03-08 02:00`},
	"cron_repeated_hour": {"30 10 * * *", "30 1 * * *", `schedules[1].cron: "30 1 * * *": the clock of America/New_York shows 2026-11-01 01:30 twice: Cloud Scheduler may send the job twice`},
	"cron_question":      {"*/5 * * * *", "0 6 ? * 1", `schedules[0].cron: "?" is no day of the month`},
	"cron_zone":          {"*/5 * * * *", "TZ=UTC */5 * * * *", `schedules[0].cron: "TZ=UTC */5 * * * *" names a time zone`},
}

func TestParse_NamesPlaceAndValueOfEachProblem(t *testing.T) {
	for name, tc := range problems {
		t.Run(name, func(t *testing.T) {
			definition, line := change(t, tc.from, tc.to)
			_, err := Parse([]byte(definition))
			wantProblem(t, err, atLine(tc.want, line))
		})
	}
}

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

// larger lets a test parse a definition of up to n processors.
func larger(t *testing.T, n int) {
	t.Helper()
	before := MaxProcessors
	t.Cleanup(func() { MaxProcessors = before })
	MaxProcessors = n
}

// A batch has the names of all processors in one document.
func TestParse_LimitsNamesOfProcessorsTo512KiB(t *testing.T) {
	larger(t, 10_000)
	_, err := Parse([]byte(wide(t, 5_400, strings.Repeat("n", 95), 1_000_000_000)))
	wantProblem(t, err, "transitions[0].downstream.order: the names of its 5400 processors have 538528 bytes together, and one document takes 524288: shorten names, or move processors to another transition")
}

// BigQuery refuses such a query at each hand-over, and nothing would be handed over any more.
func TestParse_RefusesChecksOfMoreTablesThanOneQueryTakes(t *testing.T) {
	larger(t, 10_000)
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

func TestParse_LimitsTransitionTo300Processors(t *testing.T) {
	for n, want := range map[int]string{300: "", 301: "transitions[0].downstream.order: 301 processors"} {
		_, err := Parse([]byte(wide(t, n, "extra", 4_000_000_000)))
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
