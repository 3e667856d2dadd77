package warehouse

import (
	"errors"
	"fmt"
	"testing"

	"cloud.google.com/go/bigquery"
)

// The texts are in docs/reference/platform-errors.md, which scripts/verify/reference reads.
func TestRefusals_PermanentOneIsAnErrorOfTheTable(t *testing.T) {
	permanent := fmt.Errorf("job j: %w", &bigquery.Error{Reason: "invalid", Message: "p:d.t is not allowed for this operation because it is currently a VIEW."})
	if err := asTarget(permanent); !errors.Is(err, ErrTarget) || !errors.Is(err, permanent) {
		t.Errorf("%v", err)
	}
	denied := &bigquery.Error{Reason: "accessDenied", Message: "Access Denied: Table p:d.t"}
	if err := asTarget(denied); errors.Is(err, ErrTarget) {
		t.Errorf("%v", err)
	}
	if err := errors.New("Error while reading data, error message: JSON table encountered too many errors"); Permanent(err) {
		t.Error("an error that is not from BigQuery counts as permanent")
	}
}
