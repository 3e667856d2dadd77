package cycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

const overnightOne = "phase3_to_phase4_2026-02-03_overnight~1"

// ready records a complete night without converging it.
func (w *world) ready() {
	w.t.Helper()
	w.clock.set(at("2026-02-04 06:05"))
	for _, name := range five {
		c := run(name, "2026-02-04 06:03")
		if err := w.engine.Record(context.Background(), w.key(c.Period), c); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) pass(d time.Duration) { w.clock.set(w.clock.now().Add(d)) }

// counts says how often each trigger id was sent.
func (b *broker) counts() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[string]int{}
	for _, t := range b.got {
		n[t.TriggerID]++
	}
	return n
}

func TestF06_APublisherThatDiesIsResumedAfterItsClaim(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.broker.fail = func(_ int, tr wire.Trigger) error { panic("the process dies while it publishes") }
	func() {
		defer func() { _ = recover() }()
		_, _ = w.engine.Converge(context.Background(), w.key("2026-02-03"), "m")
	}()
	w.broker.fail = nil
	r, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "other")
	if err != nil || !r.Busy || r.OwnClaim || len(w.broker.got) != 0 {
		t.Fatalf("while the claim lives: %+v, %v, %d messages", r, err, len(w.broker.got))
	}
	w.pass(61 * time.Second)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
		t.Errorf("after the claim: %s with %d messages", st.State, len(w.broker.got))
	}
	if n := len(w.events(telemetry.BatchResumed)); n != 1 {
		t.Errorf("%d batch_resumed lines, want 1", n)
	}
}

func TestClaim_IsValidToLastMicrosecondOfServerTime(t *testing.T) {
	claimed := at("2026-02-04 06:00")
	b := &batch{Holder: "x", ClaimedAt: claimed, Claim: time.Minute}
	for after, live := range map[time.Duration]bool{0: true, time.Minute: true, time.Minute + time.Microsecond: false, -time.Hour: true} {
		if got := b.live(claimed.Add(after)); got != live {
			t.Errorf("%s after: live %t", after, got)
		}
	}
}

func TestClaim_LongCheckRenewsClaimBeforePublishing(t *testing.T) {
	w := newWorld(t, "memory")
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		w.pass(40 * time.Second)
		return Readiness{Outcome: Passed}
	}
	w.ready()
	var left time.Duration
	w.broker.fail = func(int, wire.Trigger) error {
		d := w.doc("phase_triggers", overnightOne).Data
		left = d["claimed_at"].(time.Time).Add(time.Minute).Sub(w.clock.now())
		return nil
	}
	w.converge("2026-02-03")
	if left < 50*time.Second {
		t.Errorf("published with %s of the claim left: not renewed", left)
	}
}

func TestClaim_HolderResumingAfterExpiryDoesNotPublishAgain(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	slept := false
	w.store.before = func(ws []store.Write) {
		// After the freeze and before publishing, the machine is suspended for two
		// minutes, and another instance finishes the work.
		if !slept && len(w.doc("phase_triggers", overnightOne).Data) > 0 &&
			slices.ContainsFunc(ws, func(x store.Write) bool { return x.Ref.ID == overnightOne && x.Op == store.OpMergeIf }) {
			slept = true
			w.pass(2 * time.Minute)
			if _, err := w.newEngine().Converge(context.Background(), w.key("2026-02-03"), "rival"); err != nil {
				t.Error(err)
			}
		}
	}
	w.converge("2026-02-03")
	if !slept {
		t.Fatal("the engine never froze the batch")
	}
	for id, n := range w.broker.counts() {
		if n != 1 {
			t.Errorf("%s sent %d times", id, n)
		}
	}
	if n := len(w.broker.got); n != 5 {
		t.Errorf("%d messages", n)
	}
}

func TestClaim_PublishingStopsWhenSafeTimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, tr: nba(t), clock: &clock{}, broker: &broker{}, log: &syncBuffer{}}
		offset := time.Until(at("2026-02-04 06:05"))
		now := func() time.Time { return time.Now().Add(offset) }
		w.store = &counting{Store: memory.New(now)}
		w.engine = w.newEngine()
		w.engine.Now = now
		var lasted time.Duration
		w.engine.Publish = func(ctx context.Context, _ string, msgs []wire.Outgoing) []Published {
			began := time.Now()
			<-ctx.Done() // a broker that never answers
			lasted = time.Since(began)
			out := make([]Published, len(msgs))
			for i := range out {
				out[i].Err = ctx.Err()
			}
			return out
		}
		for _, name := range five {
			c := run(name, "2026-02-04 06:03")
			if err := w.engine.Record(t.Context(), w.key(c.Period), c); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.engine.Converge(t.Context(), w.key("2026-02-03"), "m")
		if err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("error %v", err)
		}
		if lasted != 54*time.Second { // a minute, less a tenth
			t.Errorf("publishing lasted %s, want 54s", lasted)
		}
	})
}

func TestClaim_MessageIDsOfSecondHolderAreKeptAsCopies(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	rivalled := false
	w.broker.fail = func(i int, _ wire.Trigger) error {
		if rivalled {
			return nil
		}
		rivalled = true // this publisher is paused with its request sent; its claim expires
		w.broker.mu.Unlock()
		defer w.broker.mu.Lock()
		w.pass(2 * time.Minute)
		if _, err := w.newEngine().Converge(context.Background(), w.key("2026-02-03"), "rival"); err != nil {
			t.Error(err)
		}
		return nil
	}
	w.converge("2026-02-03")
	d := w.doc("phase_triggers", overnightOne).Data
	for name, m := range d["messages"].(map[string]any) {
		m := m.(map[string]any)
		copies, _ := m["copies"].([]any)
		if m["id"] == "" || len(copies) != 1 || copies[0] == m["id"] {
			t.Errorf("%s: id %v, copies %v", name, m["id"], copies)
		}
	}
	if d["state"] != "published" {
		t.Errorf("state %v", d["state"])
	}
	for id, n := range w.broker.counts() {
		if n != 2 {
			t.Errorf("%s sent %d times, want 2 with one id", id, n)
		}
	}
}

func TestF12_TheSentOnesAreNotSentAgain(t *testing.T) {
	for third := range 5 {
		t.Run(fmt.Sprint("message_", third+1), func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			w.broker.fail = func(i int, _ wire.Trigger) error {
				if i == third {
					return errBroker
				}
				return nil
			}
			if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
				t.Fatal("the failed message was not reported")
			}
			if n := len(w.broker.got); n != 4 {
				t.Fatalf("%d messages sent, want the other 4", n)
			}
			w.broker.fail = nil
			w.converge("2026-02-03")
			if n := len(w.broker.counts()); n != 5 || len(w.broker.got) != 5 {
				t.Errorf("%d messages, %d ids", len(w.broker.got), n)
			}
		})
	}
}

func TestF02_BookkeepingAfterAPublishCannotUndoIt(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Log = brokenLog(t)
	fails := &failing{Store: w.store, collection: "phase3_completion"}
	w.engine.Store = fails
	if _, err := w.engine.Converge(context.Background(), w.key("2026-02-03"), "m"); err == nil {
		t.Error("a projection that could not be written is not retried")
	}
	if d := w.doc("phase_triggers", overnightOne).Data; d["state"] != "published" || len(w.broker.got) != 5 {
		t.Errorf("%v with %d messages", d["state"], len(w.broker.got))
	}
	fails.collection = ""
	w.converge("2026-02-03")
	if len(w.broker.got) != 5 {
		t.Errorf("published again: %d messages", len(w.broker.got))
	}
	if w.projection()["_triggered"] != true {
		t.Error("the projection was not caught up")
	}
}

// failing refuses writes to one collection.
type failing struct {
	store.Store
	collection string
}

func (f *failing) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	for _, w := range ws {
		if w.Ref.Collection == f.collection {
			return nil, errLost
		}
	}
	return f.Store.Apply(ctx, ws...)
}

