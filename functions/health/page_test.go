package health_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
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
	if rec := browse(w, "/"); rec.Code != 200 || !strings.Contains(rec.Body.String(), "<span>Nothing is recorded yet</span>") || !strings.Contains(rec.Body.String(), "Health is not evaluated yet.") ||
		!strings.Contains(rec.Body.String(), "phase3_to_phase4 waits for the first completion on nba-phase3-analytics-complete.") {
		t.Errorf("at first: %d %s", rec.Code, rec.Body)
	}
	for _, name := range []string{"player_game_summary", `"><script>alert(1)</script>`} {
		c := wire.Completion{Processor: name, Reported: name, Period: "2026-02-03", Status: wire.StatusSuccess, EventTime: now, ExecutionID: "x", CorrelationID: "x"}
		if !tr.Expects(name) {
			c.Processor = ""
		}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: "2026-02-03"}, c); err != nil {
			t.Fatal(err)
		}
	}
	if rec := ask(w, "POST", "/", `{"job":"health"}`); rec.Code != 204 {
		t.Fatalf("%d", rec.Code)
	}
	rec := browse(w, "/?days=7")
	body := rec.Body.String()
	for _, text := range []string{`aria-label="2026-02-03 overnight: overdue, 1 of 5, since 10:00"`, "hand_overs", "No lock has a document.", "Adopted on 2026-02-03; earlier days are not judged.", "relay"} {
		if !strings.Contains(body, text) {
			t.Errorf("no %q in %s", text, body)
		}
	}
	page := browse(w, "/cycle/2026-02-03/overnight")
	if page.Code != 200 || !strings.Contains(page.Body.String(), "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") || strings.Contains(page.Body.String(), "<script") {
		t.Errorf("cycle: %d %s", page.Code, page.Body)
	}
	for _, rec := range []*httptest.ResponseRecorder{rec, page} {
		for name, want := range map[string]string{"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; style-src 'sha256-"} {
			if got := rec.Header().Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
}

func TestStatusPage_AnswersUnknownValuesWith400(t *testing.T) {
	w := apptest.New(t, now)
	for path, want := range map[string]string{
		"/?days=0": "days: is no number from 1 to 90 (0)", "/?days=91": "days: ", "/?days=-1": "days: ", "/?days=ten": "days: ", "/?days=7x": "days: ", "/?days=99999999999999999999": "days: ",
		"/?refresh=5": "refresh: is no number from 30 to 3600 (5)", "/?state=held": "state: is none of overdue, blocked, on_hold", "/?processor=player": "processor: is no processor", "/cycles.json?state=x": "state: ",
		"/cycle/2026-02-30/overnight": "period: ", "/cycle/2026-02-03/night": "mode: ", "/cycle/2026-02-03": "path: ", "/cycle/2026-02-03/overnight?transition=x": "transition: ", "/cycle/2026-02-03/overnight?refresh=x": "refresh: ",
	} {
		if rec := browse(w, path); rec.Code != 400 || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	for _, path := range []string{"/?days=14&refresh=60&state=without_all&processor=player_game_summary", "/cycle/2026-02-03/overnight?transition=phase3_to_phase4&refresh=60", "/cycles.json?days=30&state=late"} {
		if rec := browse(w, path); rec.Code != 200 || strings.HasPrefix(path, "/?") != strings.Contains(rec.Body.String(), "<h2 id=\"history\">") ||
			strings.Contains(path, "refresh") != strings.Contains(rec.Body.String(), `<meta http-equiv="refresh" content="60">`) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
}

// A phone in a bad network gets a tenth of the bytes, and a client that cannot read them the page as it is.
func TestStatusPage_IsCompressedForThoseWhoCanReadIt(t *testing.T) {
	w := apptest.New(t, now)
	season(t, w, 95)
	h := health.New(func(context.Context) (*app.App, error) { return w.App, nil })
	rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/?days=90", nil)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Accept-Encoding", "gzip, deflate, br")
	h.ServeHTTP(rec, r)
	plain, sent := browse(w, "/?days=90"), rec.Body.Len()
	z, err := gzip.NewReader(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(z)
	if err != nil || rec.Header().Get("Content-Encoding") != "gzip" || plain.Header().Get("Content-Encoding") != "" || sent > plain.Body.Len()/4 || !strings.Contains(string(page), "2026-01-10 overnight: published, 5 of 5") {
		t.Errorf("%d of %d bytes, %v: %v", sent, plain.Body.Len(), rec.Header(), err)
	}
}

// A source that cannot be read is named in its place, and nothing is taken for empty.
func TestStatusPage_ReportsFailedReads(t *testing.T) {
	w := apptest.New(t, now)
	w.SetDown(true)
	rec := browse(w, "/")
	body := rec.Body.String()
	// The headline and its note, report, jobs, history, checks, locks, sweeps, quarantine, receipts, heartbeats.
	if n := strings.Count(body, "the store is down"); rec.Code != 200 || n != 10 || !strings.Contains(body, "<span>Unknown: the state cannot be read</span>") {
		t.Errorf("%d, %d places: %s", rec.Code, n, body)
	}
	for _, lie := range []string{"No lock has", "No sweep", "No message", "Every cycle", "Nothing is recorded", `class="hero good"`} {
		if strings.Contains(body, lie) {
			t.Errorf("%q", lie)
		}
	}
	for _, path := range []string{"/cycles.json", "/cycle/2026-02-03/overnight", "/report.json"} {
		if rec := browse(w, path); rec.Code != 503 || !strings.Contains(rec.Body.String(), "the store is down") {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
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

// season records the given number of nights.
func season(t testing.TB, w *apptest.World, days int) {
	t.Helper()
	tr := w.Pipeline.Transitions[0]
	for d := range days { // the store's clock goes one way
		period := w.Pipeline.Calendar.Add("2026-02-03", d-days+1)
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

// watched counts the calls of the store.
func watched(w *apptest.World) *atomic.Int64 {
	calls := &atomic.Int64{}
	s := counted{w.Store, calls}
	config := w.Engine.Config
	config.Store = s
	w.App.Store, w.App.Engine = s, cycle.New(config)
	locks := *w.Locks
	locks.Config.Store = s
	w.App.Locks = &locks
	return calls
}

func TestStatusPage_CallsStoreAsOftenForNinetyDaysAsForSeven(t *testing.T) {
	w := apptest.New(t, now)
	season(t, w, 95)
	calls := watched(w)
	for _, days := range []int{7, 90} {
		calls.Store(0)
		rec := browse(w, fmt.Sprint("/?days=", days))
		if n := strings.Count(rec.Body.String(), "overnight: published, 5 of 5"); n != days-1 || rec.Body.Len() > 100<<10 {
			t.Errorf("%d days: %d hand-overs, %d bytes", days, n, rec.Body.Len())
		}
		// The state of the periods 3, since when they are managed 2, locks 2, sweeps 1, heartbeats 1, the report 1, quarantine 1, receipts 1.
		if got := calls.Load(); got != 12 {
			t.Errorf("%d days: %d calls", days, got)
		}
	}
	calls.Store(0)
	if rec := browse(w, "/cycle/2026-02-03/overnight"); rec.Code != 200 || calls.Load() > 9 {
		t.Errorf("a cycle: %d, %d calls", rec.Code, calls.Load())
	}
}
