package statuspage

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

const night = pipeline.Period("2026-02-03")

// morning is 12:20 in New York on 2026-02-04.
var morning = time.Date(2026, 2, 4, 17, 20, 0, 0, time.UTC)

func record(t testing.TB, w *apptest.World, p pipeline.Period, status wire.Status, names ...string) {
	t.Helper()
	tr := w.Pipeline.Transitions[0]
	key := cycle.Key{Transition: tr, Period: p}
	for _, name := range names {
		rows, seconds := int64(348), 527.0
		c := wire.Completion{Processor: name, Reported: name, Period: p, Status: status, EventTime: w.Now(), ExecutionID: "run-" + name, CorrelationID: "x", RecordCount: &rows, Duration: &seconds}
		if status == wire.StatusFailed {
			c.ErrorType, c.ErrorMessage = "QuotaExceeded", strings.Repeat("é", 300)
		}
		if err := w.Engine.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Engine.Converge(t.Context(), key, "m"); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, w *apptest.World, query string) overview {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	q, err := parseQuery(w.App, values)
	if err != nil {
		t.Fatal(err)
	}
	return newOverview(w.App, new(Page).readAll(t.Context(), w.App, q.Days), q)
}

// remember keeps a report, as the hourly job does.
func remember(t testing.TB, w *apptest.World, age time.Duration, states ...health.State) {
	t.Helper()
	r := health.Report{Schema: 1, At: w.Now().Add(-age), Overall: health.OK}
	for i, s := range states {
		if s != health.OK {
			r.Overall = s
		}
		r.Checks = append(r.Checks, health.Check{ID: "check_" + string(rune('a'+i)), State: s, Evidence: []string{"e"}, Since: r.At})
	}
	if err := health.New(w.App).Remember(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	seen := map[string]any{}
	for _, s := range w.Pipeline.Schedules {
		if err := w.Heartbeat(t.Context(), s.Function, s.Job); err != nil {
			t.Fatal(err)
		}
		seen[s.Name+" "+s.Cron] = r.At
	}
	if _, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: app.StatusCollection, ID: "health"}, store.F(seen, "schedules"))); err != nil {
		t.Fatal(err)
	}
}

// The first completion of a new deployment makes no cycle overdue that ended before.
func TestOverview_DoesNotJudgeCyclesBeforeTheFirstRelay(t *testing.T) {
	w := apptest.New(t, morning)
	if err := w.Engine.Relay(t.Context(), w.Pipeline.Transitions[0], "", nil); err != nil {
		t.Fatal(err)
	}
	if o := view(t, w, ""); o.Headline != "Nothing is recorded yet" || o.Tone != "calm" || o.Report != "Health is not evaluated yet." || len(o.Todo) != 0 {
		t.Errorf("%+v", o)
	}
	record(t, w, "2026-02-04", wire.StatusSuccess, "upcoming_team_game_context") // hands nothing over
	o := view(t, w, "")
	if o.Headline != "Every cycle is handed over, or is not due yet" || o.Tone != "calm" || len(o.Todo) != 0 {
		t.Errorf("%q, %s, %+v", o.Headline, o.Tone, o.Todo)
	}
	if err := w.Engine.Relay(t.Context(), w.Pipeline.Transitions[0], "", nil); err != nil { // and records the first period
		t.Fatal(err)
	}
	// A completion of an earlier day, such as a backfill, is shown and not judged.
	record(t, w, "2026-01-30", wire.StatusSuccess, "player_game_summary")
	if o = view(t, w, ""); len(o.Todo) != 0 || !strings.Contains(labels(o), "2026-01-30 overnight: waiting, 1 of 5, before the adoption") {
		t.Errorf("%+v %s", o.Todo, labels(o))
	}
}

func labels(o overview) string {
	var out []string
	for _, h := range o.Histories {
		for _, w := range h.Weeks {
			for _, r := range w.Rows {
				for _, c := range r.Cells {
					if c.Link != "" {
						out = append(out, c.Label)
					}
				}
			}
		}
	}
	return strings.Join(out, "\n")
}

func TestOverview_HeadlineFollowsLiveStateAndReport(t *testing.T) {
	for name, tc := range map[string]struct {
		age      time.Duration
		states   []health.State
		headline string
		tone     string
		report   string
	}{
		"ok":      {time.Minute, []health.State{health.OK, health.OK}, "Every cycle is handed over, or is not due yet", "good", "Health was evaluated at 12:19, 1 min ago: 2 ok."},
		"failing": {20 * time.Minute, []health.State{health.OK, health.Failing, health.Unknown}, "Every cycle is handed over, or is not due yet", "fair", "Health was evaluated at 12:00, 20 min ago: 1 failing, 1 unknown, 1 ok."},
		"stale":   {5 * time.Hour, []health.State{health.OK}, "Every cycle is handed over, or is not due yet", "fair", "Health was evaluated at 07:20, 5 h 0 min ago: 1 unknown, 1 ok."},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, morning.Add(-7*time.Hour)) // 05:20
			record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
			w.SetNow(morning)
			remember(t, w, tc.age, tc.states...)
			if o := view(t, w, ""); o.Headline != tc.headline || o.Tone != tc.tone || o.Report != tc.report {
				t.Errorf("%q, %s, %q", o.Headline, o.Tone, o.Report)
			}
			// A hold that is newer than the report changes the headline.
			if _, err := w.Engine.Hold(t.Context(), cycle.Key{Transition: w.Pipeline.Transitions[0], Period: "2026-02-04"}, "overnight", time.Hour, "ada", "wait"); err != nil {
				t.Fatal(err)
			}
			o := view(t, w, "")
			if o.Headline != "1 cycle on hold" || o.Newer != "The report does not know yet: 2026-02-04 overnight is on hold." || len(o.Todo) != 1 || o.Todo[0].Command != "phasectl release 2026-02-04 overnight --reason '…'" {
				t.Errorf("%q, %q, %+v", o.Headline, o.Newer, o.Todo)
			}
		})
	}
}

