package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/sweep"
)

// complete has a shell complete what the pipeline file names, and no file names where no
// file is wanted.
func (f *flags) complete(cmd *cobra.Command) {
	for _, flag := range []string{"period", "from", "to"} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return f.days(), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	for _, flag := range []string{"mode", "processor", "table", "transition"} {
		if cmd.Flags().Lookup(flag) != nil {
			// It can only fail for a flag that is not there, or twice.
			_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return f.names(flag), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	if cmd.Name() != "completion" { // cobra's own
		cmd.ValidArgsFunction = func(cmd *cobra.Command, before []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch name := cmd.Name(); {
			case cmd.CommandPath() == "phasectl run" && len(before) > 0: // a command follows, with files
				return nil, cobra.ShellCompDirectiveDefault
			case cmd.HasParent() && stored[cmd.Parent().Name()+" "+name] != nil:
				return f.fromStore(cmd, stored[cmd.Parent().Name()+" "+name], before), cobra.ShellCompDirectiveNoFileComp
			case name == "serve":
				return pipeline.Functions(), cobra.ShellCompDirectiveNoFileComp
			case cmd.Flags().Lookup("period") != nil && len(before) == 0:
				return f.days(), cobra.ShellCompDirectiveNoFileComp
			case cmd.Flags().Lookup("mode") != nil && len(before) == 1:
				return f.names("mode"), cobra.ShellCompDirectiveNoFileComp
			case len(before) == 0 && name == "complete":
				return f.names("processor"), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	for _, below := range cmd.Commands() {
		f.complete(below)
	}
}

// stored are the commands whose words are in the store: what they can be about, each with a
// description behind a tab.
var stored = map[string]func(context.Context, *app.App) ([]string, error){
	"locks release": func(ctx context.Context, a *app.App) (out []string, err error) {
		states, at, err := a.Locks.List(ctx)
		for _, s := range states {
			out = append(out, s.Key+"\t"+string(lineOf(s, at).State)+" by "+plain(s.Execution))
		}
		return out, err
	},
	"quarantine show": quarantineIDs, "quarantine replay": quarantineIDs, "quarantine discard": quarantineIDs,
	"sweep undo": func(ctx context.Context, a *app.App) (out []string, err error) {
		listed, err := sweep.Removals(ctx, a)
		for _, l := range listed {
			if l.Undoable {
				out = append(out, fmt.Sprintf("%s\t%s of %s for %s", l.ID, pipeline.Count(l.Removed, "row", "rows"), l.Table, l.Period))
			}
		}
		return out, err
	},
}

func quarantineIDs(ctx context.Context, a *app.App) (out []string, err error) {
	qs, err := quarantined(ctx, a, false)
	for _, q := range qs {
		out = append(out, q.ID+"\t"+plain(q.Reason))
	}
	return out, err
}

// completeWithin bounds a question to the store while a person waits at the keyboard.
const completeWithin = 3 * time.Second

// fromStore asks the store; what cannot be read completes nothing.
func (f *flags) fromStore(cmd *cobra.Command, list func(context.Context, *app.App) ([]string, error), before []string) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	a, err := f.openLogging(ctx, "error", io.Discard)
	if err != nil {
		return nil
	}
	defer a.Close()
	all, err := list(ctx, a)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(s string) bool {
		word, _, _ := strings.Cut(s, "\t")
		return slices.Contains(before, word)
	})
}

// days are the last week's, as words and as dates.
func (f *flags) days() []string {
	out := []string{"today", "yesterday"}
	p, err := f.definition()
	if err != nil {
		return out
	}
	cal := p.Calendar.Daily()
	for n := range 7 {
		out = append(out, string(cal.Add(cal.At(clock()), -n)))
	}
	return out
}

// names are those of the pipeline file, as far as it can be read: completing is no place
// for errors.
func (f *flags) names(of string) (names []string) {
	p, err := f.definition()
	if err != nil {
		return nil
	}
	for _, t := range p.Transitions {
		switch of {
		case "transition":
			names = append(names, t.ID)
		case "mode":
			for _, m := range t.Modes {
				names = append(names, m.Name)
			}
		}
	}
	for _, pr := range p.Processors() {
		switch of {
		case "processor":
			names = append(names, pr.Name)
		case "table":
			names = append(names, pr.Table)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
