package cycle

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// many is the snapshot of a period of tr in which its first n processors have run twice.
func many(t testing.TB, tr *pipeline.Transition, n int, edits ...func(*wire.Completion)) *snapshot {
	t.Helper()
	e := &Engine{}
	s, err := e.listing(Key{tr, "2026-02-03"}, at("2026-02-04 06:00"), nil, store.Doc{})
	if err != nil {
		t.Fatal(err)
	}
	s.periods, s.listed = make([]store.Doc, 3), []string{"a batch"}
	first := run("", "2026-02-04 04:00", entities("a", "b"))
	for i, name := range tr.Order[:n] {
		for again := range 2 {
			c := first
			c.Processor, c.Reported, c.ExecutionID = name, name, fmt.Sprint(i, ".", again)
			c.EventTime = c.EventTime.Add(time.Duration(again) * time.Hour)
			for _, edit := range edits {
				edit(&c)
			}
			s.runs = append(s.runs, policy.Run{Key: fmt.Sprintf("%016x", 2*i+again), Completion: &c})
		}
	}
	return s
}

// taken is the batch of all runs of a snapshot.
func taken(s *snapshot, state State) *batch {
	m := s.key.Transition.Modes[0]
	b := &batch{ID: batchID(s.key, m.Name, 1), N: 1, State: state, Expects: s.key.Transition.Order, Messages: map[string]sent{}}
	for _, r := range s.runs {
		b.Runs = append(b.Runs, r.Key)
		b.Messages[r.Processor] = sent{Payload: "{}", ID: "1"}
	}
	return b
}

// BenchmarkManyProcessors measures what one evaluation computes for a period whose processors have run
// twice. The parts are the decision, before and after the hand-over, the payloads of a freeze, and the
// order of the messages. It also measures the status, its explanation, and the plan of a request.
func BenchmarkManyProcessors(b *testing.B) {
	for _, n := range []int{300, 1000, 10_000} {
		tr := wide(b, n)
		m := tr.Modes[0]
		e := New(Config{NewID: rand.Text, Now: time.Now, Claim: time.Minute, Log: brokenLog(b)})
		half, all, after := many(b, tr, n/2), many(b, tr, n), many(b, tr, n)
		c := e.convergence(all.key, "m")
		after.batches[m.Name] = []*batch{taken(after, StatePublished)}
		freezing := action{do: freeze, mode: m, batch: taken(all, StateChecking), handing: all.handing(m, nil)}
		for _, part := range []struct {
			name string
			do   func()
		}{
			{"decide_half", func() { half.next(&c.attempt) }},
			{"decide_all", func() { all.next(&c.attempt) }},
			{"payloads", func() {
				if _, err := c.payloads(b.Context(), all, freezing, Readiness{}); err != nil {
					b.Fatal(err)
				}
			}},
			{"order", func() { messageOrder(tr, freezing.batch.Messages) }},
			{"decide_after", func() { after.next(&c.attempt) }},
			{"describe_half", func() { half.describe() }},
			{"describe_after", func() { after.describe() }},
			{"explain_after", func() { after.explain(m) }},
			{"request", func() { all.plan(m, Request{}) }},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, part.name), func(b *testing.B) {
				for b.Loop() {
					part.do()
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/processor")
			})
		}
	}
}

// An entry of Cloud Logging takes 256 KB, and a notification some 4 KB.
func TestStatus_NamesTwentyOfThousandsInTextsAndLogLines(t *testing.T) {
	for _, n := range []int{1000, 10_000} {
		tr := wide(t, n)
		for name, s := range map[string]*snapshot{
			"half is missing": many(t, tr, n/2),
			"half failed": many(t, tr, n, func(c *wire.Completion) {
				if c.Processor[len(c.Processor)-1]%2 == 0 {
					c.Status, c.ErrorMessage = wire.StatusFailed, strings.Repeat("a long story ", 30)
				}
			}),
			"all ran again": func() *snapshot {
				s := many(t, tr, n)
				b := taken(s, StatePublished)
				b.Runs = slices.DeleteFunc(b.Runs, func(k string) bool { return k[len(k)-1]%2 == 1 })
				s.key.Transition = resending(t, n)
				s.batches[tr.Modes[0].Name] = []*batch{b}
				return s
			}(),
			"late, after an operator's hand-over": func() *snapshot {
				s := many(t, tr, n/2)
				b := taken(s, StatePublished)
				b.Selected, b.Actor, b.Expects = true, "ada", nil
				s.now = at("2026-03-04 06:00")
				s.batches[tr.Modes[0].Name] = []*batch{b}
				return s
			}(),
		} {
			log := &syncBuffer{}
			e := New(Config{NewID: rand.Text, Now: time.Now, Claim: time.Minute, Log: slog.New(slog.NewJSONHandler(log, nil))})
			c := e.convergence(s.key, "m")
			c.managed = Managed{Since: "2026-01-01"}
			c.report(context.Background(), s)
			for _, st := range s.describe() {
				if len(st.Reason) > 8<<10 || !strings.Contains(st.Reason, " more") {
					t.Errorf("%d, %s: %d bytes: %.300s", n, name, len(st.Reason), st.Reason)
				}
			}
			lines := 0
			for line := range strings.Lines(log.String()) {
				if lines++; len(line) > 32<<10 {
					t.Errorf("%d, %s: a log line of %d bytes", n, name, len(line))
				}
			}
			if lines == 0 {
				t.Errorf("%d, %s: no log line", n, name)
			}
		}
	}
}

