// Package pushtest is a double of a Pub/Sub push subscription. It decides when each message is
// delivered, by the rules below, in a time of its own: a test of hours takes milliseconds.
//
// # Rules
//
//   - Slow start: "The system starts by sending a single message at a time. With each successful
//     delivery, the number of messages that are sent concurrently is doubled. […] For each delivery
//     failure, the number of concurrent requests to the endpoint will halve, until a minimum of one
//     request at a time is reached." (https://cloud.google.com/pubsub/docs/push, as it was before it
//     named no numbers; today: "Pub/Sub dynamically adjusts the rate of push requests based on the
//     rate at which it receives success responses.")
//   - Push backoff: after a refusal the whole subscription pauses, from 100 ms to 60 s, longer with
//     each further refusal (the same page, "Push backoff"). A success ends it. How fast the pause
//     grows is not documented: here it doubles.
//   - Retry policy: "Retry delay will be exponential based on provided minimum and maximum backoffs.
//     […] Retry Policy is implemented on a best effort basis. At times, the delay between
//     consecutive deliveries may not match the configuration."
//     (https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions#RetryPolicy).
//     [Policy.Ignored] is the worst case of that: https://github.com/googleapis/google-cloud-go/issues/5480.
//   - Ack deadline: "For push delivery, this value is also used to set the request timeout for the
//     call to the push endpoint. If the subscriber never acknowledges the message, the Pub/Sub system
//     will eventually redeliver the message." (…/projects.subscriptions, ackDeadlineSeconds). The
//     first request may still run.
//   - Dead letter: "The number of delivery attempts is defined as 1 + (the sum of number of NACKs and
//     number of times the acknowledgement deadline has been exceeded for the message)."
//     (…/projects.subscriptions#DeadLetterPolicy).
//   - Success: 102, 200, 201, 202 and 204 (https://cloud.google.com/pubsub/docs/push#receive_push).
package pushtest

import (
	"slices"
	"time"
)

// Policy is what a subscription is configured with.
type Policy struct {
	AckDeadline            time.Duration
	MinBackoff, MaxBackoff time.Duration
	MaxAttempts            int
	Ignored                bool // a retry does not wait for its backoff
}

// Transition is the policy of the subscription of completions, as terraform/subscriptions.tf has it.
var Transition = Policy{AckDeadline: 600 * time.Second, MinBackoff: 10 * time.Second, MaxBackoff: 600 * time.Second, MaxAttempts: 100}

// Limits of Pub/Sub itself.
const (
	leastPause, longestPause = 100 * time.Millisecond, 60 * time.Second
	widest                   = 3000 // requests at a time
)

// Delivery is one request.
type Delivery struct {
	Message int // its place among the published ones
	Attempt int // from 1
	At      time.Time
}

// Answer is what an endpoint answers, and after what time.
type Answer struct {
	Status int // 0: the connection broke
	Took   time.Duration
}

// Outcome is what became of a message.
type Outcome struct {
	Attempts   int
	Acked      time.Time // zero: it was not
	DeadLetter bool
}

type message struct {
	Outcome
	due     time.Time
	waiting bool // for its delivery
}

type request struct {
	message int
	ends    time.Time
	success bool
}

// Deliver publishes a message at each of the times, which ascend, and delivers until each is
// acknowledged or dead-lettered. It asks the endpoint at the start of each request, one call at a
// time: an endpoint whose requests overlap keeps the earlier one waiting by itself.
func (p Policy) Deliver(published []time.Time, endpoint func(Delivery) Answer) []Outcome {
	messages := make([]message, len(published))
	for i, at := range published {
		messages[i] = message{due: at, waiting: true}
	}
	now, paused := published[0], published[0]
	window, refusals := 1, 0
	var running []request
	for {
		for i := p.next(messages, now); i >= 0 && len(running) < window && !now.Before(paused); i = p.next(messages, now) {
			m := &messages[i]
			m.waiting = false
			m.Attempts++
			a := endpoint(Delivery{Message: i, Attempt: m.Attempts, At: now})
			r := request{message: i, ends: now.Add(min(a.Took, p.AckDeadline)), success: a.Took <= p.AckDeadline && acknowledges(a.Status)}
			running = append(running, r)
		}
		var ok bool
		if now, ok = upcoming(messages, running, now, paused, len(running) < window); !ok {
			break
		}
		for _, r := range running {
			if r.ends.After(now) {
				continue
			}
			m := &messages[r.message]
			if r.success {
				m.Acked = now
				window, refusals = min(window*2, widest), 0
				continue
			}
			window, refusals = max(window/2, 1), refusals+1
			paused = now.Add(min(leastPause<<min(refusals-1, 20), longestPause))
			if m.DeadLetter = m.Attempts >= p.MaxAttempts; !m.DeadLetter {
				m.waiting, m.due = true, now.Add(p.backoff(m.Attempts))
			}
		}
		running = slices.DeleteFunc(running, func(r request) bool { return !r.ends.After(now) })
	}
	out := make([]Outcome, len(messages))
	for i, m := range messages {
		out[i] = m.Outcome
	}
	return out
}

func (p Policy) backoff(attempt int) time.Duration {
	if p.Ignored {
		return 0
	}
	return min(p.MinBackoff<<min(attempt-1, 20), p.MaxBackoff)
}

// next returns the message that has been due for longest; -1: none is due.
func (p Policy) next(messages []message, now time.Time) int {
	best := -1
	for i, m := range messages {
		if m.waiting && !m.due.After(now) && (best < 0 || m.due.Before(messages[best].due)) {
			best = i
		}
	}
	return best
}

// upcoming returns the time of the next event; false: there is none.
func upcoming(messages []message, running []request, now, paused time.Time, room bool) (next time.Time, ok bool) {
	consider := func(t time.Time) {
		if !ok || t.Before(next) {
			next, ok = t, true
		}
	}
	for _, r := range running {
		consider(r.ends)
	}
	for _, m := range messages {
		if m.waiting && room {
			consider(later(m.due, paused, now))
		}
	}
	return next, ok
}

func later(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

func acknowledges(status int) bool {
	return slices.Contains([]int{102, 200, 201, 202, 204}, status)
}
