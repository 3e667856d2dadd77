package warehouse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// queries are the kinds of queries of readiness, reconciliation, sweeps, health and writes.
func (b *books) queries() map[string]func(context.Context, *warehouse.Warehouse) error {
	b.t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		b.t.Fatal(err)
	}
	tr := p.Transitions[0]
	tr.Checks.Expected = "SELECT COUNT(*) FROM " + b.target.Processor.Table + " WHERE game_date = @period"
	tr.Checks.ExpectedByPeriod = "SELECT game_date, COUNT(*) FROM " + b.target.Processor.Table + " WHERE game_date BETWEEN @first AND @last GROUP BY 1"
	p.Health.Runs = "SELECT 'a', game_date, '1', processed_at AS began, processed_at AS ended FROM " + b.target.Processor.Table + " WHERE game_date BETWEEN @first AND @last"
	one := []pipeline.Processor{b.target.Processor}
	return map[string]func(context.Context, *warehouse.Warehouse) error{
		"readiness": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, err := w.Expected(ctx, tr, night)
			return err
		},
		"reconciliation": func(ctx context.Context, w *warehouse.Warehouse) error {
			if c := w.Contents(ctx, p.Calendar, one, night, night)[b.target.Processor.Table]; c.Problem != "" {
				return fmt.Errorf("contents: %s", c.Problem)
			}
			return nil
		},
		"schedule": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, err := w.ExpectedByPeriod(ctx, tr, night, night)
			return err
		},
		"sweep": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, _, err := w.Duplicates(ctx, p.Calendar, b.target.Processor, night, night)
			return err
		},
		"health": func(ctx context.Context, w *warehouse.Warehouse) error {
			_, err := w.ProcessorRuns(ctx, p, night, night)
			return err
		},
		"write": func(ctx context.Context, w *warehouse.Warehouse) error {
			got, err := w.Write(ctx, b.right(), b.target, rowsOf(score("a", 10, first)))
			if err == nil && got.Problem != "" {
				return fmt.Errorf("count of duplicate rows: %s", got.Problem)
			}
			return err
		},
	}
}

// Any request of a query may be answered 408 or 429 without a reason. The library retries neither.
func TestQuery_AnswersAlthoughARequestIsThrottled(t *testing.T) {
	b := newBooks(t, scores, "")
	b.mustWrite(score("a", 10, first))
	for name, query := range b.queries() {
		if name == "write" {
			continue // TestWrite_HappensAlthoughARequestIsThrottled
		}
		whole := b.Platform()
		var n atomic.Int64
		whole.Fails = func(int, *http.Request) error { n.Add(1); return nil }
		if err := query(atMost(t), whole.As("ada")); err != nil {
			t.Fatal(err)
		}
		for at := range int(n.Load()) {
			status := []int{http.StatusTooManyRequests, http.StatusRequestTimeout}[at%2]
			t.Run(fmt.Sprintf("%s_%d_%d", name, status, at), func(t *testing.T) {
				t.Parallel()
				p := b.Platform()
				path := ""
				p.Fails = func(i int, r *http.Request) error {
					if i != at {
						return nil
					}
					path = r.Method + " " + r.URL.Path
					return warehousetest.Throttled(status)
				}
				if err := query(atMost(t), p.As("ada")); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			})
		}
	}
}

// BigQuery runs a query to its end if its caller has left, and bills it.
func TestQuery_LeavesNoJobRunningWhenItsTimeRunsOut(t *testing.T) {
	b := newBooks(t, scores, "")
	for name, query := range b.queries() {
		t.Run(name, func(t *testing.T) {
			p := b.Platform()
			ctx, leave := context.WithCancel(atMost(t))
			defer leave()
			p.Stays = func(sql string) bool {
				if strings.HasPrefix(sql, "MERGE") {
					return false
				}
				time.AfterFunc(50*time.Millisecond, leave)
				return true
			}
			if err := query(ctx, p.As("ada")); err == nil {
				t.Error("a query that stays RUNNING has an answer")
			}
			if left := p.Running(); len(left) > 0 {
				t.Errorf("abandoned and billed: %q", left)
			}
		})
	}
}

