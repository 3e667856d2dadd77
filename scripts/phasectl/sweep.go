package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/sweep"
)

type sweepOptions struct {
	*flags
	subject
	act
	order sweep.Order
}

func sweepCommand(f *flags) *cobra.Command {
	o := sweepOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "sweep [PERIOD]",
		Short: "Find duplicate rows, and remove all but the surviving row of each key",
		Long: "Find rows that share a natural key, and with --fix remove all but the surviving row: the newest, then\n" +
			"the one with the fewest NULLs. Removed rows are kept for 30 days, and sweep undo puts them back. Without --fix nothing is\n" +
			"changed.\n\n" +
			"No row is removed if a processor is at work, if a key column holds NULL, or if rows are still in a streaming\n" +
			"buffer. To remove more than a quarter of a period's rows, or more than 10,000, add --force.\n\n" +
			"Exit status: 0 no duplicates are left, 1 duplicates are left, 2 a table could not be read, or an interrupt ended\n" +
			"the command. It reports the rows removed until then, and the same command removes the others.",
		Example: "  phasectl sweep --days 7\n  phasectl sweep 2026-02-03 --table player_game_summary --fix",
	}
	o.takes(cmd, 1)
	o.window(cmd, 7)
	o.fixes(f, cmd, "remove duplicates")
	cmd.Flags().StringVar(&o.order.Table, "table", "", "one table, dataset.table or the name of a processor (default: all)")
	cmd.Flags().BoolVar(&o.order.Force, "force", false, "remove them even if they are many; needs --reason")
	cmd.Flags().StringVar(&o.reason, "reason", "", "the reason, in words that the next operator understands")
	f.needs(cmd, lacks("--fix", func() bool { return o.order.Force && !o.fix }, "--fix"), o.needsReason(func() bool { return o.order.Force && !o.dryRun }))
	cmd.AddCommand(sweepList(f), sweepUndo(f))
	return answers(f, cmd, on(o.openAct, o.run))
}

// swept is a report, and how it is shown.
type swept struct {
	sweep.Report
	order sweep.Order
}

func (o *sweepOptions) run(ctx context.Context, a *app.App) (*swept, error) {
	s, err := sweep.New(a)
	if err != nil {
		return nil, unknown(err)
	}
	o.order.Actor, o.order.Reason = actor(), o.reason
	if o.order.From, o.order.To, err = o.periods(a.Pipeline.Calendar, a.Now(), a.Pipeline.Window); err != nil {
		return nil, err
	}
	if o.changes() {
		if err := o.confirm(ctx, "remove duplicate rows of %s, %s to %s; they can be put back for 30 days", cmp.Or(o.order.Table, "all tables"), o.order.From, o.order.To); err != nil {
			return nil, err
		}
		o.order.Fix = func(pipeline.Processor) bool { return true }
	}
	o.progress("reading %s, %s to %s…", cmp.Or(o.order.Table, "all tables"), o.order.From, o.order.To)
	report, err := s.Run(ctx, o.order)
	r := &swept{report, o.order}
	switch {
	case errors.Is(err, sweep.ErrNoTable):
		return nil, usage(fmt.Errorf("--table: %w", err))
	case err != nil:
		return nil, refusedSweep(err)
	case ctx.Err() != nil:
		return r, unknown(errStopped)
	case r.Unknown() > 0:
		return r, unknown(errors.New(pipeline.Count(r.Unknown(), "table or period could not be swept", "tables or periods could not be swept")))
	case r.Left() > 0:
		return r, findings(errors.New(pipeline.Count(r.Left(), "duplicate row is left", "duplicate rows are left")))
	case r.Open() > 0:
		return r, findings(errors.New(pipeline.Count(r.Open(), "table or period has rows that need a person", "tables or periods have rows that need a person")))
	}
	return r, nil
}

// refusedSweep names the variable because of which an environment removes nothing.
func refusedSweep(err error) error {
	switch {
	case errors.Is(err, sweep.ErrShadow):
		return usage(fmt.Errorf("PHASEGATE_SHADOW: %w", err))
	case errors.Is(err, sweep.ErrReadOnly):
		return usage(fmt.Errorf("PHASEGATE_TABLES: %w", err))
	}
	return unknown(err)
}

func (r *swept) text(p *page) {
	var found, removed, bytes int64
	p.listing("", "STATE", "SEVERITY", "PERIOD", "TABLE", "DUPLICATES")
	for _, t := range r.Tables {
		found, removed, bytes = found+t.Duplicates, removed+t.Removed, bytes+t.Bytes
		what := ""
		if t.Period != "" && t.Rows > 0 {
			what = fmt.Sprintf("%d of %s too many", t.Duplicates, pipeline.Count(t.Rows, "row", "rows"))
		}
		p.row(string(t.State), string(t.Severity), string(t.Period), t.Table, what)
		if t.Oldest != nil {
			p.detail("written %s to %s", p.at(*t.Oldest), p.at(*t.Newest))
		}
		if t.Identical != nil {
			p.detail("%s", keysText(t.Keys, *t.Identical))
		}
		for _, e := range t.Examples {
			p.detail("%s: %s", e.Key, pipeline.Count(e.Rows, "row", "rows"))
		}
		if t.Problem != "" {
			p.detail("%s", t.Problem)
		}
		if t.Removed > 0 {
			p.detail("to put them back: phasectl sweep undo %s", t.ID)
		}
	}
	p.line("%s to %s: %s, %d removed, %d left, %d unknown; %d bytes read", r.order.From, r.order.To, pipeline.Count(found, "duplicate", "duplicates"), removed, r.Left(), r.Unknown(), bytes)
	if r.order.Fix == nil && r.Left() > 0 {
		p.line("to remove them: phasectl sweep %s%s --fix", windowWords(r.order.From, r.order.To), tableFlag(r.order.Table))
	}
}

