package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

//go:embed init.yaml.tmpl
var initTemplate string

func initCommand(f *flags) *cobra.Command {
	var d draft
	var datasets []string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the pipeline file of a new pipeline, from BigQuery tables or from answers",
		Long: "Write a commented pipeline file that is valid. With --dataset, once for each phase in order, it has the tables of\n" +
			"these datasets: their partition columns, declared primary keys or clustering, and timestamps. The caller needs the\n" +
			"role BigQuery Metadata Viewer. Without --dataset, it asks questions; answers can also come from a pipe,\n" +
			"a line each, and an empty line takes the default. At the end of the answers, each question left takes its default.\n" +
			"It asks first for the name, the time zone, day or hour, the phases, and the processors of each phase. Then it asks for\n" +
			"the column of the period, the columns of the key, and the column with the time of a write. --name and --time-zone\n" +
			"answer their questions.\n" +
			"It marks each value that it guesses with \"decide\".\n" +
			"A file that exists is replaced only with --overwrite.\n\n" +
			"Exit status: 0 written, 1 the file exists, or a dataset has no usable table, 2 BigQuery could not be read.",
		Example: "  phasectl init\n  phasectl init --dataset shop_raw --dataset shop_clean --dataset shop_marts --time-zone Europe/Berlin --project my-project",
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&datasets, "dataset", nil, "BigQuery dataset with the tables of a phase; once for each phase, in order")
	fl.StringVar(&d.File, "file", "pipeline.yaml", "file to write")
	fl.StringVar(&d.Name, "name", "", "name of the pipeline (default: asked, or what the datasets' names begin with)")
	fl.StringVar(&d.Zone, "time-zone", "", "time zone such as Europe/Berlin (default: asked, or UTC)")
	fl.BoolVar(&overwrite, "overwrite", false, "replace the file if it exists")
	return answers(f, cmd, func(ctx context.Context) (*drafted, error) {
		if _, err := os.Lstat(d.File); err == nil && !overwrite {
			return nil, findings(fmt.Errorf("--file: %s exists: name another file, or replace it with --overwrite", d.File))
		}
		var err error
		if len(datasets) > 0 {
			err = d.fromTables(ctx, f, datasets)
		} else {
			err = d.fromAnswers(newQuestions(ctx, cmd.InOrStdin(), f.stderr))
		}
		if err != nil {
			return nil, err
		}
		data, err := d.render()
		if err != nil {
			return nil, err
		}
		if err := writeNew(d.File, data, overwrite); err != nil {
			return nil, err
		}
		return d.report(data), nil
	})
}

// draft is what is known of a new pipeline.
type draft struct {
	File, Name, Zone    string
	ZoneGuessed, Hourly bool
	Phases              []draftPhase
}

type draftPhase struct {
	Name       string
	Processors []draftProcessor
	LeftOut    []string // tables, with the reason
}

type draftProcessor struct {
	Name, Table, Date, OrderBy, Partition string
	Key                                   []string
	DateNote, KeyNote, OrderNote          string // comments
}

type draftTransition struct{ ID, From, To, Reads, Sends, Last string }

// Transitions lead from each phase to the next.
func (d draft) Transitions() (out []draftTransition) {
	for i := range d.Phases[1:] {
		from, to := d.Phases[i], d.Phases[i+1]
		out = append(out, draftTransition{ID: from.Name + "_to_" + to.Name, From: from.Name, To: to.Name,
			Reads: topicOf(d.Name, from.Name, "complete"), Sends: topicOf(d.Name, to.Name, "trigger"), Last: from.Processors[len(from.Processors)-1].Name})
	}
	return out
}

// topicOf names a topic after the pipeline and a phase, which may begin with the pipeline's name.
func topicOf(name, phase, what string) string {
	return dashed(name) + "-" + dashed(strings.TrimPrefix(phase, name+"_")) + "-" + what
}

func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

