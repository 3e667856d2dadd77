package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

// questions asks on a terminal, or reads the answers of a pipe.
type questions struct {
	ctx  context.Context // of the command: an interrupt ends the wait for an answer
	in   *bufio.Reader
	out  io.Writer
	echo bool // the answers are not typed, so they are shown
}

func newQuestions(ctx context.Context, in io.Reader, out io.Writer) *questions {
	file, ok := in.(*os.File)
	return &questions{ctx: ctx, in: bufio.NewReader(in), out: out, echo: !ok || !cli.Terminal(file)}
}

// ask repeats a question until the answer is one; an empty answer is the default.
func (q *questions) ask(question, fallback string, check func(string) error) (string, error) {
	for {
		prompt := question
		if fallback != "" {
			prompt += " [" + fallback + "]"
		}
		_, _ = fmt.Fprint(q.out, prompt+": ") // as the logs: the last resort
		line, err := q.line()
		answer := strings.TrimSpace(line)
		if q.echo {
			_, _ = fmt.Fprintln(q.out, answer)
		}
		if answer == "" {
			answer = fallback
		}
		switch problem := check(answer); {
		case problem == nil && (err == nil || errors.Is(err, io.EOF)): // at the end a question takes its default
			return answer, nil
		case err != nil:
			return "", usage(fmt.Errorf("no answer to %q: answer the questions of phasectl init, or name the datasets with --dataset", question))
		default:
			_, _ = fmt.Fprintf(q.out, "  %v\n", problem)
		}
	}
}

// line reads a line, and waits no longer when the command is interrupted.
func (q *questions) line() (string, error) {
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		line, err := q.in.ReadString('\n')
		got <- read{line, err}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-q.ctx.Done():
		return "", q.ctx.Err()
	}
}

var (
	safeName    = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
	datasetName = regexp.MustCompile(`^[A-Za-z0-9_]{1,300}$`)
	safeColumn  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,299}$`)
)

func checkName(s string) error {
	if !safeName.MatchString(s) {
		return fmt.Errorf("%q is no name: write lower-case letters, digits and _, a letter first", s)
	}
	return nil
}

// checkPipelineName checks a name after which topics are named.
func checkPipelineName(s string) error {
	if strings.HasPrefix(s, "phasegate") || strings.HasPrefix(s, "goog") {
		return fmt.Errorf("%q begins with phasegate or goog, as no topic of a pipeline may", s)
	}
	return checkName(s)
}

func checkColumn(s string) error {
	if !safeColumn.MatchString(s) {
		return fmt.Errorf("%q is no column", s)
	}
	return nil
}

// checkList checks each name of a list, and that none is a duplicate.
func checkList(least int, check func(string) error) func(string) error {
	return func(s string) error {
		names, seen := listed(s), map[string]bool{}
		for _, name := range names {
			if strings.ContainsAny(name, " \t") {
				return fmt.Errorf("%q has a blank: separate names with commas", name)
			}
		}
		if len(names) < least {
			return fmt.Errorf("write at least %d, separated by commas", least)
		}
		for _, name := range names {
			if err := check(name); err != nil {
				return err
			}
			if seen[name] {
				return fmt.Errorf("%q is a duplicate", name)
			}
			seen[name] = true
		}
		return nil
	}
}

// listed splits a list at commas: a name with a blank is a mistake, and not two names.
func listed(s string) (names []string) {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func checkZone(s string) error {
	if _, err := time.LoadLocation(s); err != nil || s == "Local" || s == "" {
		return fmt.Errorf("%q is no time zone: write a name such as Europe/Berlin or UTC", s)
	}
	return nil
}

// fromAnswers asks for what a pipeline needs.
func (d *draft) fromAnswers(q *questions) (err error) {
	ask := func(into *string, question, fallback string, check func(string) error) {
		if err == nil && *into == "" {
			*into, err = q.ask(question, fallback, check)
		}
	}
	var calendar, phases string
	if err := d.checkFlags(); err != nil {
		return err
	}
	ask(&d.Name, "Name of the pipeline, such as shop", "", checkPipelineName)
	ask(&d.Zone, "Time zone", "UTC", checkZone)
	ask(&calendar, "A period is a day or an hour", "day", func(s string) error {
		if s != "day" && s != "hour" {
			return errors.New("write day or hour")
		}
		return nil
	})
	ask(&phases, "Phases in order, such as raw, clean, marts", "", checkList(2, checkName))
	d.Hourly = calendar == "hour"
	seen := map[string]bool{}
	unused := func(name string) error {
		if seen[name] {
			return fmt.Errorf("%q is a processor of an earlier phase", name)
		}
		return checkName(name)
	}
	for _, name := range listed(phases) {
		var processors string
		ask(&processors, "Processors of "+name+", such as orders, refunds", "", checkList(1, unused))
		phase := draftPhase{Name: name}
		for _, processor := range listed(processors) {
			seen[processor] = true
			phase.Processors = append(phase.Processors, draftProcessor{Name: processor, Table: d.Name + "_" + name + "." + processor})
		}
		d.Phases = append(d.Phases, phase)
	}
	date, like := "", map[bool]string{true: "hour", false: "day"}[d.Hourly]
	var key, order string
	ask(&date, "Column that has the period, in each table", like, checkColumn)
	ask(&key, "Columns that make a row unique, in most tables", date+", id", checkList(1, checkColumn))
	ask(&order, "Column with the time at which a row was written", "updated_at", func(s string) error {
		switch {
		case s == date:
			return fmt.Errorf("%q is the column that has the period, which is the same in all rows of a period", s)
		case strings.Contains(", "+strings.Join(listed(key), ", ")+",", ", "+s+","):
			return fmt.Errorf("%q is one of the columns that make a row unique", s)
		}
		return checkColumn(s)
	})
	for i := range d.Phases {
		for j := range d.Phases[i].Processors {
			pr := &d.Phases[i].Processors[j]
			pr.Date, pr.Key, pr.OrderBy = date, listed(key), order
			if j == 0 {
				pr.KeyNote = "decide, here and below: the columns that make a row of the table unique"
			}
		}
	}
	return err
}

// checkFlags checks what was given as a flag instead of an answer.
func (d *draft) checkFlags() error {
	if d.Name != "" {
		if err := checkPipelineName(d.Name); err != nil {
			return usage(fmt.Errorf("--name: %w", err))
		}
	}
	if d.Zone != "" {
		if err := checkZone(d.Zone); err != nil {
			return usage(fmt.Errorf("--time-zone: %w", err))
		}
	}
	return nil
}