func TestOverview_NamesOverdueCycleWithItsError(t *testing.T) {
	w := apptest.New(t, morning.Add(-8*time.Hour))
	record(t, w, night, wire.StatusFailed, "player_game_summary")
	w.SetNow(morning)
	remember(t, w, time.Minute, health.OK)
	o := view(t, w, "")
	if o.Headline != "1 cycle overdue" || o.Tone != "bad" || len(o.Todo) != 1 {
		t.Fatalf("%q %s %+v", o.Headline, o.Tone, o.Todo)
	}
	item := o.Todo[0]
	if item.Since != "10:00" || item.Age != "2 h 20 min" || item.Link != "cycle/2026-02-03/overnight" || item.Command != "phasectl explain 2026-02-03 overnight" ||
		!strings.HasPrefix(item.Error, "QuotaExceeded: é") || len(item.Error) > 200+len("…") {
		t.Errorf("%+v", item)
	}
}

// A relay that is late is named, and the page is not green.
func TestOverview_NamesLateJob(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	remember(t, w, time.Minute, health.OK)
	w.SetNow(morning)
	o := view(t, w, "")
	if o.Tone != "fair" || !strings.Contains(strings.Join(o.Notes, "\n"), "The job relay is late: it last finished at 05:20, and was due at 12:15.") {
		t.Errorf("%s %q", o.Tone, o.Notes)
	}
}

