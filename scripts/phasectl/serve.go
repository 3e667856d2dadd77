package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func serveCommand(f *flags) *cobra.Command {
	var port int
	var names []string
	cmd := &cobra.Command{
		Use:   "serve NAME...",
		Short: "Serve functions at /NAME until SIGTERM, then drain",
		Long: "Serve functions with their own handlers at /NAME and /NAME/…, configured by the environment.\n" +
			"Nothing is created. The first line on standard output says where; logs follow.\n\n" +
			"Functions: " + strings.Join(pipeline.Functions(), ", "),
		Example: "  phasectl serve transition reconcile --port 8088",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.ConfigFromEnv(f.getenv(nil))
			if err != nil {
				return usage(err)
			}
			lazy := &app.Lazy{Open: func(ctx context.Context) (*app.App, error) {
				return app.Open(ctx, c, stores(time.Now), time.Now, cmd.OutOrStdout())
			}}
			s, err := local.Serve(port, lazy.Get, names, nil)
			if err != nil {
				return startError(err)
			}
			if err := printLine(cmd.OutOrStdout(), map[string]string{"event": "ready", "url": s.URL}); err != nil {
				return err
			}
			select {
			case err := <-s.Failed():
				return err
			case <-cmd.Context().Done():
				return errors.Join(s.Drain(), lazy.Close())
			}
		},
	}
	cmd.Args = func(_ *cobra.Command, given []string) error {
		names = given
		return nil
	}
	f.needs(cmd, lacks("NAME", func() bool { return len(names) == 0 }, "transition"))
	cmd.Flags().IntVar(&port, "port", 8088, "port on the loopback interface; 0 picks a free one")
	return cmd
}

// startError tells wrong names from a machine that cannot serve, say a port in use.
func startError(err error) error {
	var network *net.OpError
	if errors.As(err, &network) {
		return findings(err)
	}
	return usage(err)
}

func printLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}

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
