package sweep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// forms has a column of every form that the emulator loads. It loads JSON only as objects. It
// returns times within records in a form that the library does not read. entry numbers the rows.
const forms = `game_date DATE, player_lookup STRING, points INT64, processed_at TIMESTAMP, entry INT64, minutes FLOAT64, started BOOL,
	tip_off DATETIME, tags ARRAY<STRING>, line STRUCT<made INT64>, plays ARRAY<STRUCT<shot STRING>>, extra JSON`

var formColumns = strings.Fields("game_date player_lookup points processed_at entry minutes started tip_off tags line plays extra")

// keyed draws the key, and what decides which row of it stays: few values, so that
// everything ties.
func keyed(t *rapid.T, entry int) dedup.Row {
	maybe := func(name string, v any) any {
		if rapid.IntRange(0, 3).Draw(t, name+" is there") == 0 {
			return nil
		}
		return v
	}
	at := time.Date(2026, 2, 4, 11, 3, 12, 123456000, time.UTC)
	row := dedup.Row{"game_date": civil.Date{Year: 2026, Month: 2, Day: 3}, "entry": int64(entry),
		"player_lookup": rapid.SampledFrom([]string{"a", "B", "ü", "'", `"`, `\`, "a b", "", "1", "null"}).Draw(t, "player") + fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "number")),
		"points":        maybe("points", int64(rapid.IntRange(-1, 1).Draw(t, "points"))),
		"processed_at":  maybe("time", at.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "time"))*time.Microsecond)),
		"minutes":       maybe("minutes", rapid.SampledFrom([]float64{0.1, 31.25, 1e300, 2, 1.0 / 3}).Draw(t, "minutes")),
		"started":       maybe("started", rapid.Bool().Draw(t, "started")),
		"tip_off":       maybe("tip_off", civil.DateTime{Date: civil.Date{Year: 2026, Month: 2, Day: 3}, Time: civil.Time{Hour: 19, Minute: rapid.IntRange(0, 1).Draw(t, "minute")}}),
		"tags":          rapid.SampledFrom([]any{[]any{}, []any{"x"}, []any{"x", "y"}}).Draw(t, "tags"),
		"line":          maybe("line", map[string]any{"made": int64(rapid.IntRange(0, 1).Draw(t, "made"))}),
		"plays":         rapid.SampledFrom([]any{[]any{}, []any{map[string]any{"shot": "x"}}}).Draw(t, "plays"),
		"extra":         maybe("extra", rapid.SampledFrom([]any{map[string]any{"a": []any{json.Number("1"), "b", nil}}, map[string]any{"a": json.Number("2.5")}, map[string]any{"text": "ü", "b": true}}).Draw(t, "extra")),
	}
	return row
}

// plainTable has the four columns of scores and entry alone, and many more keys.
func plainTable(seed int) []dedup.Row {
	at := time.Date(2026, 2, 4, 11, 3, 12, 123456000, time.UTC)
	draw := rand.New(rand.NewPCG(uint64(seed), 0))
	var rows []dedup.Row
	for i := range 3600 {
		row := dedup.Row{"game_date": civil.Date{Year: 2026, Month: 2, Day: 3}, "entry": int64(i), "player_lookup": fmt.Sprint("p", draw.IntN(1350))}
		if points := draw.IntN(3); points > 0 { // two or none, and three times or none: everything ties
			row["points"] = int64(points)
		}
		if later := draw.IntN(4); later > 0 {
			row["processed_at"] = at.Add(time.Duration(later) * time.Microsecond)
		}
		rows = append(rows, row)
	}
	return rows
}

// table draws rows, some of them several times.
func table(t *rapid.T) []dedup.Row {
	var rows []dedup.Row
	for i := range rapid.IntRange(150, 200).Draw(t, "rows") {
		if i > 0 && rapid.IntRange(0, 9).Draw(t, "again") == 0 {
			rows = append(rows, maps.Clone(rows[rapid.IntRange(0, i-1).Draw(t, "which")]))
			continue
		}
		rows = append(rows, keyed(t, i))
	}
	return rows
}

// load puts rows into player_game_summary, by a load job, as they are.
func (w *world) load(rows []dedup.Row) {
	w.t.Helper()
	var b bytes.Buffer
	for _, row := range rows {
		loadable := maps.Clone(row)
		loadable["game_date"] = fmt.Sprint(row["game_date"])
		if d, ok := row["tip_off"].(civil.DateTime); ok {
			loadable["tip_off"] = strings.Replace(d.String(), "T", " ", 1)
		}
		if err := json.NewEncoder(&b).Encode(loadable); err != nil {
			w.t.Fatal(err)
		}
	}
	client, err := w.Client(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	dataset, name, _ := strings.Cut(w.table(), ".")
	table := client.Dataset(dataset).Table(name)
	meta, err := table.Metadata(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	source := bigquery.NewReaderSource(&b)
	source.SourceFormat, source.Schema = bigquery.JSON, meta.Schema
	job, err := table.LoaderFrom(source).Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if status, err := job.Wait(w.t.Context()); err != nil || status.Err() != nil {
		w.t.Fatal(err, status.Err())
	}
}

func entries(rows []dedup.Row) map[int64]int {
	out := map[int64]int{}
	for _, r := range rows {
		out[r["entry"].(int64)]++
	}
	return out
}

// several counts the keys that several rows have.
func several(rows []dedup.Row) (n int) {
	seen := map[any]int{}
	for _, r := range rows {
		if seen[r["player_lookup"]]++; seen[r["player_lookup"]] == 2 {
			n++
		}
	}
	return n
}

// A processor removes duplicates from its rows before a write, and the sweep removes them from
// BigQuery. Both keep the same rows of thousands of random groups. The sweep removes exactly
// the surplus, once, and an undo restores it.
func TestF32_ASweepKeepsWhatTheWriteWouldHaveKept(t *testing.T) {
	groups := 0
	for seed := range 4 {
		columns, named := forms, formColumns
		var rows []dedup.Row
		if seed < 2 {
			columns, named, rows = scores+", entry INT64", formColumns[:5], plainTable(seed)
		} else {
			rows = rapid.Custom(table).Example(seed)
		}
		rule := dedup.Rule{Key: []string{"game_date", "player_lookup"}, OrderBy: "processed_at", Columns: named}
		want, err := rule.Apply(rows)
		if err != nil {
			t.Fatal(err)
		}
		groups += several(rows)
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			t.Parallel()
			w := withScores(t, columns)
			other := "DATE '2026-02-02', 'a1', 1, NULL, -1" + strings.Repeat(", NULL", len(named)-5)
			w.insert(other, other)
			w.load(rows)
			before := w.json("nba_analytics.player_game_summary")
			o := order(all)
			o.Force = true
			p := w.process()
			got := p.sweep(o)
			p.wantPart(got, Removed, int64(want.Removed), int64(want.Removed), "")
			left := map[int64]int{}
			after := w.json("nba_analytics.player_game_summary")
			for _, text := range after {
				var r struct {
					Entry int64
				}
				// Dates have no quotes in the emulator's JSON.
				if err := json.Unmarshal([]byte("{"+strings.Split(strings.Trim(text[strings.Index(text, `"entry"`):], "}"), ",")[0]+"}"), &r); err != nil {
					t.Fatal(err)
				}
				left[r.Entry]++
			}
			wanted := entries(want.Rows)
			wanted[-1] = 2 // of another period
			if !maps.Equal(left, wanted) {
				t.Errorf("%d rows are left, want %d", len(left), len(wanted))
			}
			p.wantPart(p.sweep(o), Clean, 0, 0, "")
			if _, err := p.Undo(t.Context(), got.ID, "ada", ""); err != nil {
				t.Fatal(err)
			}
			if back := w.json("nba_analytics.player_game_summary"); !slices.Equal(back, before) {
				t.Errorf("%d rows are back, want %d", len(back), len(before))
			}
		})
	}
	if groups < 2000 {
		t.Errorf("%d groups are too few", groups)
	}
}

// Every table of the pipeline can be swept, and gives back what it had.
func TestSweep_EachPipelineTableCanBeSweptAndUndone(t *testing.T) {
	w := newWorld(t, warehousetest.NBA(t))
	if err := w.Sample().CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := w.process()
	for _, phase := range w.pipeline.Phases {
		for _, pr := range phase.Processors {
			t.Run(pr.Name, func(t *testing.T) {
				values := func(key, second string) string {
					v := map[string]string{pr.DateColumn: "DATE '2026-02-03'", pr.OrderBy: "TIMESTAMP '2026-02-04 11:03:" + second + "'"}
					for _, k := range pr.Key {
						if k != pr.DateColumn {
							v[k] = "'" + key + "'"
						}
					}
					return strings.Join(slices.Sorted(maps.Values(v)), ", ") // a date, then a text, then a time
				}
				columns := slices.Concat([]string{pr.Key[1], pr.DateColumn, pr.OrderBy})
				sql := fmt.Sprintf("INSERT INTO %s (%s) VALUES ", pr.Table, strings.Join(columns, ", "))
				var rows []string
				for _, key := range []string{"a", "b", "c", "d"} {
					rows = append(rows, "("+values(key, "12")+")")
				}
				w.Exec(sql + strings.Join(append(rows, "("+values("d", "30")+")"), ", "))
				where := pr.Table + " WHERE " + pr.DateColumn + " = DATE '2026-02-03'"
				before := w.json(where)
				o := order(all)
				o.Table = pr.Table
				got := p.sweep(o)
				p.wantPart(got, Removed, 1, 1, "")
				if left := w.json(where); len(left) != 4 || strings.Contains(strings.Join(left, ""), `"d","processed_at":2026-02-04T11:03:12Z`) {
					t.Errorf("%s", left)
				}
				if _, err := p.Undo(t.Context(), got.ID, "ada", ""); err != nil {
					t.Fatal(err)
				}
				w.want(where, before)
			})
		}
	}
}

// A column may have any name but those of our own columns.
func TestColumns_HostileNamesAreTakenLiterally(t *testing.T) {
	const names = "`select` STRING, `day` INT64, `k` INT64, `n` INT64, `h` STRING, `r` STRING, `t` STRING, `s` STRING, `f` INT64, `a` INT64, `b` INT64, `times` INT64, `without` BOOL"
	for name, c := range map[string]struct {
		column string
		state  State
	}{"others": {"`from` STRING", Removed}, "ours": {"phasegate_row STRING", Refused}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, warehousetest.Empty(t), "key: [game_date, player_lookup]", "key: [game_date, select, k]")
			w.Exec("CREATE TABLE nba_analytics.player_game_summary (game_date DATE, processed_at TIMESTAMP, " + names + ", " + c.column + ")")
			for range 2 {
				w.insert(`DATE '2026-02-03', NULL, "'; DROP TABLE x; --", 1, 2, 3, 'h', 'r', 't', 's', 4, 5, 6, 7, TRUE, 'f'`)
			}
			before := w.json("nba_analytics.player_game_summary")
			o := order(all)
			o.Force = true
			p := w.process()
			got := p.sweep(o)
			if got.State != c.state || got.Duplicates != 1 {
				t.Fatalf("%+v", got)
			}
			if c.state == Removed {
				if left := w.json("nba_analytics.player_game_summary"); len(left) != 1 {
					t.Errorf("%s", left)
				}
				if _, err := p.Undo(t.Context(), got.ID, "ada", ""); err != nil {
					t.Fatal(err)
				}
			}
			w.want("nba_analytics.player_game_summary", before)
		})
	}
}
