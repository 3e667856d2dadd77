package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
	"github.com/phasegate/phasegate/shared/wire"
)

// limit bounds the wait for anything remote: ten times what a quiet machine needs.
const limit = 3 * time.Minute

// subject is a pipeline that the suite runs on, with the names that the tests use.
type subject struct {
	name       string
	definition string // without local times, so that the tests pass at any hour of the day
	production string // as it is
	processors int    // number of processors of the transition
	mode       string
	critical   []string
	optional   string // one that is not
	midnight   string // the end of a period, as its definition writes it
}

// of makes a subject of a definition. A period may be long past, so that there are enough
// of them.
func of(t *testing.T, s subject, definition []byte) subject {
	t.Helper()
	p, err := pipeline.Parse(definition)
	if err != nil {
		t.Fatal(err)
	}
	s.processors, s.production = len(p.Transitions[0].Order), string(definition)
	s.definition = regexp.MustCompile(`(?m)^ *(not_before|deadline): .*\n`).ReplaceAllString(s.production, "")
	s.definition = regexp.MustCompile(`trigger_within: \d+h`).ReplaceAllString(s.definition, "trigger_within: 87600h")
	return s
}

// onBoth runs a test on a pipeline of five processors by the day, and on one of 24 by the
// hour whose periods are handed over to another transition.
func onBoth(t *testing.T, test func(t *testing.T, s subject)) {
	retail, err := os.ReadFile(filepath.Join("..", "..", "dev", "demo", "retail.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	byHour := subject{name: "retail", mode: "hourly", optional: "footfall_west", midnight: "+1h :00"}
	for _, region := range []string{"north", "south", "east", "west", "central", "online"} {
		byHour.critical = append(byHour.critical, "sales_"+region, "stock_"+region)
	}
	for _, s := range []subject{
		of(t, subject{name: "nba", mode: "overnight", critical: []string{"player_game_summary", "upcoming_player_game_context"}, optional: "team_defense_game_summary", midnight: "+1d 00:00"}, pipeline.Default()),
		of(t, byHour, retail),
	} {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

// world is one project in both emulators, with the topology of production.
type world struct {
	subject
	t           *testing.T
	pipeline    *pipeline.Pipeline
	project     string
	environment []string
	tr          *pipeline.Transition // its first
	store       *firestore.Store
	broker      *app.Broker
	front       *front
	process     *process
	phase4      *consumer
	started     time.Time
}

// newWorld makes the topology and starts the process.
func newWorld(t *testing.T, s subject, environment ...string) *world {
	t.Helper()
	return newWorldOf(t, s, maxAttempts, environment...)
}

// newWorldOf is newWorld with a bound on the upstream deliveries.
func newWorldOf(t *testing.T, s subject, attempts int32, environment ...string) *world {
	t.Helper()
	needEmulators(t)
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(s.definition), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse([]byte(s.definition))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{subject: s, t: t, pipeline: p, project: "e2e-" + strings.ToLower(rand.Text()[:20]), tr: p.Transitions[0], front: newFront(t), started: time.Now()}
	w.environment = append([]string{"GOOGLE_CLOUD_PROJECT=" + w.project, "PHASEGATE_STORE=firestore", "PHASEGATE_PREFIX=",
		"PHASEGATE_SHADOW=", "PHASEGATE_CLAIM=1s", "LOG_LEVEL=info", "PIPELINE_FILE=" + file,
		"BIGQUERY_EMULATOR_HOST="}, environment...) // the data behind hand-overs is not what is tested here
	if w.store, err = firestore.Open(t.Context(), w.project, ""); err != nil {
		t.Fatal(err)
	}
	if w.broker, err = app.NewBroker(t.Context(), w.project, os.Getenv("PUBSUB_EMULATOR_HOST")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.store.Close()
		_ = w.broker.Close()
	})
	w.topic(w.tr.DownstreamTopic)
	w.subscribe(&pubsubpb.Subscription{Name: "phase4", Topic: w.tr.DownstreamTopic})
	w.phase4 = consume(t, w.broker.Client, "phase4")
	w.push(w.tr.UpstreamTopic, w.tr.Subscription(), w.front.server.URL+"/transition?transition="+w.tr.ID, attempts)
	for _, tr := range p.Transitions[1:] {
		w.topic(tr.DownstreamTopic)
		w.push(tr.UpstreamTopic, tr.Subscription(), w.front.server.URL+"/transition?transition="+tr.ID, attempts)
	}
	for _, function := range scheduled {
		topic := pipeline.Schedule{Function: function}.Topic()
		w.push(topic, pipeline.Subscription(topic, function), w.front.server.URL+"/"+function, maxAttempts)
	}
	t.Cleanup(func() {
		if t.Failed() && w.process != nil {
			t.Logf("the process said last:\n%s", w.process.tail())
		}
	})
	w.start()
	return w
}

// start starts a process, and sends it what is pushed.
func (w *world) start() {
	w.t.Helper()
	w.process = launch(w.t, w.environment)
	w.front.to(w.process)
}

// The bounds of a dead-letter policy.
const (
	minAttempts = 5
	maxAttempts = 100
)

func (w *world) topic(name string) {
	w.t.Helper()
	if _, err := w.broker.Client.TopicAdminClient.CreateTopic(w.t.Context(), &pubsubpb.Topic{Name: w.name("topics", name)}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) name(kind, name string) string {
	return "projects/" + w.project + "/" + kind + "/" + name
}

func (w *world) subscribe(s *pubsubpb.Subscription) {
	w.t.Helper()
	s.Name, s.Topic = w.name("subscriptions", s.Name), w.name("topics", s.Topic)
	if _, err := w.broker.Client.SubscriptionAdminClient.CreateSubscription(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { // else the emulator pushes for ever, at the cost of the other tests
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := w.broker.Client.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.Name}); err != nil {
			w.t.Error(err)
		}
	})
}

// scheduled are the functions that the scheduler triggers.
var scheduled = []string{"reconcile", "sweep", "health"}

// push makes a topic with a push subscription and its dead-letter topic as they are deployed,
// but without the retry policy. With one, the emulator forgets several messages that fail at
// once after their third delivery. Without one, it redelivers a message after a second.
func (w *world) push(topic, subscription, url string, attempts int32) {
	w.t.Helper()
	dead := pipeline.DeadLetterTopic(topic)
	w.topic(topic)
	w.topic(dead)
	w.subscribe(&pubsubpb.Subscription{Name: dead, Topic: dead, AckDeadlineSeconds: 600})
	w.subscribe(&pubsubpb.Subscription{
		Name: subscription, Topic: topic, PushConfig: &pubsubpb.PushConfig{PushEndpoint: url}, AckDeadlineSeconds: 600,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: w.name("topics", dead), MaxDeliveryAttempts: attempts},
	})
}

// all are a period's first runs.
func (w *world) all(p pipeline.Period) map[pipeline.Period]int {
	return map[pipeline.Period]int{p: w.processors}
}

// period is the nth before the present one.
func (w *world) period(n int) pipeline.Period {
	return w.tr.Calendar().Add(w.tr.Calendar().At(w.started), -n)
}

// report is a completion on the wire: the nth run of a processor for a period, which
// has just ended and is like no other run.
func (w *world) report(processor string, p pipeline.Period, n int) []byte {
	w.t.Helper()
	data, err := json.Marshal(map[string]any{
		"processor_name": processor, "phase": w.tr.UpstreamPhase, "game_date": p, "status": "success",
		"execution_id": fmt.Sprintf("%s-%s-%d", processor, p, n), "correlation_id": "e2e", "record_count": 100 + n,
		"timestamp": w.started.Add(time.Duration(n) * time.Second).UTC().Format(time.RFC3339Nano),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// night is a first run of every processor for a period.
func (w *world) night(p pipeline.Period) (all [][]byte) {
	for _, processor := range w.tr.Order {
		all = append(all, w.report(processor, p, 1))
	}
	return all
}

// publish sends messages in one request, and returns their ids.
func (w *world) publish(topic string, all ...[]byte) (ids []string) {
	w.t.Helper()
	var msgs []wire.Outgoing
	for _, data := range all {
		msgs = append(msgs, wire.Outgoing{Data: data})
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	for _, sent := range w.broker.Publish(ctx, topic, msgs) {
		if sent.Err != nil {
			w.t.Fatal(sent.Err)
		}
		ids = append(ids, sent.ID)
	}
	return ids
}

// operate runs phasectl as an operator does, and returns what it printed.
func (w *world) operate(code int, args ...string) string {
	w.t.Helper()
	binary, err := phasectl()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), w.environment...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("phasectl %s: exit %d (%v), want %d:\n%s", strings.Join(args, " "), got, err, code, out)
	}
	return string(out)
}

func (w *world) relay() {
	w.t.Helper()
	w.publish(pipeline.Schedule{Function: "reconcile"}.Topic(), []byte(`{"job":"relay"}`))
}

// doc reads a document.
func (w *world) doc(collection, id string) store.Doc {
	w.t.Helper()
	got, err := w.store.Get(w.t.Context(), store.Ref{Collection: collection, ID: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return got.Docs[0]
}

// await polls a remote state that cannot signal. wrong describes what is missing, and returns
// "" when nothing is.
func (w *world) await(within time.Duration, wrong func() string) {
	w.t.Helper()
	emulatortest.Await(w.t, within, wrong)
}

// received is a message as a subscriber takes it.
type received struct {
	id         string
	attributes map[string]string
	data       string
	trigger    wire.Trigger
}

// consumer takes everything from a subscription until the test ends.
type consumer struct {
	mu  sync.Mutex
	all []received
}

func consume(t *testing.T, client *pubsub.Client, subscription string) *consumer {
	c, done := &consumer{}, make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			r := received{id: m.ID, attributes: m.Attributes, data: string(m.Data)}
			r.trigger, _ = wire.DecodeTrigger(m.Data) // dead letters are none
			c.mu.Lock()
			c.all = append(c.all, r)
			c.mu.Unlock()
			m.Ack()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("receive from %s: %v", subscription, err)
		}
	})
	return c
}

// messages are those received so far.
func (c *consumer) messages() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[:len(c.all):len(c.all)]
}
