package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// subject is what a command line is about. Every command has the same grammar:
// `VERB [PERIOD [MODE]]`, or --period, --mode and --transition in place of the words.
type subject struct {
	period, mode, transition string
	from, to                 string
	days                     int
	hasDays                  bool

	words []string // that the command takes, of wordNames
}

var wordNames = []string{"PERIOD", "MODE"}

// periodHelp is shown wherever a command takes a period.
const periodHelp = "2026-02-03, today, yesterday or -3d; of an hourly pipeline also 2026-02-03T14 or -3h"

// takes gives a command its first words, each also a flag: none, PERIOD, or PERIOD and MODE.
func (s *subject) takes(cmd *cobra.Command, words int) {
	s.words = wordNames[:words]
	cmd.Args = s.read
	cmd.Flags().StringVar(&s.transition, "transition", "", "id of the transition (default: the pipeline's only one)")
	if words > 0 {
		cmd.Flags().StringVar(&s.period, "period", "", "the period: "+periodHelp)
		cmd.Flags().StringVar(&s.period, "date", "", "the period")
		_ = cmd.Flags().MarkHidden("date") // an older name; it fails only for a flag that does not exist
	}
	if words > 1 {
		cmd.Flags().StringVar(&s.mode, "mode", "", "the mode (default: the transition's only one)")
	}
}

// ranges gives a command --from and --to, in place of a period.
func (s *subject) ranges(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.from, "from", "", "the first period of a range")
	cmd.Flags().StringVar(&s.to, "to", "", "the last period, with --from (default: the last one that is expected now)")
}

// window gives a command the last days, or a range, in place of a period.
func (s *subject) window(cmd *cobra.Command, days int) {
	s.ranges(cmd)
	s.hasDays = true
	cmd.Flags().IntVar(&s.days, "days", days, fmt.Sprintf("how many days back, today included, 1 to %d", pipeline.MaxDays))
}

// read takes the words of a command line. A word and its flag may not contradict each other.
func (s *subject) read(_ *cobra.Command, given []string) error {
	if len(given) > len(s.words) {
		return usage(fmt.Errorf("takes %s; got %q", cmp.Or(strings.Join(s.words, " "), "no arguments"), given))
	}
	for i, value := range []*string{&s.period, &s.mode}[:len(given)] {
		if *value != "" && *value != given[i] {
			return usage(fmt.Errorf("%s: both %q and --%s %q: give one", s.words[i], given[i], strings.ToLower(s.words[i]), *value))
		}
		*value = given[i]
	}
	if s.hasDays {
		if err := checkDays(s.days); err != nil {
			return err
		}
	}
	if s.to != "" && s.from == "" {
		return usage(errors.New("--to: needs --from"))
	}
	if s.period != "" && (s.from != "" || s.to != "") {
		return usage(errors.New("wants either a period, or --from and --to"))
	}
	return nil
}

func checkDays(days int) error {
	if days < 1 || days > pipeline.MaxDays {
		return usage(fmt.Errorf("--days: %d is not within 1 to %d", days, pipeline.MaxDays))
	}
	return nil
}

// in returns the transition that is named.
func (s *subject) in(p *pipeline.Pipeline) (*pipeline.Transition, error) {
	t, ok := p.Transition(s.transition)
	if !ok {
		return nil, usage(fmt.Errorf("--transition: %q: the pipeline has %s%s", s.transition, p.TransitionIDs(), pipeline.DidYouMean(s.transition, strings.Split(p.TransitionIDs(), ", "))))
	}
	return t, nil
}

// shellFlag is a flag as it was given.
func shellFlag(f *pflag.Flag) string {
	if f.Value.Type() == "bool" {
		return "--" + f.Name
	}
	value := f.Value.String()
	if list, ok := f.Value.(pflag.SliceValue); ok {
		value = strings.Join(list.GetSlice(), ",")
	}
	if strings.ContainsAny(value, " \"'$`\\;&|<>()*?#!\n") {
		value = cli.Quote(value)
	}
	return "--" + f.Name + "=" + value
}

// transitions returns the named one, or all.
func (s *subject) transitions(p *pipeline.Pipeline) ([]*pipeline.Transition, error) {
	if s.transition == "" {
		return p.Transitions, nil
	}
	t, err := s.in(p)
	return []*pipeline.Transition{t}, err
}

// each does something about the periods of each transition.
func (s *subject) each(a *app.App, do func(t *pipeline.Transition, from, to pipeline.Period) error) error {
	ts, err := s.transitions(a.Pipeline)
	for _, t := range ts {
		if err == nil {
			var from, to pipeline.Period
			if from, to, err = s.periods(t.Calendar(), a.Now(), t.Window); err == nil {
				err = do(t, from, to)
			}
		}
	}
	return err
}

// modeOf returns the mode that is named, or the only one.
func (s *subject) modeOf(t *pipeline.Transition) (pipeline.Mode, error) {
	if s.mode == "" && len(t.Modes) == 1 {
		return t.Modes[0], nil
	}
	m, ok := t.Mode(s.mode)
	if !ok {
		return m, usage(fmt.Errorf("MODE: %q: %s has %s%s", s.mode, t.ID, modeNames(t), pipeline.DidYouMean(s.mode, strings.Split(modeNames(t), ", "))))
	}
	return m, nil
}

