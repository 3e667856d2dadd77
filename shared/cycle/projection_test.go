package cycle

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestProjection_ThreeModesShareOneDocument(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	type flags struct {
		Mode      any
		Count     any
		Triggered any
		Succeeded any
	}
	for _, step := range []struct {
		run  wire.Completion
		want flags
	}{
		{run(utg, "2026-02-02 17:06"), flags{"tomorrow", int64(1), false, false}},
		{run(upg, "2026-02-02 17:07"), flags{"tomorrow", int64(2), true, true}},
		{run(upg, "2026-02-03 10:35"), flags{"same_day", int64(2), true, true}},
		{run(toff, "2026-02-03 22:40"), flags{"overnight", int64(3), false, false}}, // on the game's evening, yet it belongs to overnight
		{run(tdef, "2026-02-04 05:30"), flags{"overnight", int64(4), false, false}},
		{run(pgs, "2026-02-04 06:03"), flags{"overnight", int64(5), true, true}},
	} {
		w.mustDeliver(step.run)
		p := w.projection()
		got := flags{p["_mode"], p["_completed_count"], p["_triggered"], p["_trigger_succeeded"]}
		if got != step.want {
			t.Errorf("after %s: %+v, want %+v", step.run.ExecutionID, got, step.want)
		}
	}
	newest := w.projection()[upg].(map[string]any)
	if !newest["completed_at"].(time.Time).Equal(at("2026-02-03 10:35")) {
		t.Errorf("%s completed at %v", upg, newest["completed_at"])
	}
}

func TestProjection_RelayUpdatesProjectionAfterCrash(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Store = &failing{Store: w.store, collection: "phase3_completion"}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
		t.Fatal("no error")
	}
	w.engine.Store = w.store
	if err := w.engine.Relay(context.Background(), w.tr, "", nil); err != nil {
		t.Fatal(err)
	}
	if p := w.projection(); p["_triggered"] != true || p["_completed_count"] != int64(5) {
		t.Errorf("projection %v", p)
	}
}

func TestProjection_CorrectsForeignValuesAndKeepsForeignFields(t *testing.T) {
	w := newWorld(t, "memory")
	ref := store.Ref{Collection: "phase3_completion", ID: "2026-02-03"}
	_, err := w.store.Apply(context.Background(), store.Create(ref,
		store.F(int64(1), "_completed_count"), store.F(true, "_triggered"), store.F("x", "their_note"),
		store.F(map[string]any{"status": "success", "extra": int64(1)}, pgs)))
	if err != nil {
		t.Fatal(err)
	}
	w.clock.set(at("2026-02-03 22:00"))
	w.mustDeliver(run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-03 22:41"))
	p := w.projection()
	if p["_completed_count"] != int64(2) || p["_triggered"] != false || p["their_note"] != "x" {
		t.Errorf("projection %v", p)
	}
	w.mustDeliver(run(pgs, "2026-02-04 06:00"))
	if _, there := w.projection()[pgs].(map[string]any)["extra"]; there {
		t.Error("a field that we own was merged instead of replaced")
	}
}

func TestProjection_ConcurrentUpdatesTakeFewStoreCalls(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-03 22:40"))
	for _, name := range []string{toff, tdef} {
		c := run(name, "2026-02-03 22:40")
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			t.Fatal(err)
		}
	}
	w.store.calls.Store(0)
	done := make(chan error)
	for range 50 {
		go func() {
			_, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "")
			done <- err
		}()
	}
	for range 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// Each converger reads once, tries at most one write, and reads once more if the write fails.
	if n := w.store.calls.Load(); n > 150 {
		t.Errorf("%d calls by 50 convergers", n)
	}
}

