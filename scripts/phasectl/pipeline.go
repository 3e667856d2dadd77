package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

func pipelineCommand(f *flags) *cobra.Command {
	return group("pipeline", "Check a pipeline file, or show what a change of it means", pipelineCheckCommand(f), pipelineDiffCommand(f))
}

type pipelineOptions struct {
	*flags
	file string
	days int // of cycles that diff compares
}

func pipelineCheckCommand(f *flags) *cobra.Command {
	o := pipelineOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a pipeline file, and say in words what it means",
		Long: "Check a pipeline file, without a project. Without FILE it is that of --pipeline or PIPELINE_FILE. Print for each transition and mode the processors, the earliest time, the\n" +
			"grace period and the deadline, with an example in the pipeline's time zone. Print the defaults of keys that the\n" +
			"file leaves out, and warnings: settings without effect, and what nothing watches.\n" +
			"`phasectl checks verify` compares the file with the tables of BigQuery.\n\n" +
			"Exit status: 0 the file is valid, with or without warnings, 1 it has problems.",
		Example: "  phasectl pipeline check pipeline.yaml\n  phasectl pipeline check pipeline.yaml --json",
		Args: func(_ *cobra.Command, words []string) error {
			switch {
			case len(words) > 1:
				return usage(fmt.Errorf("takes FILE; got %q", words))
			case len(words) == 1:
				o.file = words[0]
			default:
				o.file = f.getenv(nil)("PIPELINE_FILE")
			}
			if o.file == "" {
				return usage(errors.New("FILE: is required, such as pipeline.yaml, or --pipeline FILE, or PIPELINE_FILE in the environment"))
			}
			return nil
		},
	}
	return answers(f, cmd, o.check)
}

func (o *pipelineOptions) check(context.Context) (*understood, error) {
	p, problems, err := readPipeline(o.file)
	if err != nil {
		return nil, err
	}
	u := &understood{File: o.file, Valid: p != nil, Problems: problems, Warnings: []string{}, p: p, now: clock()}
	if p == nil {
		return u, findings(fmt.Errorf("%s has %s", o.file, pipeline.Count(len(problems), "problem", "problems")))
	}
	u.describe(p, u.now)
	return u, nil
}

// readPipeline reads a file: the pipeline, or what is wrong with it.
func readPipeline(file string) (*pipeline.Pipeline, []string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, usage(fmt.Errorf("FILE: %w", err))
	}
	p, err := pipeline.Parse(data)
	if err == nil {
		return p, []string{}, nil
	}
	problems := []string{}
	for _, one := range joined(errors.Unwrap(err)) {
		problems = append(problems, one.Error())
	}
	return nil, problems, nil
}

// joined takes apart what errors.Join has joined.
func joined(err error) []error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		return several.Unwrap()
	}
	return []error{err}
}

// understood is a pipeline in words, as check prints it.
type understood struct {
	File        string                 `json:"file"`
	Valid       bool                   `json:"valid"`
	Problems    []string               `json:"problems"`
	Name        string                 `json:"name,omitempty"`
	Hash        string                 `json:"hash,omitempty"`
	Calendar    string                 `json:"calendar,omitempty"`
	TimeZone    string                 `json:"time_zone,omitempty"`
	Phases      []understoodPhase      `json:"phases,omitempty"`
	Transitions []understoodTransition `json:"transitions,omitempty"`
	Schedules   []understoodSchedule   `json:"schedules,omitempty"`
	Defaults    []understoodDefault    `json:"defaults,omitempty"`
	Warnings    []string               `json:"warnings"`

	p   *pipeline.Pipeline
	now time.Time
}

type understoodPhase struct {
	Name       string   `json:"name"`
	Processors []string `json:"processors"`
	Guard      string   `json:"guard,omitempty"` // what phasectl guard --phase does
}

type understoodTransition struct {
	ID         string           `json:"id"`
	Upstream   string           `json:"upstream"`
	Downstream string           `json:"downstream"`
	Reads      string           `json:"reads"`
	Sends      string           `json:"sends"`
	Checks     int              `json:"checks"`
	Modes      []understoodMode `json:"modes"`
}

// understoodMode has a sentence for each part of a mode's policy.
type understoodMode struct {
	Name     string   `json:"name"`
	Runs     string   `json:"runs"`
	Critical []string `json:"critical"`
	Optional []string `json:"optional"`
	Complete string   `json:"complete"`
	Counts   string   `json:"counts"`
	Earliest string   `json:"earliest"`
	Grace    string   `json:"grace"`
	Deadline string   `json:"deadline"`
	Again    string   `json:"again"`
}