// keysText says how many keys have more than one row, and whether a key's rows differ.
func keysText(keys, identical int64) string {
	text := pipeline.Count(keys, "key has more than one row", "keys have more than one row")
	switch {
	case identical == 0:
		return text + ", and the rows of a key differ"
	case identical >= keys:
		return text + ", and the rows of a key are identical"
	}
	return text + fmt.Sprintf(". The rows are identical for %d of these keys, and differ for %d", identical, keys-identical)
}

func tableFlag(table string) string {
	if table == "" {
		return ""
	}
	return " --table " + table
}

func sweepList(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the removals of the last 30 days, and how to undo them",
		Example: "  phasectl sweep list",
	}
	return answers(f, cmd, on(f.open, listRemovals))
}

func listRemovals(ctx context.Context, a *app.App) (*removals, error) {
	listed, err := sweep.Removals(ctx, a) // which needs no warehouse
	if err != nil {
		return nil, unknown(err)
	}
	return &removals{listed}, nil
}

type removals struct {
	Sweeps []sweep.Listed `json:"sweeps"`
}

func (r *removals) text(p *page) {
	p.listing("nothing was removed in the last 30 days", "AT", "STATE", "PERIOD", "TABLE", "REMOVED")
	for _, l := range r.Sweeps {
		p.row(p.at(l.At), string(l.State), string(l.Period), l.Table, pipeline.Count(l.Removed, "row", "rows"))
		p.detail("by %s  %s", quoted(l.Actor), quoted(l.Reason))
		if l.Undoable {
			p.detail("until %s: phasectl sweep undo %s", p.at(l.Until), l.ID)
		}
	}
}

type undoOptions struct {
	act
	id string
}

func sweepUndo(f *flags) *cobra.Command {
	var o undoOptions
	cmd := &cobra.Command{
		Use:   "undo ID",
		Short: "Put back the rows that a sweep removed, exactly as they were",
		Long: "Put back the rows that a sweep, or one of its removals, removed: exactly as they were, or not at all. A table that\n" +
			"was rewritten since is not changed.\n\n" +
			"Exit status: 0 the rows are back, 1 the removal cannot be undone, 2 the outcome is unknown.",
		Example: "  phasectl sweep list\n  phasectl sweep undo 20260204t155000-3jkx7m2p --reason \"the wrong one stayed\"",
	}
	f.words(cmd, word{"ID", "20260204t155000-3jkx7m2p", &o.id})
	o.optional(f, cmd)
	cmd.Flags().StringVar(&o.reason, "reason", "", "the reason, in words that the next operator understands")
	return answers(f, cmd, on(o.openAct, o.run))
}

type undoAnswer struct {
	DryRun bool           `json:"dry_run"`
	Undone []sweep.Undone `json:"undone"`
	Would  []sweep.Listed `json:"would,omitempty"` // of a dry run
}

func (r *undoAnswer) text(p *page) {
	for _, l := range r.Would {
		p.line("%s: would put %s back into %s for %s", l.ID, pipeline.Count(l.Removed, "row", "rows"), l.Table, l.Period)
	}
	for _, u := range r.Undone {
		switch {
		case u.Problem != "":
		case u.Restored == 0:
			p.line("%s: was undone before", u.ID)
		default:
			p.line("%s: %s back in %s for %s", u.ID, pipeline.Count(u.Restored, "row is", "rows are"), u.Table, u.Period)
		}
	}
}

func (o *undoOptions) run(ctx context.Context, a *app.App) (*undoAnswer, error) {
	s, err := sweep.New(a)
	if err != nil {
		return nil, unknown(err)
	}
	if o.dryRun {
		listed, err := sweep.Removals(ctx, a)
		if err != nil {
			return nil, unknown(err)
		}
		r := &undoAnswer{DryRun: true, Undone: []sweep.Undone{}, Would: slices.DeleteFunc(listed, func(l sweep.Listed) bool {
			return l.ID != o.id && !strings.HasPrefix(l.ID, o.id+"~") || !l.Undoable
		})}
		if len(r.Would) == 0 {
			return nil, findings(fmt.Errorf("%s: %w that can be undone", o.id, sweep.ErrNoSweep))
		}
		return r, nil
	}
	if err := o.confirm(ctx, "put back the rows that %s removed", o.id); err != nil {
		return nil, err
	}
	undone, err := s.Undo(ctx, o.id, actor(), o.reason)
	unclear := slices.ContainsFunc(undone, func(u sweep.Undone) bool { return u.Unknown })
	r := &undoAnswer{Undone: append([]sweep.Undone{}, undone...)}
	switch {
	case err != nil && !unclear && (len(undone) > 0 || errors.Is(err, sweep.ErrNoSweep)):
		return r, findings(err)
	case err != nil:
		return r, refusedSweep(err)
	}
	return r, nil
}
