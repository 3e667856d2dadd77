package warehouse_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// books is a warehouse with a table of its own and a dataset for staging.
type books struct {
	*warehousetest.World
	t      *testing.T
	target warehouse.Target
}

const lockOf = "Scores_2026-02-03"

const scores = `game_date DATE, player_lookup STRING, points INT64, processed_at TIMESTAMP`

func newBooks(t *testing.T, columns, options string) *books {
	t.Helper()
	b := &books{World: warehousetest.Empty(t), t: t}
	b.Exec("CREATE TABLE nba_analytics.scores (" + columns + ") " + options)
	b.target = warehouse.Target{Period: night, Staging: b.Staging(), Processor: pipeline.Processor{Name: "scores", Table: b.Rename("nba_analytics.scores"),
		DateColumn: "game_date", Key: []string{"game_date", "player_lookup"}, OrderBy: "processed_at"}}
	return b
}

func (b *books) client() *bigquery.Client {
	c, err := b.Client(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// right is one that has no next token.
func (b *books) right() warehouse.Right {
	return warehouse.Right{JobID: warehouse.JobID(lockOf, rand.Text()),
		Next: func(context.Context) (string, error) { return "", errors.New("no next token") }}
}

func (b *books) write(right warehouse.Right, rows ...dedup.Row) (warehouse.Written, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return b.Write(ctx, right, b.target, rows)
}

// fence revokes a right of any holder.
func (b *books) fence(right warehouse.Right) error {
	return b.Fence(b.t.Context(), b.target.Processor.Table, lockOf, strings.TrimPrefix(right.JobID, warehouse.JobID(lockOf, "")))
}

func (b *books) mustWrite(rows ...dedup.Row) warehouse.Written {
	b.t.Helper()
	got, err := b.write(b.right(), rows...)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *books) query(sql string) [][]bigquery.Value {
	b.t.Helper()
	it, err := b.client().Query(b.Rename(sql)).Read(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var out [][]bigquery.Value
	for {
		var row []bigquery.Value
		err := it.Next(&row)
		if errors.Is(err, iterator.Done) {
			return out
		}
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, row)
	}
}

// points are the table's rows as text, in order.
func (b *books) points() string {
	b.t.Helper()
	var out []string
	for _, r := range b.query("SELECT CAST(game_date AS STRING), player_lookup, points FROM nba_analytics.scores WHERE game_date > DATE '2000-01-01' ORDER BY 1, 2, 3") {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%v:%v=%v", r[0], r[1], r[2]), "2026-02-03:"))
	}
	return strings.Join(out, " ")
}

var (
	first  = time.Date(2026, 2, 4, 11, 3, 12, 123456000, time.UTC)
	second = first.Add(18 * time.Second)
)

func score(player string, points any, at time.Time) dedup.Row {
	return dedup.Row{"game_date": string(night), "player_lookup": player, "points": points, "processed_at": at}
}

func rowsOf(rows ...dedup.Row) []dedup.Row { return rows }

func (b *books) want(points string) {
	b.t.Helper()
	if got := b.points(); got != points {
		b.t.Errorf("the table has %s, want %s", got, points)
	}
}

func TestWrite_ReplacesPeriod(t *testing.T) {
	b := newBooks(t, scores, "PARTITION BY game_date")
	b.Exec(`INSERT INTO nba_analytics.scores VALUES (DATE '2026-02-02', 'old', 1, TIMESTAMP '2026-02-03 11:00:00'),
		(DATE '2026-02-03', 'gone', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00')`)
	got := b.mustWrite(score("a", 10, first), score("b", 20, first), score("b", 21, second))
	b.want("2026-02-02:old=1 a=10 b=21")
	if got.Rows != 2 || got.Removed != 1 || got.Doubled != 0 || got.Problem != "" || len(got.Examples) != 1 {
		t.Errorf("%+v", got)
	}
	b.mustWrite(score("c", 30, second)) // a later run replaces it again
	b.want("2026-02-02:old=1 c=30")
	if rows := b.query("SELECT COUNT(*) FROM nba_analytics.scores WHERE processed_at = TIMESTAMP '2026-02-04 11:03:30.123456'"); rows[0][0] != int64(1) {
		t.Errorf("microseconds: %v", rows)
	}
}

func TestWrite_ByKeyKeepsRowsOfOtherKeys(t *testing.T) {
	b := newBooks(t, scores, "PARTITION BY game_date")
	b.Exec(`INSERT INTO nba_analytics.scores VALUES (DATE '2026-02-02', 'a', 1, TIMESTAMP '2026-02-03 11:00:00'),
		(DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'a', 1, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'stays', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', 'twice', 1, TIMESTAMP '2026-02-04 11:00:00'),
		(DATE '2026-02-03', 'twice', 1, TIMESTAMP '2026-02-04 11:00:00'), (DATE '2026-02-03', NULL, 5, TIMESTAMP '2026-02-04 11:00:00')`)
	b.target.ByKey = true
	got := b.mustWrite(score("a", 10, first), score("b", 20, first))
	b.want("2026-02-02:a=1 <nil>=5 a=10 b=20 stays=1 twice=1 twice=1")
	if got.Doubled != 1 { // duplicates of other runs: found, reported, and no error
		t.Errorf("%+v", got)
	}
	b.target.Processor.Key = []string{"game_date", "player_lookup", "points"}
	b.mustWrite(score("a", 10, second), score("a", 11, second))
	b.want("2026-02-02:a=1 <nil>=5 a=10 a=11 b=20 stays=1 twice=1 twice=1")
}

func TestWrite_WithoutRowsChangesNothing(t *testing.T) {
	b := newBooks(t, scores, "")
	b.mustWrite(score("a", 10, first))
	if got := b.mustWrite(); got.Rows != 0 || got.JobID != "" {
		t.Errorf("%+v", got)
	}
	b.want("a=10")
}

// The zombie: it was paused beyond its lease, and its successor has made sure.
func TestWrite_FencedWriterChangesNothing(t *testing.T) {
	b := newBooks(t, scores, "PARTITION BY game_date")
	zombie, successor := b.right(), b.right()
	for range 2 {
		if err := b.fence(zombie); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.write(successor, score("a", 11, second)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.write(zombie, score("a", 10, first)); !errors.Is(err, warehouse.ErrFenced) {
		t.Errorf("%v", err)
	}
	b.want("a=11")
	// The successor's write was faster: a fence waits for its end, and finds it done.
	if err := b.fence(successor); err != nil {
		t.Fatal(err)
	}
	b.want("a=11")
}

// A job id stays taken however many jobs came after it. The emulator keeps old jobs out of
// sight (scripts/dev/bqemu/jobs.go) and has to bring them back.
func TestFence_HoldsHoweverManyJobsCameSince(t *testing.T) {
	b := newBooks(t, scores, "")
	zombie, done := b.right(), b.right()
	if err := b.fence(zombie); err != nil {
		t.Fatal(err)
	}
	if _, err := b.write(done, score("a", 10, first)); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		b.Count("nba_analytics.scores")
	}
	if _, err := b.write(zombie, score("a", 11, second)); !errors.Is(err, warehouse.ErrFenced) {
		t.Errorf("the fenced writer: %v", err)
	}
	if got, err := b.write(done, score("a", 12, second)); err != nil || got.JobID != done.JobID {
		t.Errorf("the one whose answer was lost: %+v, %v", got, err)
	}
	b.want("a=10")
}

// A writer that lost the answer retries under the same token: its first write has happened.
func TestWrite_HappensOncePerToken(t *testing.T) {
	b := newBooks(t, scores, "")
	right := b.right()
	for range 2 {
		got, err := b.write(right, score("a", 10, first))
		if err != nil || got.JobID != right.JobID {
			t.Fatal(got, err)
		}
		b.Exec("UPDATE nba_analytics.scores SET points = points + 1 WHERE TRUE")
	}
	b.want("a=12")
}

func TestWrite_FitsTablesOfEveryForm(t *testing.T) {
	columns := `game_date DATE NOT NULL, player_lookup STRING, points INT64, processed_at TIMESTAMP, minutes FLOAT64, salary NUMERIC, exact BIGNUMERIC, started BOOL,
		tip_off DATETIME, clock TIME, tags ARRAY<STRING>, line STRUCT<made INT64>, plays ARRAY<STRUCT<moment TIMESTAMP>>, extra JSON`
	full := dedup.Row{"game_date": civil.Date{Year: 2026, Month: 2, Day: 3}, "player_lookup": "a", "points": 12.0, "processed_at": first.Format(time.RFC3339Nano),
		"minutes": 31.25, "salary": "47.600000001", "exact": big.NewRat(1, 8), "started": true, // bytes are loaded from base64, which the emulator keeps as it is
		"tip_off": "2026-02-03T19:30:00", "clock": civil.Time{Hour: 1, Minute: 2, Second: 3}, "tags": []any{"x", "y"},
		// The emulator takes the fields of a record in any order: these have one each.
		"line":  map[string]any{"made": 3},
		"plays": []any{map[string]any{"moment": first}, map[string]any{}},
		"extra": map[string]any{"a": []any{1, "b", nil}}}
	for name, options := range map[string]string{
		"partitioned": "PARTITION BY game_date", "unpartitioned": "", "filter_required": "PARTITION BY game_date OPTIONS (require_partition_filter = TRUE)",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooks(t, columns, options)
			for range 2 {
				b.mustWrite(full, dedup.Row{"game_date": string(night), "player_lookup": "b", "processed_at": first})
			}
			rows := b.query(`SELECT player_lookup, points, minutes, CAST(salary AS STRING), CAST(exact AS STRING), started, FORMAT_DATETIME('%F %T', tip_off), CAST(clock AS STRING),
				ARRAY_TO_STRING(tags, ','), line.made, ARRAY_LENGTH(plays), FORMAT_TIMESTAMP('%E6S', plays[OFFSET(0)].moment), TO_JSON_STRING(extra)
				FROM nba_analytics.scores WHERE game_date = DATE '2026-02-03' AND player_lookup = 'a'`)
			want := [][]bigquery.Value{{"a", int64(12), 31.25, "47.600000001", "0.125", true, "2026-02-03 19:30:00", "01:02:03", "x,y", int64(3), int64(2), "12.123456", `{"a":[1,"b",null]}`}}
			if diff := cmp.Diff(want, rows); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := b.query("SELECT COUNT(*), COUNTIF(points IS NULL AND started IS NULL AND extra IS NULL) FROM nba_analytics.scores WHERE game_date = DATE '2026-02-03'"); n[0][0] != int64(2) || n[0][1] != int64(1) {
				t.Errorf("%v", n)
			}
		})
	}
}

func TestWrite_NamesMismatchOfTableOrRow(t *testing.T) {
	b := newBooks(t, scores, "")
	for name, c := range map[string]struct {
		edit func(*warehouse.Target)
		row  dedup.Row
		want string
	}{
		"no_such_table":    {edit: func(t *warehouse.Target) { t.Processor.Table += "_old" }, want: "_old does not exist"},
		"key_not_in_table": {edit: func(t *warehouse.Target) { t.Processor.Key = []string{"game_date", "playr"} }, want: `key column "playr" is not in the table`},
		"no_order_column":  {edit: func(t *warehouse.Target) { t.Processor.OrderBy = "loaded_at" }, want: `order column "loaded_at" is not in the table`},
		"no_date_column":   {edit: func(t *warehouse.Target) { t.Processor.DateColumn = "points" }, want: "has no column points of type DATE"},
		"unknown_column":   {row: dedup.Row{"game_date": string(night), "player_lookup": "a", "pionts": 1}, want: "row 0: pionts: the table has no such column"},
		"another_type":     {row: dedup.Row{"game_date": string(night), "player_lookup": "a", "points": "12"}, want: "row 0: points: string 12 is no INTEGER"},
		"half_a_point":     {row: dedup.Row{"game_date": string(night), "player_lookup": "a", "points": 1.5}, want: "row 0: points: float64 1.5 is no INTEGER"},
		"another_period":   {row: dedup.Row{"game_date": "2026-02-02", "player_lookup": "a"}, want: "row 0: game_date: 2026-02-02 is not 2026-02-03"},
		"no_period":        {row: dedup.Row{"player_lookup": "a"}, want: "row 0: game_date: <nil> is not 2026-02-03"},
		"no_date":          {row: dedup.Row{"game_date": "TODAY", "player_lookup": "a"}, want: "row 0: game_date: string TODAY is no DATE"},
		"no_key":           {row: dedup.Row{"game_date": string(night), "points": 1}, want: "row 0: key column player_lookup is NULL"},
	} {
		t.Run(name, func(t *testing.T) {
			target, row := b.target, c.row
			if c.edit != nil {
				c.edit(&target)
				row = score("a", 1, first)
			}
			_, err := b.Write(t.Context(), b.right(), target, []dedup.Row{row})
			var rowError *warehouse.RowError
			var keyError *dedup.KeyError
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, warehouse.ErrTarget) && !errors.As(err, &rowError) && !errors.As(err, &keyError) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	b.want("")
}

// Names that a schema may have stand for themselves.
func TestColumns_HostileNamesAreTakenLiterally(t *testing.T) {
	b := newBooks(t, "game_date DATE, `select` STRING, `from` INT64, processed_at TIMESTAMP", "")
	b.target.Processor.Key = []string{"game_date", "select"}
	b.mustWrite(dedup.Row{"game_date": string(night), "select": "'; DROP TABLE scores; --", "from": 1, "processed_at": first})
	if rows := b.query("SELECT `select`, `from` FROM nba_analytics.scores"); fmt.Sprint(rows) != "[['; DROP TABLE scores; -- 1]]" {
		t.Errorf("%v", rows)
	}
}

// The emulator reads a text as JSON where BigQuery reads JSON, and has no NaN: a number stands
// for the JSON that operators cannot compare.
func TestWriteByKey_TakesAScalarOfJSONAsAKey(t *testing.T) {
	b := newBooks(t, "game_date DATE, grade JSON, points INT64, processed_at TIMESTAMP", "")
	b.target.Processor.Key, b.target.ByKey = []string{"game_date", "grade"}, true
	for i := range 2 {
		got := b.mustWrite(dedup.Row{"game_date": string(night), "grade": 7, "points": i, "processed_at": first},
			dedup.Row{"game_date": string(night), "grade": 7.0, "points": 9, "processed_at": first.Add(-1)})
		if got.Rows != 1 || got.Removed != 1 || got.Doubled != 0 {
			t.Errorf("write %d: %+v", i, got)
		}
	}
	if got := fmt.Sprint(b.query("SELECT TO_JSON_STRING(grade), points FROM nba_analytics.scores")); got != "[[7 1]]" {
		t.Errorf("%s stands in the table", got)
	}
}
