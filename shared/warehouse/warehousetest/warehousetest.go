// Package warehousetest gives a test a warehouse of its own: datasets of its own on an
// emulator that it starts: go run ./scripts/dev/emulators -- go test ./shared/warehouse, after
// make build/bqemu. Instead, PHASEGATE_TEST_PROJECT names a
// project of Google Cloud, for what an emulator cannot promise for BigQuery:
//
//	PHASEGATE_TEST_PROJECT=my-project go test -v ./shared/warehouse
//
// with the caller's own credentials. It costs some cents; datasets are dropped at the end,
// and what a test that was killed leaves has no table after a day.
package warehousetest

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

// limit bounds what a test does to its warehouse.
const limit = 2 * time.Minute

// World is a warehouse and what a test does to it.
type World struct {
	*warehouse.Warehouse
	Project, Host string

	t    testing.TB
	data sample.Data
}

// open returns an empty warehouse. It ends with the test.
func open(t testing.TB) *World {
	t.Helper()
	if project := os.Getenv(realProject); project != "" {
		return at(t, project, "")
	}
	return at(t, emulated(), lend(t))
}

// emulated names a project of a warehouse's own: before each request the emulator reads all
// tables and datasets of the request's project.
func emulated() string { return "phasegate-" + strings.ToLower(rand.Text()) }

const realProject = "PHASEGATE_TEST_PROJECT"

// at is an empty warehouse in a project, on an emulator if there is a host.
func at(t testing.TB, project, host string) *World {
	t.Helper()
	w := &World{Project: project, Host: host, t: t}
	w.Warehouse = warehouse.New(w.Project, host)
	t.Cleanup(func() { w.Close() })
	client, err := w.Client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w.data = sample.Data{Client: client, Suffix: "_" + strings.ToLower(rand.Text())}
	return w
}

// Empty returns a warehouse with the dataset nba_analytics, in which there is no table.
func Empty(t testing.TB) *World {
	t.Helper()
	return empty(t, open(t))
}

// Alone is Empty in an emulator of its own, for a test that takes many statements.
func Alone(t testing.TB) *World {
	t.Helper()
	e := start(t)
	t.Cleanup(e.end)
	return empty(t, at(t, emulated(), e.host))
}

func empty(t testing.TB, w *World) *World {
	t.Helper()
	w.dataset("nba_analytics")
	return w
}

// Staging makes a dataset for rows on their way and returns its name.
func (w *World) Staging() string { w.t.Helper(); return w.dataset("staging") }

// dataset makes one that is dropped at the end. In an emulator it stays: to drop a table it
// builds its whole catalog anew, and no other test uses the project.
func (w *World) dataset(name string) string {
	w.t.Helper()
	ds := w.data.Client.Dataset(name + w.data.Suffix)
	meta := &bigquery.DatasetMetadata{}
	if w.Host == "" {
		meta.DefaultTableExpiration = 24 * time.Hour
	}
	if err := ds.Create(w.t.Context(), meta); err != nil {
		w.t.Fatal(err)
	}
	if w.Host == "" {
		w.t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := ds.DeleteWithContents(ctx); err != nil {
				w.t.Errorf("dataset %s is left: %v", ds.DatasetID, err)
			}
		})
	}
	return ds.DatasetID
}

// NBA returns a warehouse with the NBA pipeline's tables, which are empty but for
// these days.
func NBA(t testing.TB, days ...sample.Day) *World {
	t.Helper()
	w := open(t)
	// The library tries again for as long as it is let.
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := w.data.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if w.Host == "" {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := w.data.Drop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	w.Fill(days...)
	return w
}

var (
	once   sync.Once
	common *World
	under  *emulator // of common; who forgot it would end it
	nights atomic.Int64
)

// Complete is a night of ten games with all that belongs to them.
var Complete = sample.Day{Games: 10, Players: 35, Minutes: 35, Context: 30}

// sharedNights are filled at once: in the emulator it is statements that cost time, and
// memory that it never gives back.
const sharedNights = 24

// Shared returns the warehouse that the tests of a package share, and a complete night
// of this test's own, for tests that change the rows of that night alone.
func Shared(t testing.TB) (*World, pipeline.Period) {
	t.Helper()
	first := civil.Date{Year: 2026, Month: 1, Day: 1}
	project, host := os.Getenv(realProject), ""
	if project == "" {
		emulatortest.BigQuery(t) // each test that lacks it is skipped, not the first alone
	}
	once.Do(func() {
		if project == "" {
			under = start(t)
			project, host = emulated(), under.host
		}
		common = at(t, project, host)
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := common.data.Create(ctx); err != nil {
			t.Fatal(err)
		}
		nights := Complete
		nights.Date, nights.Days = pipeline.Period(first.String()), sharedNights
		common.Fill(nights)
	})
	w := at(t, common.Project, common.Host)
	w.data.Suffix = common.data.Suffix
	n := int(nights.Add(1)) - 1
	if n >= sharedNights {
		t.Fatalf("more than %d tests share the warehouse", sharedNights)
	}
	return w, pipeline.Period(first.AddDays(n).String())
}

// Fill puts days on the schedule and into every table.
func (w *World) Fill(days ...sample.Day) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	for _, d := range days {
		if err := w.data.Schedule(ctx, d); err != nil {
			w.t.Fatal(err)
		}
		if err := w.data.Fill(ctx, d); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Exec runs statements, which name the datasets as the NBA pipeline does.
func (w *World) Exec(sqls ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	for _, sql := range sqls {
		if err := w.data.Exec(ctx, sql); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Definition returns the NBA pipeline's, about this warehouse, with the first
// occurrence of each text replaced. Texts come in pairs.
func (w *World) Definition(pairs ...string) string {
	w.t.Helper()
	definition := string(pipeline.Default())
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(definition, pairs[i]) {
			w.t.Fatalf("%q is not in the definition", pairs[i])
		}
		definition = strings.Replace(definition, pairs[i], pairs[i+1], 1)
	}
	return w.data.Rename(definition)
}

// Transition returns the definition's only one.
func (w *World) Transition(pairs ...string) *pipeline.Transition {
	w.t.Helper()
	p, err := pipeline.Parse([]byte(w.Definition(pairs...)))
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Transitions[0]
}

// Count returns the rows of a table.
func (w *World) Count(table string) (rows int64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	it, err := w.data.Client.Query(w.data.Rename("SELECT COUNT(*) FROM " + table)).Read(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		w.t.Fatal(err)
	}
	rows, _ = row[0].(int64)
	return rows
}

// Sample is the data of this warehouse.
func (w *World) Sample() sample.Data { return w.data }

// Rename puts this warehouse's datasets into a text that names the NBA pipeline's.
func (w *World) Rename(text string) string { return w.data.Rename(text) }

// Suffix is what this warehouse's datasets have behind their names.
func (w *World) Suffix() string { return w.data.Suffix }

// Ask runs a query, which names the datasets as the NBA pipeline does, and returns its
// one row.
func (w *World) Ask(sql string) []any {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	it, err := w.data.Client.Query(w.data.Rename(sql)).Read(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		w.t.Fatal(err)
	}
	out := make([]any, len(row))
	for i, v := range row {
		out[i] = v
	}
	return out
}