// A check has a limit of its own.
func TestCheck_CancelsItsQueryAtItsTimeout(t *testing.T) {
	b := newBooks(t, scores, "")
	p := b.Platform()
	p.Stays = func(string) bool { return true }
	hasty := nba(t)
	hasty.Checks.Timeout = 300 * time.Millisecond
	r := p.As("ada").Check(t.Context(), hasty, night, "overnight", []string{utg})
	if r.Outcome != policy.Unknown || !strings.Contains(r.Reasons[0], "no answer within 300ms") || len(p.Running()) > 0 {
		t.Errorf("%+v, abandoned and billed: %q", r, p.Running())
	}
}

// The answer to the request that began the job is lost. The library sends it again, with the same id.
func TestQuery_FindsItsJobWhenTheFirstAnswerWasLost(t *testing.T) {
	b := newBooks(t, scores, "")
	b.mustWrite(score("a", 10, first))
	for name, query := range b.queries() {
		if name == "write" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lost atomic.Bool
			p := b.Platform()
			dataset, _, _ := strings.Cut(b.target.Processor.Table, ".")
			p.Locations[dataset] = "europe-west3"
			p.Loses = func(r *http.Request) bool {
				return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/jobs") && lost.CompareAndSwap(false, true)
			}
			if err := query(atMost(t), p.As("ada")); err != nil || !lost.Load() {
				t.Errorf("lost %t: %v", lost.Load(), err)
			}
		})
	}
}

// A table may require a filter by its partitions, and lie in any location.
func TestStatements_SatisfyARequiredPartitionFilterInEachLocation(t *testing.T) {
	b := newBooks(t, scores, "")
	b.Exec("INSERT INTO nba_analytics.scores VALUES (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'a', 2, TIMESTAMP '2026-02-04 11:00:01')")
	p := b.Platform()
	dataset, _, _ := strings.Cut(b.target.Processor.Table, ".")
	p.Tables[b.target.Processor.Table] = warehousetest.Table{Partition: "game_date", RequireFilter: true}
	p.Locations[dataset], p.Locations[b.target.Staging] = "europe-west3", "europe-west3"
	w := p.As("ada")
	survey, err := w.Survey(atMost(t), b.target)
	if err != nil || survey.Surplus != 1 {
		t.Fatalf("%+v, %v", survey, err)
	}
	r := warehouse.Removal{Target: b.target, Archive: b.target.Staging + ".removed", Before: survey.Before, After: survey.After}
	if err := w.Archive(atMost(t), r, survey); err != nil {
		t.Error(err)
	}
	if err := w.Remove(atMost(t), b.right(), r); err != nil {
		t.Error(err)
	}
	if now, err := w.Standing(atMost(t), r); err != nil || now != survey.After {
		t.Errorf("%+v, %v", now, err)
	}
	for name, query := range b.queries() {
		if err := query(atMost(t), w); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.Locations[b.target.Staging] = "US"
	if err := b.queries()["write"](atMost(t), w); err == nil || errors.Is(err, warehouse.ErrTarget) || !strings.Contains(err.Error(), "Not found: Dataset "+b.Project+":"+b.target.Staging+" was not found in location europe-west3") {
		t.Errorf("staging in another location: %v", err)
	}
}

// Another program streams rows into the period. They can be replaced half an hour later.
func TestWrite_OverStreamedRowsIsRedelivered(t *testing.T) {
	b := newBooks(t, scores, "")
	p := b.Platform()
	at := first
	p.Now = func() time.Time { return at }
	p.Tables[b.target.Processor.Table] = warehousetest.Table{Partition: "game_date"}
	w := p.As("ada")
	client, err := w.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dataset, table, _ := strings.Cut(b.target.Processor.Table, ".")
	row := &bigquery.ValuesSaver{Schema: bigquery.Schema{{Name: "game_date", Type: bigquery.DateFieldType}, {Name: "player_lookup", Type: bigquery.StringFieldType}}, Row: []bigquery.Value{string(night), "streamed"}}
	if err := client.Dataset(dataset).Table(table).Inserter().Put(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first)))
	if err == nil || errors.Is(err, warehouse.ErrTarget) || !strings.Contains(err.Error(), "would affect rows in the streaming buffer") {
		t.Errorf("%v", err)
	}
	if _, err := w.Survey(atMost(t), b.target); !errors.Is(err, warehouse.ErrTarget) || !strings.Contains(err.Error(), "streaming buffer") {
		t.Errorf("a sweep says %v", err)
	}
	at = at.Add(30 * time.Minute)
	if _, err := w.Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first))); err != nil {
		t.Error(err)
	}
	b.want("a=10")
}

