package warehouse

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
)

// finalRefusals are what BigQuery answers to a load or a statement of ours that it refuses for
// what the rows or the table are: the same rows are refused each time. What is not listed may
// pass by itself, or once somebody has granted a right. Texts are verbatim, of the sources.
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

// isFinal reports whether BigQuery has refused something for good.
func isFinal(err error) bool {
	reason, text := refusal(err)
	return slices.ContainsFunc(finalRefusals, func(f struct{ reason, text string }) bool {
		return f.reason == reason && strings.Contains(text, f.text)
	})
}

// refusal is the reason and the text of an answer of BigQuery's; "" when it is none.
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

// asTarget makes a refusal for good an [ErrTarget].
func asTarget(err error) error {
	if isFinal(err) {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	return err
}

// detailed adds to what a job failed with the first of the errors that led to it: of a load,
// those name the row and the column.
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
