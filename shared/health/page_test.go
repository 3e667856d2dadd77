package health

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// The page names the date of adoption. A completion of an earlier day (a backfill, a typing
// error) is shown, and makes no cycle of the days in between overdue.
func TestPage_NamesTheDateOfAdoptionAndJudgesNoEarlierDay(t *testing.T) {
	w, _ := checker(t)
	tr := w.Pipeline.Transitions[0]
	record := func(p pipeline.Period) {
		t.Helper()
		c := wire.Completion{Processor: tr.Order[0], Reported: "x", Period: p, Status: wire.StatusSuccess, EventTime: morning, ExecutionID: "x", CorrelationID: "x"}
		if err := w.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: p}, c); err != nil {
			t.Fatal(err)
		}
	}
	grid := func() Grid { t.Helper(); return ReadPage(t.Context(), w.App, 7).Grids[0] }
	if g := grid(); g.Adopted != "" || g.Problem != "" {
		t.Errorf("at first: %q, %q", g.Adopted, g.Problem)
	}
	record("2026-02-02")
	if err := w.Engine.Relay(t.Context(), tr, ""); err != nil {
		t.Fatal(err)
	}
	record("2026-01-30")
	g := grid()
	if g.Adopted != "adopted on 2026-02-02; earlier days are not judged" {
		t.Errorf("adopted: %q", g.Adopted)
	}
	for _, row := range g.Rows {
		var words []string
		for _, c := range row.Cells {
			words = append(words, c.State)
		}
		overdue := strings.Contains(strings.Join(words, " "), "overdue")
		if want := row.Period >= "2026-02-02" || row.Period == "2026-01-30"; row.Period <= "2026-02-03" && overdue != want {
			t.Errorf("%s: %q", row.Period, words)
		}
	}
	ref := store.Ref{Collection: "phase_periods", ID: tr.StoredID() + "~watch"}
	if _, err := w.Store.Apply(t.Context(), store.Merge(ref, store.F("soon", "managed_since"))); err != nil {
		t.Fatal(err)
	}
	if g := grid(); !strings.Contains(g.Problem, "managed_since") {
		t.Errorf("damaged: %q", g.Problem)
	}
}

func TestPage_ACellHasTheToneOfItsState(t *testing.T) {
	_, c := checker(t)
	for name, tc := range map[string]struct {
		st   cycle.Status
		tone string
	}{
		"waiting":                        {cycle.Status{State: "waiting"}, "calm"},
		"waiting for a failed one":       {cycle.Status{State: "waiting", Missing: []string{"b"}, Failed: []string{"b"}}, "fair"},
		"grace":                          {cycle.Status{State: "grace"}, "fair"},
		"checking":                       {cycle.Status{State: "checking"}, "calm"},
		"blocked":                        {cycle.Status{State: "blocked"}, "fair"},
		"publishing":                     {cycle.Status{State: "publishing"}, "calm"},
		"published":                      {cycle.Status{State: "published"}, "good"},
		"published without one":          {cycle.Status{State: "published", Missing: []string{"b"}}, "fair"},
		"overdue":                        {cycle.Status{State: "overdue", Missing: []string{"b"}}, "bad"},
		"overdue, and a processor fails": {cycle.Status{State: "overdue", Missing: []string{"b"}, Failed: []string{"b"}}, "bad"},
		"on hold":                        {cycle.Status{State: "on_hold"}, "fair"},
		"closed":                         {cycle.Status{State: "closed"}, "calm"},
	} {
		if got := c.cell(tc.st); got.Tone != tc.tone || got.State != tc.st.State || got.Next != "" || got.Hold != "" {
			t.Errorf("%s: %s, want %s", name, got.Tone, tc.tone)
		}
	}
}

