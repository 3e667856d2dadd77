package warehousetest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"

	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

const night = "2026-02-03"

// scene is a table behind the platform's limits.
type scene struct {
	*warehousetest.World
	*warehousetest.Platform
	t       *testing.T
	client  *bigquery.Client
	dataset string
	table   string // dataset.table
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{World: warehousetest.Empty(t), t: t}
	s.Platform = s.World.Platform()
	s.Exec("CREATE TABLE nba_analytics.scores (game_date DATE, player_lookup STRING, points INT64)")
	s.table = s.Rename("nba_analytics.scores")
	s.dataset, _, _ = strings.Cut(s.table, ".")
	client, err := s.As("ada").Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	return s
}

func (s *scene) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

// run runs a statement as a job.
func (s *scene) run(sql string, configure ...func(*bigquery.Query)) (*bigquery.JobStatus, error) {
	s.t.Helper()
	q := s.client.Query(s.Rename(sql))
	for _, c := range configure {
		c(q)
	}
	job, err := q.Run(s.ctx())
	if err != nil {
		return nil, err
	}
	if q.DryRun {
		return job.LastStatus(), job.LastStatus().Err()
	}
	status, err := job.Wait(s.ctx())
	if err != nil {
		return status, err
	}
	return status, status.Err()
}

// refused fails the test unless an error has a text.
func (s *scene) refused(err error, want string) {
	s.t.Helper()
	if err == nil || !strings.Contains(err.Error(), s.Rename(want)) {
		s.t.Errorf("%v, want %q", err, s.Rename(want))
	}
}

