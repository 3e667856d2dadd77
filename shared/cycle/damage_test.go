package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// changed returns the NBA transition with some of its YAML replaced.
func changed(t *testing.T, oldnew ...string) *pipeline.Transition {
	t.Helper()
	return parsedChange(t, oldnew...).Transitions[0]
}

func parsedChange(t *testing.T, oldnew ...string) *pipeline.Pipeline {
	t.Helper()
	// These tests do not need the checks, which name modes and processors, too.
	before, rest, _ := strings.Cut(string(pipeline.Default()), "    checks:\n")
	_, after, _ := strings.Cut(rest, "\n# Jobs")
	p, err := pipeline.Parse([]byte(strings.NewReplacer(oldnew...).Replace(before + "\n# Jobs" + after)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// halfSent leaves the first overnight batch publishing, two of its five messages sent.
func halfSent(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, "memory")
	w.ready()
	w.broker.fail = func(i int, _ wire.Trigger) error {
		if i > 1 {
			return errBroker
		}
		return nil
	}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
		t.Fatal("the broker's failure was not reported")
	}
	w.broker.fail = nil
	return w
}

func TestDefinition_RemovedProcessorKeepsFrozenBatch(t *testing.T) {
	w := halfSent(t)
	w.tr = changed(t, "        - "+utg+"\n", "", ", "+utg+"]", "]", "["+utg+"]", "[]")
	w.converge("2026-02-03")
	if diff := cmp.Diff(five, sorted(w.broker.tables())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("%s", st.State)
	}
}

func TestDefinition_RenamedModeKeepsFrozenBatch(t *testing.T) {
	w := halfSent(t)
	w.tr = changed(t, "name: overnight", "name: night")
	w.converge("2026-02-03")
	sent := w.broker.counts()
	for _, name := range five {
		if n := sent[overnightOne+"/"+name]; n != 1 {
			t.Errorf("%s of the old mode sent %d times", name, n)
		}
	}
	if st := w.statuses()["overnight"]; st.State != "published" {
		t.Errorf("the old mode is shown as %q", st.State)
	}
}

func TestDamage_DeletedBatchStopsPeriodWithError(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.converge("2026-02-03")
	doc := w.doc("phase_triggers", overnightOne)
	if _, err := w.store.Apply(context.Background(), store.DeleteIf(doc.Ref, doc.Version)); err != nil {
		t.Fatal(err)
	}
	_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m")
	if err == nil || !strings.Contains(err.Error(), overnightOne) || len(w.broker.got) != 5 {
		t.Errorf("error %v, %d messages", err, len(w.broker.got))
	}
}

func TestDamage_InvalidPeriodDocumentIsNotEvaluated(t *testing.T) {
	for name, field := range map[string]store.Field{
		"batches_no_list":   store.F("oops", "batches"),
		"batches_not_names": store.F([]any{int64(1)}, "batches"),
		"runs_no_map":       store.F("oops", "runs"),
		"processor_no_map":  store.F("oops", "runs", pgs),
		"run_no_record":     store.F("{", "runs", pgs, "0123456789abcdef"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			ref := store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"}
			if _, err := w.store.Apply(context.Background(), store.Merge(ref, field)); err != nil {
				t.Fatal(err)
			}
			_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m")
			if err == nil || !strings.Contains(err.Error(), ref.String()) || len(w.broker.got) != 0 {
				t.Errorf("error %v, %d messages", err, len(w.broker.got))
			}
		})
	}
}

func TestDamage_InvalidBatchIsNotPublished(t *testing.T) {
	for name, field := range map[string]store.Field{
		"payload_no_text": store.F(int64(1), "messages", utg, "payload"),
		"payload_empty":   store.F("", "messages", utg, "payload"),
		"id_no_text":      store.F(int64(1), "messages", utg, "id"),
	} {
		t.Run(name, func(t *testing.T) {
			w := halfSent(t)
			before := len(w.broker.got)
			ref := store.Ref{Collection: "phase_triggers", ID: overnightOne}
			if _, err := w.store.Apply(context.Background(), store.Merge(ref, field)); err != nil {
				t.Fatal(err)
			}
			_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m")
			if err == nil || !strings.Contains(err.Error(), "messages."+utg) || len(w.broker.got) != before {
				t.Errorf("error %v, %d more messages", err, len(w.broker.got)-before)
			}
		})
	}
}

