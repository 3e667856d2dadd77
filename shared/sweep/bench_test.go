package sweep

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

const (
	benchDays = 14
	benchRows = 350 // a day
	benchTwo  = 72  // of them have a duplicate on one day
)

// sizes returns the bytes of a row by which BigQuery bills: of key and time, and of all
// columns. A number, a date and a time have 8 bytes, a text has 2 and its length
// (https://cloud.google.com/bigquery/pricing#data).
func sizes(b *testing.B, w *world) (key, row float64) {
	b.Helper()
	const text = "2 + BYTE_LENGTH(%s)"
	of := func(column string) string { return fmt.Sprintf(text, column) }
	r := w.Ask("SELECT AVG(16 + " + of("player_lookup") + "), AVG(32 + " + strings.Join([]string{of("player_lookup"), of("game_id"), of("team_abbr"), of("opponent_team_abbr")}, " + ") + ") FROM nba_analytics.player_game_summary")
	return r[0].(float64), r[1].(float64)
}

// BenchmarkSweep sweeps a week of a table of two weeks, and finds 72 duplicates on one day. It
// compares that with the two usual ways. Bytes are those that BigQuery would process, in words of
// https://cloud.google.com/bigquery/docs/data-manipulation-language#on-demand_query_size_calculation:
// a statement that deletes processes what it reads, and all columns of the partitions that
// it changes. (Each statement is billed 10 MB at least, which at this size hides all of it.)
func BenchmarkSweep(b *testing.B) {
	begin := func(b *testing.B) (*world, *atomic.Int64, func()) {
		days := warehousetest.Complete
		days.Date, days.Days = "2026-01-21", benchDays
		w := newWorld(b, warehousetest.NBA(b, days))
		statements := new(atomic.Int64)
		return w, statements, func() {
			w.Exec(`INSERT INTO nba_analytics.player_game_summary SELECT * FROM nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-03' ORDER BY player_lookup LIMIT 72`)
		}
	}
	const all, day = benchDays * benchRows, benchRows + benchTwo
	report := func(b *testing.B, statements *atomic.Int64, bytes float64, w *world) {
		b.ReportMetric(float64(statements.Load())/float64(b.N), "statements/op")
		b.ReportMetric(bytes/1024, "KiB-processed/op")
		b.ReportMetric(float64(w.Count("nba_analytics.player_game_summary")-all), "duplicates-left")
	}
	b.Run("sweep", func(b *testing.B) {
		w, statements, double := begin(b)
		key, row := sizes(b, w)
		p := w.process()
		p.Warehouse = w.Through(func(r *http.Request, _ []byte, forward func() *httptest.ResponseRecorder) error {
			if r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/queries") || strings.HasSuffix(r.URL.Path, "/jobs")) {
				statements.Add(1)
			}
			forward()
			return nil
		})
		o := order(func(pipeline.Processor) bool { return true })
		o.From, o.Table = "2026-01-28", "player_game_summary"
		for b.Loop() {
			b.StopTimer()
			double()
			b.StartTimer()
			if r, err := p.Run(b.Context(), o); err != nil || r.Tables[0].Removed != benchTwo {
				b.Fatalf("%+v, %v", r.Tables[0], err)
			}
		}
		copies := 2.0 * benchTwo
		bytes := key*(6*benchRows+day) + // looks at a week
			key*day + // looks again, under the lock
			row*day + // reads the day to decide
			row*day + // archives
			row*copies*1.5 + // compares what lies there: all of it, and what stays
			row*day + row*copies + row*day + // reads the day to compare, inserts; changes the day
			row*day + key*copies // queries the rows that are left
		report(b, statements, bytes, w)
	})
	b.Run("sweep/double", func(b *testing.B) { // a statement takes 3 s
		w, _, double := begin(b)
		platform := w.Platform()
		platform.Delay = 3 * time.Second
		p := w.process()
		p.Warehouse = platform.As("sweep")
		o := order(func(pipeline.Processor) bool { return true })
		o.From, o.Table = "2026-01-28", "player_game_summary"
		for b.Loop() {
			b.StopTimer()
			double()
			b.StartTimer()
			if r, err := p.Run(b.Context(), o); err != nil || r.Tables[0].Removed != benchTwo {
				b.Fatalf("%+v, %v", r.Tables[0], err)
			}
		}
	})
	// Deletes what is not the newest of its key: of rows of one time it deletes none.
	b.Run("delete-where-not-in-max", func(b *testing.B) {
		w, statements, double := begin(b)
		key, row := sizes(b, w)
		for b.Loop() {
			b.StopTimer()
			double()
			b.StartTimer()
			statements.Add(1)
			w.Exec(`DELETE FROM nba_analytics.player_game_summary WHERE CONCAT(CAST(game_date AS STRING), player_lookup, CAST(processed_at AS STRING)) NOT IN (
				SELECT CONCAT(CAST(game_date AS STRING), player_lookup, CAST(MAX(processed_at) AS STRING)) FROM nba_analytics.player_game_summary GROUP BY game_date, player_lookup)`)
		}
		report(b, statements, 2*key*(all+benchTwo)+row*day, w)
	})
	// Writes the whole table anew.
	b.Run("whole-table-rewrite", func(b *testing.B) {
		w, statements, double := begin(b)
		_, row := sizes(b, w)
		for b.Loop() {
			b.StopTimer()
			double()
			b.StartTimer()
			statements.Add(2) // the emulator cannot replace a table that reads itself
			w.Exec("CREATE TABLE nba_analytics.again AS SELECT * FROM nba_analytics.player_game_summary WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY game_date, player_lookup ORDER BY processed_at DESC) = 1",
				"DROP TABLE nba_analytics.player_game_summary", "CREATE TABLE nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.again", "DROP TABLE nba_analytics.again")
		}
		statements.Store(int64(b.N)) // on BigQuery it is one, CREATE OR REPLACE
		report(b, statements, row*(all+benchTwo), w)
	})
}
