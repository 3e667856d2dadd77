package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/store/sqlite"
)

// flags stand before the environment.
type flags struct {
	project, pipeline string
	differs           bool // an acting command goes on with another definition than the deployed one
	json              bool // the answer is one JSON object

	every          time.Duration // the answer is shown again
	stdout, stderr io.Writer
	opened         *opened                         // what the answer is about, once it is known
	headed         bool                            // the answer has its first line
	types          map[*cobra.Command]reflect.Type // of the answer of each command
	needed         map[*cobra.Command][]need       // what the lines of each command must have
}

// clock is this machine's; tests of a whole night set another.
var clock = time.Now

// opened is what a command has opened.
type opened struct {
	config   app.Config
	pipeline *pipeline.Pipeline
}

// getenv is the environment with the flags over it and defaults below it.
func (f *flags) getenv(defaults map[string]string) func(string) string {
	over := map[string]string{"GOOGLE_CLOUD_PROJECT": f.project, "PIPELINE_FILE": f.pipeline}
	return func(name string) string {
		for _, s := range []string{over[name], os.Getenv(name), defaults[name]} {
			if s != "" {
				return s
			}
		}
		return ""
	}
}

// definition reads the pipeline file.
func (f *flags) definition() (*pipeline.Pipeline, error) {
	return app.Config{PipelineFile: f.getenv(nil)("PIPELINE_FILE")}.LoadPipeline()
}

// configured reads the pipeline file and the environment. An error in the file comes before an
// error about the project or the credentials.
func (f *flags) configured() (app.Config, *pipeline.Pipeline, error) {
	p, err := f.definition()
	if err != nil {
		return app.Config{}, nil, usage(err)
	}
	c, err := app.ConfigFromEnv(f.getenv(nil))
	return c, p, usage(err)
}

// stores opens every kind of store with a clock for those that need one.
func stores(now func() time.Time) app.Stores {
	return func(ctx context.Context, c app.Config) (store.Store, error) {
		kind, name, _ := strings.Cut(c.Store, ":")
		switch kind {
		case "memory":
			return memory.New(now), nil
		case "sqlite":
			return sqlite.Open(name, now)
		}
		return production.Firestore(ctx, c)
	}
}

// open makes an App for a command that talks to a running system. Logs go to
// standard error: standard output is the command's answer.
func (f *flags) open(ctx context.Context) (*app.App, error) {
	return f.openLogging(ctx, "warn", os.Stderr)
}

// openLogging is open with the log level and the writer for use without a terminal.
func (f *flags) openLogging(ctx context.Context, level string, w io.Writer) (*app.App, error) {
	if cli.Terminal(os.Stderr) {
		level = "error" // a person is reading, and reads the answer
	}
	getenv := f.getenv(map[string]string{"LOG_LEVEL": level})
	c, err := app.ConfigFromEnv(getenv)
	if err != nil {
		if getenv("GOOGLE_CLOUD_PROJECT") == "" {
			err = fmt.Errorf("%w\n  while phasectl local runs: eval \"$(phasectl env)\"\n  for a project of Google Cloud: add --project PROJECT", err)
		}
		return nil, usage(err)
	}
	if c.Store == "memory" {
		return nil, usage(fmt.Errorf("PHASEGATE_STORE: memory is empty outside the process that fills it"))
	}
	if file, ok := strings.CutPrefix(c.Store, "sqlite:"); ok {
		// Opening would create it, and an empty store reads as if nothing had happened.
		if _, err := os.Stat(file); err != nil {
			return nil, unknown(fmt.Errorf("PHASEGATE_STORE: %w", err))
		}
	}
	if _, err := c.LoadPipeline(); err != nil {
		return nil, usage(err)
	}
	a, err := app.Open(ctx, c, stores(clock), clock, w)
	if err != nil {
		return nil, unknown(err)
	}
	f.opened = &opened{a.Config, a.Pipeline}
	return a, nil
}
