package processor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestRun_WritesReportsAndReleasesLock(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	var told Run
	out, err := m.run(night, Request{TriggerID: "t/1", CorrelationID: "abc", Parent: "NbacGamebookProcessor"}, func(ctx context.Context, run Run) (Output, error) {
		told = run
		return Output{Rows: append(rows(night, start, 10, 348), rows(night, start.Add(time.Second), 11, 72)...), Failed: 2}, nil
	})
	if err != nil || out.Status != wire.StatusSuccess || out.Written.Rows != 348 || out.Written.Removed != 72 || out.Written.Doubled != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	w.want(night, "348 348 10 11")
	if told.Execution != out.Execution || told.Period != night || told.Processor.Name != name || told.Request.TriggerID != "t/1" {
		t.Errorf("%+v", told)
	}
	if len(w.published) != 1 {
		t.Fatalf("%v", w.published)
	}
	r := w.published[0]
	if r.ProcessorName != name || r.Status != "success" || *r.RecordCount != 348 || *r.RecordsFailed != 2 || r.ExecutionID != out.Execution || r.CorrelationID != "abc" ||
		r.TriggerMessageID != "t/1" || r.ParentProcessor != "NbacGamebookProcessor" || r.OutputTable != name || r.Metadata.IsIncremental {
		t.Errorf("%+v", r)
	}
	if w.doc("processing_locks", "PlayerGameSummaryProcessor_2026-02-03").Exists || w.outstanding(night) != 0 {
		t.Errorf("a lock or %d tokens are left", w.outstanding(night))
	}
	if !strings.Contains(m.logs.String(), `"event":"rows_deduplicated"`) {
		t.Errorf("%s", m.logs.String())
	}
	if !strings.Contains(m.logs.String(), `"event":"heartbeat","processor":"player_game_summary","period":"2026-02-03","execution_id":"`+out.Execution+`","status":"success","rows":348,`) {
		t.Errorf("%s", m.logs.String())
	}
	// The request is redelivered, and is already served.
	again, err := w.machine().run(night, Request{TriggerID: "t/1"}, func(context.Context, Run) (Output, error) {
		t.Error("served twice")
		return Output{}, nil
	})
	if err != nil || !again.Served || again.Execution != out.Execution || len(w.published) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
}

