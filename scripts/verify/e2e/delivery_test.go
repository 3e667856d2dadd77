package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestHandOver_CompletionsPublishOnce(t *testing.T) { onBoth(t, completionsAreHandedOverOnce) }

func completionsAreHandedOverOnce(t *testing.T, s subject) {
	w := newWorld(t, s)
	upstream := w.tr.UpstreamTopic
	ways := map[string]func(night [][]byte){
		"in_order": func(night [][]byte) {
			for _, m := range night {
				w.publish(upstream, m)
			}
		},
		"shuffled": func(night [][]byte) {
			rand.Shuffle(len(night), func(i, j int) { night[i], night[j] = night[j], night[i] })
			for _, m := range night {
				w.publish(upstream, m)
			}
		},
		"all_at_once": func(night [][]byte) {
			var wg sync.WaitGroup
			for _, m := range night {
				wg.Go(func() { w.broker.Publish(t.Context(), upstream, []wire.Outgoing{{Data: m}}) })
			}
			wg.Wait()
		},
		"each_three_times": func(night [][]byte) { w.publish(upstream, slices.Concat(night, night, night)...) },
	}
	runs := map[pipeline.Period]int{}
	periods := map[string]pipeline.Period{}
	for name, send := range ways {
		p := w.period(len(runs) + 1)
		periods[name], runs[p] = p, w.processors
		send(w.night(p))
	}
	w.awaitHandedOver(runs)
	// A process that has drained publishes nothing more.
	w.process.terminate(t)
	if code, err := w.process.ended(); code != 0 || err != nil {
		t.Errorf("exit status %d, %v", code, err)
	}
	for name, p := range periods {
		sum := w.audit(w.all(p))
		if sum != (balance{batches: 1, messages: w.processors, copies: sum.copies}) {
			t.Errorf("%s: %+v, want one batch of %d messages", name, sum, w.processors)
		}
		if sum.copies > 0 {
			t.Logf("%s: %d copies with the same trigger_id", name, sum.copies)
		}
	}
}

func TestTransition_InvalidMessageIsQuarantinedAndNotRedelivered(t *testing.T) {
	onBoth(t, aMessageThatCanNeverBeProcessedIsQuarantinedAndNeverRedelivered)
}

func aMessageThatCanNeverBeProcessedIsQuarantinedAndNeverRedelivered(t *testing.T, s subject) {
	w := newWorld(t, s)
	// A second subscription of the topic gets the answer 503 each time. Its redeliveries show
	// that a redelivery to the first one would have come by now.
	w.subscribe(&pubsubpb.Subscription{Name: "control", Topic: w.tr.UpstreamTopic,
		PushConfig: &pubsubpb.PushConfig{PushEndpoint: w.front.server.URL + "/transition/control?transition=none"}})
	id := w.publish(w.tr.UpstreamTopic, []byte(`{"processor_name":"PlayerGameSummaryProcessor","game_date":"YESTERDAY","status":"success"}`))[0]
	w.await(limit, func() string {
		if n := len(w.front.of("/transition/control", id)); n < 5 {
			return fmt.Sprintf("%d of 5 deliveries of the control", n)
		}
		return ""
	})
	var got []delivery
	for _, d := range w.front.of("/transition", id) {
		if d.path == "/transition" {
			got = append(got, d)
		}
	}
	if len(got) != 1 || got[0].status != http.StatusAccepted {
		t.Errorf("deliveries %+v, want one, answered 202", got)
	}
	d := w.doc("quarantine", id)
	if d.Data["field"] != "game_date" || !strings.Contains(text(d.Data["envelope"]), id) {
		t.Errorf("quarantine/%s: %v", id, d.Data)
	}
	w.publish(w.tr.UpstreamTopic, w.night(w.period(1))...)
	w.awaitHandedOver(w.all(w.period(1)))
}

func TestDelivery_MessagesWaitForStoppedFunction(t *testing.T) {
	onBoth(t, whatIsPublishedWhileTheFunctionIsStoppedIsDeliveredLater)
}

