package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHelp_EveryCommandHasExampleAndExitStatus(t *testing.T) {
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return // the library's own
		}
		if cmd.HasParent() && cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		if code, out, _ := command(t, args...); code != 0 || !strings.Contains(out, "Exit status") {
			t.Errorf("%s: %d, and no exit status in\n%s", args, code, out)
		}
		for _, below := range cmd.Commands() {
			look(below)
		}
	}
	look(newRoot())
}

func TestShellCompletion_SuggestsNamesFromPipelineFile(t *testing.T) {
	for _, tc := range []struct {
		words []string
		want  []string
	}{
		{[]string{"explain", "2026-02-03", ""}, []string{"overnight", "same_day", "tomorrow"}},
		{[]string{"trigger", "--mode", ""}, []string{"overnight", "same_day", "tomorrow"}},
		{[]string{"sweep", "--table", "nba_predictions."}, []string{"nba_predictions.ml_feature_store_v2"}},
		{[]string{"run", "--processor", "player_"}, []string{"player_composite_factors", "player_daily_cache", "player_game_summary", "player_shot_zone_analysis"}},
		{[]string{"serve", "swe"}, []string{"sweep"}},
		{[]string{"status", "to"}, []string{"today"}},
	} {
		_, out, _ := command(t, append([]string{"__complete"}, tc.words...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		prefix := tc.words[len(tc.words)-1]
		var got []string
		for _, line := range lines[:len(lines)-1] {
			if strings.HasPrefix(line, prefix) {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, tc.want) || lines[len(lines)-1] != ":4" { // no file names
			t.Errorf("%q: %q, %s", tc.words, got, lines[len(lines)-1])
		}
	}
}

// Texts use the singular for a count of one: "1 finding", never "1 findings".
func TestTexts_CountOneThingInTheSingular(t *testing.T) {
	counts := regexp.MustCompile(`%d (of %d )?[a-z-]+s\b( [a-z]+)?`)
	never := regexp.MustCompile(`%d (bytes|is not|periods, %s to|tables; a transition)|(to|most|than|after) %d `) // bounds, and what is never one
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if counts.MatchString(line) && !never.MatchString(line) {
				t.Errorf("%s:%d: use pipeline.Count: %s", file, n+1, strings.TrimSpace(line))
			}
		}
	}
}
