// Package apptest opens an application for tests: the memory store behind a switch
// for faults, a Pub/Sub server in the process, logs in a buffer.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// ErrDown is what the store answers while it is down.
var ErrDown = errors.New("the store is down")

// World is an application and what a test does to its surroundings.
type World struct {
	*app.App
	PubSub *pstest.Server
	Logs   *Logs

	mu   sync.Mutex
	now  time.Time
	down bool
}

// New opens the NBA pipeline at a time. It ends with the test.
func New(t testing.TB, now time.Time) *World {
	t.Helper()
	w := &World{PubSub: pstest.NewServer(), Logs: &Logs{}, now: now}
	t.Cleanup(func() { w.PubSub.Close() })
	c := app.Config{Project: "test", Store: "memory", Claim: time.Minute, Lease: lease.Max, Local: true, PubSubHost: w.PubSub.Addr}
	stores := func(context.Context, app.Config) (store.Store, error) {
		return faulty{memory.New(w.Now), w}, nil
	}
	var err error
	if w.App, err = app.Open(context.Background(), c, stores, w.Now, w.Logs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.App.Close() })
	topics := map[string]bool{}
	for _, tr := range w.Pipeline.Transitions {
		topics[tr.UpstreamTopic], topics[tr.DownstreamTopic], topics[pipeline.DeadLetterTopic(tr.UpstreamTopic)] = true, true, true
	}
	for _, s := range w.Pipeline.Schedules {
		topics[s.Topic()] = true
	}
	for topic := range topics {
		_, err := w.Broker.Client.TopicAdminClient.CreateTopic(context.Background(), &pubsubpb.Topic{Name: "projects/test/topics/" + topic})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// Now is the application's clock.
func (w *World) Now() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

// SetNow sets it.
func (w *World) SetNow(t time.Time) { w.mu.Lock(); defer w.mu.Unlock(); w.now = t }

// SetDown makes every call to the store fail, or no longer.
func (w *World) SetDown(down bool) { w.mu.Lock(); defer w.mu.Unlock(); w.down = down }

// Doc reads one document past all faults.
func (w *World) Doc(t testing.TB, collection, id string) store.Doc {
	t.Helper()
	s, err := w.Store.(faulty).Store.Get(context.Background(), store.Ref{Collection: collection, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return s.Docs[0]
}

type faulty struct {
	store.Store
	w *World
}

func (f faulty) fail() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.down {
		return ErrDown
	}
	return nil
}

func (f faulty) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	if err := f.fail(); err != nil {
		return store.Snapshot{}, err
	}
	return f.Store.Get(ctx, refs...)
}

func (f faulty) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Store.Apply(ctx, ws...)
}

func (f faulty) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	if err := f.fail(); err != nil {
		return func(yield func(store.Doc, error) bool) { yield(store.Doc{}, err) }
	}
	return f.Store.Scan(ctx, collection, from, to)
}

// Logs holds log lines. Safe for concurrent use.
type Logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }

// Lines returns the lines for which a field has a value.
func (l *Logs) Lines(field, value string) []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for _, line := range bytes.Split(l.b.Bytes(), []byte("\n")) {
		var m map[string]any
		if json.Unmarshal(line, &m) == nil && m[field] == value {
			out = append(out, m)
		}
	}
	return out
}

// Drain returns the lines since the last call, in their order, and forgets them.
func (l *Logs) Drain() []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for _, line := range bytes.Split(l.b.Bytes(), []byte("\n")) {
		var m map[string]any
		if json.Unmarshal(line, &m) == nil {
			out = append(out, m)
		}
	}
	l.b.Reset()
	return out
}