// fill puts junk into a document until only a few bytes are free.
func (w *world) fill(ref store.Ref, free int) {
	w.t.Helper()
	for size := store.MaxDocumentBytes; size > 0; size-- {
		if size > 100 && size%50 != 0 {
			continue
		}
		_, err := w.store.Apply(context.Background(), store.Merge(ref, store.F(strings.Repeat("x", size), "unexpected_by_others")))
		if err == nil {
			_, err = w.store.Apply(context.Background(), store.Merge(ref, store.F(strings.Repeat("x", max(size-free, 1)), "unexpected_by_others")))
			if err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
}

func TestPeriod_FullDocumentIsStillHandedOver(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.fill(store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"}, 0)
	w.converge("2026-02-03")
	w.mustDeliver(run(pgs, "2026-02-04 07:00", count(348)))
	want := []string{"1 all_complete published " + fmt.Sprint(five), "2 second_run published [" + pgs + "]"}
	if diff := cmp.Diff(want, described(w.statuses()["overnight"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.eachRunOnce()
}

func TestHandOver_LargeBatchKeepsRoomForBrokerIDs(t *testing.T) {
	for _, entityCount := range []int{40, 60, 80, 100, 120, 140} {
		w := newWorld(t, "memory")
		w.tr = wide(t, 300)
		w.clock.set(at("2026-02-04 06:00"))
		w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
			out := w.broker.publish(ctx, topic, msgs)
			for i := range out {
				out[i].ID = strings.Repeat("9", 20) + out[i].ID
			}
			return out
		}
		var names []string
		for i := range entityCount {
			names = append(names, fmt.Sprintf("player-number-%d", i))
		}
		for i := range 300 {
			c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00", entities(names...))
			if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
				t.Fatal(err)
			}
		}
		w.converge("2026-02-03")
		if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 300 {
			t.Errorf("%d entities each: %s, %d messages for 300 processors", entityCount, st.State, len(w.broker.got))
		}
	}
}

func TestClaim_ShortClaimOnSlowStoreStillPublishes(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.Claim = time.Second
	w.ready()
	w.engine.Store = &slow{counting: w.store, w: w, by: 150 * time.Millisecond}
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
		t.Errorf("%s, %d messages", st.State, len(w.broker.got))
	}
}

// slow lets time pass at each call.
type slow struct {
	*counting
	w  *world
	by time.Duration
}

func (s *slow) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s.w.pass(s.by)
	return s.counting.Get(ctx, refs...)
}

func (s *slow) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	s.w.pass(s.by)
	return s.counting.Apply(ctx, ws...)
}

func TestRelay_SkipsNoDayAtMidnight(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 23:59:59"))
	for n := range 25 { // those without a document are not read
		w.exists(w.tr.Calendar().Add("2026-01-15", n))
	}
	var read []string
	w.engine.Store = &watching{counting: w.store, get: func(refs []store.Ref) {
		read = append(read, strings.TrimPrefix(refs[0].ID, "phase3_to_phase4_"))
		w.pass(200 * time.Millisecond)
	}}
	if err := w.engine.Relay(context.Background(), w.tr, "", nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"phase3_to_phase4~watch", "2026-02-08", "2026-02-07", "2026-02-06", "2026-02-05",
		"2026-02-04", "2026-02-03", "2026-02-02", "2026-02-01", "2026-01-31", "2026-01-30", "2026-01-29", "2026-01-28", "2026-01-27",
		"2026-01-20", "2026-01-21", "2026-01-22", "2026-01-23", "2026-01-24", "2026-01-25", "2026-01-26"} // older than the window: only named
	if diff := cmp.Diff(want, read); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// exists makes a period's document, in which nothing is recorded.
func (w *world) exists(p pipeline.Period) {
	w.t.Helper()
	ref := w.engine.periodRef(w.key(p))
	if _, err := w.store.Store.Apply(context.Background(), store.Merge(ref, store.F("another program", "by"))); err != nil {
		w.t.Fatal(err)
	}
}

// watching calls get before each read.
type watching struct {
	*counting
	get func(refs []store.Ref)
}

func (s *watching) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s.get(refs)
	return s.counting.Get(ctx, refs...)
}

func TestBatch_LaterBatchHasItsOwnReason(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	night := overnight()
	w.mustDeliver(night[0], night[2], night[3], night[4])
	w.clock.set(at("2026-02-04 06:40"))
	w.converge("2026-02-03") // the grace has ended
	w.mustDeliver(run(utg, "2026-02-04 07:00"), run(pgs, "2026-02-04 07:10", count(348)))
	var got []string
	for _, b := range w.statuses()["overnight"].Batches {
		got = append(got, b.Cause+": "+b.Reason)
	}
	want := []string{
		"critical_plus_majority_80pct: " + pgs + " and " + upg + " complete, 4 of 5, grace ended 2026-02-04 06:33 EST; missing " + utg + " (optional)",
		"late_completion: after the first hand-over: " + utg,
		"second_run: ran again: " + pgs,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := w.statuses()["overnight"]; !st.NextCheck.IsZero() {
		t.Errorf("a finished cycle has its next check at %s", st.NextCheck)
	}
}

func TestProjection_ModeOnlyAdvances(t *testing.T) {
	runs := []wire.Completion{
		run(utg, "2026-02-02 17:06"), run(upg, "2026-02-03 09:00"), run(upg, "2026-02-03 10:30"),
		run(toff, "2026-02-03 22:40"), run(pgs, "2026-02-03 23:50"),
	}
	modes := []string{"", "tomorrow", "same_day", "overnight"}
	permute(len(runs), func(order []int) {
		w := newWorld(t, "memory")
		w.clock.set(at("2026-02-04 06:00"))
		last := 0
		for _, i := range order {
			w.mustDeliver(runs[i])
			mode, _ := w.projection()["_mode"].(string)
			if now := slices.Index(modes, mode); now < last {
				t.Fatalf("order %v: from %s back to %q", order, modes[last], mode)
			} else {
				last = now
			}
		}
	})
}

func TestHandOver_IsLoggedByOneInstance(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "")
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(w.events("batch_published")); n != 1 {
		t.Errorf("%d lines for one hand-over", n)
	}
}