// transitionsWithMode is transitions, one of which has the mode that is named.
func (s *subject) transitionsWithMode(p *pipeline.Pipeline) ([]*pipeline.Transition, error) {
	ts, err := s.transitions(p)
	if err != nil {
		return nil, err
	}
	var have, modes []string
	for _, t := range ts {
		if _, ok := t.Mode(s.mode); ok || s.mode == "" {
			return ts, nil
		}
		have = append(have, t.ID+" has "+modeNames(t))
		for _, m := range t.Modes {
			modes = append(modes, m.Name)
		}
	}
	return nil, usage(fmt.Errorf("MODE: %q: %s", s.mode, strings.Join(have, "; ")+pipeline.DidYouMean(s.mode, modes)))
}

// one returns the cycle that is named.
func (s *subject) one(p *pipeline.Pipeline, now time.Time) (key cycle.Key, m pipeline.Mode, err error) {
	if key.Transition, err = s.in(p); err != nil {
		return key, m, err
	}
	if m, err = s.modeOf(key.Transition); err != nil {
		return key, m, err
	}
	key.Period, err = onePeriod(p.Calendar, now, s.period)
	return key, m, usage(err)
}

// oneOrAll is one, or without words the whole transition, which has no mode.
func (s *subject) oneOrAll(a *app.App) (key cycle.Key, m pipeline.Mode, err error) {
	if s.period != "" || s.mode != "" {
		return s.one(a.Pipeline, a.Now())
	}
	key.Transition, err = s.in(a.Pipeline)
	return key, m, err
}

// windowWords name periods on a command line.
func windowWords(from, to pipeline.Period) string {
	if from == to {
		return string(from)
	}
	return fmt.Sprintf("--from %s --to %s", from, to)
}

// commandFor is a command line about a cycle, as it is suggested.
func commandFor(verb string, t *pipeline.Transition, period, mode string) string {
	return strings.TrimSpace("phasectl "+verb+" "+period+" "+mode) + t.Option()
}

// periods returns the named ones, without any those of a window of so many days.
func (s *subject) periods(cal pipeline.Calendar, now time.Time, window func(time.Time, int) (from, to pipeline.Period)) (from, to pipeline.Period, err error) {
	if s.period != "" {
		from, to, err = periodsOf(cal, now, s.period)
		return from, to, usage(err)
	}
	from, to = window(now, s.days)
	return s.rangeOf(cal, now, from, to)
}

// rangeOf returns what --from and --to name, of which from and to are the default.
func (s *subject) rangeOf(cal pipeline.Calendar, now time.Time, from, to pipeline.Period) (pipeline.Period, pipeline.Period, error) {
	var err error
	if s.from != "" {
		if from, _, err = periodsOf(cal, now, s.from); err != nil {
			return "", "", usage(fmt.Errorf("--from: %w", err))
		}
	}
	if s.to != "" {
		if _, to, err = periodsOf(cal, now, s.to); err != nil {
			return "", "", usage(fmt.Errorf("--to: %w", err))
		}
	}
	if to < from {
		return "", "", usage(fmt.Errorf("--to: %s is before --from %s", to, from))
	}
	if cal.AddDays(from, pipeline.MaxDays) < to {
		return "", "", usage(fmt.Errorf("--from %s --to %s: is not within 1 to %d days", from, to, pipeline.MaxDays))
	}
	return from, to, nil
}

// distance is how far back a period lies. As a word, -3d would be read as a flag: see distances.
var distance = regexp.MustCompile(`^(?:today)?-(\d{1,4})([dh])$`)

// distances rewrites the words such as -3d of a command line, which are no flags.
func distances(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if a == "--" {
			break
		}
		if distance.MatchString(a) {
			args[i] = "today" + strings.TrimPrefix(a, "today")
		}
	}
	return args
}

// periodsOf reads a period. Of an hourly calendar, a day is its hours.
func periodsOf(cal pipeline.Calendar, now time.Time, text string) (from, to pipeline.Period, err error) {
	days := cal.Daily()
	day := days.At(now)
	back := distance.FindStringSubmatch(text)
	switch {
	case text == "today":
	case text == "yesterday":
		day = days.Add(day, -1)
	case back != nil && back[2] == "d":
		n, _ := strconv.Atoi(back[1])
		day = days.Add(day, -n)
	case back != nil && cal.Hourly():
		n, _ := strconv.Atoi(back[1])
		from = cal.Add(cal.At(now), -n)
		return from, from, nil
	default:
		if from, err = cal.Parse(text); err == nil {
			return from, from, nil
		}
		if day, err = days.Parse(text); err != nil {
			_, err = cal.Parse(text)
			return "", "", fmt.Errorf("PERIOD: %w, nor today, yesterday or a distance such as -3d", err)
		}
	}
	return cal.At(days.Start(day)), cal.At(days.End(day).Add(-time.Nanosecond)), nil
}

// onePeriod reads what has to be a single period.
func onePeriod(cal pipeline.Calendar, now time.Time, text string) (pipeline.Period, error) {
	from, to, err := periodsOf(cal, now, text)
	if err == nil && from != to {
		err = fmt.Errorf("PERIOD: %q has the periods %s to %s: name one of them", text, from, to)
	}
	return from, err
}

// group is a command that only has commands below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error { return unknownOrHelp(cmd, words) }}
	cmd.AddCommand(below...)
	return cmd
}

// unknownOrHelp names the commands that are like an unknown one.
func unknownOrHelp(cmd *cobra.Command, words []string) error {
	if len(words) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	like := ""
	if s := cmd.SuggestionsFor(words[0]); len(s) > 0 {
		like = fmt.Sprintf("; did you mean %s?", strings.Join(s, " or "))
	}
	return usage(fmt.Errorf("unknown command %q%s", words[0], like))
}
