package main

import (
	"strings"
	"testing"
)

// A command names each mistake of its command line, and changes nothing.
func TestCommands_NameMistakesOfTheirLines(t *testing.T) {
	running(t)
	for _, of := range []struct {
		lines, part string // the lines are separated by |
	}{
		// Mistakes that every command reports alike.
		{"stauts", "did you mean status?"},
		{"quarantine discrad", "did you mean discard?"},
		{"quarantine drop", "drop"},
		{"xyzzy", `unknown command "xyzzy"`},
		{"status --exit-cod", `unknown flag: --exit-cod; did you mean "--exit-code"?`},
		{"status --pipelin x", `unknown flag: --pipelin; did you mean "--pipeline"?`},
		{"daily now|health now", ""},

		// Which cycle.
		{"status 2026-02-03 --period 2026-02-04", `PERIOD: both "2026-02-03" and --period "2026-02-04": give one`},
		{"status 2026-02-03 overnight x", "takes PERIOD MODE; got"},
		{"status 2026-02-03 --from 2026-02-03", "wants either a period, or --from and --to"},
		{"status 2026-02-03 overnigth|explain 2026-02-03 overnigth", `MODE: "overnigth": phase3_to_phase4 has tomorrow, same_day, overnight; did you mean "overnight"?`},
		{"status 2026-02-03 x --watch|hold 2026-02-03 x --for 1h --reason x", `MODE: "x"`},
		{"status --watch --json|status --watch=1ms", "--watch"},
		{"explain", "PERIOD and MODE are required:\n  phasectl explain yesterday --mode tomorrow\n"},
		{"explain 2026-02-03|hold 2026-02-03 --for 1h --reason x", "MODE is required:\n"},
		{"explain 2026-02-03 overnight --transition phase3_to_phase5", `--transition: "phase3_to_phase5": the pipeline has phase3_to_phase4; did you mean "phase3_to_phase4"?`},
		{"release --transition x --reason x", "the pipeline has phase3_to_phase4"},
		{"checks run --mode overnight", "PERIOD is required"},
		{"health --date TODAY|health --date 2099-01-01", ""},
		{"daily --days 0|reconcile --days 0|reconcile --days 366|sweep --days 0", "--days"},
		{"reconcile --to 2026-02-03|reconcile --from tomorrow|reconcile --from 2026-02-03 --to 2026-02-01|sweep --to 2026-02-03", "--"},

		// Objects and reasons of commands that act.
		{"trigger --date 2026-02-03 --mode overnight|hold --for 1h --reason=\t|locks release " + lockKey, "--reason"},
		{"trigger --mode overnight --reason x", "PERIOD is required:\n  phasectl trigger --mode=overnight --reason=x yesterday\n  phasectl trigger --mode=overnight --reason=x --from -7d --to yesterday\n"},
		{"trigger --date 2026-02-03 --from 2026-02-03 --to 2026-02-03 --mode overnight --reason x", "a period, or --from"},
		{"trigger --from 2026-02-03 --mode overnight --reason x", "--to is required"},
		{"trigger --from 2026-02-03 --to 2026-02-01 --mode overnight --reason x", "is before --from"},
		{"trigger --from 2020-02-03 --to 2026-02-01 --mode overnight --reason x", "--from 2020-02-03 --to 2026-02-01: is not within 1 to 365 days"},
		{"trigger --date TODAY --mode overnight --reason x", `"TODAY"`},
		{"trigger --date 2026-02-03 --mode over --reason x", `MODE: "over": phase3_to_phase4 has tomorrow, same_day, overnight`},
		{"trigger --date 2026-02-03 --mode same_day --processor player_game_summary --reason x", `same_day does not expect "player_game_summary"`},
		{"run --processor player_dayly_cache --date 2026-02-03 -- true", `; did you mean "player_daily_cache"?`},
		{"hold --reason x|hold --for 1000h --reason x", "--for"},
		{"hold --dry-run", "--for is required:\n"},
		{"locks release --dry-run", "KEY is required:\n"},
		{"quarantine replay --reason x", "ID or --all is required:\n  phasectl quarantine replay --reason=x 4711\n  phasectl quarantine replay --reason=x --all\n"},
		{"dead-letter replay a --all --reason x", "either ids or --all"},
		{"dead-letter list --topic x", "feeds no function"},
		{"receipt list --after x", "--after: needs --scope"},
		{"receipt list --limit 0", "--limit: 0 is not within"},
		{"receipt forget", "KEY and --reason are required:\n"},
		{"sweep --force|sweep --fix --force", "--"},
		{"daily --source /nowhere", "--source"},
		{"drill --timeout 1ms", "--timeout"},
		{"pipeline check|pipeline check /nowhere.yaml|pipeline check a b", ""},
	} {
		for line := range strings.SplitSeq(of.lines, "|") {
			t.Run(line, func(t *testing.T) { want(t, 64, []string{of.part}, strings.Split(line, " ")...) })
		}
	}
}