type understoodSchedule struct {
	Job  string `json:"job"`
	Cron string `json:"cron"`
	Zone string `json:"zone"`
	Next string `json:"next"`
}

type understoodDefault struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

func (u *understood) describe(p *pipeline.Pipeline, now time.Time) {
	u.Name, u.Hash, u.TimeZone, u.Warnings, u.Calendar = p.Name, p.Hash, p.Calendar.Zone().String(), p.Warnings(), "day"
	if p.Calendar.Hourly() {
		u.Calendar = "hour"
	}
	for _, phase := range p.Phases {
		of := understoodPhase{Name: phase.Name, Guard: guardWords(phase.Guard)}
		for _, pr := range phase.Processors {
			of.Processors = append(of.Processors, pr.Name)
		}
		u.Phases = append(u.Phases, of)
	}
	for _, t := range p.Transitions {
		of := understoodTransition{ID: t.ID, Upstream: t.UpstreamPhase, Downstream: t.DownstreamPhase, Reads: t.UpstreamTopic, Sends: t.DownstreamTopic}
		if t.Checks != nil {
			of.Checks = len(t.Checks.All)
		}
		for _, m := range t.Modes {
			of.Modes = append(of.Modes, describeMode(p.Calendar, m, p.Calendar.At(now)))
		}
		u.Transitions = append(u.Transitions, of)
	}
	for _, s := range p.Schedules {
		u.Schedules = append(u.Schedules, understoodSchedule{s.Job, s.Cron, p.Zone(s).String(), p.Calendar.Local(p.NextDue(s, now))})
	}
	u.Defaults = groupDefaults(p.Defaults)
}

// guardWords says what a guard does; "" if there is none.
func guardWords(g *pipeline.Guard) string {
	if g == nil {
		return ""
	}
	words := fmt.Sprintf("receipts of %s; paths %s; success %s", g.Scope, strings.Join(g.Paths, ", "), strings.Trim(fmt.Sprint(g.Success), "[]"))
	for _, field := range slices.Sorted(maps.Keys(g.SuccessJSON)) {
		words += fmt.Sprintf(", %s %s", field, strings.Join(g.SuccessJSON[field], " or "))
	}
	words += fmt.Sprintf("; a run %s at most, a claim %s; on lost %s; others %s", policy.Short(g.Limit), policy.Short(g.TTL), g.OnLost, g.Unkeyed)
	if g.Cooldown {
		words += "; waits after a failure"
	}
	for _, table := range slices.Sorted(maps.Keys(g.Serial)) {
		words += fmt.Sprintf("; %s locks %s", table, strings.Join(g.Serial[table], ", "))
	}
	return words
}

// describeMode says what a mode means; today is the period of the examples.
func describeMode(c pipeline.Calendar, m pipeline.Mode, today pipeline.Period) understoodMode {
	at := func(o pipeline.Offset) string {
		return fmt.Sprintf("%s (of %s: %s)", offsetWords(c, o), today, c.Local(c.Instant(today, o)))
	}
	u := understoodMode{Name: m.Name, Runs: fmt.Sprintf("that end %s the %s", m.Event, periodWord(c)), Critical: m.Critical, Optional: append([]string{}, m.Optional...),
		Complete: "when all processors are complete", Counts: "runs that end at or after " + at(m.CountsFrom),
		Earliest: "at once when complete", Grace: "none: it waits for all processors", Deadline: "none", Again: "further runs of a processor are ignored"}
	if m.Complete == pipeline.CompleteCritical {
		u.Complete, u.Grace = "when the critical processors are complete", "none: it never waits for optional processors"
	}
	if len(m.AcceptEarlier) > 0 {
		u.Counts += "; of " + policy.Listed(m.AcceptEarlier) + " also runs that count for an earlier mode"
	}
	if m.NotBefore != nil {
		u.Earliest = at(*m.NotBefore)
	}
	if m.Grace != nil {
		u.Grace = fmt.Sprintf("%s after the critical processors and %d %% of all are complete: then without the rest", policy.Short(m.Grace.After), m.Grace.QuorumPct)
	}
	if m.Deadline != nil {
		u.Deadline = at(*m.Deadline) + ": a cycle that is not complete is then overdue, and people are notified"
		if m.AtDeadline == pipeline.DeadlineHandOver {
			u.Deadline = at(*m.Deadline) + ": then without the optional processors that are missing; without a critical one it is overdue"
		}
	}
	if m.SecondRuns == pipeline.SecondRunsResend {
		u.Again = fmt.Sprintf("further runs of a processor with changed data are handed over again, every %s at most", policy.Short(m.SecondRunsEvery))
	}
	return u
}

