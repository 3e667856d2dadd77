package warehouse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
)

// atOnce bounds the queries that run side by side when each statement is asked by
// itself.
const atOnce = 8

// measure asks statements, all in one query if that can be, and answers for each.
func (w *Warehouse) measure(ctx context.Context, t *pipeline.Transition, p pipeline.Period, sqls []string) []policy.Measurement {
	ms, err := w.ask(ctx, t, p, sqls)
	if err == nil {
		return ms
	}
	ms = make([]policy.Measurement, len(sqls))
	if len(sqls) == 1 || !refused(err) || tooExpensive(err) {
		for i := range ms {
			ms[i].Problem = problem(err)
		}
		return ms
	}
	SideBySide(len(sqls), func(i int) {
		one, err := w.ask(ctx, t, p, sqls[i:i+1])
		if err != nil {
			ms[i].Problem = problem(err)
			return
		}
		ms[i] = one[0]
	})
	return ms
}

// SideBySide calls do for each number below n, for some of them at once.
func SideBySide(n int, do func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
}

// ask runs one query.
func (w *Warehouse) ask(ctx context.Context, t *pipeline.Transition, p pipeline.Period, sqls []string) ([]policy.Measurement, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.Checks.Timeout, fmt.Errorf("no answer within %s", t.Checks.Timeout))
	defer cancel()
	q, err := w.query(ctx, t, p, sqls)
	if err != nil {
		return nil, err
	}
	var row []bigquery.Value
	it, cancelJob, err := w.begun(ctx, q)
	defer cancelJob()
	if err == nil {
		err = it.Next(&row)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, iterator.Done):
		return nil, errors.New("BigQuery answered without a row")
	case err != nil:
		return nil, err
	case len(row) != len(sqls):
		return nil, fmt.Errorf("BigQuery answered %d numbers for %d statements", len(row), len(sqls))
	}
	ms := make([]policy.Measurement, len(row))
	for i, v := range row {
		ms[i] = measurement(v)
	}
	return ms, nil
}

func (w *Warehouse) query(ctx context.Context, t *pipeline.Transition, p pipeline.Period, sqls []string) (*bigquery.Query, error) {
	client, err := w.Client(ctx)
	if err != nil {
		return nil, err
	}
	q := client.Query(statement(t.Checks.Tables, sqls))
	if strings.Contains(q.Q, "@period") { // the emulator refuses one that nothing names
		q.Parameters = []bigquery.QueryParameter{{Name: "period", Value: value(t.Calendar(), p)}}
	}
	q.MaxBytesBilled = t.Checks.MaxBytesBilled
	q.Labels = map[string]string{"phasegate": "readiness"}
	return q, nil
}

// statement makes one query of several, with those of the tables that they name: one
// that is broken does no harm to what does not need it. The line breaks end what might
// be a comment.
func statement(tables []pipeline.CheckTable, sqls []string) string {
	var b strings.Builder
	before := "WITH "
	for _, t := range needed(tables, sqls) {
		fmt.Fprintf(&b, "%s`%s` AS (\n%s\n)", before, t.Name, t.SQL)
		before = ",\n"
	}
	before = "\nSELECT "
	for i, sql := range sqls {
		fmt.Fprintf(&b, "%s(\n%s\n) AS c%d", before, sql, i)
		before = ",\n"
	}
	return b.String()
}

var sqlWord = regexp.MustCompile(`\w+`)

// needed returns the tables whose names occur in statements or in a table that is
// needed. A table knows those before it.
func needed(tables []pipeline.CheckTable, sqls []string) []pipeline.CheckTable {
	words := map[string]bool{}
	read := func(sql string) {
		for _, word := range sqlWord.FindAllString(sql, -1) {
			words[strings.ToLower(word)] = true
		}
	}
	for _, sql := range sqls {
		read(sql)
	}
	var out []pipeline.CheckTable
	for _, t := range slices.Backward(tables) {
		if words[t.Name] {
			read(t.SQL)
			out = append(out, t)
		}
	}
	slices.Reverse(out)
	return out
}

// measurement takes what can be compared with a bound.
func measurement(v bigquery.Value) policy.Measurement {
	switch v := v.(type) {
	case nil:
		return policy.Measurement{Problem: "the statement yields NULL"}
	case int64:
		return policy.Measurement{Value: float64(v)}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return policy.Measurement{Problem: fmt.Sprintf("the statement yields %v", v)}
		}
		return policy.Measurement{Value: v}
	case *big.Rat: // NUMERIC
		f, _ := v.Float64()
		return policy.Measurement{Value: f}
	}
	return policy.Measurement{Problem: fmt.Sprintf("the statement yields a %T, no number", v)}
}

// refused reports whether BigQuery rejects a query for what it says, so that asking
// in the same way again is of no use.
func refused(err error) bool {
	reason := ""
	var job *bigquery.Error
	var api *googleapi.Error
	switch {
	case errors.As(err, &job):
		reason = job.Reason
	case throttled(err):
		return false
	case errors.As(err, &api) && api.Code >= http.StatusBadRequest && api.Code < http.StatusInternalServerError:
		if len(api.Errors) > 0 {
			reason = api.Errors[0].Reason
		}
	default:
		return false
	}
	// https://cloud.google.com/bigquery/docs/error-messages: what passes by itself
	return !slices.Contains([]string{"backendError", "internalError", "jobBackendError", "jobRateLimitExceeded", "quotaExceeded",
		"rateLimitExceeded", "stopped", "tableUnavailable", "timeout"}, reason)
}

// throttled reports whether BigQuery asks to send a request again later: 408 or 429, which may
// come without a reason, and which the library does not retry then.
func throttled(err error) bool {
	return answered(err, http.StatusTooManyRequests, http.StatusRequestTimeout)
}

// answered reports whether BigQuery has answered a request with one of these statuses.
func answered(err error, statuses ...int) bool {
	api, ok := errors.AsType[*googleapi.Error](err)
	return ok && slices.Contains(statuses, api.Code)
}

// tooExpensive reports whether a query would read more than it may: asked piece by
// piece it would read as much.
func tooExpensive(err error) bool {
	const reason = "bytesBilledLimitExceeded"
	var job *bigquery.Error
	var api *googleapi.Error
	return errors.As(err, &job) && job.Reason == reason ||
		errors.As(err, &api) && slices.ContainsFunc(api.Errors, func(e googleapi.ErrorItem) bool { return e.Reason == reason })
}

// problem is an error in one line of reasonable length, for documents and people.
func problem(err error) string {
	s := err.Error()
	var api *googleapi.Error
	var job *bigquery.Error
	switch {
	case errors.As(err, &api) && api.Message != "":
		s = api.Message
	case errors.As(err, &job) && job.Message != "":
		s = job.Message
	}
	return pipeline.Clip(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " "), 300)
}
