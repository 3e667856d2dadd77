// Package warehouse asks BigQuery about the data behind a hand-over, and writes the rows
// of processors so that they cannot be doubled.
//
// # Questions
//
// The questions are those of the pipeline's definition ([pipeline.Checks]): statements that yield
// one number each. All statements of a hand-over are scalar subqueries of one query, so a cycle
// costs one query for any number of checks. If BigQuery refuses that query as invalid, for example
// because a column was dropped, each statement is a query of its own. So one broken check is known
// by its name and does not hide the others' answers.
//
// # Promises
//
//   - A number is an answer of the warehouse. NULL, no number, an error, a timeout and
//     a query that would cost too much are no answer, and say why ([policy.Measurement]).
//   - They write nothing. A statement that is not a query cannot stand in a subquery.
//   - Every query has a limit of bytes billed, which BigQuery keeps, and of time.
//
// # Writes
//
// A job id can be used once in a project and location. Under a lock's token only the one job of that
// id writes ([JobID]). A process that takes the id with a job that does nothing ([Warehouse.Fence])
// is sure that no earlier run writes any more. A write ([Warehouse.Write]) is a load into a table of
// its own and one MERGE, with the partition as a literal; it happens or does not.
//
// The client is made at the first question and, when that fails, at the next again.
package warehouse

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// Warehouse is BigQuery in one project. It is safe for concurrent use.
type Warehouse struct {
	project, host string

	mu     sync.Mutex
	client *bigquery.Client
	idle   func() // ends the connections to the emulator
}

// New returns the warehouse of a project; queries are billed there, and tables without
// a project are looked for there. host is the emulator's host:port; "" means Google's.
// It connects to nothing.
func New(project, host string) *Warehouse { return &Warehouse{project: project, host: host} }

// Client returns the client, making it if there is none yet. It outlives ctx.
func (w *Warehouse) Client(ctx context.Context) (*bigquery.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client != nil {
		return w.client, nil
	}
	var opts []option.ClientOption
	if w.host != "" { // the library knows no variable for it
		host := w.host
		if !strings.Contains(host, "://") {
			host = "http://" + host
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		w.idle = transport.CloseIdleConnections
		opts = append(opts, option.WithEndpoint(host), option.WithoutAuthentication(), option.WithHTTPClient(&http.Client{Transport: transport}))
	}
	c, err := bigquery.NewClient(context.WithoutCancel(ctx), w.project, opts...)
	if err != nil {
		return nil, fmt.Errorf("open BigQuery: %w", err)
	}
	w.client = c
	return c, nil
}

// Close ends the client, if there is one.
func (w *Warehouse) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client == nil {
		return nil
	}
	c := w.client
	w.client = nil
	err := c.Close()
	if w.idle != nil {
		w.idle()
	}
	return err
}

// Check asks the checks of a hand-over of these processors. Any error is
// part of the answer.
func (w *Warehouse) Check(ctx context.Context, t *pipeline.Transition, p pipeline.Period, mode string, processors []string) policy.Readiness {
	if t.Checks == nil {
		return policy.Readiness{Outcome: policy.NotChecked}
	}
	checks := t.Checks.For(mode, processors)
	if len(checks) == 0 {
		return policy.Readiness{Outcome: policy.NotChecked}
	}
	sqls := make([]string, len(checks))
	for i, c := range checks {
		sqls[i] = c.SQL
	}
	return policy.Assess(checks, w.measure(ctx, t, p, sqls))
}

// Expected asks how many units of work a period should bring. An error means that it
// is not known: never that there is nothing.
func (w *Warehouse) Expected(ctx context.Context, t *pipeline.Transition, p pipeline.Period) (int64, error) {
	if t.Checks == nil || t.Checks.Expected == "" {
		return 0, fmt.Errorf("%s does not say how much to expect of a period", t.ID)
	}
	m := w.measure(ctx, t, p, []string{t.Checks.Expected})[0]
	switch n := int64(m.Value); {
	case m.Problem != "":
		return 0, fmt.Errorf("how much to expect of %s: %s", p, m.Problem)
	case m.Value < 0, float64(n) != m.Value:
		return 0, fmt.Errorf("how much to expect of %s: %v is no count", p, m.Value)
	default:
		return n, nil
	}
}