// Each case reads the compatibility document at the beginning of a step that can take
// seconds, as a second subscriber of the completions may do.
func TestProjection_ShowsTheCompletionBeforeTheHandOver(t *testing.T) {
	late := []wire.Completion{run(toff, "2026-02-03 22:40"), run(tdef, "2026-02-04 05:30"), run(upg, "2026-02-03 10:35"), run(utg, "2026-02-04 05:40")}
	for name, tc := range map[string]struct {
		before []wire.Completion
		last   wire.Completion
		shown  int64
	}{
		"the_last_processor_of_a_cycle": {before: late, last: run(pgs, "2026-02-04 06:03"), shown: 5},
		"a_second_run":                  {before: append(slices.Clone(late), run(pgs, "2026-02-04 06:03")), last: run(pgs, "2026-02-04 07:10", count(348)), shown: 5},
		"a_run_without_rows":            {last: run(upg, "2026-02-03 10:31", count(0)), shown: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-02 16:00"))
			var looks []string
			look := func(step string) {
				p, _ := w.projection()[tc.last.Processor].(map[string]any)
				if p["execution_id"] != tc.last.ExecutionID || w.projection()["_completed_count"] != tc.shown {
					t.Errorf("%s begins, and the document shows %v of %v processors", step, p["execution_id"], w.projection()["_completed_count"])
				}
				looks = append(looks, step)
			}
			w.mustDeliver(tc.before...)
			w.engine.Check = func(context.Context, Key, string, []string) Readiness {
				look("check")
				return Readiness{Outcome: Passed}
			}
			w.engine.Expected = func(context.Context, Key) (int64, error) { look("schedule"); return 10, nil }
			send := w.engine.Publish
			w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
				look("publish")
				return send(ctx, topic, msgs)
			}
			w.mustDeliver(tc.last)
			if len(looks) == 0 {
				t.Error("nothing was checked or published")
			}
			if p := w.projection(); tc.shown == 5 && (p["_triggered"] != true || p["_trigger_pending"] != false) {
				t.Errorf("at the end the document shows %v", p)
			}
		})
	}
}

func TestProjection_ShowsACompletionThatComesDuringAnotherInstancesHandOver(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	again := run(pgs, "2026-02-04 06:04", count(348))
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		other := w.newEngine()
		if err := other.Record(context.Background(), w.key(again.Period), again); err != nil {
			t.Error(err)
		}
		if r, err := other.Converge(context.Background(), w.key(again.Period), "again"); err != nil || !r.Busy {
			t.Errorf("%+v, %v; want busy", r, err)
		}
		if p, _ := w.projection()[pgs].(map[string]any); p["record_count"] != int64(348) {
			t.Errorf("the other instance has answered, and the document shows %v rows", p["record_count"])
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	if p := w.projection(); p["_triggered"] != true || p["_trigger_pending"] != false {
		t.Errorf("at the end the document shows %v", p)
	}
}

// Other programs write the document, too: a write to it that fails does not delay a hand-over.
func TestProjection_ThatFailsKeepsNoHandOverBack(t *testing.T) {
	for name, fail := range map[string]error{"error": errLost, "conflict": store.ErrConflict, "full": store.ErrTooLarge} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			inner := w.store.Store
			w.engine.Store = applying(inner, func(ws []store.Write) error {
				if ws[0].Ref.Collection == "phase3_completion" && len(w.broker.got) == 0 {
					return fail
				}
				return nil
			})
			w.converge("2026-02-03")
			if len(w.broker.got) != 5 || w.projection()["_triggered"] != true {
				t.Errorf("%d messages, projection %v", len(w.broker.got), w.projection())
			}
		})
	}
}

// refusing fails each Apply for which refuse returns an error.
type refusing struct {
	store.Store
	refuse func([]store.Write) error
}

func applying(s store.Store, refuse func([]store.Write) error) store.Store {
	return refusing{s, refuse}
}

func (r refusing) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if err := r.refuse(ws); err != nil {
		return nil, err
	}
	return r.Store.Apply(ctx, ws...)
}

// The evening run of a processor that only overnight expects belongs to overnight, even if
// overnight accepts earlier runs of it. The projection shows the mode for which the run
// counts.
func TestProjection_ShowsTheModeToWhichARunBelongs(t *testing.T) {
	w := newWorldOf(t, "memory", changed(t, "accept_earlier: [", "accept_earlier: ["+toff+", "))
	w.clock.set(at("2026-02-03 20:00"))
	w.mustDeliver(run(toff, "2026-02-03 20:00"))
	if got := w.projection(); got["_mode"] != "overnight" || got["_completed_count"] != int64(1) {
		t.Errorf("_mode %q, _completed_count %v", got["_mode"], got["_completed_count"])
	}
}
