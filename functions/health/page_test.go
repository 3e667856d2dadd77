package health_test

import (
	"context"
	"fmt"
	"iter"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// browse asks as a browser does.
func browse(w *apptest.World, path string) *httptest.ResponseRecorder {
	h := health.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	h.ServeHTTP(rec, r)
	return rec
}

func TestStatusPage_ShowsState(t *testing.T) {
	w := apptest.New(t, now)
	tr := w.Pipeline.Transitions[0]
	for _, name := range []string{"player_game_summary", `"><script>alert(1)</script>`} {
		c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-03", Status: wire.StatusSuccess, EventTime: now, ExecutionID: "x", CorrelationID: "x"}
		if !tr.Expects(name) {
			c.Processor = ""
		}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: "2026-02-03"}, c); err != nil {
			t.Fatal(err)
		}
	}
	if rec := browse(w, "/"); rec.Code != 200 || !strings.Contains(rec.Body.String(), "Nothing is failing, and 1 of 1 checks are unknown") || !strings.Contains(rec.Body.String(), "health was never evaluated") {
		t.Errorf("before the first look: %d %s", rec.Code, rec.Body)
	}
	if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 204 {
		t.Fatalf("%d", rec.Code)
	}
	rec := browse(w, "/?days=7")
	body := rec.Body.String()
	for _, text := range []string{"<h1>", `<th scope="row">2026-02-03`, "hand_overs", "player_game_summary complete", "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt; ignored", "No locks.", "the newest date first. adopted on 2026-02-03; earlier days are not judged.", "relay", "source unset"} {
		if !strings.Contains(body, text) {
			t.Errorf("no %q in %s", text, body)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "2026-01-28") || !strings.Contains(body, "2026-01-29") {
		t.Errorf("%s", body)
	}
	for name, want := range map[string]string{"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-"} {
		if got := rec.Header().Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, days := range []string{"0", "91", "-1", "ten", "7x", "99999999999999999999"} {
		if rec := browse(w, "/?days="+days); rec.Code != 400 || !strings.Contains(rec.Body.String(), "days: is no number from 1 to 90 ("+days+")") {
			t.Errorf("%s: %d %s", days, rec.Code, rec.Body)
		}
	}
}

// What cannot be read is said in its place, and nothing is taken for empty.
func TestStatusPage_ReportsFailedReads(t *testing.T) {
	w := apptest.New(t, now)
	w.SetDown(true)
	rec := browse(w, "/")
	body := rec.Body.String()
	if n := strings.Count(body, "the store is down"); rec.Code != 200 || n != 5 { // report, grid, locks, sweeps, heartbeats
		t.Errorf("%d, %d places: %s", rec.Code, n, body)
	}
	for _, lie := range []string{"No lock is held", "No duplicates", "no records", "checks are ok"} {
		if strings.Contains(body, lie) {
			t.Errorf("%q", lie)
		}
	}
}

// counted counts calls.
type counted struct {
	store.Store
	n *atomic.Int64
}

func (c counted) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.n.Add(1)
	return c.Store.Get(ctx, refs...)
}

func (c counted) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	c.n.Add(1)
	return c.Store.Scan(ctx, collection, from, to)
}

func (c counted) Apply(context.Context, ...store.Write) ([]store.Version, error) {
	panic("a page has written something")
}

// season has so many nights on record.
func season(t testing.TB, w *apptest.World, days int) {
	t.Helper()
	tr := w.Pipeline.Transitions[0]
	for d := range days {
		period := w.Pipeline.Calendar.Add("2026-02-03", -d)
		end := w.Pipeline.Calendar.End(period).Add(6 * time.Hour)
		w.SetNow(end.Add(time.Minute))
		for _, name := range tr.Order {
			c := wire.Completion{Processor: name, Reported: name, Period: period, Status: wire.StatusSuccess, EventTime: end, ExecutionID: "run-" + name, CorrelationID: "x"}
			if err := w.Engine.Record(context.Background(), cycle.Key{Transition: tr, Period: period}, c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Engine.Converge(context.Background(), cycle.Key{Transition: tr, Period: period}, "m"); err != nil {
			t.Fatal(err)
		}
	}
	w.SetNow(now)
}

func TestStatusPage_NinetyDaysNeedAsManyCallsAsSeven(t *testing.T) {
	w := apptest.New(t, now)
	season(t, w, 95)
	calls := &atomic.Int64{}
	s := counted{w.Store, calls}
	config := w.Engine.Config
	config.Store = s
	w.App.Store, w.App.Engine = s, cycle.New(config)
	locks := *w.Locks
	locks.Config.Store = s
	w.App.Locks = &locks
	counts := map[int]int64{}
	for _, days := range []int{7, 90} {
		calls.Store(0)
		rec := browse(w, fmt.Sprint("/?days=", days))
		counts[days] = calls.Load()
		if n := strings.Count(rec.Body.String(), "published"); n < days || rec.Body.Len() > 700_000 {
			t.Errorf("%d days: %d hand-overs, %d bytes", days, n, rec.Body.Len())
		}
	}
	// The state of the periods 4, since when they are managed 2, locks 2, sweeps 1, heartbeats 1, the report 1.
	if counts[7] != 11 || counts[90] != 11 {
		t.Errorf("calls: %v", counts)
	}
}

func BenchmarkStatusPage(b *testing.B) {
	w := apptest.New(b, now)
	season(b, w, 95)
	for _, days := range []int{checks.PageDays, checks.MaxPageDays} {
		b.Run(fmt.Sprint(days, "_days"), func(b *testing.B) {
			size := 0
			for b.Loop() {
				size = browse(w, fmt.Sprint("/?days=", days)).Body.Len()
			}
			b.ReportMetric(float64(size)/1024, "KiB/page")
		})
	}
}
