package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestPeriods_AreReadFromWords(t *testing.T) {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 2, 4, 3, 30, 0, 0, time.UTC) // it is still the 3rd in New York
	days, hours := pipeline.NewCalendar(zone), pipeline.NewHourly(zone)
	for _, tc := range []struct {
		cal            pipeline.Calendar
		text, from, to string // from "": it is refused
	}{
		{days, "today", "2026-02-03", "2026-02-03"}, {days, "yesterday", "2026-02-02", "2026-02-02"}, {days, "-3d", "2026-01-31", "2026-01-31"},
		{days, "today-3d", "2026-01-31", "2026-01-31"}, {days, "2026-02-01", "2026-02-01", "2026-02-01"}, {days, "-3h", "", ""}, {days, "tomorrow", "", ""}, {days, "2026-02-30", "", ""},
		{hours, "today", "2026-02-03T05", "2026-02-04T04"}, {hours, "2026-02-01", "2026-02-01T05", "2026-02-02T04"}, {hours, "-3h", "2026-02-04T00", "2026-02-04T00"},
		{hours, "2026-02-03T14", "2026-02-03T14", "2026-02-03T14"}, {hours, "2026-03-08", "2026-03-08T05", "2026-03-09T03"}, // a day of 23 hours
	} {
		from, to, err := periodsOf(tc.cal, now, tc.text)
		if string(from) != tc.from || string(to) != tc.to || (err != nil) != (tc.from == "") {
			t.Errorf("%q: %s to %s, %v; want %s to %s", tc.text, from, to, err, tc.from, tc.to)
		}
	}
	if _, err := onePeriod(hours, now, "today"); err == nil || !strings.Contains(err.Error(), "name one of them") {
		t.Errorf("a day of hours is one period: %v", err)
	}
}

// A word and its flag mean the same, and so does the older name of a flag.
func TestGrammar_WordsAndFlagsAreTheSame(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	var first string
	for _, args := range [][]string{{"2026-02-03", "overnight"}, {"--period", "2026-02-03", "--mode", "overnight"}, {"--date", "2026-02-03", "--mode", "overnight"},
		{"--mode", "overnight", "2026-02-03"}, {"2026-02-03", "overnight", "--transition", "phase3_to_phase4", "--period", "2026-02-03"}} {
		out := want(t, 0, []string{"overnight", "published"}, append([]string{"status"}, args...)...)
		if first == "" {
			first = out
		}
		if out != first {
			t.Errorf("%q: %s\nwant %s", args, out, first)
		}
	}
	for _, word := range []string{"today", "yesterday", "-3d"} { // of the machine's own clock
		want(t, 0, []string{"environment this machine"}, "status", word)
	}
	want(t, 0, []string{"environment this machine"}, "status", "--from", "-3d", "--to", "today")
}

// The mode may be left out if the transition has only one. The words after -- belong to another command.
func TestGrammar_ModeMayBeLeftOutWhereThereIsOne(t *testing.T) {
	var s subject
	one := &pipeline.Transition{ID: "t", Modes: []pipeline.Mode{{Name: "daily"}}}
	if m, err := s.modeOf(one); err != nil || m.Name != "daily" {
		t.Errorf("%v %v", m, err)
	}
	one.Modes = append(one.Modes, pipeline.Mode{Name: "late"})
	if _, err := s.modeOf(one); err == nil || !strings.Contains(err.Error(), "t has daily, late") {
		t.Errorf("%v", err)
	}
	if got := distances([]string{"run", "-3d", "--", "ls", "-3d"}); !slices.Equal(got, []string{"run", "today-3d", "--", "ls", "-3d"}) {
		t.Errorf("%q", got)
	}
}

func TestGrammar_EveryCommandOfAPeriodHasTheSameFlags(t *testing.T) {
	root := newRoot()
	for _, path := range []string{"status", "explain", "trigger", "hold", "release", "close", "checks run"} {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"period", "mode", "transition"} {
			if cmd.Flags().Lookup(flag) == nil {
				t.Errorf("%s has no --%s", path, flag)
			}
		}
	}
	for _, path := range []string{"reconcile", "report", "sweep", "daily", "health", "run"} {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		if date := cmd.Flags().Lookup("date"); cmd.Flags().Lookup("period") == nil || date == nil || !date.Hidden {
			t.Errorf("%s has no --period, or its older name is shown", path)
		}
	}
}

