// Package devcmd has the commands that run functions on this machine: local, demo and serve. Other
// commands read what they wrote, [Ready], and never the environment itself.
package devcmd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
)

// project is the local environment's own.
const project = "phasegate-local"

// Host is the program that the commands belong to.
type Host struct {
	Getenv  func(name string) string // the environment, with the program's flags over it
	Project string                   // that a flag names, or ""
	Stores  func(now func() time.Time) app.Stores
	Now     func() time.Time
}

// Config is the environment's configuration with the local defaults below it and
// the store fixed: a local environment never opens production's.
func (h Host) Config(store string) (app.Config, error) {
	c, err := app.ConfigFromEnv(func(name string) string {
		switch name {
		case "PHASEGATE_STORE":
			return store
		case "GOOGLE_CLOUD_PROJECT": // never production's either, unless named by the flag
			if h.Project == "" {
				return project
			}
		}
		return h.Getenv(name)
	})
	if err != nil {
		return c, cli.Usage(err)
	}
	if _, err := c.LoadPipeline(); err != nil {
		return c, cli.Usage(err)
	}
	if c.PipelineFile != "" { // other commands may run in another folder
		c.PipelineFile, err = filepath.Abs(c.PipelineFile)
	}
	return c, err
}

// startError tells wrong names from a machine that cannot serve, say a port in use.
func startError(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return cli.Findings(err)
	}
	return cli.Usage(err)
}

// bigQueryProgram is the emulator in the folder of this command, "" if it was not built.
func bigQueryProgram() string {
	self, err := os.Executable()
	program := filepath.Join(filepath.Dir(self), "bqemu")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		return ""
	}
	return program
}
