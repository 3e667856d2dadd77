package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/pipeline"
)

const (
	kills      = 200 // of one round
	shortKills = 20
	// longestLife of a process, from its first delivery to its death: a few messages.
	// Some live beyond a claim.
	longestLife = 120 * time.Millisecond
	// idleLife is how long a process waits for its first delivery.
	idleLife = 300 * time.Millisecond
	// window is how many nights report at the same time.
	window = 8
	// lanes are topics with a subscription each: the emulator pushes two messages of
	// a subscription at a time, where Pub/Sub pushes many.
	lanes = 3
)

// The test kills the process over and over, at random moments, while completions of many
// nights arrive. Redelivery and the relay finish what a killed process has begun: no message
// is lost, none is published twice, and the documents match the messages.
//
// E2E_SEED repeats the messages and the moments, as far as the machine does the same
// at the same speed; E2E_MINUTES goes on for longer, with a fresh world each round.
func TestKill_LosesAndDuplicatesNothing(t *testing.T) {
	needEmulators(t)
	seed, n := rand.Uint64(), kills
	if testing.Short() {
		n = shortKills
	}
	if s := os.Getenv("E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("E2E_SEED: ", err)
		}
	}
	minutes := 0.0
	if s := os.Getenv("E2E_MINUTES"); s != "" {
		var err error
		if minutes, err = strconv.ParseFloat(s, 64); err != nil {
			t.Fatal("E2E_MINUTES: ", err)
		}
	}
	onBoth(t, func(t *testing.T, s subject) {
		end := time.Now().Add(time.Duration(minutes / 2 * float64(time.Minute)))
		seed, n := seed, max(n*5/s.processors, 1) // as many messages each
		for {
			if !t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) { killRound(t, s, seed, n) }) || !time.Now().Before(end) {
				return
			}
			seed++
		}
	})
}

func killRound(t *testing.T, s subject, seed uint64, kills int) {
	w := newWorld(t, s)
	random := rand.New(rand.NewPCG(seed, 0))
	var topics []string
	for i := range lanes {
		topic := fmt.Sprintf("lane%d", i)
		w.push(topic, topic+"-transition", w.front.server.URL+"/transition?transition="+w.tr.ID, maxAttempts)
		topics = append(topics, topic)
	}
	flow, runs := w.flow(random, kills)
	open := 0 // kills that left hand-overs begun and not finished
	sentAll := len(flow)
	began := time.Now()
	for i := range kills {
		share := len(flow) / (kills - i)
		for _, m := range flow[:share] {
			w.publish(topics[random.IntN(lanes)], m)
		}
		flow = flow[share:]
		life := time.Duration(random.Int64N(int64(longestLife)))
		if random.IntN(20) == 0 {
			life += 1100 * time.Millisecond
		}
		if i%50 == 25 {
			w.relay()
		}
		select {
		case <-w.front.occupied():
		case <-time.After(idleLife):
		}
		select {
		case <-time.After(life):
		case <-w.process.done:
			t.Fatalf("seed %d: the process ended by itself:\n%s", seed, w.process.tail())
		}
		w.front.hold()
		w.process.kill()
		open += w.truthful()
		// A failed message is redelivered after a second or more. By then the claim of the
		// killed process has ended in the one case, and is still valid in the other.
		w.environment = append(w.environment, "PHASEGATE_CLAIM="+[]string{"1s", "4s"}[random.IntN(2)])
		w.start()
	}
	killing := time.Since(began)
	w.relay()
	w.awaitHandedOver(runs)
	w.process.terminate(t)
	if code, err := w.process.ended(); code != 0 || err != nil {
		t.Errorf("exit status %d, %v", code, err)
	}
	sum := w.audit(runs)
	for _, topic := range append(topics, w.tr.UpstreamTopic) {
		w.wantNoDeadLetters(topic)
	}
	failed := 0
	for _, d := range w.front.of("", "") {
		if d.status >= 300 {
			failed++
		}
	}
	t.Logf("seed %d: %d kills in %v, %d of them with a hand-over unfinished; %d messages in %d deliveries, %d of these failed; "+
		"%d cycles, %d hand-overs, %d messages to Phase 4 and %d copies; all done %v later",
		seed, kills, killing.Round(time.Second), open, sentAll, len(w.front.of("", "")), failed,
		len(runs), sum.batches, sum.messages, sum.copies, (time.Since(began) - killing).Round(100*time.Millisecond))
}

// flow makes the messages of as many nights as there are kills. Each night has runs of every
// processor; some of them run again, and some messages are published twice. The order is
// random, so that some nights are always under way.
func (w *world) flow(random *rand.Rand, nights int) (messages [][]byte, runs map[pipeline.Period]int) {
	type placed struct {
		at   float64
		data []byte
	}
	var all []placed
	runs = map[pipeline.Period]int{}
	for night := range nights {
		p := w.period(night + 1)
		for _, processor := range w.tr.Order {
			for n := range 1 + random.IntN(5)/4 { // a fifth run twice
				data := w.report(processor, p, n+1)
				runs[p]++
				for range 1 + random.IntN(4)/3 { // a quarter are published twice
					all = append(all, placed{float64(night) + window*random.Float64(), data})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	for _, m := range all {
		messages = append(messages, m.data)
	}
	return messages, runs
}

// truthful checks the documents of all batches while no process runs: at any moment of a kill
// they must be consistent. It returns 1 if a hand-over is under way, otherwise 0.
func (w *world) truthful() (open int) {
	w.t.Helper()
	for d, err := range w.store.Scan(w.t.Context(), "phase_triggers", "!", "~") {
		if err != nil {
			w.t.Fatal(err)
		}
		b := parse(d)
		if lie := b.lie(); lie != "" {
			w.t.Errorf("after a kill: %s", lie)
		}
		if b.state == "publishing" || b.state == "checking" {
			open = 1
		}
	}
	return open
}

func (w *world) wantNoDeadLetters(topic string) {
	w.t.Helper()
	name := pipeline.DeadLetterTopic(topic)
	//lint:ignore SA1019 A look at a subscription that must be empty; waiting for messages would be a wait for nothing.
	req := &pubsubpb.PullRequest{Subscription: w.name("subscriptions", name), MaxMessages: 10, ReturnImmediately: true}
	got, err := w.broker.Client.SubscriptionAdminClient.Pull(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range got.ReceivedMessages {
		w.t.Errorf("in the dead letter of %s: %s", topic, m.Message.Data)
	}
}