func (s *scene) taken(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

func TestPlatform_TablesAndJobsOfAnotherLocationAreNotFound(t *testing.T) {
	s := newScene(t)
	staging := s.Staging()
	s.Locations[s.dataset] = "europe-west3"
	_, err := s.run("SELECT * FROM nba_analytics.scores", func(q *bigquery.Query) { q.Location = "US" })
	s.refused(err, "Not found: Dataset "+s.Project+":"+s.dataset+" was not found in location US")
	_, err = s.run("CREATE TABLE " + staging + ".copy AS SELECT * FROM nba_analytics.scores")
	s.refused(err, "was not found in location ")
	source := bigquery.NewReaderSource(strings.NewReader("{}\n"))
	source.SourceFormat, source.Schema = bigquery.JSON, bigquery.Schema{{Name: "points", Type: bigquery.IntegerFieldType}}
	loader := s.client.Dataset(staging).Table("copy").LoaderFrom(source)
	loader.Location = "europe-west3"
	_, err = loader.Run(s.ctx())
	s.refused(err, "Not found: Dataset "+s.Project+":"+staging+" was not found in location europe-west3")

	job, err := s.client.Query(s.Rename("SELECT * FROM nba_analytics.scores")).Run(s.ctx())
	if err != nil || job.Location() != "europe-west3" {
		t.Fatalf("a query without a location runs in that of its tables: %v, %v", job, err)
	}
	_, err = s.client.JobFromIDLocation(s.ctx(), job.ID(), "europe-west3")
	s.taken(err)
	_, err = s.client.JobFromIDLocation(s.ctx(), job.ID(), "")
	s.refused(err, "Not found: Job ")
	meta, err := s.client.Dataset(s.dataset).Table("scores").Metadata(s.ctx())
	if err != nil || meta.Location != "europe-west3" {
		t.Errorf("the table lies in %v, %v", meta, err)
	}
}

func TestPlatform_RowsInTheStreamingBufferCannotBeChanged(t *testing.T) {
	s := newScene(t)
	at := time.Now()
	s.Now = func() time.Time { return at }
	row := &bigquery.ValuesSaver{Schema: bigquery.Schema{{Name: "game_date", Type: bigquery.DateFieldType}, {Name: "points", Type: bigquery.IntegerFieldType}}, Row: []bigquery.Value{night, 7}}
	s.taken(s.client.Dataset(s.dataset).Table("scores").Inserter().Put(s.ctx(), row))
	statements := []string{
		"UPDATE nba_analytics.scores SET points = 8 WHERE game_date = DATE '" + night + "'",
		"DELETE FROM nba_analytics.scores WHERE game_date = DATE '" + night + "'",
		"MERGE nba_analytics.scores AS t USING nba_analytics.scores AS s ON FALSE WHEN NOT MATCHED BY SOURCE AND t.game_date = DATE '" + night + "' THEN DELETE",
	}
	const text = "would affect rows in the streaming buffer, which is not supported"
	for _, sql := range statements {
		_, err := s.run(sql)
		s.refused(err, text)
	}
	const another = "DELETE FROM nba_analytics.scores WHERE game_date = DATE '2026-02-01'"
	_, err := s.run(another)
	s.refused(err, text) // the table has no partitions
	s.Tables[s.table] = warehousetest.Table{Partition: "game_date"}
	_, err = s.run(another)
	s.taken(err)
	meta, err := s.client.Dataset(s.dataset).Table("scores").Metadata(s.ctx())
	if err != nil || meta.StreamingBuffer == nil || meta.StreamingBuffer.EstimatedRows != 1 {
		t.Errorf("%+v, %v", meta, err)
	}
	at = at.Add(30 * time.Minute)
	for _, sql := range statements {
		_, err := s.run(sql)
		s.taken(err)
	}
}

func TestPlatform_QueryTakesItsDelay(t *testing.T) {
	s := newScene(t)
	var slept []time.Duration
	s.Delay, s.Sleep = 3*time.Second, func(_ context.Context, d time.Duration) { slept = append(slept, d) }
	_, err := s.run("SELECT COUNT(*) FROM nba_analytics.scores")
	s.taken(err)
	it, err := s.client.Query(s.Rename("SELECT COUNT(*) FROM nba_analytics.scores")).Read(s.ctx())
	s.taken(err)
	var n []bigquery.Value
	if s.taken(it.Next(&n)); fmt.Sprint(n, slept) != "[0] [3s 3s]" {
		t.Errorf("counted and slept %v %v", n, slept)
	}
}

func TestPlatform_JobStaysRunningUntilItIsCancelled(t *testing.T) {
	s := newScene(t)
	s.Stays = func(sql string) bool { return strings.HasPrefix(sql, "SELECT") }
	job, err := s.client.Query("SELECT 1").Run(s.ctx())
	if err != nil {
		t.Fatal(err)
	}
	status, err := job.Status(s.ctx())
	if err != nil || status.State != bigquery.Running || !slices.Equal(s.Running(), []string{"SELECT 1"}) {
		t.Fatalf("%+v, %v, %v", status, err, s.Running())
	}
	s.taken(job.Cancel(s.ctx()))
	_, err = job.Wait(s.ctx())
	s.refused(err, "Job execution was cancelled: User requested cancellation")
	if left := s.Running(); len(left) > 0 {
		t.Errorf("%q still run", left)
	}
}

// A client that leaves ends no job: BigQuery goes on and bills it.
func TestPlatform_AbandonedQueryStillRuns(t *testing.T) {
	s := newScene(t)
	s.Stays = func(string) bool { return true }
	ctx, leave := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer leave()
	if _, err := s.client.Query("SELECT 1").Read(ctx); err == nil {
		t.Error("a query that stays RUNNING has an answer")
	}
	if !slices.Equal(s.Running(), []string{"SELECT 1"}) {
		t.Errorf("%q run", s.Running())
	}
}

func TestPlatform_DryRunReadsTheBytesOfTables(t *testing.T) {
	s := newScene(t)
	s.Tables[s.table] = warehousetest.Table{Bytes: 3000 << 20, Days: 300, Partition: "game_date"}
	dry := func(q *bigquery.Query) { q.DryRun = true }
	for sql, mb := range map[string]int64{
		"SELECT COUNT(*) FROM nba_analytics.scores":                                                                        3000,
		"SELECT COUNT(*) FROM nba_analytics.scores WHERE game_date = DATE '" + night + "'":                                 10,
		"SELECT COUNT(*) FROM nba_analytics.scores WHERE game_date >= DATE '2026-02-03' AND game_date < DATE '2026-02-10'": 70,
		"SELECT COUNT(*) FROM nba_analytics.scores WHERE EXTRACT(YEAR FROM game_date) = 2026":                              3000,
		"MERGE nba_analytics.scores AS t USING (SELECT * FROM nba_analytics.scores AS r WHERE r.game_date = DATE '" + night + "') AS s ON FALSE WHEN NOT MATCHED BY SOURCE AND t.game_date = DATE '" + night + "' THEN DELETE WHEN NOT MATCHED BY TARGET THEN INSERT (points) VALUES (s.points)": 10,
	} {
		status, err := s.run(sql, dry)
		if err != nil || status.Statistics.TotalBytesProcessed != mb<<20 {
			t.Errorf("%s: %+v, %v", sql, status, err)
		}
	}
	_, err := s.run("MERGE nba_analytics.scores AS t USING (SELECT * FROM nba_analytics.scores) AS s ON FALSE WHEN NOT MATCHED BY TARGET THEN INSERT (nothing) VALUES (s.points)", dry)
	s.refused(err, "nothing")
	_, err = s.run("SELECT COUNT(*) FROM nba_analytics.scores", func(q *bigquery.Query) { q.MaxBytesBilled = 1000 })
	s.refused(err, "Query exceeded limit for bytes billed: 1000. 3145728000 or higher required.")
}

func TestPlatform_RequiredPartitionFilterIsABareComparison(t *testing.T) {
	s := newScene(t)
	s.Tables[s.table] = warehousetest.Table{Partition: "game_date", RequireFilter: true}
	for _, sql := range []string{
		"SELECT COUNT(*) FROM nba_analytics.scores",
		"SELECT COUNT(*) FROM nba_analytics.scores WHERE DATE_TRUNC(game_date, MONTH) = DATE '2026-02-01'",
		"SELECT COUNT(*) FROM nba_analytics.scores AS a JOIN nba_analytics.scores AS b ON a.game_date = b.game_date",
	} {
		_, err := s.run(sql)
		s.refused(err, "Cannot query over table '"+s.Project+"."+s.table+"' without a filter over column(s) 'game_date' that can be used for partition elimination")
	}
	for _, sql := range []string{
		"SELECT COUNT(*) FROM nba_analytics.scores WHERE game_date = DATE '2026-02-01'",
		"SELECT COUNT(*) FROM nba_analytics.scores AS a WHERE a.`game_date` BETWEEN DATE_SUB(DATE '2026-02-01', INTERVAL 1 DAY) AND DATE '2026-02-01'",
	} {
		_, err := s.run(sql)
		s.taken(err)
	}
}

func TestPlatform_LoadRefusesValuesThatBigQueryRefuses(t *testing.T) {
	s := newScene(t)
	for value, want := range map[string]struct{ typ, problem string }{
		"1.123456789":                 {"NUMERIC", ""},
		"1.1234567891":                {"NUMERIC", "Invalid NUMERIC value: 1.1234567891"},
		"2026-03-03T14:59:33.490260":  {"DATETIME", ""},
		"2026-03-03T14:59:33.4902601": {"DATETIME", `Invalid datetime string "2026-03-03T14:59:33.4902601"`},
		"10000-01-01":                 {"DATE", `Invalid date string "10000-01-01"`},
		"10000-01-01 00:00:00+00":     {"TIMESTAMP", `Invalid timestamp string "10000-01-01 00:00:00+00"`},
	} {
		source := bigquery.NewReaderSource(strings.NewReader(fmt.Sprintf("{\"v\": %q}\n", value)))
		source.SourceFormat, source.Schema = bigquery.JSON, bigquery.Schema{{Name: "v", Type: bigquery.FieldType(want.typ)}}
		job, err := s.client.Dataset(s.dataset).Table("loaded_" + strings.ToLower(want.typ)).LoaderFrom(source).Run(s.ctx())
		if err != nil {
			t.Fatal(err)
		}
		status, err := job.Wait(s.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if want.problem == "" {
			s.taken(status.Err())
			continue
		}
		s.refused(status.Err(), "JSON table encountered too many errors")
		if len(status.Errors) < 2 || !strings.HasPrefix(status.Errors[1].Message, want.problem) {
			t.Errorf("%s: %v, want %q", value, status.Errors, want.problem)
		}
	}
}

// The library repeats a 503, and net/http a GET whose connection broke before the answer. Neither
// repeats a 403, or a 429 without a reason.
func TestPlatform_AnyRequestFailsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		failure error
		code    int // of the error that the client gets, 0 for none
	}{
		"429": {warehousetest.Throttled(http.StatusTooManyRequests), http.StatusTooManyRequests},
		"403": {&warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied"}, http.StatusForbidden},
		"503": {&warehousetest.Refusal{Code: http.StatusServiceUnavailable, Reason: "backendError", Message: "try again"}, 0},
		"cut": {warehousetest.ErrCut, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			var failed atomic.Bool
			s.Fails = func(_ int, r *http.Request) error {
				if r.Method == http.MethodGet && failed.CompareAndSwap(false, true) {
					return c.failure
				}
				return nil
			}
			_, err := s.run("SELECT 1")
			var api *googleapi.Error
			code := 0
			if errors.As(err, &api) {
				code = api.Code
			} else if err != nil {
				code = -1
			}
			if code != c.code || !failed.Load() {
				t.Errorf("code %d, %v", code, err)
			}
		})
	}
}
