package devcmd

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// Serve is the command serve. Its words are the names of functions.
func Serve(host func() Host) *cobra.Command {
	var port int
	cmd := &cobra.Command{
		Use:   "serve NAME...",
		Short: "Serve functions at /NAME until SIGTERM, then drain",
		Long: "Serve functions with their own handlers at /NAME and /NAME/…, configured by the environment.\n" +
			"Nothing is created. The first line on standard output says where; logs follow.\n\n" +
			"Functions: " + strings.Join(pipeline.Functions(), ", "),
		Example: "  phasectl serve transition reconcile --port 8088",
		RunE: func(cmd *cobra.Command, names []string) error {
			return host().serve(cmd.Context(), port, names, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&port, "port", 8088, "port on the loopback interface; 0 picks a free one")
	return cmd
}

func (h Host) serve(ctx context.Context, port int, names []string, out io.Writer) error {
	c, err := app.ConfigFromEnv(h.Getenv)
	if err != nil {
		return cli.Usage(err)
	}
	lazy := &app.Lazy{Open: func(ctx context.Context) (*app.App, error) {
		return app.Open(ctx, c, h.Stores(time.Now), time.Now, out)
	}}
	s, err := serve.Start(port, lazy.Get, names, nil)
	if err != nil {
		return startError(err)
	}
	if err := cli.PrintLine(out, map[string]string{"event": "ready", "url": s.URL}); err != nil {
		return err
	}
	select {
	case err := <-s.Failed():
		return err
	case <-ctx.Done():
		return errors.Join(s.Drain(), lazy.Close())
	}
}
