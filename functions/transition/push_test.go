package transition_test

import (
	"context"
	"fmt"
	"github.com/phasegate/phasegate/shared/store"
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery/pushtest"
	"github.com/phasegate/phasegate/shared/wire"
)

// A readiness check takes longer than the ack deadline: Pub/Sub delivers the message again while
// the first request still runs. The second request hands over, and the first adds nothing to it.
func TestPush_ARedeliveryDuringAnEvaluationHasNoSecondEffect(t *testing.T) {
	w := apptest.New(t, now)
	h := handler(w)
	for i, name := range five[:4] {
		if rec := deliver(h, "/", fmt.Sprint(i), completed(name)); rec.Code != 204 {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	checking, answered, ended := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	first := true
	w.Engine.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		if first {
			first = false
			close(checking)
			<-answered
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	var statuses []int
	outcomes := pushtest.Transition.Deliver([]time.Time{now}, func(d pushtest.Delivery) pushtest.Answer {
		w.SetNow(d.At)
		if d.Attempt == 1 {
			go func() { ended <- deliver(h, "/", "4", completed(five[4])).Code }()
			<-checking
			return pushtest.Answer{Took: time.Hour}
		}
		code := deliver(h, "/", "4", completed(five[4])).Code
		statuses = append(statuses, code)
		return pushtest.Answer{Status: code}
	})
	batches := func() (out []store.Version) {
		for doc, err := range w.Store.Scan(t.Context(), "phase_triggers", "0", "~") {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, doc.Version)
		}
		return out
	}
	before := batches()
	close(answered)
	late := <-ended
	if after := batches(); len(before) != 1 || !slices.Equal(before, after) || late != 204 {
		t.Errorf("the first request is answered %d; the batch was %v, is %v", late, before, after)
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
	if outcomes[0].Acked.IsZero() || outcomes[0].Attempts != 2 {
		t.Errorf("%+v, answered %v, and the first request %d", outcomes[0], statuses, late)
	}
}

// A process dies between its claim and its publishing. Its message is refused until the claim has
// expired, a few times: it never comes near the dead letter, and is handed over once.
func TestPush_AMessageOfADeadClaimIsHandedOverBeforeItsDeadLetter(t *testing.T) {
	for _, ignored := range []bool{false, true} {
		w := apptest.New(t, now)
		h, publish := handler(w), w.Engine.Publish
		died := false
		w.Engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
			if died {
				return publish(ctx, topic, msgs)
			}
			died = true
			w.SetDown(true)
			out := make([]cycle.Published, len(msgs))
			for i := range out {
				out[i].Err = apptest.ErrDown
			}
			return out
		}
		p := pushtest.Transition
		p.Ignored = ignored
		statuses := map[int]int{}
		times := make([]time.Time, len(five))
		for i := range times {
			times[i] = now
		}
		outcomes := p.Deliver(times, func(d pushtest.Delivery) pushtest.Answer {
			w.SetNow(d.At)
			code := deliver(h, "/", fmt.Sprint(d.Message), completed(five[d.Message])).Code
			w.SetDown(false)
			statuses[code]++
			return pushtest.Answer{Status: code, Took: 300 * time.Millisecond}
		})
		for i, o := range outcomes {
			if o.DeadLetter || o.Acked.IsZero() || o.Attempts > 11 {
				t.Errorf("retry policy ignored %t: message %d: %+v", ignored, i, o)
			}
		}
		if n := len(w.PubSub.Messages()); n != 5 || statuses[429] == 0 {
			t.Errorf("retry policy ignored %t: %d messages published, want 5; answers by status: %v", ignored, n, statuses)
		}
		t.Logf("retry policy ignored %t: answers by status: %v, outcomes %+v", ignored, statuses, outcomes)
	}
}