// F25, F31: the incident. Two runs of one processor, 18 seconds apart.
func TestF25_TwoRunsAtOnceWriteOnce(t *testing.T) {
	w := newWorld(t)
	// As it was: each run appends what it has, the second 72 players once more.
	for _, c := range []string{"348, 10, '2026-02-04 11:03:12'", "72, 11, '2026-02-04 11:03:30'"} {
		var n, points int
		var at string
		if _, err := fmt.Sscanf(c, "%d, %d, %s", &n, &points, &at); err != nil {
			t.Fatal(err)
		}
		w.Exec(fmt.Sprintf(`INSERT INTO nba_analytics.player_game_summary SELECT DATE '2026-02-03', FORMAT('player%%03d', i), %d, TIMESTAMP '2026-02-04 11:03:12'
			FROM UNNEST(GENERATE_ARRAY(0, %d)) AS i`, points, n-1))
	}
	w.want(night, "420 348 10 11")

	first, second := w.machine(), w.machine()
	working, released := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := first.run(night, Request{TriggerID: "t/1"}, func(ctx context.Context, run Run) (Output, error) {
			close(working)
			<-released
			return making(10, 348)(ctx, run)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-working
	w.advance(18 * time.Second)
	_, err := second.run(night, Request{TriggerID: "t/2", Published: w.time()}, func(context.Context, Run) (Output, error) {
		t.Error("both at work")
		return Output{}, nil
	})
	if held := (*lease.HeldError)(nil); !errors.As(err, &held) {
		t.Errorf("the second: %v", err)
	}
	close(released)
	wg.Wait()
	w.advance(time.Minute)
	out, err := second.run(night, Request{TriggerID: "t/2", Published: start}, making(11, 348))
	if err != nil || out.Served || out.Covered {
		t.Fatalf("%+v, %v", out, err)
	}
	w.want(night, "348 348 11 11")
	if got := w.statuses(night); got != "success success" {
		t.Errorf("published %s", got)
	}
}

// F26: what a held lock answers.
func TestF26_ARequestIsDoneOnlyByARunThatBeganAfterIt(t *testing.T) {
	all, some := []string(nil), []string{"a", "b"}
	for _, c := range []struct {
		name string
		s    success
		req  Request
		want bool
	}{
		{"began_after_it", success{Began: start.Add(1)}, Request{Published: start}, true},
		{"began_with_it", success{Began: start}, Request{Published: start}, false},
		{"began_before_it", success{Began: start.Add(-1)}, Request{Published: start}, false},
		{"nobody_knows_when_it_was_sent", success{Began: start}, Request{}, false},
		{"its_mode", success{Began: start.Add(1), Mode: "overnight"}, Request{Published: start, Mode: "overnight"}, true},
		{"another_mode", success{Began: start.Add(1), Mode: "same_day"}, Request{Published: start, Mode: "overnight"}, false},
		{"all_for_some", success{Began: start.Add(1), Entities: all}, Request{Published: start, Entities: some}, true},
		{"some_for_all", success{Began: start.Add(1), Entities: some}, Request{Published: start, Entities: all}, false},
		{"some_for_fewer", success{Began: start.Add(1), Entities: some}, Request{Published: start, Entities: []string{"b"}}, true},
		{"some_for_others", success{Began: start.Add(1), Entities: some}, Request{Published: start, Entities: []string{"b", "c"}}, false},
		{"none_for_some", success{Began: start.Add(1), Entities: []string{}}, Request{Published: start, Entities: some}, false},
	} {
		if got := covers(c.s, c.req); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestF26_AHeldLockIsAnsweredAsDoneOnlyWhenItIs(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	sent := start.Add(-time.Second)
	if _, err := m.run(night, Request{Mode: "overnight"}, making(10, 3)); err != nil {
		t.Fatal(err)
	}
	none := func(context.Context, Run) (Output, error) { t.Error("at work without the lock"); return Output{}, nil }
	got, err := m.runner.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}, "another")
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.run(night, Request{Mode: "overnight", Published: sent}, none)
	if err != nil || !out.Covered {
		t.Errorf("%+v, %v", out, err)
	}
	for _, req := range []Request{{Mode: "overnight", Published: start.Add(time.Minute)}, {Mode: "same_day", Published: sent}, {Mode: "overnight"}} {
		if out, err := m.run(night, req, none); err == nil {
			t.Errorf("%+v: %+v", req, out)
		}
	}
	if err := got.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	// With the lock it runs: that a run has succeeded does not say that nothing changed.
	if out, err := m.run(night, Request{Mode: "overnight", Published: sent}, making(12, 3)); err != nil || out.Covered {
		t.Errorf("%+v, %v", out, err)
	}
	w.want(night, "3 3 12 12")
}

// The zombie: paused beyond its lease, right before it writes. Its own clock has not
// moved, so that it does not know.
func TestF27_AWriterPausedBeyondItsLeaseChangesNothing(t *testing.T) {
	w := newWorld(t)
	zombie, successor := w.machine(), w.machine()
	stopped := w.time()
	zombie.clock = func() time.Time { return stopped }
	out, err := zombie.run(night, Request{TriggerID: "t/1"}, func(ctx context.Context, run Run) (Output, error) {
		w.advance(lease.Max + time.Second)
		if _, err := successor.run(night, Request{TriggerID: "t/2"}, making(11, 5)); err != nil {
			t.Error(err)
		}
		return making(10, 3)(ctx, run)
	})
	if err == nil || out.Category != FailedLock {
		t.Errorf("%+v, %v", out, err)
	}
	w.want(night, "5 5 11 11")
	if !strings.Contains(zombie.logs.String(), `"event":"write_fenced"`) {
		t.Errorf("%s", zombie.logs.String())
	}
	if got := w.statuses(night); got != "success failed" {
		t.Errorf("published %s", got)
	}
	if n := w.outstanding(night); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}

func TestRun_FailureHasCategory(t *testing.T) {
	w := newWorld(t)
	for i, c := range []struct {
		name     string
		work     Work
		category Category
		again    bool
		published,
		message string
	}{
		{"work", func(context.Context, Run) (Output, error) { return Output{}, errors.New("the source is away") }, FailedWork, true, "failed", "the source is away"},
		{"hopeless", func(context.Context, Run) (Output, error) { return Output{}, Permanent(errors.New("no such season")) }, FailedWork, false, "failed", "no such season"},
		{"panic", func(context.Context, Run) (Output, error) { panic("index out of range") }, FailedPanic, false, "failed", "panic: index out of range"},
		{"data", func(_ context.Context, run Run) (Output, error) {
			return Output{Rows: []dedup.Row{{"game_date": string(run.Period), "points": 1}}}, nil
		}, FailedData, false, "failed", "row 0: key column player_lookup is NULL"},
		{"another_period", func(context.Context, Run) (Output, error) { return Output{Rows: rows("2020-01-01", start, 1, 1)}, nil }, FailedData, false, "failed", "is not 2026-03-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			period := pipeline.Period(fmt.Sprintf("2026-03-%02d", i+1))
			out, err := w.machine().run(period, Request{}, c.work)
			if (err != nil) != c.again || out.Category != c.category || out.Status != wire.StatusFailed {
				t.Errorf("%+v, %v", out, err)
			}
			if got := w.statuses(period); got != c.published {
				t.Errorf("published %s", got)
			}
			last := w.published[len(w.published)-1]
			if last.ErrorType != string(c.category) || !strings.Contains(last.ErrorMessage, c.message) || last.RecordCount != nil {
				t.Errorf("%+v", last)
			}
			w.want(period, "0 0 -1 -1")
			// The lock was given back, and the next run works.
			if out, err := w.machine().run(period, Request{}, making(5, 2)); err != nil || out.Status != wire.StatusSuccess {
				t.Errorf("%+v, %v", out, err)
			}
			w.want(period, "2 2 5 5")
		})
	}
}

// Such a failure is not tried again, so the report of it must be confirmed.
func TestAHopelessFailure_IsNoAnswerUntilTheBrokerHasConfirmedIt(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	m.runner.Publish = func(_ context.Context, _ string, msgs []wire.Outgoing) []cycle.Published {
		return make([]cycle.Published, len(msgs))
	}
	_, err := m.run(night, Request{}, func(context.Context, Run) (Output, error) { return Output{}, Permanent(errors.New("no such season")) })
	if !errors.Is(err, cycle.ErrUnconfirmed) {
		t.Errorf("%v", err)
	}
}

func TestRun_TimeoutIsFailure(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	m.runner.TimeLimit = time.Millisecond
	out, err := m.run(night, Request{}, func(ctx context.Context, _ Run) (Output, error) {
		<-ctx.Done()
		return Output{}, ctx.Err()
	})
	if err == nil || out.Category != FailedTime || !strings.Contains(err.Error(), "no end after 1ms") {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestRun_ReportsPartialAndEmptyResults(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	for _, c := range []struct {
		out    Output
		status wire.Status
		table  string
	}{
		{Output{Rows: rows(night, start, 1, 4)}, wire.StatusSuccess, "4 4 1 1"},
		{Output{Rows: rows(night, start, 2, 2), Entities: []string{"player000", "player001"}}, wire.StatusSuccess, "4 4 1 2"},
		{Output{Rows: rows(night, start, 3, 3), Partial: true}, wire.StatusPartial, "3 3 3 3"},
		{Output{}, wire.StatusNoData, "3 3 3 3"},
	} {
		out, err := m.run(night, Request{}, func(context.Context, Run) (Output, error) { return c.out, nil })
		if err != nil || out.Status != c.status {
			t.Errorf("%+v, %v", out, err)
		}
		w.want(night, c.table)
		if n := w.outstanding(night); n != 0 {
			t.Errorf("%s: %d tokens are listed, so their document never expires", c.status, n)
		}
		if last := w.published[len(w.published)-1]; last.Metadata.IsIncremental != (c.out.Entities != nil) || len(last.Metadata.EntitiesChanged) != len(c.out.Entities) {
			t.Errorf("%+v", last)
		}
	}
}

// F58 of processors: a completion is as precious as a trigger.
func TestF59_ACompletionThatTheBrokerRefusedIsPublishedLater(t *testing.T) {
	w := newWorld(t)
	w.broken = errors.New("the broker is away")
	out, err := w.machine().run(night, Request{TriggerID: "t/1"}, making(10, 3))
	if err == nil || out.Status != wire.StatusSuccess {
		t.Fatalf("%+v, %v: want success with an error, so that the request is redelivered", out, err)
	}
	w.broken = nil
	out, err = w.machine().run(night, Request{TriggerID: "t/1"}, func(context.Context, Run) (Output, error) { t.Error("at work again"); return Output{}, nil })
	if err != nil || !out.Served || w.statuses(night) != "success" {
		t.Errorf("%+v, %v, published %s", out, err, w.statuses(night))
	}
	if out, err := w.machine().run(night, Request{TriggerID: "t/1"}, nil); err != nil || !out.Served || w.statuses(night) != "success" {
		t.Errorf("%+v, %v, published %s", out, err, w.statuses(night))
	}
}

// Wherever a process dies, the request is redelivered. In the end the table has the same rows
// once, and a success was published.
func TestF31_ARunThatDiesAnywhereIsDoneByTheNext(t *testing.T) {
	w := newWorld(t)
	whole := w.machine()
	if _, err := whole.run("2026-04-01", Request{TriggerID: "t"}, making(10, 3)); err != nil {
		t.Fatal(err)
	}
	total := whole.writes
	if total < 9 {
		t.Fatalf("only %d calls that change something", total)
	}
	for dies := 1; dies <= total; dies++ {
		period := w.pipeline.Calendar.Add("2026-05-01", dies)
		m := w.machine()
		m.dies = dies
		req := Request{TriggerID: "t/" + string(period)}
		if _, err := m.run(period, req, making(10, 3)); err == nil && dies < total {
			t.Errorf("%d of %d: a dead process has answered", dies, total)
		}
		w.advance(lease.Max + time.Second)
		if out, err := w.machine().run(period, req, making(10, 3)); err != nil {
			t.Errorf("%d of %d: %+v, %v", dies, total, out, err)
		}
		w.want(period, "3 3 10 10")
		if got := w.statuses(period); !strings.Contains(got, "success") || strings.Contains(got, "failed") {
			t.Errorf("%d of %d: published %q", dies, total, got)
		}
		if n := w.outstanding(period); n > 1 {
			t.Errorf("%d of %d: %d tokens are left", dies, total, n)
		}
	}
	t.Logf("%d calls that change something", total)
}

// F31: the sweep removes duplicates that are found in the table after a write. The run does
// not fail: a redelivery would find them again.
func TestF31_DuplicatesOfOthersAreHandedToTheSweep(t *testing.T) {
	for name, broken := range map[string]error{"it_hears": nil, "it_does_not": errors.New("the broker is away")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Exec("INSERT INTO nba_analytics.player_game_summary VALUES (DATE '2026-02-03', 'other', 1, NULL), (DATE '2026-02-03', 'other', 1, NULL)")
			m := w.machine()
			w.deaf = broken
			out, err := m.run(night, Request{}, func(_ context.Context, run Run) (Output, error) {
				return Output{Rows: rows(night, start, 10, 3), Entities: []string{"player000"}}, nil
			})
			if err != nil || out.Status != wire.StatusSuccess || out.Written.Doubled != 1 {
				t.Errorf("%+v, %v", out, err)
			}
			job := fmt.Sprintf(`{"job":"sweep","table":%q,"date":"2026-02-03"}`, w.Rename("nba_analytics.player_game_summary"))
			if broken == nil && fmt.Sprint(w.asked) != "["+job+"]" || broken != nil && !strings.Contains(m.logs.String(), "the sweep was not requested") {
				t.Errorf("%s, %s", w.asked, m.logs.String())
			}
			if !strings.Contains(m.logs.String(), `"event":"duplicates_found"`) {
				t.Errorf("%s", m.logs.String())
			}
		})
	}
}
