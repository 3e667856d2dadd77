package cycle

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

func (w *world) explain(mode string) Explanation {
	w.t.Helper()
	m, _ := w.tr.Mode(mode)
	x, err := w.engine.Explain(context.Background(), w.key("2026-02-03"), m)
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

func TestExplain_ShowsEveryRunAndItsOutcome(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-02 17:00"))
	w.mustDeliver(overnight()...)
	w.mustDeliver(run(pgs, "2026-02-04 06:30", status(wire.StatusFailed)))
	stranger := run("", "2026-02-04 06:40")
	stranger.Reported = "RosterHistoryProcessor"
	w.mustDeliver(stranger)
	var got []string
	for _, r := range w.explain("overnight").Runs {
		got = append(got, fmt.Sprintf("%s %s counts=%t batch=%d %s", r.Processor, r.Status, r.Counts, r.Batch, r.Why))
	}
	want := []string{
		upg + " success counts=true batch=1 ", utg + " success counts=true batch=1 ",
		toff + " success counts=true batch=1 ", tdef + " success counts=true batch=1 ",
		pgs + " success counts=true batch=1 ", pgs + " failed counts=false batch=0 it reported failed",
		"RosterHistoryProcessor success counts=false batch=0 the pipeline knows no such processor",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestExplain_ShowsCycleWithoutDocumentAsOverdue(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 11:00"))
	x := w.explain("overnight")
	if x.State != "overdue" || len(x.Runs) != 0 || len(x.Missing) != 5 || !x.Deadline.Equal(at("2026-02-04 10:00")) {
		t.Errorf("%+v", x)
	}
}

func TestExplain_ShowsClaimHolder(t *testing.T) {
	w := newWorld(t, "memory")
	w.ready()
	w.engine.Publish = func(context.Context, string, []wire.Outgoing) []Published { panic("dies") }
	func() {
		defer func() { _ = recover() }()
		_, _ = w.engine.Converge(context.Background(), w.key("2026-02-03"), "m17")
	}()
	x := w.explain("overnight")
	if x.State != "publishing" || x.Claim == nil || x.Claim.MessageID != "m17" || !x.Claim.Live {
		t.Errorf("%s, claim %+v", x.State, x.Claim)
	}
	w.pass(61 * time.Second)
	if x := w.explain("overnight"); x.Claim.Live {
		t.Error("a claim that ran out is shown as good")
	}
}

// A run that arrives after trigger_within must not prevent the hand-over of runs in time.
func TestBlocked_LateBackfillDoesNotPreventHandOver(t *testing.T) {
	w := newWorld(t, "memory")
	outcome := Failed
	w.engine.Check = func(context.Context, Key, string, []string) Readiness { return Readiness{Outcome: outcome} }
	w.clock.set(at("2026-02-02 17:00"))
	night := overnight()
	w.mustDeliver(night[0], night[2], night[3], night[4]) // all but an optional one
	w.pass(time.Hour)
	w.converge("2026-02-03")
	if st := w.statuses()["overnight"]; st.State != "blocked" {
		t.Fatalf("%s: %s", st.State, st.Reason)
	}
	w.mustDeliver(run(toff, "2026-02-09 11:00"), run(utg, "2026-02-09 11:00"))
	outcome = Passed
	w.pass(time.Hour)
	w.converge("2026-02-03")
	st := w.statuses()["overnight"]
	if st.State != "published" || len(st.Batches) != 1 || len(st.Batches[0].Messages) != 4 {
		t.Errorf("%s: %+v", st.State, st.Batches)
	}
}

// A run's duration and the beginning of its error are recorded.
func TestExplain_RunHasDurationAndBoundedError(t *testing.T) {
	w := newWorld(t, "memory")
	key, seconds := w.key("2026-02-03"), 61.5
	for i, size := range []int{10, 1024} {
		c := wire.Completion{Processor: pgs, Reported: pgs, Period: "2026-02-03", Status: wire.StatusFailed, EventTime: w.clock.now(), ExecutionID: fmt.Sprint("run-", i), CorrelationID: "x",
			Duration: &seconds, ErrorType: "Quota", ErrorMessage: strings.Repeat("é", size/2)}
		if err := w.engine.Record(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	x := w.explain("overnight")
	if len(x.Runs) != 2 {
		t.Fatalf("%+v", x.Runs)
	}
	for _, r := range x.Runs {
		if r.Duration == nil || *r.Duration != seconds || !strings.HasPrefix(r.Error, "Quota: éé") || len(r.Error) > mostError+len("…") ||
			len(r.Error) > 20 && (len(r.Error) < mostError || !strings.HasSuffix(r.Error, "é…")) || !utf8.ValidString(r.Error) {
			t.Errorf("%+v", r)
		}
	}
}
