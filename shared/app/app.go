package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// App is everything that a handler works with. It is safe for concurrent use.
type App struct {
	Config   Config
	Pipeline *pipeline.Pipeline
	Store    store.Store
	Broker   *Broker
	// Warehouse is nil where there is none: the emulator's is not there, and what runs
	// on this machine never asks Google's.
	Warehouse *warehouse.Warehouse
	Engine    *cycle.Engine
	// Locks protect tables, not documents: a shadow has those of the whole environment.
	Locks *lease.Locks
	// Notifier sends notifications; nil in a shadow, which sends none.
	Notifier *notify.Notifier
	Log      *slog.Logger
	Now      func() time.Time
}

// Stores opens the store that a configuration names.
type Stores func(ctx context.Context, c Config) (store.Store, error)

// LoadPipeline reads the definition that the configuration names.
func (c Config) LoadPipeline() (*pipeline.Pipeline, error) {
	data := pipeline.Default()
	if c.PipelineFile != "" {
		var err error
		if data, err = os.ReadFile(c.PipelineFile); err != nil {
			return nil, fmt.Errorf("PIPELINE_FILE: %w", err)
		}
	}
	p, err := pipeline.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("PIPELINE_FILE %q: %w", c.PipelineFile, err)
	}
	return p, nil
}

// Open makes an App. now is this machine's clock, logs go to w.
func Open(ctx context.Context, c Config, stores Stores, now func() time.Time, w io.Writer) (*App, error) {
	p, err := c.LoadPipeline()
	if err != nil {
		return nil, err
	}
	log, err := telemetry.New(w, c.LogLevel)
	if err != nil {
		return nil, err
	}
	st, err := stores(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", c.Store, err)
	}
	broker, err := NewBroker(ctx, c.Project, c.PubSubHost)
	if err != nil {
		closeStore(st)
		return nil, err
	}
	a := &App{Config: c, Pipeline: p, Store: st, Broker: broker, Log: log, Now: now}
	if !c.Local || c.BigQueryHost != "" {
		a.Warehouse = warehouse.New(c.Project, c.BigQueryHost)
	}
	a.Engine = a.engine()
	a.Notifier = &notify.Notifier{Store: st, Slack: c.Slack, Prefix: c.StatePrefix(), Of: c.Prefix + p.Name + " in " + c.Project, Shadow: c.Shadow != "", NewID: rand.Text, Log: log}
	a.Locks = lease.New(lease.Config{Store: st, Now: now, NewID: rand.Text, Lease: c.Lease, Prefix: c.Prefix, Instance: instance(), Log: log})
	return a, nil
}

func (a *App) engine() *cycle.Engine {
	c := cycle.Config{
		Store: a.Store, Publish: a.Broker.Publish, Check: a.check,
		Now: a.Now, NewID: rand.Text, Claim: a.Config.Claim, Log: a.Log,
		Prefix: a.Config.StatePrefix(), Shadow: a.Config.Shadow != "", Version: SourceHash,
	}
	if a.Warehouse != nil {
		c.Expected = a.expected
	}
	return cycle.New(c)
}

// instance names this process for people.
func instance() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown-host"
	}
	if revision := os.Getenv("K_REVISION"); revision != "" {
		name = revision + " " + name
	}
	return fmt.Sprintf("%s %d", name, os.Getpid())
}

// check is a [cycle.Check].
func (a *App) check(ctx context.Context, key cycle.Key, mode string, processors []string) cycle.Readiness {
	switch {
	case key.Transition.Checks == nil:
		return cycle.Readiness{Outcome: cycle.NotChecked}
	case a.Warehouse == nil:
		return cycle.Readiness{Outcome: cycle.NotChecked, Reasons: []string{"not checked: no BigQuery is configured"}}
	}
	return a.Warehouse.Check(ctx, key.Transition, key.Period, mode, processors)
}

// expected is a [cycle.Expected].
func (a *App) expected(ctx context.Context, key cycle.Key) (int64, error) {
	if key.Transition.Checks == nil || key.Transition.Checks.Expected == "" {
		return 0, cycle.ErrNoSchedule
	}
	return a.Warehouse.Expected(ctx, key.Transition, key.Period)
}

// Shadowed returns an application on the same clients whose engine works in the shadow
// of this one: with collections of its own, and without publishing. The shadow of a
// shadow has collections apart from both. Close the App that it came from, not this one.
func (a *App) Shadowed() *App {
	s := *a
	s.Config.Shadow += shadow
	s.Warehouse = nil // what is tried there has no data behind it
	s.Notifier = nil
	s.Log = telemetry.InShadow(a.Log)
	s.Engine = s.engine()
	return &s
}

// Close ends the clients. The App must not be used any more.
func (a *App) Close() error {
	closeStore(a.Store)
	if a.Warehouse != nil {
		return errors.Join(a.Warehouse.Close(), a.Broker.Close())
	}
	return a.Broker.Close()
}

func closeStore(s store.Store) {
	if c, ok := s.(io.Closer); ok {
		_ = c.Close() // nothing is buffered: every write has been answered
	}
}

// Lazy makes an App at the first request, not at start. If that fails, the next request tries
// again: a client that cannot start must not disable an instance for ever.
type Lazy struct {
	Open func(ctx context.Context) (*App, error)

	mu  sync.Mutex
	app *App
}

// Close ends the App's clients, if there are any.
func (l *Lazy) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.app == nil {
		return nil
	}
	a := l.app
	l.app = nil
	return a.Close()
}

// Get returns the App, making it if there is none yet. Clients outlive the request.
func (l *Lazy) Get(ctx context.Context) (*App, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.app != nil {
		return l.app, nil
	}
	a, err := l.Open(context.WithoutCancel(ctx))
	if err == nil {
		l.app = a
	}
	return a, err
}

// StatusCollection holds one document for each function; the state prefix comes before it.
const StatusCollection = "function_status"

// Deployed returns the hash of the pipeline file that the functions run, as the newest
// heartbeat says, and its time; "" where none has come.
func (a *App) Deployed(ctx context.Context) (definition string, at time.Time, err error) {
	for doc, err := range a.Store.Scan(ctx, a.Config.StatePrefix()+StatusCollection, "a", "z~") {
		if err != nil {
			return "", time.Time{}, fmt.Errorf("read the heartbeats: %w", err)
		}
		beats, _ := doc.Data["heartbeats"].(map[string]any)
		for _, beat := range beats {
			if t, ok := beat.(time.Time); ok && t.After(at) {
				at = t
				definition, _ = doc.Data["definition"].(string)
			}
		}
	}
	return definition, at, nil
}

// Heartbeat records in function_status/{function} that a function finished a job, with the
// server's time, the running source and the channel, and logs a line. It is the last step of
// a job: health and an alert treat its absence as a failure.
func (a *App) Heartbeat(ctx context.Context, function, job string) error {
	ref := store.Ref{Collection: a.Config.StatePrefix() + StatusCollection, ID: function}
	_, err := a.Store.Apply(ctx, store.Merge(ref, store.F(store.ServerTime, "heartbeats", job),
		store.F(Version, "version"), store.F(SourceHash, "source_hash"), store.F(a.Pipeline.Hash, "definition"),
		store.F(a.Config.Slack.Problem() == nil, "has_channel"), store.F(a.Config.Slack.String(), "channel")))
	if err != nil {
		return fmt.Errorf("heartbeat of %s: %w", job, err)
	}
	a.Log.InfoContext(ctx, job+" done", "event", telemetry.Heartbeat, "function", function, "job", job)
	return nil
}
