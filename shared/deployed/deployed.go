// Package deployed reads what is deployed: the functions with their archives, the services
// behind them and behind the pipeline's phases with their revisions and traffic, and the
// scheduler's jobs.
//
// One call reads each kind, for jobs one call in each region, and one more for each further
// page. The caller needs the rights to list them. A kind that cannot be read has an error of
// its own; the others are still read.
package deployed

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/api/cloudfunctions/v2"
	"google.golang.org/api/cloudscheduler/v1"
	"google.golang.org/api/option"
	"google.golang.org/api/run/v1"
)

// Deployed lists the deployed resources of a project, by name.
type Deployed struct {
	Functions    map[string]Function
	FunctionsErr error
	Services     map[string]Service
	ServicesErr  error
	Jobs         map[string]Job
	JobsErr      error
}

// Function is one of 2nd generation.
type Function struct {
	Region string
	State  string // ACTIVE where it can be called
	Source string // hash in the name of its archive, "" where that has another form
	// Updated is when it was deployed last, UTC; zero where the platform does not say.
	Updated time.Time
}

// Service is one of Cloud Run: a function's, or another.
type Service struct {
	Region  string
	Created string // revision that was made last
	Ready   string // revision that was ready last
	Traffic []Target
	Commit  string // of the label, "" where there is none
}

// Target is a revision that requests go to.
type Target struct {
	Revision string
	Latest   bool // whichever is the latest
	Percent  int64
}

// Job is one of the scheduler's.
type Job struct {
	Region, State string // ENABLED where it runs
	Cron, Zone    string
}

// CommitLabel is the label that says from which commit a service was built. Cloud Build's
// triggers set it: https://cloud.google.com/run/docs/continuous-deployment-with-cloud-build.
const CommitLabel = "commit-sha"

// archiveForm is the name of a function's archive.
var archiveForm = regexp.MustCompile(`-([0-9a-f]{12})\.zip$`)

// limit is how long reading all of it may take: the platform's clients have no limit of
// their own.
const limit = 30 * time.Second

// Read reads all of it.
func Read(ctx context.Context, project string, opts ...option.ClientOption) Deployed {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d Deployed
	var wg sync.WaitGroup
	wg.Go(func() { d.Services, d.ServicesErr = Services(ctx, project, opts...) })
	wg.Go(func() {
		d.Functions, d.FunctionsErr = functions(ctx, project, opts)
		if d.FunctionsErr != nil {
			d.JobsErr = fmt.Errorf("jobs: in which region they are is not known: %w", d.FunctionsErr)
			return
		}
		var regions []string
		for _, f := range d.Functions {
			if !slices.Contains(regions, f.Region) {
				regions = append(regions, f.Region)
			}
		}
		d.Jobs, d.JobsErr = jobs(ctx, project, regions, opts)
	})
	wg.Wait()
	return d
}

func functions(ctx context.Context, project string, opts []option.ClientOption) (map[string]Function, error) {
	api, err := cloudfunctions.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Functions: %w", err)
	}
	out := map[string]Function{}
	err = api.Projects.Locations.Functions.List("projects/"+project+"/locations/-").Pages(ctx, func(page *cloudfunctions.ListFunctionsResponse) error {
		if len(page.Unreachable) > 0 { // they may be there
			return fmt.Errorf("%s cannot be reached", strings.Join(page.Unreachable, ", "))
		}
		for _, f := range page.Functions {
			got := Function{Region: part(f.Name, "locations"), State: f.State}
			got.Updated, _ = time.Parse(time.RFC3339Nano, f.UpdateTime)
			if b := f.BuildConfig; b != nil && b.Source != nil && b.Source.StorageSource != nil {
				if m := archiveForm.FindStringSubmatch(b.Source.StorageSource.Object); m != nil {
					got.Source = m[1]
				}
			}
			out[path.Base(f.Name)] = got
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("functions: %w", err)
	}
	return out, nil
}

// part returns what follows a word in a resource's name.
func part(name, word string) string {
	parts := strings.Split(name, "/")
	if i := slices.Index(parts, word); i >= 0 && i+1 < len(parts) {
		return parts[i+1]
	}
	return ""
}

// Services are read by the interface that knows all regions at once: one call a page.
func Services(ctx context.Context, project string, opts ...option.ClientOption) (map[string]Service, error) {
	api, err := run.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Run: %w", err)
	}
	out := map[string]Service{}
	for next := ""; ; {
		page, err := api.Namespaces.Services.List("namespaces/" + project).Continue(next).Context(ctx).Do()
		if err != nil {
			return nil, fmt.Errorf("services: %w", err)
		}
		if len(page.Unreachable) > 0 {
			return nil, fmt.Errorf("services: %s cannot be reached", strings.Join(page.Unreachable, ", "))
		}
		for _, s := range page.Items {
			if s.Metadata == nil {
				continue
			}
			got := Service{Region: s.Metadata.Labels["cloud.googleapis.com/location"], Commit: s.Metadata.Labels[CommitLabel]}
			if s.Status != nil {
				got.Created, got.Ready = s.Status.LatestCreatedRevisionName, s.Status.LatestReadyRevisionName
				for _, t := range s.Status.Traffic {
					got.Traffic = append(got.Traffic, Target{t.RevisionName, t.LatestRevision, t.Percent})
				}
			}
			out[s.Metadata.Name] = got
		}
		if page.Metadata == nil || page.Metadata.Continue == "" {
			return out, nil
		}
		next = page.Metadata.Continue
	}
}

func jobs(ctx context.Context, project string, regions []string, opts []option.ClientOption) (map[string]Job, error) {
	api, err := cloudscheduler.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Scheduler: %w", err)
	}
	out := map[string]Job{}
	for _, region := range regions {
		err := api.Projects.Locations.Jobs.List("projects/"+project+"/locations/"+region).Pages(ctx, func(page *cloudscheduler.ListJobsResponse) error {
			for _, j := range page.Jobs {
				out[path.Base(j.Name)] = Job{Region: region, State: j.State, Cron: j.Schedule, Zone: j.TimeZone}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("jobs of %s: %w", region, err)
		}
	}
	return out, nil
}

// Drift says in what a service differs from one that was deployed to its end: "" where it
// does not. Targets without traffic are tags, and mean nothing.
func (s Service) Drift() string {
	var stale int64
	var pinned []string
	for _, t := range s.Traffic {
		if t.Percent > 0 && t.Revision != s.Ready && !t.Latest {
			stale += t.Percent
			pinned = append(pinned, t.Revision)
		}
	}
	switch {
	case s.Ready == "":
		return "no revision of it is ready"
	case s.Created != s.Ready:
		return fmt.Sprintf("revision %s was made and is not ready: the last deployment did not come to its end", s.Created)
	case stale > 0:
		return fmt.Sprintf("%d %% of its traffic go to %s, and the latest revision is %s", stale, strings.Join(pinned, ", "), s.Ready)
	case len(s.Traffic) == 0:
		return "no traffic goes to it"
	}
	// A target that is pinned to the latest one serves it today, and not the next one.
	for _, t := range s.Traffic {
		if t.Percent > 0 && !t.Latest {
			return fmt.Sprintf("its traffic is pinned to %s: the next deployment would not get it", t.Revision)
		}
	}
	return ""
}
