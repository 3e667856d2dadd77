package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	// The platform's main package imports it, so go.mod must have its requirements.
	_ "github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"google.golang.org/grpc"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// The budgets of one instance. They decide how long a cold start takes and how little memory
// an instance needs.
const (
	sizeBudget   = 30 << 20
	startBudget  = 100 * time.Millisecond
	memoryBudget = 60 << 20
)

// pushes are deliveries that a function accepts, in order.
func pushes(t *testing.T, function string) []string {
	t.Helper()
	switch function {
	case "transition":
		p, err := pipeline.Parse(pipeline.Default())
		if err != nil {
			t.Fatal(err)
		}
		var all []string // the whole phase, of a night that is long over
		for _, name := range p.Transitions[0].Order {
			all = append(all, fmt.Sprintf(`{"processor_name":%q,"game_date":%q,"status":"success","execution_id":%q}`,
				name, time.Now().AddDate(0, 0, -2).Format(time.DateOnly), name))
		}
		return all
	case "reconcile":
		return []string{`{"job":"relay"}`}
	case "health":
		return []string{`{"job":"health"}`}
	case "sweep": // there is no warehouse, and the function logs that
		return []string{`{"job":"sweep"}`}
	}
	t.Fatalf("%s is new: add a delivery that it can do here", function)
	return nil
}

func push(data string) string {
	return string(wire.Envelope{MessageID: rand.Text(), PublishTime: time.Now(), Data: []byte(data)}.Push())
}

// The test does each step of a deployment with an archive, without the platform.
func TestF53_EveryArchiveBuildsAndStartsByItself(t *testing.T) {
	names := functionNames(t)
	packed := packIn(t, ".")
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			data, hash := archiveOf(t, packed, name)
			binary := buildAsThePlatform(t, unpack(t, data))
			t.Run("starts_and_says_what_it_is", func(t *testing.T) { testStart(t, binary, name, hash) })
			t.Run("a_wrong_target_ends_it", func(t *testing.T) { testWrongTarget(t, binary) })
			t.Run("clients_that_go_away_hang_nothing", func(t *testing.T) {
				p := start(t, binary, name, "FIRESTORE_EMULATOR_HOST="+refusing(t), "PUBSUB_EMULATOR_HOST="+refusing(t))
				testAbandonedRequests(t, p, push(stored(t, name)), http.StatusServiceUnavailable)
			})
			t.Run("takes_what_is_pushed", func(t *testing.T) { testPushes(t, binary, name) })
		})
	}
}

// buildAsThePlatform returns the program around an archive, built without a network.
func buildAsThePlatform(t *testing.T, all files) string {
	t.Helper()
	dir, binary := t.TempDir(), filepath.Join(t.TempDir(), "main")
	const module = "github.com/phasegate/phasegate"
	all[platformMainName] = fmt.Appendf(nil, platformMain, module)
	if err := all.write(dir); err != nil {
		t.Fatal(err)
	}
	// The platform lets the go command complete go.mod; there must be nothing to add.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./"+filepath.Dir(platformMainName))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if !bytes.Equal(read(t, dir, name), all[name]) {
			t.Errorf("the build has changed %s: it uses versions that the tests did not", name)
		}
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "size of the binary", info.Size(), sizeBudget, fmt.Sprintf("%.1f MB", float64(info.Size())/(1<<20)))
	return binary
}

// stored is a delivery for which a function needs the store.
func stored(t *testing.T, function string) string {
	t.Helper()
	if function == "sweep" {
		return `{"job":"dance"}` // it is written to quarantine
	}
	return pushes(t, function)[0]
}

// report logs a figure. Machines differ, so a figure beyond its budget is no failure.
func report(t *testing.T, what string, got, budget int64, text string) {
	t.Helper()
	verdict := "within budget"
	if got > budget {
		verdict = "OVER BUDGET"
	}
	t.Logf("%s: %s, %d%% of what it may be, %s", what, text, 100*got/budget, verdict)
}

