package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/pipeline"
)

//go:embed init.yaml.tmpl
var initTemplate string

type initOptions struct {
	*flags
	draft
	datasets  []string
	overwrite bool
	in        io.Reader // answers
}

func initCommand(f *flags) *cobra.Command {
	o := initOptions{flags: f}
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
	fl.StringArrayVar(&o.datasets, "dataset", nil, "BigQuery dataset with the tables of a phase; once for each phase, in order")
	fl.StringVar(&o.File, "file", "pipeline.yaml", "file to write")
	fl.StringVar(&o.Name, "name", "", "name of the pipeline (default: asked, or what the datasets' names begin with)")
	fl.StringVar(&o.Zone, "time-zone", "", "time zone such as Europe/Berlin (default: asked, or UTC)")
	fl.BoolVar(&o.overwrite, "overwrite", false, "replace the file if it exists")
	cmd.PreRun = func(cmd *cobra.Command, _ []string) { o.in = cmd.InOrStdin() }
	return answers(f, cmd, o.run)
}

func (o *initOptions) run(ctx context.Context) (*drafted, error) {
	if _, err := os.Lstat(o.File); err == nil && !o.overwrite {
		return nil, exists(o.File)
	}
	var err error
	if len(o.datasets) > 0 {
		err = o.fromTables(ctx, o.flags, o.datasets)
	} else {
		err = o.fromAnswers(newQuestions(ctx, o.in, o.stderr))
	}
	if err != nil {
		return nil, err
	}
	data, err := o.render()
	if err != nil {
		return nil, err
	}
	if err := writeNew(o.File, data, o.overwrite); err != nil {
		return nil, err
	}
	return o.report(data), nil
}

func exists(file string) error {
	return findings(fmt.Errorf("--file: %s exists: name another file, or replace it with --overwrite", file))
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
		return exists(file)
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
