package warehouse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
)

// What the label of a job says that it is for.
const (
	purposeLabel = "phasegate"
	forWrite     = "write"
	forFence     = "fence"
)

// ErrFenced says that the right to write under a job id was taken: a later holder of the
// lock has made sure that nothing is written under it any more.
var ErrFenced = errors.New("write fenced")

// exclusive is a query under a job id that is used once in the project and location.
type exclusive struct {
	id       string
	location string
	sql      string
	purpose  string // under a token's id one run alone writes, and others fence

	parameters []bigquery.QueryParameter
}

// begin starts the job, or finds it where an earlier try of ours started it. mine is
// false when another has used the id.
func (w *Warehouse) begin(ctx context.Context, x exclusive) (job *bigquery.Job, mine bool, err error) {
	client, err := w.Client(ctx)
	if err != nil {
		return nil, false, err
	}
	q := client.Query(x.sql)
	q.JobID, q.Location, q.Parameters = x.id, x.location, x.parameters
	q.Labels = map[string]string{purposeLabel: x.purpose}
	err = patiently(ctx, func() error { job, err = q.Run(ctx); return err })
	if err == nil {
		return job, true, nil
	}
	if !duplicate(err) {
		if ctx.Err() != nil {
			return nil, false, fmt.Errorf("job %s: %w", x.id, err)
		}
		// Whether it was begun is not known: if it was, it is there.
	}
	var found *bigquery.Job
	findErr := patiently(ctx, func() (err error) { found, err = client.JobFromProject(ctx, w.project, x.id, x.location); return err })
	switch {
	case findErr == nil:
		return found, isFor(found, x.purpose), nil
	case denied(findErr):
		return nil, false, fmt.Errorf("job %s %w", x.id, foreign(w.project, findErr))
	}
	if !answered(findErr, http.StatusNotFound) {
		err = errors.Join(err, findErr)
	}
	return nil, false, fmt.Errorf("job %s: %w", x.id, err)
}

// foreign explains why a job cannot be seen. What became of the job is not known then.
// https://cloud.google.com/bigquery/docs/access-control#bq-permissions
func foreign(project string, err error) error {
	return fmt.Errorf("belongs to another identity: grant this one bigquery.jobs.get on project %s, which roles/bigquery.jobUser does not contain: %w", project, err)
}

// denied reports whether the identity has no right to a request.
func denied(err error) bool {
	reason, _ := refusal(err)
	return answered(err, http.StatusForbidden) && (reason == "accessDenied" || reason == "forbidden" || reason == "")
}

// patiently repeats a request that BigQuery throttles.
func patiently(ctx context.Context, request func() error) error {
	return again(ctx, throttled, request)
}

// again repeats a request while its error passes, with a random pause that grows: [maxTries] times at most,
// and not after ctx has ended.
func again(ctx context.Context, passes func(error) bool, request func() error) error {
	for try := 0; ; try++ {
		err := request()
		if !passes(err) || try == maxTries {
			return err
		}
		if ended := pause(ctx, backoff(try)); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

func isFor(job *bigquery.Job, purpose string) bool {
	c, err := job.Config()
	if err != nil {
		return false
	}
	q, ok := c.(*bigquery.QueryConfig)
	return ok && q.Labels[purposeLabel] == purpose
}

// duplicate reports whether a job was refused because its id is used.
func duplicate(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && (api.Code == http.StatusConflict ||
		api.Code == http.StatusBadRequest && strings.Contains(api.Message, "already created")) // the emulator
}

// ended waits for a job's end and returns what it failed with. The second error means
// that its end is not known.
func ended(ctx context.Context, job *bigquery.Job) (failure, unknown error) {
	var status *bigquery.JobStatus
	waitErr := patiently(ctx, func() (err error) { status, err = job.Wait(ctx); return err })
	var err error
	if waitErr != nil { // the query has failed, or could not be waited for
		err = patiently(ctx, func() (err error) { status, err = job.Status(ctx); return err })
	}
	switch {
	case denied(err):
		return nil, fmt.Errorf("job %s %w", job.ID(), foreign(job.ProjectID(), err))
	case err != nil:
		return nil, fmt.Errorf("job %s: %w", job.ID(), errors.Join(waitErr, err))
	case !status.Done():
		return nil, fmt.Errorf("job %s has not ended: %w", job.ID(), waitErr)
	case status.Err() != nil:
		return fmt.Errorf("job %s: %w", job.ID(), detailed(status)), nil
	case waitErr != nil && !denied(waitErr) && !throttled(waitErr): // the emulator tells a failure here alone
		return fmt.Errorf("job %s: %w", job.ID(), waitErr), nil
	}
	return nil, nil
}

// passing reports whether what a job failed with passes by itself.
func passing(err error) bool {
	if d := decide(err); d != 0 {
		return d == repeat
	}
	// The library does not say what it could not read an answer as.
	if errors.Is(err, errUnreadable) || errors.As(err, new(*strconv.NumError)) || errors.As(err, new(*time.ParseError)) {
		return false
	}
	return err != nil && !refused(err)
}

// errUnreadable says that an answer is not what it was asked for: it will not be the next
// time either.
var errUnreadable = errors.New("BigQuery has answered what cannot be read")

// Passing reports whether what the warehouse failed with may pass by itself.
func Passing(err error) bool { return passing(err) }

// backoff is a random time, longer at each try: 1 to 2 s at first, 16 to 32 s at last.
func backoff(try int) time.Duration {
	base := time.Second << min(try, 4)
	return base + rand.N(base)
}
