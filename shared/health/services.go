package health

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// errNotDeployed means that a local environment has no services.
var errNotDeployed = errors.New("nothing is deployed on this machine")

// services returns the services of a deployment's project, by name. One call.
func services(ctx context.Context, a *app.App, opts ...option.ClientOption) (map[string]deployed.Service, error) {
	if a.Config.PubSubHost != "" {
		return nil, errNotDeployed
	}
	return deployed.Services(ctx, a.Config.Project, opts...)
}

// deployedServices compares the services behind the functions and behind the phases with
// what a deployment that came to its end leaves.
func deployedServices(f *facts) Check {
	v := verdict{action: "phasectl drift", whenUnknown: "phasectl drift"}
	if f.servicesErr != nil {
		v.notKnown("%v", f.servicesErr)
		return v.check()
	}
	find := func(name string) (deployed.Service, bool) {
		s, ok := f.services[name]
		switch drift := s.Drift(); {
		case !ok:
			v.failing("%s does not exist", name)
		case drift != "":
			v.failing("%s: %s", name, drift)
		default:
			return s, true
		}
		return s, false
	}
	for _, name := range f.ownServices {
		if s, ok := find(name); ok {
			v.ok("%s: revision %s, all traffic", name, s.Ready)
		}
	}
	for _, phase := range f.pipeline.Phases {
		if phase.Service == "" {
			v.ok("the pipeline file names no service of %s", phase.Name)
			continue
		}
		switch s, ok := find(phase.Service); {
		case ok && s.Commit == "":
			v.notKnown("%s: revision %s, all traffic, and no label %s: its commit is unknown", phase.Service, s.Ready, deployed.CommitLabel)
		case ok:
			v.ok("%s: revision %s, all traffic, commit %s", phase.Service, s.Ready, s.Commit)
		}
	}
	return v.check()
}

// ownServices are the names of the services behind the functions.
func (c *Checker) ownServices() (out []string) {
	for _, name := range append(c.watched(), pipeline.FunctionTransition) {
		out = append(out, c.Prefix+pipeline.ResourceName(name))
	}
	slices.Sort(out)
	return out
}
