package main

import (
	"fmt"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// need says what a command line lacks: names, such as --reason, and examples that complete the
// line. Of several examples each makes a line of its own. Without names it lacks nothing.
type need func() (names, examples []string)

// needs adds to what the lines of a command must have.
func (f *flags) needs(cmd *cobra.Command, more ...need) {
	f.needed[cmd] = append(f.needed[cmd], more...)
}

// lacks is the need of one word or flag.
func lacks(name string, absent func() bool, examples ...string) need {
	return func() ([]string, []string) {
		if absent() {
			return []string{name}, examples
		}
		return nil, nil
	}
}

// demand has each command name everything that its line lacks, before it begins.
func (f *flags) demand(cmd *cobra.Command) {
	if needs, read := f.needed[cmd], cmd.Args; needs != nil {
		cmd.Args = func(cmd *cobra.Command, words []string) error {
			if err := read(cmd, words); err != nil {
				return err
			}
			rest := ""
			if n := cmd.ArgsLenAtDash(); n >= 0 { // the words of another command follow
				words, rest = words[:n], " -- "+strings.Join(words[n:], " ")
			}
			return f.lacking(commandLine(cmd, words), rest, needs)
		}
	}
	for _, below := range cmd.Commands() {
		f.demand(below)
	}
}

func (f *flags) lacking(line, rest string, needs []need) error {
	lines, all := []string{line}, []string(nil)
	add := func(names, examples []string) {
		if len(names) == 0 {
			return
		}
		all = append(all, names...)
		var longer []string
		for _, l := range lines {
			for _, e := range examples {
				longer = append(longer, l+" "+e)
			}
		}
		lines = longer
	}
	for _, n := range needs {
		add(n())
	}
	if len(all) == 0 {
		return nil
	}
	if f.getenv(nil)("GOOGLE_CLOUD_PROJECT") == "" {
		add([]string{"--project"}, []string{"--project PROJECT"})
	}
	is := "is"
	if len(all) > 1 {
		is = "are"
	}
	return usage(fmt.Errorf("%s %s required:\n  %s%s", pipeline.And(all), is, strings.Join(lines, rest+"\n  "), rest))
}

// commandLine is a command line as it was given, to be pasted.
func commandLine(cmd *cobra.Command, words []string) string {
	line := strings.Join(append([]string{cmd.CommandPath()}, words...), " ")
	cmd.Flags().Visit(func(f *pflag.Flag) { line += " " + shellFlag(f) })
	return line
}

// word is one that a command takes, such as an id.
type word struct {
	name, example string
	value         *string
}

// words gives a command words of its own. It needs all of them.
func (f *flags) words(cmd *cobra.Command, words ...word) {
	var names []string
	for _, w := range words {
		names = append(names, w.name)
		f.needs(cmd, lacks(w.name, func() bool { return *w.value == "" }, w.example))
	}
	cmd.Args = func(_ *cobra.Command, given []string) error {
		if len(given) > len(words) {
			return usage(fmt.Errorf("takes %s; got %q", strings.Join(names, " "), given))
		}
		for i, g := range given {
			*words[i].value = g
		}
		return nil
	}
}

// needsPeriod is the need of a period, unless the line has something in its place.
func (s *subject) needsPeriod(f *flags, unless func() bool, examples ...string) need {
	return func() ([]string, []string) {
		if s.period != "" || unless() {
			return nil, nil
		}
		period := "yesterday"
		if p, err := f.definition(); err == nil && p.Calendar.Hourly() {
			period = "-1h"
		}
		return []string{"PERIOD"}, append([]string{period}, examples...)
	}
}

// needsWhole are the needs of a command about a cycle or, without PERIOD and MODE, a whole transition.
func (s *subject) needsWhole(f *flags) []need {
	whole := func() bool { return s.period == "" && s.mode == "" }
	return []need{s.needsPeriod(f, whole), s.needsPlace(f, false, whole)}
}

func never() bool { return false }

// needsPlace is the need of a transition and a mode, where the pipeline file has several. A command
// that is about every transition needs none. Names that the file does not have are no matter of this.
func (s *subject) needsPlace(f *flags, every bool, withoutMode func() bool) need {
	return func() (names, examples []string) {
		p, err := f.definition()
		if err != nil {
			return nil, nil
		}
		ts, err := s.transitions(p)
		if err != nil {
			return nil, nil
		}
		transition, mode := len(ts) > 1 && !every, false
		for _, t := range ts {
			option := ""
			if len(ts) > 1 {
				option = "--transition " + t.ID
			}
			if s.mode != "" || len(t.Modes) == 1 || withoutMode() {
				examples = append(examples, option)
				continue
			}
			mode = true
			for _, m := range t.Modes {
				examples = append(examples, strings.TrimSpace(option+" --mode "+m.Name))
			}
		}
		if transition {
			names = append(names, "--transition")
		}
		if mode {
			names = append(names, "MODE")
		}
		return names, examples
	}
}
