package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// adoption is a pipeline that changes between two orchestrators. Its documents stay, and its
// deployments change.
type adoption struct {
	*system
	mu   sync.Mutex
	got  []string // messages to the next phase: sender and date
	busy sync.Mutex
}

const (
	completions = "nba-phase3-analytics-complete"
	oldFeed     = completions + "-consumer" // as the local environment names what it makes for a consumer
)

// deploy starts the functions on the existing documents, in shadow or not, with or without the
// previous orchestrator next to them.
func (a *adoption) deploy(shadow bool, at time.Time, old bool) {
	t := a.t
	t.Helper()
	a.stop()
	t.Setenv("PHASEGATE_SHADOW", strconv.FormatBool(shadow))
	consumers := map[string]http.Handler{"nba-phase4-trigger": http.HandlerFunc(a.phase4)}
	if old {
		consumers[completions] = http.HandlerFunc(a.orchestrator)
	}
	a.start(local.Options{Consumers: consumers, Clock: local.NewClock(at)})
}

func (a *adoption) phase4(w http.ResponseWriter, r *http.Request) {
	e, err := wire.FromRequest(r)
	var tr wire.Trigger
	if err == nil {
		tr, err = wire.DecodeTrigger(e.Data)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	by := "ours"
	if tr.TriggerID == "" {
		by = "theirs"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, by+" "+string(tr.GameDate))
}

// sent returns the number of messages to the next phase since the last call, by sender and date.
func (a *adoption) sent() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]int{}
	for _, s := range a.got {
		out[s]++
	}
	a.got = nil
	return out
}

// orchestrator is the previous orchestrator. It counts the names in the date's document. When all
// five are there and the document is not marked as triggered, it publishes and marks it.
func (a *adoption) orchestrator(w http.ResponseWriter, r *http.Request) {
	a.busy.Lock()
	defer a.busy.Unlock()
	e, err := wire.FromRequest(r)
	var c struct {
		Name string `json:"processor_name"`
		Date string `json:"game_date"`
	}
	if err == nil {
		err = json.Unmarshal(e.Data, &c)
	}
	if err == nil {
		err = a.count(r.Context(), c.Name, c.Date)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (a *adoption) count(ctx context.Context, name, date string) error {
	ref := store.Ref{Collection: "phase3_completion", ID: date}
	if _, err := a.App.Store.Apply(ctx, store.Merge(ref, store.F("done", name, "status"))); err != nil {
		return err
	}
	snap, err := a.App.Store.Get(ctx, ref)
	if err != nil {
		return err
	}
	n := 0
	for field := range snap.Docs[0].Data {
		if !strings.HasPrefix(field, "_") {
			n++
		}
	}
	if n < len(five) || snap.Docs[0].Data["_triggered"] == true {
		return nil
	}
	var msgs []wire.Outgoing
	for _, table := range five {
		data, err := json.Marshal(map[string]any{"source_table": table, "analysis_date": date, "game_date": date, "success": true})
		if err != nil {
			return err
		}
		msgs = append(msgs, wire.Outgoing{Data: data})
	}
	for _, sent := range a.App.Broker.Publish(ctx, "nba-phase4-trigger", msgs) {
		if sent.Err != nil {
			return sent.Err
		}
	}
	_, err = a.App.Store.Apply(ctx, store.Merge(ref, store.F(true, "_triggered"), store.F(a.Clock.Now(), "_triggered_at"), store.F("overnight", "_mode"), store.F("all_complete", "_trigger_reason")))
	return err
}

// A pipeline whose dates another orchestrator hands over is adopted as docs/how-to/adopt.md
// says, and given back: each date is handed over by one of them, at no time by both.
func TestAdoption_PipelineIsAdoptedAndReturned(t *testing.T) {
	definition := regexp.MustCompile(`(?s)\n    checks:\n.*?\nschedules:`).ReplaceAllString(string(pipeline.Default()), "\nschedules:")
	definition = strings.Replace(definition, "topic: "+completions+"\n", "topic: "+completions+"\n      replaces: ["+oldFeed+"]\n", 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "pipeline.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_FILE", file)
	a := &adoption{system: newSystem(t)}
	morning := func(day int) time.Time { return time.Date(2026, 2, day, 11, 5, 0, 0, time.UTC) }
	handedOver := func(want string) {
		t.Helper()
		if got := a.sent(); len(got) != 1 || got[want] != len(five) {
			t.Errorf("the next phase was sent %v, want %d by %s", got, len(five), want)
		}
	}

	a.deploy(true, morning(4), true)
	a.night("2026-02-03")
	handedOver("theirs 2026-02-03")
	want(t, 0, []string{"\n1 alike, 0 only ours, 0 only theirs, 0 that the other does not tell, 0 unknown\n"}, "report", "--shadow", "--from", "2026-02-03", "--to", "2026-02-03")

	// make deploy runs this command before it applies a plan.
	want(t, 0, nil, "checks", "verify")
	t.Setenv("PHASEGATE_SHADOW", "false")
	want(t, 1, []string{"bad      replaces " + oldFeed + "\n  it still feeds the previous orchestrator, and both would hand over", "1 of 1 verification failed"}, "checks", "verify")
	feed := "projects/phasegate-local/subscriptions/" + oldFeed
	if err := a.App.Broker.Client.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: feed}); err != nil {
		t.Fatal(err)
	}
	want(t, 0, []string{"ok       replaces " + oldFeed}, "checks", "verify")
	broker := a.PubSub
	a.stop()
	t.Setenv("PUBSUB_EMULATOR_HOST", broker) // no server listens there any more
	t.Setenv("PHASEGATE_SHADOW", "false")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var out strings.Builder
	if code := run(ctx, []string{"checks", "verify"}, &out, io.Discard); code != 2 || !strings.Contains(out.String(), "unknown  replaces "+oldFeed) {
		t.Errorf("%d: %s", code, out.String())
	}

	a.deploy(false, morning(5), false)
	a.night("2026-02-04")
	handedOver("ours 2026-02-04")

	a.deploy(true, morning(6), true)
	a.night("2026-02-05")
	handedOver("theirs 2026-02-05")
	// A completion of a date that we handed over is reported again, to both orchestrators.
	a.report(completion(five[0], "2026-02-04"))
	if got := a.sent(); len(got) != 0 {
		t.Errorf("handed over again: %v", got)
	}
}
