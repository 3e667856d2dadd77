// Command guard is phasectl guard alone, with Firestore as its only store: a small static
// binary for containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/phasegate/phasegate/shared/guard/guardcmd"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := guardcmd.New(open, load)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "guard:", err)
	var wrong guardcmd.UsageError
	var ended guardcmd.ExitError
	switch {
	case errors.As(err, &ended):
		os.Exit(ended.Code)
	case errors.As(err, &wrong):
		os.Exit(64)
	}
	os.Exit(2)
}

// load reads the pipeline file that the environment names.
func load() (*pipeline.Pipeline, error) {
	file := os.Getenv("PIPELINE_FILE")
	if file == "" {
		return nil, errors.New("--phase: PIPELINE_FILE is not set")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("PIPELINE_FILE: %w", err)
	}
	return pipeline.Parse(data)
}

// open opens Firestore as the environment names it.
func open(ctx context.Context) (store.Store, func() error, error) {
	project := os.Getenv("GOOGLE_CLOUD_PROJECT")
	if project == "" {
		return nil, nil, guardcmd.Usage("GOOGLE_CLOUD_PROJECT is not set")
	}
	kind, database, _ := strings.Cut(os.Getenv("PHASEGATE_STORE"), ":")
	if kind != "" && kind != "firestore" {
		return nil, nil, guardcmd.Usage(fmt.Sprintf("PHASEGATE_STORE %q: is not firestore or firestore:DATABASE", kind))
	}
	s, err := firestore.Open(ctx, project, database)
	if err != nil {
		return nil, nil, err
	}
	return s, s.Close, nil
}
