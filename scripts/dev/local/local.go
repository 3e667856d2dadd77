// Package local runs the whole system in one process, for the demo, for tests and for
// experiments. It has a Pub/Sub server, a dispatcher that pushes as Pub/Sub does, a
// scheduler, the real function handlers behind HTTP, and a store in a file.
// Everything listens on the loopback interface.
//
// Unlike in production, topics and messages in flight live in memory and end with the
// process; documents in a SQLite file stay.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Options say what to start.
type Options struct {
	Config        app.Config // PubSubHost is filled in
	Stores        func(now func() time.Time) app.Stores
	Clock         *Clock
	PubSubPort    int // 0 picks a free one
	FunctionsPort int // 0 picks a free one
	// BigQuery is the emulator's program, started unless the configuration names a running one;
	// "" means that there is none, and nothing is checked, written or swept then.
	BigQuery     string
	BigQueryPort int                     // 0 picks a free one
	Seed         bool                    // makes the tables that the pipeline file names, with some rows
	Schedule     bool                    // sends the jobs, that of health at once
	Consumers    map[string]http.Handler // by topic: pushed to, like a downstream service
	Slack        func(text string)       // receives the messages for Slack; nil: there is no Slack
	Logs         io.Writer               // of the functions
	Errors       func(format string, args ...any)
}

// Environment is a running one.
type Environment struct {
	PubSub    string            // host:port
	BigQuery  string            // host:port, "" where there is none
	Functions map[string]string // name → URL
	Slack     string            // address of a webhook, "" where there is none
	App       *app.App          // the functions' own
	Clock     *Clock

	pubsub     *pubsubServer
	bigQuery   *bigQuery // that was started here
	slack      *slack
	server     *serve.Server
	dispatcher *dispatcher
	routes     []route
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// Start brings everything up; when it returns, messages flow.
func Start(ctx context.Context, o Options) (*Environment, error) {
	server, err := servePubSub(o.PubSubPort, o.Clock.Now)
	if err != nil {
		return nil, fmt.Errorf("start local environment: %w", err)
	}
	e := &Environment{Clock: o.Clock, PubSub: server.Addr, pubsub: server, Functions: map[string]string{}}
	if err := e.start(ctx, o); err != nil {
		return nil, fmt.Errorf("start local environment: %w", err)
	}
	return e, nil
}

func (e *Environment) start(ctx context.Context, o Options) (err error) {
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	o.Config.PubSubHost, o.Config.Local = e.PubSub, true
	if err := e.findBigQuery(ctx, &o); err != nil {
		return err
	}
	o.Config.Slack = notify.Slack{}
	if o.Slack != nil {
		if e.slack, err = serveSlack(o.Slack); err != nil {
			return err
		}
		o.Config.Slack, e.Slack = e.slack.channel(), e.slack.url
	}
	if e.App, err = app.Open(ctx, o.Config, o.Stores(o.Clock.Now), o.Clock.Now, o.Logs); err != nil {
		return err
	}
	if err := furnish(ctx, e.App, o.Seed); err != nil {
		return err
	}
	open := func(context.Context) (*app.App, error) { return e.App, nil }
	consumers := map[string]http.Handler{}
	for topic, h := range o.Consumers {
		consumers["consumer-"+topic] = h
	}
	if e.server, err = serve.Start(o.FunctionsPort, open, pipeline.Functions(), consumers); err != nil {
		return err
	}
	for _, name := range pipeline.Functions() {
		e.Functions[name] = e.server.URL + "/" + name
	}
	top := topology{client: e.App.Broker.Client, project: o.Config.Project}
	for _, t := range e.App.Pipeline.Transitions {
		if err := top.createTopic(ctx, o.Config.Prefix+t.DownstreamTopic); err != nil {
			return err
		}
	}
	e.routes = routes(e.App.Pipeline, o.Config.Prefix, e.server.URL)
	for topic := range o.Consumers {
		e.routes = append(e.routes, route{topic, pipeline.Subscription(topic, "consumer"), e.server.URL + "/consumer-" + topic, pipeline.MinBackoff})
	}
	for _, r := range e.routes {
		if err := top.createRoute(ctx, r); err != nil {
			return err
		}
	}
	e.dispatcher = newDispatcher(top, o.Clock, e.pubsub.news, o.Errors)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	for _, r := range e.routes {
		e.running.Go(func() { e.dispatcher.run(running, r) })
	}
	if o.Schedule {
		from := o.Clock.Now()
		for _, s := range e.App.Pipeline.Schedules {
			if s.Job == wire.JobHealth { // the status page has a report at once, not in an hour
				if err := SendJob(ctx, e.App, s); err != nil {
					return err
				}
			}
			e.running.Go(func() { schedule(running, e.App, o.Clock, from, s, o.Errors) })
		}
	}
	return nil
}

// findBigQuery starts the emulator unless one runs.
func (e *Environment) findBigQuery(ctx context.Context, o *Options) (err error) {
	if o.Config.BigQueryHost == "" && o.BigQuery != "" {
		if e.bigQuery, err = startBigQuery(ctx, o.BigQuery, o.BigQueryPort); err != nil {
			return err
		}
		o.Config.BigQueryHost = e.bigQuery.Addr
	}
	e.BigQuery = o.Config.BigQueryHost
	return nil
}

// Failed yields the error of a server that stopped by itself.
func (e *Environment) Failed() <-chan error { return e.server.Failed() }

// Settle waits until every message that is due has been delivered and answered.
func (e *Environment) Settle(ctx context.Context) error { return e.dispatcher.settle(ctx, e.routes) }

// NextRetry returns the time of the next redelivery.
func (e *Environment) NextRetry() (time.Time, bool) { return e.dispatcher.nextRetry("") }

// Close drains and ends everything that was started. Idempotent.
func (e *Environment) Close() error {
	if e.stop != nil {
		e.stop()
	}
	e.running.Wait()
	if e.dispatcher != nil {
		e.dispatcher.close()
	}
	var err error
	if e.server != nil {
		err = e.server.Drain()
	}
	if e.App != nil {
		err = errors.Join(err, e.App.Close())
		e.App = nil
	}
	if e.bigQuery != nil {
		err = errors.Join(err, e.bigQuery.close())
		e.bigQuery = nil
	}
	if e.slack != nil {
		err = errors.Join(err, e.slack.server.Close())
		e.slack = nil
	}
	if e.pubsub != nil {
		e.pubsub.Close()
		e.pubsub = nil
	}
	return err
}
