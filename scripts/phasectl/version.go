package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
)

func versionCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version and the hash of the source that this was built from",
		Example: "  phasectl version",
	}
	return answers(f, cmd, func(context.Context) (*versionAnswer, error) {
		return &versionAnswer{app.Version, app.SourceHash}, nil
	})
}

type versionAnswer struct {
	Version    string `json:"version"`
	SourceHash string `json:"source_hash"`
}

func (r *versionAnswer) text(p *page) { p.line("phasectl %s, source %s", r.Version, r.SourceHash) }
