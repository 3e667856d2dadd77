package warehouse

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
)

// finalRefusals are answers that BigQuery repeats each time it gets the same rows for the same
// table. Other errors may pass by themselves, or after a right was granted. The texts are
// verbatim, from the sources named.
var finalRefusals = []struct{ reason, text string }{
	// A value, or a row above 100 MB: "Error while reading data, error message: JSON table encountered too many errors, giving
	// up.", https://github.com/r-dbi/bigrquery/issues/344; "… JSON parsing error in row starting at position 116704618: Row
	// size is larger than: 104857600.", https://github.com/m-lab/etl/pull/1133
	{"invalid", "Error while reading data, error message: JSON "},
	// "… is not allowed for this operation because it is currently a VIEW.", https://github.com/mozilla/bigquery-etl/issues/1836
	{"invalid", " is not allowed for this operation because it is currently a "},
	// https://github.com/artie-labs/transfer/issues/1035
	{"invalid", "DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams."},
	// "Cannot query over table '…' without a filter over column(s) 'submission_timestamp' that can be used for partition
	// elimination", https://github.com/mozilla/bigquery-etl/issues/2673
	{"invalidQuery", " that can be used for partition elimination"},
}

// isFinal reports whether BigQuery will refuse the same rows again.
func isFinal(err error) bool {
	reason, text := refusal(err)
	return slices.ContainsFunc(finalRefusals, func(f struct{ reason, text string }) bool {
		return f.reason == reason && strings.Contains(text, f.text)
	})
}

// refusal returns the reason and the text of an error from BigQuery, "" for other errors.
func refusal(err error) (reason, text string) {
	var job *bigquery.Error
	var api *googleapi.Error
	switch {
	case errors.As(err, &job):
		return job.Reason, job.Message
	case errors.As(err, &api) && len(api.Errors) > 0:
		return api.Errors[0].Reason, api.Message + api.Errors[0].Message
	}
	return "", ""
}

// asTarget makes a final refusal an [ErrTarget].
func asTarget(err error) error {
	if isFinal(err) {
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
