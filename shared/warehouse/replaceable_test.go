package warehouse_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// A target without rows of its own, or without a partition for a period, is refused by name
// before a job runs or a table is made.
func TestWriteAndSurvey_RefuseWhatIsNoTableBeforeTheyWrite(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(meta map[string]any) // of a table; nil: scores is the view
		problem string
	}{
		"view":              {problem: "is of type VIEW: name a table of type TABLE instead"},
		"external table":    {answer: func(meta map[string]any) { meta["type"] = "EXTERNAL" }, problem: "is of type EXTERNAL"},
		"materialized view": {answer: func(meta map[string]any) { meta["type"] = "MATERIALIZED_VIEW" }, problem: "is of type MATERIALIZED_VIEW"},
		"snapshot":          {answer: func(meta map[string]any) { meta["type"] = "SNAPSHOT" }, problem: "is of type SNAPSHOT"},
		"ingestion time": {answer: func(meta map[string]any) { meta["timePartitioning"] = map[string]any{"type": "DAY"} },
			problem: "is partitioned by ingestion time, which no column holds: partition it by its date column"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t, scores, "")
			if c.answer == nil {
				b.Exec("CREATE TABLE nba_analytics.players ("+scores+")", "DROP TABLE nba_analytics.scores", "CREATE VIEW nba_analytics.scores AS SELECT * FROM nba_analytics.players")
			}
			posts := 0
			through := b.Through(func(r *http.Request, _ []byte, forward func() *httptest.ResponseRecorder) error {
				if r.Method != http.MethodGet {
					posts++
				}
				rec := forward()
				var meta map[string]any
				if c.answer == nil || !strings.HasSuffix(r.URL.Path, "/tables/scores") || json.Unmarshal(rec.Body.Bytes(), &meta) != nil {
					return nil
				}
				c.answer(meta)
				rec.Body.Reset()
				return json.NewEncoder(rec.Body).Encode(meta)
			})
			_, err := through.Write(t.Context(), b.right(), b.target, []dedup.Row{score("a", 1, first)})
			_, surveyErr := through.Survey(t.Context(), b.target)
			for _, err := range []error{err, surveyErr} {
				if !errors.Is(err, warehouse.ErrTarget) || !strings.Contains(err.Error(), b.target.Processor.Table+" "+c.problem) {
					t.Errorf("%v", err)
				}
			}
			if posts != 0 {
				t.Errorf("%d requests were no GET", posts)
			}
		})
	}
}
