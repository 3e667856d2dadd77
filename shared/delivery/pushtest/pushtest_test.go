package pushtest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/delivery/pushtest"
)

var start = time.Date(2026, 2, 4, 11, 0, 0, 0, time.UTC)

func at(n int) []time.Time {
	times := make([]time.Time, n)
	for i := range times {
		times[i] = start
	}
	return times
}

func TestTransition_IsThePolicyThatTerraformDeploys(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "terraform", "subscriptions.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]time.Duration{
		`ack_deadline_seconds +=\s+(\d+)`:                  pushtest.Transition.AckDeadline / time.Second,
		`minimum_backoff = .* == "transition" \? "(\d+)s"`: pushtest.Transition.MinBackoff / time.Second,
		`maximum_backoff = "(\d+)s"`:                       pushtest.Transition.MaxBackoff / time.Second,
		`max_delivery_attempts = (\d+)`:                    time.Duration(pushtest.Transition.MaxAttempts),
	} {
		m := regexp.MustCompile(pattern).FindSubmatch(raw)
		if m == nil {
			t.Errorf("subscriptions.tf has no %s", pattern)
			continue
		}
		if got, _ := strconv.Atoi(string(m[1])); time.Duration(got) != want {
			t.Errorf("%s: %d, want %d", pattern, got, want)
		}
	}
}

func TestDeliver_StartsSlowlyAndDoublesWithEachSuccess(t *testing.T) {
	starts := map[time.Duration]int{}
	outcomes := pushtest.Transition.Deliver(at(300), func(d pushtest.Delivery) pushtest.Answer {
		starts[d.At.Sub(start)]++
		return pushtest.Answer{Status: 204, Took: time.Second}
	})
	if starts[0] != 1 || starts[time.Second] != 2 || starts[2*time.Second] != 8 {
		t.Errorf("requests by time: %v", starts)
	}
	for i, o := range outcomes {
		if o.Acked.IsZero() || o.Attempts != 1 {
			t.Errorf("message %d: %+v", i, o)
		}
	}
}

// One refused message keeps the others waiting.
func TestDeliver_ARefusalPausesTheWholeSubscription(t *testing.T) {
	outcomes := pushtest.Transition.Deliver(at(2), func(d pushtest.Delivery) pushtest.Answer {
		if d.Message == 0 && d.Attempt == 1 {
			return pushtest.Answer{Status: 503}
		}
		return pushtest.Answer{Status: 204}
	})
	if got := outcomes[1].Acked.Sub(start); got != 100*time.Millisecond {
		t.Errorf("the other message is acknowledged after %s, want 100 ms", got)
	}
	if got := outcomes[0].Acked.Sub(start); got != 10*time.Second {
		t.Errorf("the refused message is acknowledged after %s, want 10 s", got)
	}
}

func TestDeliver_RedeliversAfterTheAckDeadlineWhateverTheLateAnswerIs(t *testing.T) {
	var starts []time.Duration
	outcomes := pushtest.Transition.Deliver(at(1), func(d pushtest.Delivery) pushtest.Answer {
		starts = append(starts, d.At.Sub(start))
		return pushtest.Answer{Status: 204, Took: map[int]time.Duration{1: 700 * time.Second}[d.Attempt]}
	})
	if len(starts) != 2 || starts[1] != 610*time.Second || outcomes[0].Attempts != 2 {
		t.Errorf("deliveries at %v, %+v", starts, outcomes)
	}
}

// A message that always fails is dead-lettered after the attempts of the policy: 15 hours and a half.
func TestDeliver_DeadLettersAfterTheLastAttempt(t *testing.T) {
	var last time.Duration
	outcomes := pushtest.Transition.Deliver(at(1), func(d pushtest.Delivery) pushtest.Answer {
		last = d.At.Sub(start)
		return pushtest.Answer{Status: 503}
	})
	if !outcomes[0].DeadLetter || outcomes[0].Attempts != pushtest.Transition.MaxAttempts {
		t.Errorf("%+v", outcomes[0])
	}
	if last < 15*time.Hour || last > 16*time.Hour {
		t.Errorf("the last attempt is %s after the first", last)
	}
}

// A claim of a dead process refuses its messages for a minute. Even if Pub/Sub ignores the retry
// policy, the pauses of the subscription keep the attempts far below those of the dead letter.
func TestDeliver_AMinuteOfRefusalsDeadLettersNothing(t *testing.T) {
	for _, c := range []struct {
		messages, attempts int
		ignored            bool
	}{{1, 4, false}, {1, 11, true}, {300, 2, false}, {300, 2, true}} {
		p := pushtest.Transition
		p.Ignored = c.ignored
		most := 0
		var last time.Duration
		for _, o := range p.Deliver(at(c.messages), func(d pushtest.Delivery) pushtest.Answer {
			if d.At.Before(start.Add(time.Minute)) {
				return pushtest.Answer{Status: 429, Took: 20 * time.Millisecond}
			}
			return pushtest.Answer{Status: 204, Took: 20 * time.Millisecond}
		}) {
			if o.DeadLetter {
				t.Fatalf("%+v: dead-lettered after %d attempts", c, o.Attempts)
			}
			most, last = max(most, o.Attempts), max(last, o.Acked.Sub(start))
		}
		t.Logf("%d messages, retry policy ignored: %t: %d attempts at most, the last acknowledged after %s", c.messages, c.ignored, most, last)
		if most > c.attempts {
			t.Errorf("%+v: %d attempts at most", c, most)
		}
	}
}