// render writes the file, and reads it back: a file that is not valid is never written.
func (d draft) render() ([]byte, error) {
	t := template.Must(template.New("init").Funcs(template.FuncMap{"join": func(words []string) string { return strings.Join(words, ", ") }, "dashed": dashed}).Parse(initTemplate))
	var out bytes.Buffer
	if err := t.Execute(&out, d); err != nil {
		return nil, err
	}
	if _, err := pipeline.Parse(out.Bytes()); err != nil {
		return nil, fmt.Errorf("no file was written, because it would not be valid: %w", err)
	}
	return out.Bytes(), nil
}

// writeNew writes a file at once: a process that dies leaves the old file or none. Of two that
// write at the same time one is refused, unless both overwrite.
func writeNew(file string, data []byte, overwrite bool) error {
	temp, err := os.CreateTemp(filepath.Dir(file), ".phasectl-init-*")
	if err != nil {
		return usage(fmt.Errorf("--file: %w", err))
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	if overwrite {
		err = os.Rename(temp.Name(), file)
	} else {
		err = os.Link(temp.Name(), file)
	}
	if errors.Is(err, fs.ErrExist) {
		return findings(fmt.Errorf("--file: %s exists: name another file, or replace it with --overwrite", file))
	}
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	return nil
}

// drafted is what init has written.
type drafted struct {
	File        string   `json:"file"`
	Name        string   `json:"name"`
	Phases      []string `json:"phases"`
	Processors  int      `json:"processors"`
	Transitions int      `json:"transitions"`
	LeftOut     []string `json:"left_out"` // tables, with the reason
	Decide      []string `json:"decide"`   // lines that need a decision

	first string          // processor
	past  pipeline.Period // that is over
}

func (d draft) report(data []byte) *drafted {
	out := &drafted{File: d.File, Name: d.Name, Phases: []string{}, Transitions: len(d.Phases) - 1, LeftOut: []string{}, Decide: []string{},
		first: d.Phases[0].Processors[0].Name, past: d.past(clock())}
	for i, line := range strings.Split(string(data), "\n") {
		if _, what, found := strings.Cut(line, "# decide"); found {
			out.Decide = append(out.Decide, fmt.Sprintf("line %d%s", i+1, what))
		}
	}
	for _, phase := range d.Phases {
		out.Phases, out.Processors, out.LeftOut = append(out.Phases, phase.Name), out.Processors+len(phase.Processors), append(out.LeftOut, phase.LeftOut...)
	}
	return out
}

func (d *drafted) text(p *page) {
	p.line("wrote %s: %s in %s, %s", d.File, pipeline.Count(d.Processors, "processor", "processors"), pipeline.Count(len(d.Phases), "phase", "phases"), pipeline.Count(d.Transitions, "transition", "transitions"))
	for _, table := range d.LeftOut {
		p.line("  left out: %s", table)
	}
	p.line("%s decide. Next:", pipeline.Count(len(d.Decide), "line says", "lines say"))
	p.line("  phasectl pipeline check %s", d.File)
	p.line("  phasectl local --pipeline %s", d.File)
	p.line("and in another terminal:")
	p.line("  eval \"$(phasectl env)\"")
	p.line("  phasectl complete %s %s --reason \"first try\"    # and each other processor of %s", d.first, d.past, d.Phases[0])
	p.line("  phasectl status")
}

// past is the newest period that is over.
func (d draft) past(now time.Time) pipeline.Period {
	zone, err := time.LoadLocation(d.Zone)
	if err != nil { // it was checked
		zone = time.UTC
	}
	cal := pipeline.NewCalendar(zone)
	if d.Hourly {
		cal = pipeline.NewHourly(zone)
	}
	return cal.Add(cal.At(now), -1)
}

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

// warehouseOf opens BigQuery without a pipeline file.
func warehouseOf(f *flags) (*warehouse.Warehouse, error) {
	c, err := app.ConfigFromEnv(f.getenv(nil))
	if err != nil {
		return nil, usage(err)
	}
	if c.Local && c.BigQueryHost == "" {
		return nil, unknown(errors.New("the documents are on this machine and BIGQUERY_EMULATOR_HOST is not set: Google's BigQuery is not asked"))
	}
	return warehouse.New(c.Project, c.BigQueryHost), nil
}
