package warehouse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// BigQuery runs a query to its end if its caller has left, and bills it.
func TestQuery_IsCancelledWhenItsTimeRunsOut(t *testing.T) {
	out := errors.New("no answer within 25s")
	ctx, runOut := context.WithCancelCause(t.Context())
	ctx, end := context.WithTimeout(ctx, time.Hour)
	defer end()
	cancelled := ""
	limit := ""
	id := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Configuration struct{ JobTimeoutMs string }
			JobReference  struct{ JobID string }
		}
		_ = json.NewDecoder(r.Body).Decode(&body) // a GET has none
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/cancel"):
			cancelled = r.Method + " " + r.URL.Path + " " + r.URL.Query().Get("location")
			fmt.Fprint(w, `{}`)
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs"):
			id, limit = body.JobReference.JobID, body.Configuration.JobTimeoutMs
			fmt.Fprintf(w, `{"jobReference": {"projectId": "p", "jobId": %q, "location": "EU"}, "configuration": {"query": {}}, "status": {"state": "RUNNING"}}`, id)
		default: // the query goes on
			runOut(out)
			<-r.Context().Done()
		}
	}))
	defer s.Close()
	w := warehouse.New("p", s.Listener.Addr().String())
	defer w.Close()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.FirstRuns(ctx, p, night, night); err == nil || !strings.Contains(err.Error(), out.Error()) {
		t.Errorf("%v", err)
	}
	if want := "POST /projects/p/jobs/" + id + "/cancel EU"; id == "" || cancelled != want {
		t.Errorf("cancelled %q, want %q", cancelled, want)
	}
	if ms, err := time.ParseDuration(limit + "ms"); err != nil || ms > time.Hour || ms < 59*time.Minute {
		t.Errorf("the job may take %q ms: %v", limit, err)
	}
}
