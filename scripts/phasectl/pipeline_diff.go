package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

func pipelineDiffCommand(f *flags) *cobra.Command {
	o := pipelineOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what a changed pipeline file means for open cycles and for the deployment",
		Long: "Compare a changed pipeline file with the present one (--pipeline, $PIPELINE_FILE or the embedded nba.yaml). Show which\n" +
			"rules and which deployed resources differ. Read the store, and show which open cycles of the last days another\n" +
			"decision awaits, and which names were changed without `formerly`. Nothing is changed.\n" +
			"`make plan` shows each change of the deployment.\n\n" +
			"Exit status: 0 nothing differs, 1 something does, 2 the open cycles could not be read.",
		Example: "  phasectl pipeline diff changed.yaml --pipeline pipeline.yaml --project my-project\n  phasectl pipeline diff changed.yaml --json",
	}
	f.words(cmd, word{"FILE", "changed.yaml", &o.file})
	cmd.Flags().IntVar(&o.days, "days", 7, "how many days of cycles are compared, today included")
	return answers(f, cmd, o.diff)
}

func (o *pipelineOptions) diff(ctx context.Context) (*difference, error) {
	if err := checkDays(o.days); err != nil {
		return nil, err
	}
	now, err := o.definition()
	if err != nil {
		return nil, usage(err)
	}
	then, problems, err := readPipeline(o.file)
	if err != nil {
		return nil, err
	}
	if then == nil {
		return nil, usage(fmt.Errorf("FILE: %s is not valid: %s", o.file, plain(strings.Join(problems, "; "))))
	}
	d := &difference{Before: now.Hash, After: then.Hash, Rules: rules(now, then), Deployment: deployment(now, then), Cycles: []cycleChange{}, Names: []string{}}
	err = d.read(ctx, o, now, then)
	switch {
	case err != nil:
		d.Unknown = plain(err.Error())
		return d, unknown(fmt.Errorf("the open cycles could not be read: %w", err))
	case d.Before != d.After && d.found() > 0:
		return d, findings(errors.New(pipeline.Count(d.found(), "difference", "differences")))
	}
	return d, nil
}

// difference is what a changed pipeline file means.
type difference struct {
	Before     string        `json:"before"` // hashes of the files
	After      string        `json:"after"`
	Rules      []change      `json:"rules"`
	Deployment []change      `json:"deployment"`
	Cycles     []cycleChange `json:"cycles"`
	Names      []string      `json:"names"`             // changed without formerly
	Unknown    string        `json:"unknown,omitempty"` // why cycles and names are not known
}

// change is one difference; before or after is empty where there is nothing.
type change struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// cycleChange is an open cycle that is decided in another way.
type cycleChange struct {
	Transition string `json:"transition"`
	Period     string `json:"period"`
	Mode       string `json:"mode"`
	Before     string `json:"before"`
	After      string `json:"after"`
}

func (d difference) found() int {
	return len(d.Rules) + len(d.Deployment) + len(d.Cycles) + len(d.Names)
}

// compare lists what two sets of named texts differ in.
func compare(before, after map[string]string) (out []change) {
	out = []change{}
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] != after[name] {
			out = append(out, change{name, before[name], after[name]})
		}
	}
	return out
}

// rules compares what the two files say of phases, modes and schedules.
func rules(before, after *pipeline.Pipeline) []change { return compare(ruled(before), ruled(after)) }

func ruled(p *pipeline.Pipeline) map[string]string {
	out := map[string]string{"time zone": p.Calendar.Zone().String(), "period": periodWord(p.Calendar)}
	for _, phase := range p.Phases {
		if phase.Guard != nil {
			out["guard of "+phase.Name] = guardWords(phase.Guard)
		}
		for _, pr := range phase.Processors {
			out["processor "+pr.Name] = fmt.Sprintf("%s, table %s, key %s by %s, %s, duplicates %s", phase.Name, pr.Table, strings.Join(pr.Key, "+"), pr.OrderBy, pr.Partition, pr.Duplicates)
		}
	}
	for _, t := range p.Transitions {
		at := "transition " + t.ID
		out[at] = fmt.Sprintf("from %s to %s, within %s, shown in %s", t.UpstreamPhase, t.DownstreamPhase, policy.Short(t.TriggerWithin), t.CompatibilityCollection)
		if t.Checks != nil {
			for _, c := range t.Checks.All {
				out[at+" check "+c.Name] = strings.Join(strings.Fields(fmt.Sprintf("warn %s block %s: %s", c.Warn, c.Block, c.SQL)), " ")
			}
		}
		for _, m := range t.Modes {
			u, at := modeRules(p.Calendar, m), at+" mode "+m.Name
			for name, value := range u {
				out[at+" "+name] = value
			}
		}
	}
	return out
}

