package warehouse

import (
	"errors"
	"fmt"
	"testing"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"
)

// Texts are verbatim. passes: the write is tried again with a new token. final: the run is not
// retried. If an error is neither, the request is redelivered.
func TestRefusals_AreTriedAgainOnlyWhereThatCanHelp(t *testing.T) {
	for _, c := range []struct {
		code          int
		reason, text  string
		passes, final bool
	}{
		{400, "invalid", "Error while reading data, error message: JSON table encountered too many errors, giving up. Rows: 1; errors: 1. Please look into the errors[] collection for more details.", false, true},
		{400, "invalid", "Error while reading data, error message: JSON parsing error in row starting at position 116704618: Row size is larger than: 104857600.", false, true},
		{400, "invalid", "p:d.t is not allowed for this operation because it is currently a VIEW.", false, true},
		{400, "invalid", "DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams.", false, true},
		{400, "invalidQuery", "Cannot query over table 'p.d.t' without a filter over column(s) 'day' that can be used for partition elimination", false, true},
		{400, "backendError", "Error while reading data, error message: JSON table encountered too many errors, giving up.", true, false},
		{400, "invalidQuery", "Could not serialize access to table p:d.t due to concurrent update", true, false},
		{400, "resourcesExceeded", "Resources exceeded during query execution: Too many DML statements outstanding against table p:d.t, limit is 20.", true, false},
		{400, "resourcesExceeded", "Resources exceeded during query execution: Your project or organization exceeded the maximum disk and memory limit available for shuffle operations. Consider provisioning more slots, reducing query concurrency, or using more efficient logic in this job.", true, false},
		{400, "resourcesExceeded", "Resources exceeded during query execution: The query could not be executed in the allotted memory. Peak usage: 120% of limit.", false, true},
		{400, "resourcesExceeded", "Resources exceeded during query execution: Not enough resources for query planning - too many subqueries or query is too complex.", false, true},
		{400, "resourcesExceeded", "Resources exceeded during query execution: a text that we have never seen", false, false},
		{403, "responseTooLarge", "Response too large to return. Consider specifying a destination table in your job configuration. For more details, see https://cloud.google.com/bigquery/troubleshooting-errors", false, true},
		{400, "invalid", "The query is too large (1094.40K characters, 72092 characters over the limit). The maximum standard SQL query length is 1024.00K characters, including comments and white space characters.", false, true},
		{400, "badRequest", "Request payload size exceeds the limit: 10485760 bytes.", false, true},
		{413, "", "<!DOCTYPE html>\n<html lang=en>\n  <title>Error 413 (Request Entity Too Large)!!1</title>", false, true},
		{408, "", "Request Timeout", true, false},
		{400, "invalidQuery", "UPDATE or DELETE statement over table p.d.t would affect rows in the streaming buffer, which is not supported", false, false},
		{403, "accessDenied", "Access Denied: Table p:d.t: User does not have bigquery.tables.updateData permission", false, false},
		{404, "notFound", "Not found: Dataset p:staging", false, false},
		{403, "rateLimitExceeded", "Exceeded rate limits: too many table update operations for this table", true, false},
		{403, "jobRateLimitExceeded", "Exceeded rate limits: too many jobs", true, false},
		{403, "quotaExceeded", "Quota exceeded: Your project exceeded quota for concurrent queries", true, false},
		{429, "", "Too Many Requests", true, false},
		{500, "internalError", "An internal error occurred", true, false},
		{503, "backendError", "Error encountered during execution. Retrying may solve the problem.", true, false},
		{0, "jobBackendError", "The job encountered an internal error during execution", true, false},
		{0, "tableUnavailable", "Something went wrong with the table you queried.", true, false},
		{0, "stopped", "Job execution was cancelled", true, false},
		{0, "timeout", "Timed out", true, false},
	} {
		api := &googleapi.Error{Code: c.code, Body: c.text}
		if c.reason != "" {
			api.Message = c.text
			api.Errors = []googleapi.ErrorItem{{Reason: c.reason, Message: c.text}}
		}
		answers := map[string]error{"a_job": &bigquery.Error{Reason: c.reason, Message: c.text}, "a_request": api}
		if c.code == 0 {
			delete(answers, "a_request")
		}
		if c.reason == "" {
			delete(answers, "a_job")
		}
		for of, answer := range answers {
			err := fmt.Errorf("job j: %w", answer)
			if passing(err) != c.passes || isFinal(err) != c.final || errors.Is(asTarget(err), ErrTarget) != c.final {
				t.Errorf("%s, %s %s: passes %t, final %t", of, c.reason, c.text, passing(err), isFinal(err))
			}
		}
	}
	if err := errors.New("Error while reading data, error message: JSON table encountered too many errors"); isFinal(err) {
		t.Error("an error that is not from BigQuery counts as final")
	}
}