// resending is wide whose mode hands further runs over.
func resending(t testing.TB, n int) *pipeline.Transition {
	t.Helper()
	tr := *wide(t, n)
	tr.Modes = slices.Clone(tr.Modes)
	tr.Modes[0].SecondRuns = pipeline.SecondRunsResend
	return &tr
}

// A document takes 1 MiB: 10,000 fields of runs have 2 MB.
func TestProjection_HasCountsAndFlagsOnlyAbove500Processors(t *testing.T) {
	for _, n := range []int{500, 501} {
		w := newWorld(t, "memory")
		w.tr = wide(t, n)
		w.clock.set(at("2026-02-04 06:00"))
		if n == 501 { // as an earlier definition wrote it
			if _, err := w.store.Apply(t.Context(), store.Create(w.engine.projectionRef(w.key("2026-02-03")), store.F(map[string]any{"completed_at": at("2026-02-04 01:00")}, "processor_7"))); err != nil {
				t.Fatal(err)
			}
		}
		var reports []Report
		for i := range n {
			reports = append(reports, Report{run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00"), fmt.Sprint("m", i)})
		}
		for _, err := range w.engine.recordAll(t.Context(), w.key("2026-02-03"), reports) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m"); err != nil {
			t.Fatal(err)
		}
		doc := w.doc("phase3_completion", "2026-02-03")
		names := slices.DeleteFunc(slices.Collect(maps.Keys(doc.Data)), func(name string) bool { return name[0] == '_' })
		if want := map[int]int{500: 500, 501: 1}[n]; len(names) != want {
			t.Errorf("%d processors: %d have a field", n, len(names))
		}
		if doc.Data["_completed_count"] != int64(n) || doc.Data["_triggered"] != true || doc.Data["_mode"] != "overnight" || doc.Data["_trigger_succeeded"] != true {
			t.Errorf("%d processors: %v", n, doc.Data["_completed_count"])
		}
		state := func() PeriodState {
			states, err := w.engine.PeriodStates(t.Context(), w.tr, "2026-02-03", "2026-02-03")
			if err != nil || states[0].Problem != nil {
				t.Fatal(err, states)
			}
			return states[0]
		}
		if st := state(); len(st.Wrong) != 0 || len(st.Shown) != n || len(st.Others) != 0 {
			t.Errorf("%d processors: wrong %v, %d shown, others %v", n, st.Wrong, len(st.Shown), st.Others)
		}
		if _, err := w.store.Apply(t.Context(), store.Merge(doc.Ref, store.F(3, "_completed_count"))); err != nil {
			t.Fatal(err)
		}
		if st := state(); !slices.Equal(st.Wrong, []string{"_completed_count"}) || n > maxProjected && len(st.Shown) != 0 {
			t.Errorf("%d processors: wrong %v, %d shown", n, st.Wrong, len(st.Shown))
		}
	}
}

// Other programs read the document once for each completion that they get.
func TestProjection_ShowsTheCountBeforeAHandOverAbove500Processors(t *testing.T) {
	const n = 501
	s := many(t, wide(t, n), n)
	by := &attempt{claim: time.Minute, taken: map[string]time.Time{}}
	if a := s.next(by); a.do != project || !a.ahead {
		t.Errorf("%+v", a.do)
	}
	raw, err := json.Marshal(s.projection())
	if err != nil || len(raw) > 2<<10 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

// An instance that reads a period has all of its runs in memory. 10,000 of 52 KiB are 520 MB.
func TestRecord_LeavesOutEntitiesBeyondAProcessorsShare(t *testing.T) {
	for _, tc := range []struct {
		processors, entities int
		whole                bool
	}{{300, 200, true}, {1000, 200, true}, {10_000, 3, true}, {10_000, 200, false}} {
		w := newWorld(t, "memory")
		w.tr = wide(t, tc.processors)
		w.clock.set(at("2026-02-04 06:00"))
		key := w.key("2026-02-03")
		alone := run("processor_0", "2026-02-04 06:00", entities(players(tc.entities)...))
		if err := w.engine.Record(t.Context(), key, alone); err != nil {
			t.Fatal(err)
		}
		grouped := []Report{{run("processor_1", "2026-02-04 06:00", entities(players(tc.entities)...)), "1"}, {alone, "2"}}
		if errs := w.engine.recordAll(t.Context(), key, grouped); errs[0] != nil || errs[1] != nil {
			t.Fatal(errs)
		}
		s, err := w.engine.read(t.Context(), key, nil)
		if err != nil || len(s.runs) != 2 {
			t.Fatal(len(s.runs), err)
		}
		for _, r := range s.runs {
			if whole := len(r.Entities) == tc.entities && !r.Truncated; whole != tc.whole || !whole && (len(r.Entities) > 0 || !r.Truncated) {
				t.Errorf("%d processors: %s has %d of %d entities, truncated %v", tc.processors, r.Processor, len(r.Entities), tc.entities, r.Truncated)
			}
		}
	}
}