func testStart(t *testing.T, binary, name, hash string) {
	p := start(t, binary, name, "FIRESTORE_EMULATOR_HOST="+refusing(t), "PUBSUB_EMULATOR_HOST="+refusing(t))
	report(t, "from start to first answer", int64(p.ready), int64(startBudget), p.ready.Round(time.Millisecond).String())
	status, body := p.request(t, http.MethodGet, "")
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("GET: %d %q %v", status, body, err)
	}
	if got["name"] != name || got["version"] != app.Version || got["source_hash"] != hash {
		t.Errorf("GET answers %v, want %s of source %s", got, name, hash)
	}
	sent := time.Now()
	status, body = p.request(t, http.MethodPost, push(stored(t, name)))
	if took := time.Since(sent); status != http.StatusServiceUnavailable || took > 5*time.Second {
		t.Errorf("a store that refuses: %d after %v, want 503 at once: %s", status, took, body)
	}
	p.reportMemory(t, "after start")
}

// A deployment of a wrong target must fail, not serve.
func testWrongTarget(t *testing.T, binary string) {
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = []string{"FUNCTION_TARGET=nonsense", "PORT=" + freePort(t)}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !bytes.Contains(out, []byte(`"nonsense"`)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// testPushes runs the function against a real store, and Pub/Sub within this process.
func testPushes(t *testing.T, binary, name string) {
	firestore := emulatortest.Firestore(t)
	project := "packaging-" + strings.ToLower(rand.Text())[:16] // the emulator keeps documents
	broker := pstest.NewServer()
	t.Cleanup(func() { broker.Close() })
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	topic := &pubsubpb.Topic{Name: "projects/" + project + "/topics/" + p.Transitions[0].DownstreamTopic}
	if _, err := broker.GServer.CreateTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	instance := start(t, binary, name, "GOOGLE_CLOUD_PROJECT="+project, "FIRESTORE_EMULATOR_HOST="+firestore, "PUBSUB_EMULATOR_HOST="+broker.Addr,
		"BIGQUERY_EMULATOR_HOST=") // there is no data behind what is pushed
	all := pushes(t, name)
	for i, data := range all {
		sent := time.Now()
		if status, body := instance.request(t, http.MethodPost, push(data)); status != http.StatusNoContent {
			t.Fatalf("%s: %d %s", data, status, body)
		}
		t.Logf("push %d of %d answered after %v", i+1, len(all), time.Since(sent).Round(time.Millisecond))
	}
	if n := len(broker.Messages()); name == "transition" && n != len(all) {
		t.Errorf("%d messages published for a complete phase, want %d", n, len(all))
	}
	if status, body := instance.request(t, http.MethodPost, push("hopeless")); status != http.StatusAccepted {
		t.Errorf("an invalid message: %d %s, want quarantine", status, body)
	}
	instance.reportMemory(t, "after these pushes")
	testAbandonedRequests(t, instance, push(all[0]), http.StatusNoContent)
	instance.reportMemory(t, "after a crowd of clients")
}

// testAbandonedRequests sends requests whose clients disconnect at once, in several ways. Then
// it sends ordinary requests, which must be answered. A server hangs only if it notices the
// disconnect within microseconds, so the test needs many clients.
func testAbandonedRequests(t *testing.T, p *instance, body string, want int) {
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	failed := make(chan error, 8)
	for range cap(failed) {
		go func() {
			var err error
			for i := 0; i < 25 && err == nil; i++ {
				err = errors.Join(
					p.hangUp(head+body),               // before the answer
					p.hangUp(head+body[:len(body)/2]), // in the middle of the body
					p.hangUp(get+head+body+head+body), // on a connection kept alive
					p.hangUp(get+head+body[:len(body)/2]),
					p.cancelOnceSent(t.Context(), body))
			}
			failed <- err
		}()
	}
	var err error
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if status, text := p.request(t, http.MethodPost, body); status != want {
			t.Fatalf("after clients that went away: %d %s, want %d", status, text, want)
		}
		if status, _ := p.request(t, http.MethodGet, ""); status != http.StatusOK {
			t.Fatalf("after clients that went away: GET %d", status)
		}
	}
}

// refusing returns the address of a service that answers every call with a permanent error.
func refusing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}