// Values reach BigQuery in the form that it loads, or are refused before.
func TestWrite_SendsNoValueThatALoadRefuses(t *testing.T) {
	b := newBooks(t, scores+", price NUMERIC, tipped DATETIME", "")
	w := b.Platform().As("ada")
	row := func(price, tipped any) error {
		r := score("a", 10, first)
		r["price"], r["tipped"] = price, tipped
		_, err := w.Write(atMost(t), b.right(), b.target, rowsOf(r))
		return err
	}
	if err := row("1.1234567891", "2026-03-03T14:59:33.4902601"); err != nil {
		t.Error(err)
	}
	var wrong *warehouse.RowError
	if err := row("1", "10000-01-01T00:00:00"); !errors.As(err, &wrong) || wrong.Column != "tipped" {
		t.Errorf("the year 10000: %v", err)
	}
}

// A page of rows is refused once. The rows before it are not handed over again.
func TestQuery_ReadsEachRowOnceAlthoughAPageIsThrottled(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	row := func(day string) string {
		return fmt.Sprintf(`{"f":[{"v":"a"},{"v":%q},{"v":"1"},{"v":"1770202992000000"},{"v":null}]}`, day)
	}
	const head = `"jobComplete":true,"totalRows":"3","jobReference":{"projectId":"p","jobId":"j","location":"US"},"schema":{"fields":[{"name":"a","type":"STRING"},{"name":"b","type":"DATE"},{"name":"c","type":"STRING"},{"name":"d","type":"TIMESTAMP"},{"name":"e","type":"TIMESTAMP"}]}`
	refused := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodPost:
			_ = json.NewEncoder(w).Encode(map[string]any{"jobReference": map[string]any{"projectId": "p", "jobId": "j", "location": "US"},
				"configuration": map[string]any{"query": map[string]any{}}, "status": map[string]any{"state": "DONE"}})
		case q.Get("maxResults") == "0":
			fmt.Fprint(w, "{"+head+"}")
		case q.Get("pageToken") == "2" && !refused:
			refused = true
			http.Error(w, "Too Many Requests", http.StatusTooManyRequests)
		case q.Get("startIndex") == "2":
			fmt.Fprint(w, "{"+head+`,"rows":[`+row("2026-02-05")+`]}`)
		default:
			fmt.Fprint(w, "{"+head+`,"pageToken":"2","rows":[`+row("2026-02-03")+","+row("2026-02-04")+`]}`)
		}
	}))
	defer s.Close()
	w := warehouse.New("p", s.Listener.Addr().String())
	defer w.Close()
	p.Health.Runs = "SELECT 1"
	runs, err := w.ProcessorRuns(atMost(t), p, night, night)
	got := ""
	for _, r := range runs {
		got += string(r.Period) + " "
	}
	if err != nil || got != "2026-02-03 2026-02-04 2026-02-05 " || !refused {
		t.Errorf("%s, refused %t: %v", got, refused, err)
	}
}