func periodWord(c pipeline.Calendar) string {
	if c.Hourly() {
		return "hour"
	}
	return "day"
}

// offsetWords says a time relative to a period: 05:00 on the next day.
func offsetWords(c pipeline.Calendar, o pipeline.Offset) string {
	clock, unit := fmt.Sprintf("%02d:%02d on", o.Minute/60, o.Minute%60), "day"
	if c.Hourly() {
		clock, unit = pipeline.Count(o.Minute, "minute past", "minutes past"), "hour"
	}
	switch o.Periods {
	case 0:
		return clock + " the same " + unit
	case 1:
		return clock + " the next " + unit
	case -1:
		return clock + " the " + unit + " before"
	}
	if o.Periods < 0 {
		return fmt.Sprintf("%s the %s that is %d %ss earlier", clock, unit, -o.Periods, unit)
	}
	return fmt.Sprintf("%s the %s that is %d %ss later", clock, unit, o.Periods, unit)
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// groupDefaults has one line for a key that gets the same default in several places, and for the
// processors' keys, of which there may be hundreds.
func groupDefaults(taken []pipeline.TakenDefault) (out []understoodDefault) {
	values, shown := map[string][]string{}, map[string]bool{}
	for _, d := range taken {
		key := indexes.ReplaceAllString(d.Path, "[]")
		values[key] = append(values[key], d.Value)
	}
	for _, d := range taken {
		key := indexes.ReplaceAllString(d.Path, "[]")
		all := values[key]
		same := !slices.ContainsFunc(all, func(value string) bool { return value != all[0] })
		switch {
		case len(all) == 1 || !same && !strings.HasPrefix(key, "phases[]."):
			out = append(out, understoodDefault{d.Path, d.Value})
		case shown[key]:
		case same:
			out = append(out, understoodDefault{key, fmt.Sprintf("%s (%s)", d.Value, pipeline.Count(len(all), "time", "times"))})
		default:
			out = append(out, understoodDefault{key, fmt.Sprintf("from the name, such as %s (%s)", d.Value, pipeline.Count(len(all), "time", "times"))})
		}
		shown[key] = true
	}
	return out
}

func (u *understood) text(b *page) {
	if !u.Valid {
		b.line("%s is not valid:", u.File)
		for _, one := range u.Problems {
			b.line("  %s", one)
		}
		return
	}
	p, now, file := u.p, u.now, u.File
	b.line("%s is valid: pipeline %s, hash %s", file, u.Name, u.Hash)
	written, in := "written "+string(p.Calendar.At(now)), u.TimeZone
	if p.Calendar.Hourly() {
		in = "UTC; local times are those of " + u.TimeZone
	}
	b.line("  a period is %s in %s, %s", map[bool]string{true: "an hour", false: "a day"}[p.Calendar.Hourly()], in, written)
	for _, phase := range u.Phases {
		b.line("  phase %s: %s", phase.Name, policy.Listed(phase.Processors))
		if phase.Guard != "" {
			b.line("    guard: %s", phase.Guard)
		}
	}
	for _, t := range u.Transitions {
		b.title("transition %s: from %s to %s", t.ID, t.Upstream, t.Downstream)
		b.line("  completions from topic %s, triggers to topic %s", t.Reads, t.Sends)
		for _, m := range t.Modes {
			b.line("  mode %s, of runs %s", m.Name, m.Runs)
			row := func(name, value string) {
				if value != "" {
					b.line("    %-9s %s", name, value)
				}
			}
			row("critical", policy.Listed(m.Critical))
			row("optional", policy.Listed(m.Optional))
			row("complete", m.Complete)
			row("counts", m.Counts)
			row("earliest", m.Earliest)
			row("grace", m.Grace)
			row("deadline", m.Deadline)
			row("again", m.Again)
		}
		b.line("  checks before a hand-over: %d", t.Checks)
	}
	b.title("schedules")
	for _, s := range u.Schedules {
		why := ""
		if s.Zone != u.TimeZone { // the relay and health
			why = "; its hour begins with *, so it runs all day and no change of the clock moves it"
		}
		b.line("  %-8s %s in %s, next %s%s", s.Job, s.Cron, s.Zone, s.Next, why)
	}
	if len(u.Defaults) > 0 {
		b.title("defaults of keys that the file leaves out")
		for _, d := range u.Defaults {
			b.line("  %s: %s", d.Path, d.Value)
		}
	}
	if len(u.Warnings) > 0 {
		b.title("warnings")
		for _, warning := range u.Warnings {
			b.line("  %s", warning)
		}
	}
}