func TestHelp_GroupsCommandsAndSuggestsUnknownOnes(t *testing.T) {
	_, out, _ := command(t, "--help")
	at := -1
	for _, title := range []string{"First day:", "Every day:", "Repair:", "Adopt:", "Develop:"} {
		i := strings.Index(out, "\n"+title+"\n")
		if i < at || i < 0 {
			t.Errorf("no group %q in its place in\n%s", title, out)
		}
		at = i
	}
	if strings.Contains(out, "Additional Commands") {
		t.Errorf("a command is in no group:\n%s", out)
	}
}

// Every command that changes something has --dry-run, and asks for confirmation on a terminal.
func TestActs_CanBeTriedAndAskOnATerminal(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Flags().Lookup("definition-differs") != nil && (cmd.Flags().Lookup("dry-run") == nil || cmd.Flags().Lookup("yes") == nil) {
			t.Errorf("%s has no --dry-run or no --yes", cmd.CommandPath())
		}
		for _, below := range cmd.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
	for said, want := range map[string]bool{"y\n": true, "YES\n": true, "\n": false, "n\n": false, "": false} {
		var shown bytes.Buffer
		c := act{fix: true, ask: strings.NewReader(said), say: &shown}
		if err := c.confirm(t.Context(), "close %s", "2026-02-03 overnight"); (err == nil) != want || shown.String() != "close 2026-02-03 overnight. Continue? [y/N] " {
			t.Errorf("%q: %v %q", said, err, shown.String())
		}
	}
	s := running(t)
	s.night("2026-02-03")
	for line, part := range map[string]string{
		"hold 2026-02-03 overnight --for 6h":      "would put 2026-02-03 overnight on hold for 6h",
		"release 2026-02-03 overnight":            "would end the hold of 2026-02-03 overnight",
		"close 2026-02-03 overnight":              "would close 2026-02-03 overnight",
		"trigger 2026-02-03 overnight":            "would hand over batch 2",
		"complete player_game_summary 2026-02-03": "would report player_game_summary success for 2026-02-03",
		"quarantine replay 4711":                  "4711: would deliver again",
		"quarantine discard 4711":                 "4711: would discard",
	} {
		want(t, 0, []string{part}, append(strings.Fields(line), "--dry-run")...)
	}
	for doc, err := range s.App.Store.Scan(t.Context(), "audit", "!", "~") {
		t.Errorf("a dry run has changed something: %v %v", doc.Data, err)
	}
}

// A page aligns its columns without regard to the details, and colours them only if coloured is set.
func TestPage_AlignsRowsAndColoursStates(t *testing.T) {
	for coloured, want := range map[bool]string{
		false: "STATE    CHECK\nok       a\n    a detail that is longer than the table\nfailing  bcd\nend\n",
		true:  "\x1b[1mSTATE\x1b[0m    \x1b[1mCHECK\x1b[0m\n\x1b[32mok\x1b[0m       a\n    a detail that is longer than the table\n\x1b[31mfailing\x1b[0m  bcd\nend\n",
	} {
		p := &page{coloured: coloured}
		p.table("STATE", "CHECK")
		p.row("ok", "a")
		p.detail("a detail that is longer than the %s", "table")
		p.row("failing", "bcd")
		p.line("end")
		var out bytes.Buffer
		if err := p.writeTo(&out); err != nil || out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
	p := &page{}
	p.listing("nothing is locked", "LOCK")
	p.listing("", "STATE")
	p.table("PERIOD")
	p.line("end")
	if got := p.b.String(); got != "nothing is locked\nPERIOD\nend\n" {
		t.Errorf("tables without rows: %q", got)
	}
	var out bytes.Buffer
	if cli.Colourful(&out) {
		t.Error("colours without a terminal")
	}
}

// A cron job has /dev/null for its input: phasectl must not ask there.
func TestTerminal_IsNotEveryDevice(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if cli.Terminal(f) {
		t.Errorf("cli.Terminal accepts %s as a terminal", os.DevNull)
	}
}
