package warehouse

import (
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
)

// decision says what to do about an answer of BigQuery.
type decision int

const (
	repeat decision = iota + 1 // it passes: try again
	final                      // the same rows for the same table get it each time
)

// decided are answers whose reason alone does not say whether they pass. The texts are
// verbatim, from the sources named. A write with another error is redelivered, since the
// error may pass by itself, or after a right was granted.
var decided = []struct {
	reason, text string
	decision     decision
}{
	// Two statements change one partition; the library does not retry either.
	// https://cloud.google.com/bigquery/docs/transactions#concurrency
	{"", "Could not serialize access to ", repeat},
	// Two statements change a table at once and 20 wait. The next one fails: "Resources exceeded during query execution:
	// Too many DML statements outstanding against table mlab-sandbox:tmp_ndt.ndt5, limit is 20",
	// https://github.com/m-lab/etl-gardener/issues/293
	{"resourcesExceeded", "Too many DML statements outstanding against table ", repeat},
	// "Your project or organization exceeded the maximum disk and memory limit available for shuffle operations. […]": by all
	// queries together; "It seems to work on the retry", https://github.com/mozilla/bigquery-etl/issues/1432
	{"resourcesExceeded", " limit available for shuffle operations", repeat},
	// "Resources exceeded during query execution: The query could not be executed in the allotted memory. Peak usage: 120% of
	// limit.", https://github.com/fivetran/great_expectations/issues/7286; "retrying the same query always fails identically",
	// https://github.com/PostHog/posthog/pull/67914
	{"resourcesExceeded", "The query could not be executed in the allotted memory", final},
	// "… Not enough resources for query planning - too many subqueries or query is too complex.",
	// https://github.com/re-data/re-data/issues/101
	{"resourcesExceeded", "Not enough resources for query planning", final},
	// "Response too large to return. Consider specifying a destination table in your job configuration. […]", status 403,
	// https://github.com/airbytehq/airbyte/issues/41339
	{"responseTooLarge", "Response too large to return", final},
	// "The query is too large (1094.40K characters, 72092 characters over the limit). The maximum standard SQL query length is
	// 1024.00K characters, including comments and white space characters.", https://github.com/metabase/metabase/issues/79019
	{"invalid", "The query is too large", final},
	// "Request payload size exceeds the limit: 10485760 bytes.", https://github.com/googleapis/google-cloud-go/issues/2855
	{"badRequest", "Request payload size exceeds the limit", final},
	// A much larger request gets a page without a reason: "Error 413 (Request Entity Too Large)!!1",
	// https://github.com/googleapis/google-cloud-python/issues/4864
	{"", "Error 413 (Request Entity Too Large)", final},
	// A value: "Error while reading data, error message: JSON table encountered too many errors, […]",
	// https://github.com/r-dbi/bigrquery/issues/344. A row above 100 MB: "… JSON parsing error in row starting at position 116704618: Row
	// size is larger than: 104857600.", https://github.com/m-lab/etl/pull/1133
	{"invalid", "Error while reading data, error message: JSON ", final},
	// "… is not allowed for this operation because it is currently a VIEW.", https://github.com/mozilla/bigquery-etl/issues/1836
	{"invalid", " is not allowed for this operation because it is currently a ", final},
	// https://github.com/artie-labs/transfer/issues/1035
	{"invalid", "DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams.", final},
	// "Cannot query over table '…' without a filter over column(s) 'submission_timestamp' that can be used for partition
	// elimination", https://github.com/mozilla/bigquery-etl/issues/2673
	{"invalidQuery", " that can be used for partition elimination", final},
}

// decide returns what to do about an error, 0 if its text decides nothing.
func decide(err error) decision {
	reason, text := refusal(err)
	for _, d := range decided {
		if (d.reason == "" || d.reason == reason) && strings.Contains(text, d.text) {
			return d.decision
		}
	}
	return 0
}

// Permanent reports whether BigQuery will refuse the same rows again. An error that is neither
// permanent nor [Passing] may have any cause.
func Permanent(err error) bool { return decide(err) == final }

// refusal returns the reason and the text of an error from BigQuery, "" for other errors.
func refusal(err error) (reason, text string) {
	var job *bigquery.Error
	var api *googleapi.Error
	switch {
	case errors.As(err, &job):
		return job.Reason, job.Message
	case errors.As(err, &api) && len(api.Errors) > 0:
		return api.Errors[0].Reason, api.Message + api.Errors[0].Message
	case errors.As(err, &api):
		return "", api.Message + api.Body
	}
	return "", ""
}

// asTarget makes a final refusal an [ErrTarget].
func asTarget(err error) error {
	if Permanent(err) {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	return err
}

// detailed adds the first of a job's other errors to its result: of a failed load, these name
// the row and the column.
func detailed(status *bigquery.JobStatus) error {
	err := status.Err()
	seen := err.Error()
	for _, e := range status.Errors {
		if e != nil && !strings.Contains(seen, e.Message) {
			return fmt.Errorf("%w (%s)", err, e.Message)
		}
	}
	return err
}
