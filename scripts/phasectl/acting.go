package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// openToAct opens the application for a command that changes something. It refuses one whose
// pipeline file is not the deployed one. The command would work on other modes and processors
// than the functions do, or hand over days again under other names.
func (f *flags) openToAct(ctx context.Context) (*app.App, error) {
	a, err := f.open(ctx)
	if err != nil || f.differs {
		return a, err
	}
	if err := agrees(ctx, a); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// agrees compares this command's pipeline file with the deployed one, and with the state.
func agrees(ctx context.Context, a *app.App) error {
	deployed, at, err := a.Deployed(ctx)
	if err != nil {
		return unknown(fmt.Errorf("cannot read which pipeline file the functions run: %w; to continue without this check, add --definition-differs", err))
	}
	if deployed != "" && deployed != a.Pipeline.Hash {
		return findings(fmt.Errorf("the pipeline file of this command, %s, has the hash %s; the deployed functions run %s (as of %s). Name the deployed file with --pipeline, deploy this one, or continue with --definition-differs",
			fileName(a.Config), a.Pipeline.Hash, deployed, at.UTC().Format(time.RFC3339)))
	}
	renamed, err := a.Engine.Renamed(ctx, a.Pipeline)
	if err != nil {
		return unknown(fmt.Errorf("cannot read whether a name was changed: %w; to continue without this check, add --definition-differs", err))
	}
	if len(renamed) > 0 {
		return findings(errors.New(strings.Join(sentences(renamed), "; ") + "; to continue in spite of that, add --definition-differs"))
	}
	return nil
}

// names verifies, before a deployment, that nothing that has state was renamed without the
// pipeline file saying so. Where no documents can be yet there is nothing to ask.
func names(ctx context.Context, c app.Config) []warehouse.Verification {
	v := warehouse.Verification{Name: "names"}
	kind, file, _ := strings.Cut(c.Store, ":")
	if _, err := os.Stat(file); kind == "memory" || kind == "sqlite" && err != nil || !c.Local && c.BigQueryHost != "" {
		return nil // of Google's documents a warehouse on this machine says nothing
	}
	a, err := app.Open(ctx, c, stores(time.Now), time.Now, io.Discard)
	if err != nil {
		v.Unknown, v.Problem = true, fmt.Sprintf("cannot determine whether a name was changed: %v", err)
		return []warehouse.Verification{v}
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, namesWithin)
	defer cancel()
	renamed, err := a.Engine.Renamed(ctx, a.Pipeline)
	switch {
	// No database, or not even its service, before the first deployment.
	case status.Code(err) == codes.NotFound, err != nil && strings.Contains(err.Error(), "has not been used in project"):
	case err != nil:
		v.Unknown, v.Problem = true, fmt.Sprintf("cannot determine whether a name was changed: %v", err)
	case len(renamed) > 0:
		v.Problem = strings.Join(sentences(renamed), "; ")
	}
	if v.Problem == "" {
		return nil
	}
	return []warehouse.Verification{v}
}

// namesWithin bounds reading the state before a deployment.
const namesWithin = time.Minute

func fileName(c app.Config) string {
	if c.PipelineFile == "" {
		return "the embedded nba.yaml"
	}
	return c.PipelineFile
}

func sentences(renamed []cycle.Renaming) (out []string) {
	for _, r := range renamed {
		out = append(out, r.String())
	}
	return out
}
