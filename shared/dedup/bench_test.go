package dedup

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// benchmarkRows are a table's with four key columns, every twentieth row twice.
func benchmarkRows(n int) (Rule, []Row) {
	r := Rule{Key: []string{"game_date", "player_lookup", "team_abbr", "season"}, OrderBy: "processed_at",
		Columns: []string{"game_date", "player_lookup", "team_abbr", "season", "points", "rebounds", "assists", "minutes_played", "processed_at"}}
	rows := make([]Row, n)
	for i := range rows {
		k := i
		if i%20 == 19 {
			k = i - 1
		}
		rows[i] = Row{"game_date": "2026-02-03", "player_lookup": fmt.Sprintf("player%07d", k), "team_abbr": "LAL", "season": int64(2026), "points": int64(i % 40),
			"rebounds": int64(3), "assists": int64(4), "minutes_played": 31.5, "processed_at": early.Add(time.Duration(i) * time.Microsecond)}
	}
	return r, rows
}

// firstWins is the usual approach: keys joined to a text, the first row stays.
func firstWins(r Rule, rows []Row) []Row {
	seen := map[string]bool{}
	var out []Row
	for _, row := range rows {
		var parts []string
		for _, c := range r.Key {
			parts = append(parts, fmt.Sprint(row[c]))
		}
		key := strings.Join(parts, "_")
		if !seen[key] {
			seen[key] = true
			out = append(out, row)
		}
	}
	return out
}

func BenchmarkDedup(b *testing.B) {
	for _, n := range []int{348, 100_000} {
		r, rows := benchmarkRows(n)
		measure := func(name string, do func() int) {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if left := do(); left == 0 || left >= n {
						b.Fatal(left)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
			})
		}
		measure("by_order", func() int {
			got, err := r.Apply(rows)
			if err != nil {
				b.Fatal(err)
			}
			return len(got.Rows)
		})
		measure("first_wins_joined_keys", func() int { return len(firstWins(r, rows)) })
	}
}
