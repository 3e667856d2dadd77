package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	pgs  = "player_game_summary"
	tdef = "team_defense_game_summary"
	toff = "team_offense_game_summary"
	upg  = "upcoming_player_game_context"
	utg  = "upcoming_team_game_context"

	night = "2026-02-03"
)

// five is the order in which Phase 4 is sent its messages.
var five = []string{pgs, tdef, toff, upg, utg}

// world is a running environment with a recording Phase 4.
type world struct {
	*Environment
	t      *testing.T
	tr     *pipeline.Transition
	phase4 *consumer
	logs   *logs
}

// onEachStore runs a test on the stores that need nothing but this machine.
func onEachStore(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{"memory", "sqlite"} {
		t.Run(kind, func(t *testing.T) { t.Parallel(); test(t, kind) })
	}
}

func openStore(t *testing.T, kind string) func(now func() time.Time) app.Stores {
	file := filepath.Join(t.TempDir(), "store.db")
	return func(now func() time.Time) app.Stores {
		return func(context.Context, app.Config) (store.Store, error) {
			if kind == "sqlite" {
				return sqlite.Open(file, now)
			}
			return memory.New(now), nil
		}
	}
}

// newWorld starts an environment on free ports at noon of the night's day.
func newWorld(t *testing.T, kind string, edit ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, phase4: newConsumer(), logs: &logs{}}
	o := Options{
		Config: app.Config{Project: "test", Claim: time.Minute, LogLevel: "info"},
		Stores: openStore(t, kind), Clock: NewClock(at("2026-02-03 12:00")), Logs: w.logs,
		Consumers: map[string]http.Handler{"nba-phase4-trigger": w.phase4},
		Errors:    w.logs.errorf,
	}
	for _, e := range edit {
		e(&o)
	}
	env, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	w.Environment, w.tr = env, env.App.Pipeline.Transitions[0]
	return w
}

// at is a local time of the NBA pipeline.
func at(s string) time.Time {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		panic(err)
	}
	t, err := time.ParseInLocation("2006-01-02 15:04", s, zone)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

// report is a completion on the wire.
type report map[string]any

// done is a successful run for the night that ends at a local time.
func done(processor, when string, edit ...func(report)) report {
	r := report{
		"processor_name": processor, "phase": "phase_3_analytics", "game_date": night, "status": "success",
		"execution_id": "run-" + processor + "-" + when, "correlation_id": "corr-" + processor,
		"record_count": 100, "timestamp": at(when).Format(time.RFC3339Nano),
	}
	for _, e := range edit {
		e(r)
	}
	return r
}

func with(key string, value any) func(report) { return func(r report) { r[key] = value } }

// morning is a complete overnight set, in the order of messages.
func morning() []report {
	var rs []report
	for i, p := range five {
		rs = append(rs, done(p, fmt.Sprintf("2026-02-04 06:%02d", i)))
	}
	return rs
}

// publish sends reports in one request.
func (w *world) publish(reports ...report) {
	w.t.Helper()
	var msgs []wire.Outgoing
	for _, r := range reports {
		data, err := json.Marshal(r)
		if err != nil {
			w.t.Fatal(err)
		}
		msgs = append(msgs, wire.Outgoing{Data: data})
	}
	w.send(w.tr.UpstreamTopic, msgs...)
}

func (w *world) send(topic string, msgs ...wire.Outgoing) {
	w.t.Helper()
	for _, sent := range w.App.Broker.Publish(w.t.Context(), topic, msgs) {
		if sent.Err != nil {
			w.t.Fatal(sent.Err)
		}
	}
}

// settle delivers everything that is due now.
func (w *world) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.Settle(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// atTime sets the clock forward, sends reports and delivers what is due.
func (w *world) atTime(when string, reports ...report) {
	w.t.Helper()
	w.Clock.AdvanceTo(at(when))
	w.publish(reports...)
	w.settle()
}

// exhaust sets the clock to the end of each backoff until no message is left to redeliver.
// It returns the number of backoffs.
func (w *world) exhaust() int {
	w.t.Helper()
	for n := range 200 {
		w.settle()
		due, ok := w.NextRetry()
		if !ok {
			return n
		}
		w.Clock.AdvanceTo(due)
	}
	w.t.Fatal("still redelivering after 200 backoffs")
	return 0
}

// tables returns the tables of the triggers that Phase 4 accepted in a mode, without copies.
func (w *world) tables(mode string) []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range w.phase4.accepted() {
		if r.Trigger.Mode == mode && !seen[r.Trigger.TriggerID] {
			seen[r.Trigger.TriggerID] = true
			names = append(names, r.Trigger.SourceTable)
		}
	}
	return names
}

// wantHandedOver checks the triggers that Phase 4 accepted in a mode, in any order, without copies.
func (w *world) wantHandedOver(mode string, want ...string) {
	w.t.Helper()
	got := w.tables(mode)
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: handed over %q, want %q", mode, got, want)
	}
}

// status returns a mode's cycle of the night; its State is "" when there is none.
func (w *world) status(mode string) cycle.Status {
	w.t.Helper()
	ss, err := w.App.Engine.Status(w.t.Context(), cycle.Key{Transition: w.tr, Period: night})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range ss {
		if s.Mode == mode {
			return s
		}
	}
	return cycle.Status{}
}

// wantPublishedOnce checks the recorded batches: one batch, with a message id for each of the five.
func (w *world) wantPublishedOnce(mode string) {
	w.t.Helper()
	s := w.status(mode)
	if s.State != "published" || len(s.Batches) != 1 || len(s.Batches[0].Messages) != len(five) {
		w.t.Errorf("%s: %s with batches %+v, want one published of five messages", mode, s.State, s.Batches)
	}
	for _, b := range s.Batches {
		for table, id := range b.Messages {
			if id == "" {
				w.t.Errorf("%s: no message id is recorded for %s", mode, table)
			}
		}
	}
}

// runs returns how many runs of a processor are recorded for the night.
func (w *world) runs(processor string) int {
	w.t.Helper()
	got, err := w.App.Store.Get(w.t.Context(), store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_" + night})
	if err != nil {
		w.t.Fatal(err)
	}
	all, _ := got.Docs[0].Data["runs"].(map[string]any)
	of, _ := all[processor].(map[string]any)
	return len(of)
}

// documents returns a collection.
func (w *world) documents(collection string) []store.Doc {
	w.t.Helper()
	var docs []store.Doc
	for d, err := range w.App.Store.Scan(w.t.Context(), collection, "!", "~") {
		if err != nil {
			w.t.Fatal(err)
		}
		docs = append(docs, d)
	}
	return docs
}

// logs keeps the log lines of the functions and the dispatcher.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) errorf(format string, args ...any) { fmt.Fprintf(l, format+"\n", args...) }

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}
