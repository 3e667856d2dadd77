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
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	for name, query := range map[string]func(context.Context, *warehouse.Warehouse) error{
		"health": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, err := w.FirstRuns(ctx, p, night, night)
			if err != nil && !strings.Contains(err.Error(), "no answer within 25s") {
				t.Error(err)
			}
			return err
		},
		"sweep": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, _, err := w.Duplicates(ctx, p.Calendar, p.Phases[0].Processors[0], night, night)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { cancelled(t, query) })
	}
}

func cancelled(t *testing.T, query func(context.Context, *warehouse.Warehouse) error) {
	out := errors.New("no answer within 25s")
	ctx, runOut := context.WithCancelCause(t.Context())
	ctx, end := context.WithTimeout(ctx, time.Hour)
	defer end()
	got := ""
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
			got = r.Method + " " + r.URL.Path + " " + r.URL.Query().Get("location")
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
	if err := query(ctx, w); err == nil {
		t.Error("no error")
	}
	if want := "POST /projects/p/jobs/" + id + "/cancel EU"; id == "" || got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if ms, err := time.ParseDuration(limit + "ms"); err != nil || ms > time.Hour || ms < 59*time.Minute {
		t.Errorf("the job may take %q ms: %v", limit, err)
	}
}
