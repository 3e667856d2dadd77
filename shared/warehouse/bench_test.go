package warehouse_test

import (
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

const mega = 1 << 20

// minimum is what BigQuery bills for each table of a query, and for the query, at least:
// https://cloud.google.com/bigquery/pricing#on_demand_pricing
const minimum = 10

var (
	ofDataset = regexp.MustCompile(`nba_(?:raw|analytics)\w*\.\w+`)
	ofGames   = regexp.MustCompile(`\b(?:schedule|games|expectation)\b`)
)

// billed returns the megabytes that BigQuery bills for a query: what it reads of each
// table, rounded up. What it reads is at most all columns of the rows of the date, here
// measured as JSON, which is longer.
func billed(b *testing.B, w *warehousetest.World, sql string) (mb int64) {
	b.Helper()
	names := ofDataset.FindAllString(sql, -1)
	slices.Sort(names)
	client, err := w.Client(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range slices.Compact(names) {
		it, err := client.Query("SELECT IFNULL(SUM(BYTE_LENGTH(TO_JSON_STRING(t))), 0) FROM " + name + " AS t").Read(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		var row []bigquery.Value
		if err := it.Next(&row); err != nil {
			b.Fatal(err)
		}
		bytes, _ := row[0].(int64)
		mb += max(minimum, (bytes+mega-1)/mega)
	}
	return max(mb, minimum)
}

// BenchmarkReadiness counts the queries and billed megabytes of a cycle's readiness. It
// compares them with one query a check. On the double a query takes 3 s.
func BenchmarkReadiness(b *testing.B) {
	for _, mode := range []string{"overnight", "same_day"} {
		b.Run(mode, func(b *testing.B) {
			w := warehousetest.NBA(b, good)
			if w.Host == "" {
				b.Skip("what stands between needs the emulator")
			}
			address, queries := front(b, w.Host, func(http.ResponseWriter, bool) bool { return false })
			asked := warehouse.New(w.Project, address)
			b.Cleanup(func() { asked.Close() })
			tr := w.Transition()
			m, _ := tr.Mode(mode)
			processors := slices.Concat(m.Critical, m.Optional)
			n := 0
			for b.Loop() {
				n++
				if r := asked.Check(b.Context(), tr, night, mode, processors); r.Outcome != policy.Passed {
					b.Fatalf("%+v", r)
				}
			}
			qs := queries()
			b.ReportMetric(float64(len(qs))/float64(n), "queries/op")
			b.ReportMetric(float64(billed(b, w, qs[0]["query"].(map[string]any)["query"].(string))), "MB-billed/op")
			checks := tr.Checks.For(mode, processors)
			b.ReportMetric(float64(len(checks)), "queries-one-by-one/op")
			b.ReportMetric(float64(oneByOne(b, w, tr, checks)), "MB-billed-one-by-one/op")
		})
		b.Run(mode+"/double", func(b *testing.B) {
			w := warehousetest.NBA(b, good)
			double := w.Platform()
			double.Delay = 3 * time.Second
			asked, tr := double.As("transition"), w.Transition()
			m, _ := tr.Mode(mode)
			for b.Loop() {
				if r := asked.Check(b.Context(), tr, night, mode, slices.Concat(m.Critical, m.Optional)); r.Outcome != policy.Passed {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}

func oneByOne(b *testing.B, w *warehousetest.World, tr *pipeline.Transition, checks []pipeline.Check) (mb int64) {
	for _, c := range checks {
		sql := c.SQL
		if ofGames.MatchString(sql) {
			sql += tr.Checks.Tables[0].SQL // the schedule
		}
		mb += billed(b, w, sql)
	}
	return mb
}