func TestF07_ARedeliveryDrivesWhatIsPending(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.broker.fail = func(int, wire.Trigger) error { return errBroker }
	last := run(pgs, "2026-02-04 06:03")
	for range 3 { // the broker is down; each delivery tries again
		if _, err := w.deliver(last); err == nil {
			t.Fatal("acknowledged without a trigger")
		}
	}
	w.broker.fail = nil
	w.mustDeliver(last)
	if len(w.broker.got) != 5 {
		t.Errorf("%d messages", len(w.broker.got))
	}
}

func TestF08_AProcessorThatArrivesDuringTheChecksDoesNotTriggerAgain(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	checks := 0
	w.engine.Check = func(context.Context, Key, string, []string) Readiness {
		if checks++; checks == 1 {
			r, err := w.deliver(run(pgs, "2026-02-04 06:03")) // a redelivery
			if err != nil || !r.Busy {
				t.Errorf("%+v, %v", r, err)
			}
		}
		return Readiness{Outcome: Passed}
	}
	w.converge("2026-02-03")
	if checks != 1 || len(w.broker.got) != 5 {
		t.Errorf("%d checks, %d messages", checks, len(w.broker.got))
	}
	for _, tr := range w.broker.got {
		if !tr.FreshnessChecked {
			t.Errorf("%s does not say that the data was checked", tr.SourceTable)
		}
	}
}

func TestF58_TheRelayFindsUnpublishedMessages(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready() // recorded, and every handler died before it could decide
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); err != nil {
		t.Fatal(err)
	}
	if len(w.broker.got) != 5 || w.projection()["_triggered"] != true {
		t.Errorf("%d messages, projection %v", len(w.broker.got), w.projection())
	}
	calls := w.store.calls.Load()
	if err := w.engine.Relay(context.Background(), w.tr, "relay", nil); err != nil {
		t.Fatal(err)
	}
	if n := w.store.calls.Load() - calls; n != 4 {
		t.Errorf("an idle relay took %d calls, want 4: the first period, the list with the hold, all periods' documents, and the unsettled period", n)
	}
}

func TestBlocked_RetryIntervalIncreases(t *testing.T) {
	w := newWorld(t, "memory")
	outcome := Readiness{Outcome: Failed, Reasons: []string{"minutes coverage 71 %, 80 % needed"}}
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return outcome }
	w.ready()
	w.converge("2026-02-03")
	for _, wait := range []time.Duration{5, 10, 20, 30, 30} {
		st := w.statuses()["overnight"]
		if next := st.NextCheck.Sub(w.clock.now()).Round(time.Second); st.State != "blocked" || next != wait*time.Minute {
			t.Fatalf("%s, next check in %s, want %d min", st.State, next, wait)
		}
		if st.Reason != "readiness fail: minutes coverage 71 %, 80 % needed" {
			t.Errorf("reason %q", st.Reason)
		}
		if p := w.projection(); p["_trigger_pending"] != true || p["_triggered"] != false {
			t.Errorf("projection %v", p)
		}
		w.converge("2026-02-03") // too early: nothing happens
		w.pass(wait * time.Minute)
		w.pass(time.Second)
		w.converge("2026-02-03")
	}
	outcome = Readiness{Outcome: Passed}
	w.pass(31 * time.Minute)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "published" || len(w.broker.got) != 5 {
		t.Errorf("%s with %d messages", st.State, len(w.broker.got))
	}
	if n := len(w.events(telemetry.CycleBlocked)); n == 0 {
		t.Error("no cycle_blocked line")
	}
}

func TestBlocked_AnyOutcomeExceptPassBlocks(t *testing.T) {
	for _, outcome := range []Outcome{Unknown, Failed, "", "passed"} {
		w := newWorld(t, "memory")
		w.engine.Check = func(context.Context, Key, string, []string) Readiness {
			return Readiness{Outcome: outcome, Reasons: []string{"schedule not readable"}}
		}
		w.ready()
		w.converge("2026-02-03")
		if st := w.statuses()["overnight"]; st.State != "blocked" || len(w.broker.got) != 0 {
			t.Errorf("%q: %s with %d messages", outcome, st.State, len(w.broker.got))
		}
	}
}
