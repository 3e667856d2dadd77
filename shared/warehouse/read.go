package warehouse

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"syscall"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
)

// cancelTime is what the request to cancel a job gets.
const cancelTime = 3 * time.Second

// reading is a query that has ended, and its rows.
type reading struct {
	ctx    context.Context
	job    *bigquery.Job
	it     *bigquery.RowIterator // nil: to be asked for anew, from the row after those that were read
	passed uint64                // rows that were read
	page   int                   // rows that a request reads at most; 0: as many as BigQuery sends
}

// begun runs a query as a job and waits for its result. A request that BigQuery throttles, or whose
// connection breaks, is sent again, [maxTries] times at most. It takes three requests in place of one: only a job
// with an id of ours can be cancelled when its answer is lost.
//
// BigQuery finishes and bills a query whose caller has left. So cancel cancels a job that is not known
// to have ended, for which its creator needs no further right:
// https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/cancel
//
// The process may die before that. Then the job has a limit of its own: "BigQuery will attempt to
// stop a longer job, but may not always succeed",
// https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#jobconfiguration
func (w *Warehouse) begun(ctx context.Context, q *bigquery.Query) (r *reading, cancel func(), err error) {
	client, err := w.Client(ctx)
	if err != nil {
		return nil, func() {}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		q.JobTimeout = max(time.Until(deadline), time.Millisecond)
	}
	q.JobID = "phasegate-" + q.Labels[purposeLabel] + "-" + rand.Text()
	r = &reading{ctx: ctx}
	err = again(ctx, passesInReads, func() (err error) { r.job, err = q.Run(ctx); return err })
	if duplicate(err) { // an earlier request began the job, and its answer was lost
		q.Location = locationIn(err, q.JobID)
		err = again(ctx, passesInReads, func() (err error) {
			r.job, err = client.JobFromProject(ctx, w.project, q.JobID, q.Location)
			return err
		})
	}
	if err == nil {
		err = again(ctx, passesInReads, r.ask)
	}
	cancel = func() {
		if r.it != nil || r.passed > 0 || ctx.Err() == nil && refused(err) && !denied(err) {
			return // the query has ended
		}
		limited, end := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer end()
		job := r.job
		// Without an answer it is not known whether the job was begun. Without its location only a job in
		// US or EU is found; elsewhere the job's own limit is left.
		if api := (*googleapi.Error)(nil); job == nil && (ctx.Err() != nil || !errors.As(err, &api)) {
			job, _ = client.JobFromProject(limited, w.project, q.JobID, q.Location)
		}
		if job != nil {
			_ = job.Cancel(limited) // the limit of the job itself is left
		}
	}
	return r, cancel, err
}

// locationIn returns the location of a job from the text that says that its id is used: "Already Exists:
// Job xxxxxxxxxxxxxxxx:EU.80760581-…", https://github.com/googleapis/google-cloud-java/issues/2867.
func locationIn(err error, id string) string {
	before, _, found := strings.Cut(err.Error(), "."+id)
	if !found {
		return ""
	}
	return before[strings.LastIndexAny(before, ": ")+1:]
}

// ask waits for the result, of which the rows follow that were not read yet.
func (r *reading) ask() (err error) {
	if r.it, err = r.job.Read(r.ctx); err == nil {
		r.it.StartIndex = r.passed
	}
	return err
}

// Next reads one row. It ends with [iterator.Done].
func (r *reading) Next(row any) error {
	return again(r.ctx, passesInReads, func() error {
		if r.it == nil {
			if err := r.ask(); err != nil {
				return err
			}
		}
		r.it.PageInfo().MaxSize = r.page
		err := r.it.Next(row)
		switch {
		case err == nil:
			r.passed++
		case !errors.Is(err, iterator.Done):
			r.it = nil // an iterator repeats its first error
		}
		return err
	})
}

// passesInReads reports whether a request that reads is worth sending again.
func passesInReads(err error) bool {
	return throttled(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