func TestPage_ACellShowsAllThatIsKnown(t *testing.T) {
	_, c := checker(t)
	got := c.cell(cycle.Status{Mode: "overnight", State: "publishing", Reason: "why", Satisfied: []string{"a"}, Missing: []string{"b", "c"}, Failed: []string{"c"}, Ignored: []string{"x"},
		NextCheck: morning, Hold: &cycle.Hold{Until: morning.Add(time.Hour), Actor: "ada", Reason: "box scores"},
		Batches: []cycle.BatchStatus{
			{N: 1, ID: "b~1", Cause: "all_complete", State: cycle.StatePublished, Actor: "engine", DueAt: morning, PublishedAt: morning.Add(1234 * time.Millisecond), Messages: map[string]string{"t2": "m2", "t1": "m1"}},
			{N: 2, ID: "b~2", Cause: "operator", State: cycle.StatePublished, Actor: "ada", PublishedAt: morning},
			{N: 3, ID: "b~3", Cause: "second_run", State: cycle.StatePublishing, Actor: "engine", DueAt: morning, Messages: map[string]string{"t1": ""}},
		}})
	want := Cell{Mode: "overnight", State: "publishing", Tone: "fair", Count: "1 of 3", Reason: "why", Next: "2026-02-04 12:20 EST", Hold: "until 2026-02-04 13:20 EST, by ada: box scores",
		Processors: []CellProcessor{{"a", "complete"}, {"b", "missing"}, {"c", "failed"}, {"x", "ignored"}},
		Batches: []CellBatch{
			{N: 1, ID: "b~1", Cause: "all_complete", State: "published", At: "2026-02-04 12:20 EST", Latency: "1.2s", Actor: "engine", Messages: []CellMessage{{"t1", "m1"}, {"t2", "m2"}}},
			{N: 2, ID: "b~2", Cause: "operator", State: "published", At: "2026-02-04 12:20 EST", Actor: "ada"},
			{N: 3, ID: "b~3", Cause: "second_run", State: "publishing", Actor: "engine", Messages: []CellMessage{{"t1", "no answer yet"}}},
		}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPage_RowsNameProblemsAndMaintenanceAndLeaveOtherModesOut(t *testing.T) {
	w, c := checker(t)
	tr := w.Pipeline.Transitions[0]
	c.Pipeline.Health.Maintenance = []pipeline.Maintenance{{From: night, To: night, Reason: "moving"}}
	key := cycle.Key{Transition: tr, Period: night}
	row := c.row(tr, cycle.PeriodState{Key: key, Problem: errAway}, true)
	if row.Problem != errAway.Error() || row.Planned != "planned maintenance: moving" || row.Weekday != "Tue" || len(row.Cells) != 0 {
		t.Errorf("%+v", row)
	}
	key.Period = "2026-02-02"
	row = c.row(tr, cycle.PeriodState{Key: key, Cycles: []cycle.Status{{Mode: "overnight", State: "overdue"}, {Mode: "of_before", State: "overdue"}}}, true)
	if row.Planned != "" || row.Problem != "" || len(row.Cells) != 1 || row.Cells[0].State != "overdue" || row.Weekday != "Mon" {
		t.Errorf("%+v", row)
	}
	if row = c.row(tr, cycle.PeriodState{Key: key, Cycles: []cycle.Status{{Mode: "overnight", State: "overdue"}}}, false); row.Cells[0].State != "" || row.Cells[0].Mode != "overnight" {
		t.Errorf("before the adoption: %+v", row)
	}
}

func TestPage_JobsAreInTimeDueOrNeverDone(t *testing.T) {
	w, c := checker(t) // it is 12:20
	c.Pipeline.Schedules = []pipeline.Schedule{{Name: "n", Cron: "0 10 * * *", Function: "reconcile", Job: "nightly"}}
	due := time.Date(2026, 2, 4, 15, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		last, first time.Time
		tone, word  string
		at          string
	}{
		"in time":          {due.Add(time.Minute), time.Time{}, "good", "in time", "2026-02-04 10:01 EST"},
		"clocks differ":    {due.Add(-clockSkew), time.Time{}, "good", "in time", "2026-02-04 09:59 EST"},
		"due":              {due.Add(-clockSkew - time.Second), time.Time{}, "fair", "due since 2026-02-04 10:00 EST", "2026-02-04 09:58 EST"},
		"never":            {time.Time{}, time.Time{}, "bad", "never", "—"},
		"never, was due":   {time.Time{}, due, "bad", "never", "—"},
		"not due yet":      {time.Time{}, due.Add(time.Second), "fair", "not due yet", "—"},
		"ran, seen lately": {due.Add(-time.Hour), due.Add(time.Second), "fair", "due since 2026-02-04 10:00 EST", "2026-02-04 09:00 EST"},
	} {
		beats, schedules := map[string]any{}, map[string]any{}
		if !tc.last.IsZero() {
			beats["nightly"] = tc.last
		}
		if !tc.first.IsZero() {
			schedules["n 0 10 * * *"] = tc.first
		}
		if _, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "function_status", ID: "reconcile"}, store.F(beats, "heartbeats"), store.F("abc", "source_hash")),
			store.Merge(store.Ref{Collection: "function_status", ID: "health"}, store.F(schedules, "schedules"))); err != nil {
			t.Fatal(err)
		}
		c.Pipeline.Schedules = append(c.Pipeline.Schedules[:1], pipeline.Schedule{Name: "h", Cron: "5 * * * *", Function: "health", Job: "health"})
		want := ListingRow{Tone: tc.tone, Cells: []string{"n", tc.word, tc.at, "reconcile", "abc"}}
		if diff := cmp.Diff(want, c.jobs(t.Context()).Rows[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	w.SetDown(true)
	if l := c.jobs(t.Context()); l.Problem == "" {
		t.Errorf("%+v", l)
	}
}

func TestPage_LocksAreHeldExpiredOrLeaked(t *testing.T) {
	w, c := checker(t) // it is 12:20
	for _, l := range []struct {
		class string
		age   time.Duration
	}{{"C", time.Hour}, {"B", 11 * time.Minute}, {"A", time.Minute}} { // the store's clock goes one way
		w.SetNow(morning.Add(-l.age))
		if _, err := w.Locks.Acquire(t.Context(), lease.Key{Class: l.class, Period: night}, "run-1"); err != nil {
			t.Fatal(err)
		}
	}
	w.SetNow(morning.Add(-time.Minute))
	if _, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "processing_locks", ID: "D_2026-02-03"}, store.F(store.ServerTime, "acquired_at"),
		store.F("run-1", "execution_id"), store.F("vm", "instance"), store.F("P", "processor"))); err != nil {
		t.Fatal(err)
	}
	w.SetNow(morning)
	var got []string
	for _, row := range c.locks(t.Context()).Rows {
		got = append(got, strings.Join([]string{row.Cells[0], row.Tone, row.Cells[1], row.Cells[2], row.Command}, "|"))
	}
	want := []string{"A_2026-02-03|calm|held|2026-02-04 12:19 EST|", "B_2026-02-03|fair|expired|2026-02-04 12:09 EST|",
		"C_2026-02-03|bad|leaked|2026-02-04 11:20 EST|phasectl locks release C_2026-02-03 --reason '…'", "D_2026-02-03|calm|held by another runner|2026-02-04 12:19 EST|"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPage_TheReportBeginsWithWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		states   []State
		headline string
		order    string
	}{
		"all is ok":  {[]State{OK, OK}, "All 2 checks are ok", "c0 c1"},
		"failing":    {[]State{OK, Failing}, "1 of 2 checks failing", "c1 c0"},
		"unknown":    {[]State{OK, Unknown, OK}, "Nothing is failing, and 1 of 3 checks are unknown", "c1 c0 c2"},
		"everything": {[]State{OK, Unknown, Failing, Failing}, "2 of 4 checks failing, 1 unknown", "c2 c3 c1 c0"},
	} {
		w, c := checker(t)
		r := Report{Schema: 1, At: morning.Add(-20 * time.Minute), Overall: OK}
		for i, s := range tc.states {
			r.Checks = append(r.Checks, Check{ID: "c" + string(rune('0'+i)), State: s, Evidence: []string{"e"}, Since: morning.Add(-time.Hour)})
		}
		if err := c.Remember(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		p := ReadPage(t.Context(), w.App, 3)
		var order []string
		for _, check := range p.Checks {
			order = append(order, check.ID)
		}
		if p.Headline != tc.headline || strings.Join(order, " ") != tc.order || p.Evaluated != "2026-02-04 12:00 EST, 20 minutes ago" || p.Checks[0].Since.Format("15:04 MST") != "11:20 EST" {
			t.Errorf("%s: %q, %q, %q, %s", name, p.Headline, order, p.Evaluated, p.Checks[0].Since)
		}
		var periods []string
		for _, row := range p.Grids[0].Rows {
			periods = append(periods, row.Period)
		}
		if !slices.IsSortedFunc(periods, func(a, b string) int { return strings.Compare(b, a) }) || len(periods) < 3 {
			t.Errorf("rows: %q", periods)
		}
	}
}

