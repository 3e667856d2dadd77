package main

import (
	"strings"
	"testing"
)

// Every command names everything that its line lacks at once, with the line that has it.
func TestNeeds_AreNamedAtOnceByEveryCommand(t *testing.T) {
	running(t)
	needed := map[string]bool{}
	_, f := newCommands()
	for cmd := range f.needed {
		needed[pathOf(cmd)] = true
	}
	const modes = `
  phasectl %s yesterday --mode tomorrow%r
  phasectl %s yesterday --mode same_day%r
  phasectl %s yesterday --mode overnight%r
`
	of := func(lines, verb, rest string) string {
		return strings.NewReplacer("%s", verb, "%r", rest).Replace(lines)
	}
	for line, lacks := range map[string]string{
		"explain":    "PERIOD and MODE are required:" + of(modes, "explain", ""),
		"checks run": "PERIOD and MODE are required:" + of(modes, "checks run", ""),
		"close":      "PERIOD, MODE and --reason are required:" + of(modes, "close", ` --reason "…"`),
		"trigger": "PERIOD, MODE and --reason are required:\n" +
			"  phasectl trigger yesterday --mode tomorrow --reason \"…\"\n",
		"hold":                        "--for and --reason are required:\n  phasectl hold --for 6h --reason \"…\"\n",
		"hold --mode overnight":       "PERIOD, --for and --reason are required:\n  phasectl hold --mode=overnight yesterday --for 6h --reason \"…\"\n",
		"release yesterday overnight": "--reason is required:\n  phasectl release yesterday overnight --reason \"…\"\n",
		"complete":                    "PROCESSOR, PERIOD and --reason are required:\n  phasectl complete player_game_summary yesterday --reason \"…\"\n",
		"run":                         "PERIOD, --processor and COMMAND are required:\n  phasectl run yesterday --processor P -- COMMAND\n",
		"sweep --force":               "--fix and --reason are required:\n  phasectl sweep --force --fix --reason \"…\"\n",
		"sweep undo":                  "ID is required:\n  phasectl sweep undo 20260204t155000-3jkx7m2p\n",
		"locks release":               "KEY and --reason are required:\n  phasectl locks release PlayerGameSummaryProcessor_2026-02-03 --reason \"…\"\n",
		"quarantine show":             "ID is required:\n  phasectl quarantine show 1234567890\n",
		"quarantine replay":           "ID or --all and --reason are required:\n  phasectl quarantine replay 4711 --reason \"…\"\n  phasectl quarantine replay --all --reason \"…\"\n",
		"quarantine discard":          "ID and --reason are required:\n  phasectl quarantine discard 4711 --reason \"…\"\n",
		"dead-letter replay":          "ID or --all and --reason are required:\n  phasectl dead-letter replay 4711 --reason \"…\"\n",
		"dead-letter discard":         "ID and --reason are required:\n  phasectl dead-letter discard 4711 --reason \"…\"\n",
		"pipeline diff":               "FILE is required:\n  phasectl pipeline diff changed.yaml\n",
		"receipt show":                "KEY is required:\n  phasectl receipt show marts_to_reports_2026-02-03_daily~1/orders\n",
		"receipt forget":              "KEY and --reason are required:\n  phasectl receipt forget marts_to_reports_2026-02-03_daily~1/orders --reason \"…\"\n",
		"serve":                       "NAME is required:\n  phasectl serve transition\n",
	} {
		cmd, _, err := newRoot().Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		delete(needed, pathOf(cmd))
		want(t, 64, []string{"phasectl: " + lacks}, strings.Fields(line)...)
	}
	for path := range needed {
		t.Errorf("%s: its needs are not tried here", path)
	}
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	want(t, 64, []string{"KEY, --reason and --project are required:\n  phasectl locks release PlayerGameSummaryProcessor_2026-02-03 --reason \"…\" --project PROJECT\n"}, "locks", "release")
}