func whatIsPublishedWhileTheFunctionIsStoppedIsDeliveredLater(t *testing.T, s subject) {
	w := newWorld(t, s)
	night := w.night(w.period(1))
	w.publish(w.tr.UpstreamTopic, night[:2]...)
	w.await(limit, func() string {
		if n := len(w.read(w.period(1))[w.period(1)].runs); n != 2 {
			return fmt.Sprintf("%d of 2 runs on record", n)
		}
		return ""
	})
	w.process.terminate(t)
	if code, err := w.process.ended(); code != 0 || err != nil {
		t.Fatalf("exit status %d, %v", code, err)
	}
	for _, id := range w.publish(w.tr.UpstreamTopic, night[2:]...) {
		w.await(limit, func() string {
			if len(w.front.of("/transition", id)) == 0 {
				return "no delivery tried"
			}
			return ""
		})
	}
	if n := len(w.phase4.messages()); n > 0 {
		t.Errorf("%d messages handed over by a function that is stopped", n)
	}
	w.start()
	w.awaitHandedOver(w.all(w.period(1)))
	w.audit(w.all(w.period(1)))
}

// After SIGTERM a process still answers the requests that it has begun to handle.
func TestShutdown_TerminatedProcessAnswersOpenRequests(t *testing.T) {
	onBoth(t, aTerminatedProcessAnswersWhatItHasBegun)
}

func aTerminatedProcessAnswersWhatItHasBegun(t *testing.T, s subject) {
	w := newWorld(t, s)
	body := fmt.Sprintf(`{"message":{"messageId":"1","publishTime":%q,"data":%q},"subscription":"s"}`,
		w.started.UTC().Format("2006-01-02T15:04:05Z"), encoded(w.night(w.period(1))[0]))
	conn, err := net.Dial("tcp", w.process.url.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := func(part string) {
		if _, err := io.WriteString(conn, part); err != nil {
			t.Fatal(err)
		}
	}
	answers := bufio.NewReader(conn)
	// The server asks for the body when the handler reads it: the request is under way.
	begin(fmt.Sprintf("POST /transition?transition=%s HTTP/1.1\r\nHost: e2e\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", w.tr.ID, len(body)))
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("answered %q, %v", line, err)
	}
	if _, err := answers.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	begin(body[:20])
	w.process.terminate(t)
	w.await(limit, func() string { // it accepts no new connections
		c, err := net.Dial("tcp", w.process.url.Host)
		if err != nil {
			return ""
		}
		_ = c.Close()
		return "still accepting"
	})
	begin(body[20:])
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("answered %s", resp.Status)
	}
	if code, err := w.process.ended(); code != 0 || err != nil {
		t.Errorf("exit status %d, %v", code, err)
	}
	if n := len(w.read(w.period(1))[w.period(1)].runs); n != 1 {
		t.Errorf("%d runs are recorded, want 1", n)
	}
}

// Pub/Sub redelivers nothing here: only the relay finds the batch that the killed process left.
func TestRelay_FinishesWorkOfKilledProcess(t *testing.T) {
	onBoth(t, theRelayFinishesWhatAKilledProcessLeft)
}

func theRelayFinishesWhatAKilledProcessLeft(t *testing.T, s subject) {
	hole, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	w := newWorld(t, s, "PUBSUB_EMULATOR_HOST="+hole.Addr().String(), "PHASEGATE_CLAIM=3s")
	p := w.period(1)
	w.publish(w.tr.UpstreamTopic, w.night(p)...)
	w.await(limit, func() string {
		if bs := w.read(p)[p].batches; len(bs) != 1 || bs[0].state != "publishing" || bs[0].holder == "" {
			return fmt.Sprintf("not publishing: %+v", bs)
		}
		return ""
	})
	w.process.kill()
	w.front.answering(func(d delivery) int {
		if strings.HasPrefix(d.path, "/transition") {
			return http.StatusNoContent
		}
		return 0
	})
	w.environment = slices.DeleteFunc(w.environment, func(e string) bool { return strings.HasPrefix(e, "PUBSUB_EMULATOR_HOST=") })
	w.start()
	// The claim of the killed process is still valid; the scheduler triggers the relay again.
	w.await(limit, func() string {
		w.relay()
		return w.unfinished(w.read(p)[p], w.processors)
	})
	w.awaitHandedOver(w.all(p))
	w.audit(w.all(p))
}