// The page shows the kept report: a warehouse that hangs does not delay it.
func TestPage_AsksNoWarehouse(t *testing.T) {
	w, c := checker(t)
	if err := c.Remember(t.Context(), c.Run(t.Context())); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s", r.Method, r.URL) }))
	defer s.Close()
	w.App.Warehouse = warehouse.New("test", s.Listener.Addr().String())
	if p := ReadPage(t.Context(), w.App, 7); p.Problem != "" || len(p.Checks) == 0 {
		t.Errorf("%+v", p)
	}
}

// A listing of any number of locks stays short: leaked ones come first.
func TestPage_BoundsItsLocks(t *testing.T) {
	w, c := checker(t)
	lock := func(id string) {
		t.Helper()
		_, err := w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "processing_locks", ID: id}, store.F(store.ServerTime, "acquired_at"), store.F("python-1", "execution_id")))
		if err != nil {
			t.Fatal(err)
		}
	}
	lock("Z_2026-02-03")
	w.SetNow(morning.Add(24 * time.Hour)) // and its process died
	for n := range 2 * mostRows {
		lock(fmt.Sprintf("A%03d_2026-02-03", n))
	}
	rows := c.locks(t.Context()).Rows
	if len(rows) != mostRows+1 || rows[0].Cells[0] != "Z_2026-02-03" || rows[1].Cells[0] != "A000_2026-02-03" {
		t.Fatalf("%d rows, %+v", len(rows), rows[0])
	}
	if last := rows[mostRows]; last.Cells[1] != "and 101 more" || last.Command != "phasectl locks list" || len(last.Cells) != len(rows[0].Cells) {
		t.Errorf("%+v", last)
	}
}