// modeRules has a mode's rules in words, without examples, which change from day to day.
func modeRules(c pipeline.Calendar, m pipeline.Mode) map[string]string {
	at := func(o *pipeline.Offset) string {
		if o == nil {
			return "none"
		}
		return offsetWords(c, *o)
	}
	out := map[string]string{"critical": strings.Join(m.Critical, ", "), "optional": strings.Join(m.Optional, ", "), "complete": string(m.Complete),
		"counts": at(&m.CountsFrom), "earliest": at(m.NotBefore), "deadline": at(m.Deadline), "grace": "none", "again": string(m.SecondRuns), "runs": string(m.Event),
		"accepts earlier runs of": strings.Join(m.AcceptEarlier, ", ")}
	if m.Grace != nil {
		out["grace"] = fmt.Sprintf("%s from %d %% on", policy.Short(m.Grace.After), m.Grace.QuorumPct)
	}
	if m.Deadline != nil {
		out["at deadline"] = string(m.AtDeadline)
	}
	return out
}

// deployment compares the resources that terraform/ makes from the two files.
func deployment(before, after *pipeline.Pipeline) []change {
	return compare(resources(before), resources(after))
}

func resources(p *pipeline.Pipeline) map[string]string {
	out := p.Resources()
	for _, name := range pipeline.Functions() {
		out["function "+pipeline.ResourceName(name)] = "pipeline file " + p.Hash
	}
	return out
}

// read compares the open cycles, by the same documents under both files.
func (d *difference) read(ctx context.Context, o *pipelineOptions, before, after *pipeline.Pipeline) error {
	if before.Hash == after.Hash {
		return nil
	}
	a, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	g := *o.flags
	g.pipeline = o.file
	b, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	renamed, err := b.Engine.Renamed(ctx, b.Pipeline)
	if err != nil {
		return err
	}
	d.Names = append(d.Names, sentences(renamed)...)
	if before.Calendar.Hourly() != after.Calendar.Hourly() {
		return errors.New("periods are days in one file and hours in the other: their cycles cannot be compared")
	}
	was, err := cyclesOf(ctx, a, o.days)
	if err != nil {
		return err
	}
	is, err := cyclesOf(ctx, b, o.days)
	if err != nil {
		return err
	}
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(x, y cycleKey) int { return strings.Compare(x.period+x.id, y.period+y.id) }) {
		old, hadOld := was[key]
		now, hasNow := is[key]
		if !open(old) && !open(now) {
			continue
		}
		shown := old
		if hasNow {
			shown = now
		}
		c := cycleChange{shown.Transition, shown.Period, shown.Mode, stateWords(before.Calendar, old, hadOld), stateWords(after.Calendar, now, hasNow)}
		if c.Before != c.After {
			d.Cycles = append(d.Cycles, c)
		}
	}
	return nil
}

// cycleKey names a cycle by what stays when names change.
type cycleKey struct{ period, id string }

func cyclesOf(ctx context.Context, a *app.App, days int) (map[cycleKey]cycle.Status, error) {
	out := map[cycleKey]cycle.Status{}
	from, to := a.Pipeline.Window(a.Now(), days)
	for _, t := range a.Pipeline.Transitions {
		managed, err := a.Engine.Managed(ctx, t)
		if err != nil {
			return nil, err
		}
		all, err := a.Engine.Cycles(ctx, t, from, to)
		if err != nil {
			return nil, err
		}
		for _, st := range all {
			if st.Recorded() || pipeline.Period(st.Period) >= managed.Since {
				out[cycleKey{st.Period, t.StoredID() + " " + t.StoredMode(st.Mode)}] = st
			}
		}
	}
	return out, nil
}

// open reports whether something is still to be decided of a cycle.
func open(st cycle.Status) bool {
	return st.State != "" && st.State != string(cycle.StatePublished) && st.State != string(policy.Closed)
}

// stateWords describes what a cycle waits for, by the zone's clock.
func stateWords(c pipeline.Calendar, st cycle.Status, known bool) string {
	switch {
	case !known:
		return "no such cycle"
	case st.Due:
		return "the next evaluation hands it over: " + plain(st.Reason)
	}
	s := st.State + ": " + plain(st.Reason)
	if next := st.NextCheck; !next.IsZero() {
		s += "; next check " + c.Local(next.Truncate(time.Minute))
	}
	return s
}

func (d *difference) text(b *page) {
	if d.Before == d.After {
		b.line("the files are equal: hash %s", d.Before)
		return
	}
	b.line("pipeline file %s becomes %s", d.Before, d.After)
	list := func(title, none string, changes []change) {
		b.title("%s", title)
		if len(changes) == 0 {
			b.line("  %s", none)
		}
		for _, c := range changes {
			switch {
			case c.Before == "":
				b.line("  + %s: %s", c.What, c.After)
			case c.After == "":
				b.line("  - %s: %s", c.What, c.Before)
			default:
				b.line("  ~ %s: %s → %s", c.What, c.Before, c.After)
			}
		}
	}
	list("rules", "none differs", d.Rules)
	list("deployment", "nothing differs", d.Deployment)
	b.title("open cycles")
	switch {
	case d.Unknown != "":
		b.line("  unknown: %s", d.Unknown)
	case len(d.Cycles) == 0:
		b.line("  none is decided differently")
	}
	for _, c := range d.Cycles {
		b.line("  %s %s of %s", c.Period, c.Mode, c.Transition)
		b.line("    before  %s", c.Before)
		b.line("    after   %s", c.After)
	}
	for _, name := range d.Names {
		b.line("  renamed? %s", plain(name))
	}
}
