package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

// Every verb has the same grammar: periods in words, --json, --dry-run, and completion.
func TestVerbs_HaveTheSameGrammar(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	before := clock
	clock = s.Clock.Now
	t.Cleanup(func() { clock = before })
	words := map[string]string{"today": "2026-02-04", "yesterday": "2026-02-03", "-3d": "2026-02-01"}
	for verb, rest := range map[string]string{
		"status": "", "explain": "overnight", "health": "", "reconcile": "", "report": "", "daily": "", "sweep": "", "checks run": "overnight",
		"trigger": "overnight --dry-run", "hold": "overnight --for 1h --dry-run", "release": "overnight --dry-run", "close": "overnight --dry-run",
		"complete player_game_summary": "--dry-run", "run": "--processor PlayerGameSummaryProcessor -- true",
	} {
		path := strings.Fields(verb)
		cmd, _, err := newRoot().Find(path)
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Flags().Lookup("json") == nil && answersOtherwise[verb] == "" {
			t.Errorf("%s has no --json", verb)
		}
		if cmd.Flags().Lookup("period") != nil {
			for _, at := range []string{"", "--period="} {
				if _, out, _ := command(t, append(append([]string{"__complete"}, path...), at)...); !strings.Contains(out, "yesterday\n") {
					t.Errorf("%s %s completes no period: %q", verb, at, out)
				}
			}
		}
		if verb == "daily" || verb == "sweep" || verb == "checks run" || verb == "health" || verb == "reconcile" {
			continue // without tables and a project these need seconds to fail; they parse the words with the same code
		}
		for word := range words {
			code, stdout, stderr := command(t, append(append(path, word), strings.Fields(rest)...)...)
			if code == cli.ExitUsage || code == cli.ExitSoftware {
				t.Errorf("%s %s: %d\n%s%s", verb, word, code, stdout, stderr)
			}
		}
	}
	for word, date := range words {
		if from, to, err := periodsOf(s.App.Pipeline.Calendar, clock(), word); err != nil || string(from) != date || from != to {
			t.Errorf("%s: %s to %s, %v", word, from, to, err)
		}
	}
}

// A command that changes something asks on a terminal, unless --yes or --dry-run is given. Without a
// yes it changes nothing.
func TestVerbs_AskBeforeTheyActAndHaveNoColourIfNotWanted(t *testing.T) {
	_, f := newCommands()
	asking := 0
	for cmd := range f.types {
		if cmd.Flags().Lookup("definition-differs") == nil || cmd.Name() == "init" {
			continue
		}
		asking++
		for _, flag := range []string{"yes", "dry-run", "json"} {
			if cmd.Flags().Lookup(flag) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), flag)
			}
		}
	}
	if asking < 12 {
		t.Errorf("only %d commands act", asking)
	}
	for _, c := range []act{{fix: true, yes: true}, {fix: true, yes: true, dryRun: true}, {yes: true}, {fix: true}} {
		c.ask, c.say = strings.NewReader("n\n"), io.Discard
		if err := c.confirm(t.Context(), "close it"); (err == nil) != (c.yes && c.changes()) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	for value, want := range map[string]bool{"": true, "1": false} {
		t.Setenv("NO_COLOR", value)
		if got := cli.Colourful(&cli.CheckedOutput{Writer: screen}); got != want {
			t.Errorf("NO_COLOR=%s: colours %v, want %v", value, got, want)
		}
	}
}
