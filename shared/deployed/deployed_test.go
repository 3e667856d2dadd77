package deployed

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/option"
)

// silent never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestRead_UnresponsivePlatformTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := Read(t.Context(), "p", option.WithHTTPClient(&http.Client{Transport: silent{}}))
		if took := time.Since(began); took > limit {
			t.Errorf("it took %s", took)
		}
		for _, err := range []error{d.FunctionsErr, d.ServicesErr, d.JobsErr} {
			if err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
				t.Errorf("%v", err)
			}
		}
	})
}