func TestKindOf_QualifiesStates(t *testing.T) {
	for name, tc := range map[string]struct {
		c    shown
		want kind
	}{
		"waiting":           {shown{Status: cycle.Status{State: "waiting"}}, "waiting"},
		"published":         {shown{Status: cycle.Status{State: "published"}, judged: true, onTime: true}, "published"},
		"late":              {shown{Status: cycle.Status{State: "published"}, judged: true}, "late"},
		"without all":       {shown{Status: cycle.Status{State: "published", Missing: []string{"b"}}, judged: true}, "without_all"},
		"overdue":           {shown{Status: cycle.Status{State: "overdue"}}, "overdue"},
		"made up":           {shown{Status: cycle.Status{State: "overdue"}, made: "overnight"}, "made_up"},
		"before adoption":   {shown{Status: cycle.Managed{Since: "2026-02-03"}.Judged(cycle.Status{State: "overdue", Period: "2026-02-02"})}, "waiting"},
		"closed":            {shown{Status: cycle.Status{State: "closed"}}, "closed"},
		"published earlier": {shown{Status: cycle.Status{State: "published"}}, "published"},
	} {
		if got := kindOf(&tc.c); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	for _, s := range []string{"waiting", "grace", "checking", "blocked", "publishing", "published", "overdue", "on_hold", "closed"} {
		if rank(kind(s)) < 0 {
			t.Errorf("%s has no rank", s)
		}
	}
}

func TestOverview_FiltersByStateAndProcessor(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	w.SetNow(morning)
	for query, want := range map[string]string{
		"state=published": "2026-02-03 overnight: published, 5 of 5",
		"state=published&processor=upcoming_team_game_context": "2026-02-03 overnight: published, 5 of 5",
		"state=overdue":                       "",
		"processor=team_defense_game_summary": "2026-02-03 overnight: published, 5 of 5\n2026-02-04 overnight: waiting, 0 of 5\n2026-02-05 overnight: waiting, 0 of 5",
	} {
		o := view(t, w, query)
		if got := labels(o); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
		if all := o.Legend[0]; strings.HasPrefix(query, "processor") && all.N != 3 {
			t.Errorf("%s: %+v", query, o.Legend)
		}
	}
	if o := view(t, w, "state=published&days=7"); o.Query.With("days", "30") != "?days=30&state=published" || o.Query.With("state", "") != "?days=7" {
		t.Errorf("%q", o.Query.With("days", "30"))
	}
}

// The tile has the same definition as phasectl report.
func TestTiles_ShareOnTimeAgainstGoal(t *testing.T) {
	w := apptest.New(t, time.Date(2026, 2, 3, 10, 20, 0, 0, time.UTC)) // 05:20
	w.Pipeline.Health.SLOPct = 95
	record(t, w, "2026-02-02", wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	w.SetNow(morning.Add(-2 * time.Hour)) // 10:20, after the deadline
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	w.SetNow(morning)
	tile := view(t, w, "").Tiles[0]
	if tile.Number != "50 %" || tile.Note != "1 of 2 cycles, goal 95 %" || !strings.Contains(tile.Label, "goal 95 %") {
		t.Errorf("%+v", tile)
	}
	if o := view(t, w, ""); !strings.Contains(labels(o), "2026-02-03 overnight: published late, 5 of 5") {
		t.Errorf("%s", labels(o))
	}
}

func TestLists_LocksAreHeldExpiredOrLeakedWithRenewal(t *testing.T) {
	w := apptest.New(t, morning)
	for _, l := range []struct {
		class string
		age   time.Duration
	}{{"C", time.Hour}, {"B", 11 * time.Minute}, {"A", time.Minute}} { // the store's clock goes one way
		w.SetNow(morning.Add(-l.age))
		if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: l.class, Period: night}, "run-1"); err != nil {
			t.Fatal(err)
		}
	}
	w.SetNow(morning)
	var got []string
	for _, row := range view(t, w, "").Locks.Rows {
		got = append(got, strings.Join([]string{row.Name, row.State, row.Cells[1], row.Command}, "|"))
	}
	want := "A_2026-02-03|held|12:19, 1 min ago|\nB_2026-02-03|expired|12:09, 11 min ago|\nC_2026-02-03|leaked|11:20, 1 h 0 min ago|phasectl locks release C_2026-02-03 --reason '…'"
	if strings.Join(got, "\n") != want {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// A listing of any number of locks stays short: leaked ones come first.
func TestLists_AreBounded(t *testing.T) {
	l := listing{}
	for range 2 * mostRows {
		l.Rows = append(l.Rows, listRow{Tone: "calm"})
	}
	l.Rows = append(l.Rows, listRow{Tone: "bad"})
	if l = l.bound(); len(l.Rows) != mostRows || l.More != mostRows+1 || l.Rows[0].Tone != "bad" {
		t.Errorf("%d rows, %d more, %+v", len(l.Rows), l.More, l.Rows[0])
	}
}

// A hundred requests at once are served from one read. A request that leaves ends no other, and
// the read that follows is a new one.
func TestReads_ServeRequestsAtOnceFromOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reads
		var begun atomic.Int64
		release := make(chan struct{})
		read := func(ctx context.Context) any {
			n := begun.Add(1)
			<-release
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return n
		}
		first, leave := context.WithCancel(t.Context())
		answers := make(chan any, 200)
		ask := func(ctx context.Context) {
			got, err := r.do(ctx, "30", read)
			if err != nil {
				got = err
			}
			answers <- got
		}
		go ask(first)
		synctest.Wait()
		for range 99 {
			go ask(t.Context())
		}
		synctest.Wait()
		leave()
		if got := <-answers; !errors.Is(got.(error), context.Canceled) || begun.Load() != 1 {
			t.Errorf("%v, %d reads", got, begun.Load())
		}
		time.Sleep(joinFor + time.Millisecond) // an old read is not joined
		go ask(t.Context())
		synctest.Wait()
		if begun.Load() != 2 {
			t.Errorf("%d reads after a second", begun.Load())
		}
		close(release)
		for range 100 {
			if got := <-answers; got != int64(1) && got != int64(2) {
				t.Errorf("%v", got)
			}
		}
		ask(t.Context())
		if got := <-answers; got != int64(3) {
			t.Errorf("afterwards: %v", got)
		}
	})
}

// A read that fails is not kept.
func TestOverview_ReadsAgainAfterFailure(t *testing.T) {
	w, p := apptest.New(t, morning), &Page{}
	body := func() string {
		rec := httptest.NewRecorder()
		if err := p.Overview(t.Context(), w.App, httptest.NewRequest("GET", "/", nil), rec); err != nil {
			t.Fatal(err)
		}
		return rec.Body.String()
	}
	w.SetDown(true)
	if got := body(); !strings.Contains(got, "Unknown: the state cannot be read") {
		t.Errorf("%s", got)
	}
	w.SetDown(false)
	if got := body(); !strings.Contains(got, "Nothing is recorded yet") {
		t.Errorf("%s", got)
	}
}

// Waiting messages and leaked locks are named next to the headline, and the page is not green.
func TestOverview_NamesWaitingMessagesAndLeakedLocks(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "A", Period: night}, "run-1"); err != nil {
		t.Fatal(err)
	}
	w.SetNow(morning)
	remember(t, w, time.Minute, health.OK)
	for _, id := range []string{"m1", "m2"} {
		if _, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "quarantine", ID: id}, store.F("no period", "reason"), store.F(store.ServerTime, "received_at"))); err != nil {
			t.Fatal(err)
		}
	}
	o := view(t, w, "")
	if got := strings.Join(o.Notes, " "); o.Tone != "fair" || got != "2 messages wait in quarantine. 1 lock leaked." {
		t.Errorf("%s %q", o.Tone, got)
	}
}
