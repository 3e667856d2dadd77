package health_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/wire"
)

// BenchmarkStatusPage reads from SQLite, as phasectl serve does.
func BenchmarkStatusPage(b *testing.B) {
	w := apptest.New(b, now)
	file := w.Engine.Config
	s, err := sqlite.Open(filepath.Join(b.TempDir(), "store.db"), w.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	file.Store = s
	w.App.Store, w.App.Engine = s, cycle.New(file)
	season(b, w, 95)
	for _, days := range []int{30, 90} {
		b.Run(fmt.Sprint(days, "_days"), func(b *testing.B) {
			size := 0
			for b.Loop() {
				size = browse(w, fmt.Sprint("/?days=", days)).Body.Len()
			}
			b.ReportMetric(float64(size)/1024, "KiB/page")
		})
	}
}

// BenchmarkStatusPageByTheHour is the same of the retail pipeline, with two transitions of 36
// processors.
func BenchmarkStatusPageByTheHour(b *testing.B) {
	clock := time.Date(2026, 10, 29, 6, 20, 0, 0, time.UTC)
	end := clock
	now := func() time.Time { return clock }
	c := app.Config{Project: "test", PipelineFile: "../../scripts/dev/demo/retail.yaml", Store: "sqlite", Claim: time.Minute, Lease: lease.Max, Local: true, PubSubHost: "127.0.0.1:1"}
	file := filepath.Join(b.TempDir(), "store.db")
	a, err := app.Open(b.Context(), c, func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(file, now) }, now, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	config := a.Engine.Config
	config.Publish = func(_ context.Context, _ string, msgs []wire.Outgoing) (out []cycle.Published) {
		for range msgs {
			out = append(out, cycle.Published{ID: "1284000"})
		}
		return out
	}
	config.Expected, config.Check = nil, func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		return cycle.Readiness{Outcome: cycle.NotChecked}
	}
	a.Engine = cycle.New(config)
	cal, rows := a.Pipeline.Calendar, int64(40)
	clock = end.Add(-91 * 24 * time.Hour)
	for first := cal.Add(cal.At(clock), -1); clock.Before(end); clock = clock.Add(time.Hour) {
		period := cal.Add(cal.At(clock), -1)
		for _, t := range a.Pipeline.Transitions {
			var fields []store.Field
			for _, name := range t.Order {
				c := wire.Completion{Processor: name, Reported: name, Period: period, Status: wire.StatusSuccess, EventTime: clock, ExecutionID: "run-" + name, CorrelationID: "x", RecordCount: &rows}
				id, value := c.Record()
				fields = append(fields, store.F(value, "runs", name, id))
			}
			if _, err := a.Store.Apply(context.Background(), store.Merge(store.Ref{Collection: "phase_periods", ID: t.StoredID() + "_" + string(period)}, fields...)); err != nil {
				b.Fatal(err)
			}
			if _, err := a.Engine.Converge(context.Background(), cycle.Key{Transition: t, Period: period}, "m"); err != nil {
				b.Fatal(err)
			}
			if period == first {
				if err := a.Engine.Relay(context.Background(), t, "", nil); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	clock = end
	for _, days := range []int{1, 14, 90} {
		for _, again := range []bool{false, true} {
			h, name := health.New(func(context.Context) (*app.App, error) { return a, nil }), fmt.Sprint(days, "_days")
			if again {
				name += "_again"
			}
			b.Run(name, func(b *testing.B) {
				get := func(encoding string) int {
					rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", fmt.Sprint("/?days=", days), nil)
					r.Header.Set("Accept", "text/html")
					r.Header.Set("Accept-Encoding", encoding)
					h.ServeHTTP(rec, r)
					return rec.Body.Len()
				}
				size, sent := get(""), 0
				before := cpu()
				for b.Loop() {
					if !again {
						h = health.New(func(context.Context) (*app.App, error) { return a, nil })
					}
					sent = get("gzip")
				}
				b.ReportMetric(float64(sent)/1024, "KiB/sent")
				b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(size)/1024, "KiB/page")
			})
		}
	}
}

// cpu is what the process has used: other processes share the machine.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
