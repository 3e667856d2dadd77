package cycle

import (
	"context"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/store"
)

func TestThreeModesOfADateShareOneProjection(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	type flags struct {
		Mode      any
		Count     any
		Triggered any
		Succeeded any
	}
	for _, step := range []struct {
		run  message.Completion
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

func TestAProjectionThatACrashLeftBehindIsCaughtUpByTheRelay(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Store = &failing{Store: w.store, collection: "phase3_completion"}
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
		t.Fatal("no error")
	}
	w.engine.Store = w.store
	if err := w.engine.Relay(context.Background(), w.tr, ""); err != nil {
		t.Fatal(err)
	}
	if p := w.projection(); p["_triggered"] != true || p["_completed_count"] != int64(5) {
		t.Errorf("projection %v", p)
	}
}

func TestWhatOtherToolsWroteIsCorrectedAndTheirOwnFieldsKept(t *testing.T) {
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

func TestFiftyConvergersDoNotFightOverTheProjection(t *testing.T) {
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
	// One read each, a write that at most each tries once, and one more read for each loser.
	if n := w.store.calls.Load(); n > 150 {
		t.Errorf("%d calls by 50 convergers", n)
	}
}
