package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/local"
	"github.com/phasegate/phasegate/shared/app"
)

// complete has a shell complete what the pipeline file names, and no file names where no
// file is wanted.
func (f *flags) complete(cmd *cobra.Command) {
	for _, flag := range []string{"mode", "processor", "table", "transition"} {
		if cmd.Flags().Lookup(flag) != nil {
			// It can only fail for a flag that is not there, or twice.
			_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return f.names(flag), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	switch cmd.Name() {
	case "run", "completion": // a command follows; cobra's own
	default:
		cmd.ValidArgsFunction = func(cmd *cobra.Command, before []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch name := cmd.Name(); {
			case name == "serve":
				return local.FunctionNames(), cobra.ShellCompDirectiveNoFileComp
			case cmd.Flags().Lookup("period") != nil && len(before) == 0:
				return []string{"today", "yesterday"}, cobra.ShellCompDirectiveNoFileComp
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

// names are those of the pipeline file, as far as it can be read: completing is no place
// for errors.
func (f *flags) names(of string) (names []string) {
	p, err := app.Config{PipelineFile: f.getenv(nil)("PIPELINE_FILE")}.LoadPipeline()
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
	for _, phase := range p.Phases {
		for _, pr := range phase.Processors {
			switch of {
			case "processor":
				names = append(names, pr.Name)
			case "table":
				names = append(names, pr.Table)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
