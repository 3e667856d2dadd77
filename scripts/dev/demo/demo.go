// Package demo replays a night of a pipeline in the local environment. It prints the scenes of a
// crash between publishing and recording, and with Verbose all scenes. For the NBA pipeline
// that is the night of 2026-02-03. For the retail pipeline (retail.yaml) it is the night of
// 2026-10-25, in which one hour of the clock happens twice.
//
// Messages pass through a real Pub/Sub server, the functions' handlers answer over HTTP, and
// documents are in SQLite. Only the clock is simulated. At the end the demo compares the
// messages that a downstream service received with the recorded state. Every expected
// message must have arrived, and none may have had its effect twice.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/scripts/dev/processors"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Result is the balance of a demo, in messages.
type Result struct {
	Expected  int // by the story's own count
	Published int // distinct trigger ids that reached the downstream service
	Lost      int // expected and not received
	Doubled   int // runs handed over twice in a cycle, or two ids for one batch and table
	Copies    int // received again under the same id; harmless
	Guarded   int // runs of a service that ignores ids, behind a guard

	Period    pipeline.Period // the first that the story is about
	Warehouse bool            // whether processors were really run
	Runs      int             // that hand-overs set off, where they were
	Tables    int             // of the pipeline

	DoubledRows int64 // at the end, over all tables
}

// OK reports whether no message was lost or doubled.
func (r Result) OK() bool {
	return r.Lost == 0 && r.Doubled == 0 && r.Published == r.Expected && r.Guarded == r.Published && (!r.Warehouse || r.Runs == r.Published && r.DoubledRows == 0)
}

// ErrStory: there is no story about the pipeline.
var ErrStory = errors.New("the demo has stories about the pipelines nba and retail")

// View says what is printed while the story is played.
type View struct {
	Colour   bool
	Verbose  bool               // all scenes, not the heart alone
	Progress func(doing string) // called before each step that prints nothing; nil: not
}

// story is the night of one pipeline.
type story struct {
	intro  []string // three lines before the heart: what happens, and the legend
	heart  [2]int   // its first scene, and the one after its last
	begins string
	utc    bool // its times are UTC
	tables bool // its processors write tables, if there is a warehouse
	play   func(d *demo, ctx context.Context) error
}

var stories = map[string]story{
	"nba":    {begins: "2026-02-03 22:00", tables: true, play: (*demo).play, heart: [2]int{2, 4}, intro: nbaIntro},
	"retail": {begins: "2026-10-25 00:30", utc: true, play: (*demo).playRetail, heart: [2]int{0, 4}, intro: retailIntro},
}

// legend explains the signs of the scenes that are printed.
const legend = "Legend: in, run: a processor reports or runs; out: the next phase receives a trigger; =: state of the cycle; !!: a fault; tell: a notification."

// Run plays the story and prints it to w as it happens. The environment is left running, for the
// caller to close.
func Run(ctx context.Context, w io.Writer, v View, o local.Options) (*local.Environment, Result, error) {
	d := &demo{w: w, View: v, phase4: &phase4{}, seen: map[string]bool{}}
	p, err := o.Config.LoadPipeline()
	if err != nil {
		return nil, Result{}, err
	}
	told, ok := stories[p.Name]
	if !ok {
		return nil, Result{}, fmt.Errorf("%w; this one is %s", ErrStory, p.Name)
	}
	d.transition, d.zone, d.heart = p.Transitions[0], p.Calendar.Zone(), told.heart
	if told.utc {
		d.zone = time.UTC
	}
	if !told.tables {
		o.BigQuery, o.Config.BigQueryHost = "", ""
	}
	o.Clock = local.NewClock(d.at(told.begins))
	o.Consumers = d.phase4.consumers(p)
	d.crash.died = func(triggers int) {
		d.say("   %s the process dies: Pub/Sub has accepted its %d triggers, and no id is recorded", d.red("!! "), triggers)
	}
	o.Stores = d.crash.on(o.Stores)
	o.Slack = d.tell
	o.Errors = func(format string, args ...any) { d.say("   %s %s", d.red("!! "), fmt.Sprintf(format, args...)) }
	for _, line := range told.intro {
		d.print("%s", line)
	}
	d.silent = !d.Verbose
	d.progress("starting Pub/Sub and the functions")
	if d.env, err = local.Start(ctx, o); err != nil {
		return nil, Result{}, err
	}
	if d.phase4.guarded, err = startGuarded(ctx, d.env.App.Store); err != nil {
		return d.env, Result{}, err
	}
	if err := told.play(d, ctx); err != nil {
		return d.env, Result{}, err
	}
	r, err := d.balance(ctx)
	return d.env, r, err
}

type demo struct {
	View
	mu         sync.Mutex // of w, silent and told: deliveries and notifications happen in the background
	w          io.Writer
	silent     bool   // what is said is not printed
	heart      [2]int // see story
	env        *local.Environment
	transition *pipeline.Transition // the first
	zone       *time.Location
	phase4     *phase4
	crash      crash
	processors *processors.Processors // nil: there is no warehouse, and messages stand for runs
	expected   []expectation
	copies     int             // of each completion that processors publish
	mute       bool            // they publish none
	shown      int             // messages received and printed so far
	seen       map[string]bool // their trigger ids

	quarantined int      // documents printed so far
	news        []string // to be printed when the next scene begins
	told        []string // notifications that are not printed yet
}

// expectation is what the story says must reach Phase 4.
type expectation struct {
	period pipeline.Period
	mode   string
	table  string
}

// expect notes messages before what causes them happens.
func (d *demo) expect(period pipeline.Period, mode string, tables ...string) {
	for _, t := range tables {
		d.expected = append(d.expected, expectation{period, mode, t})
	}
}

// scene lets everything due at a time happen, prints it, and shows the cycles of a
// period afterwards.
func (d *demo) scene(ctx context.Context, when, title string, period pipeline.Period, mode string, reports ...report) error {
	d.begin(when, title)
	msgs := map[string][]wire.Outgoing{} // by topic
	var runs []report
	var in, ran []string
	for _, r := range reports {
		if d.processors != nil && r.status == "" && r.known(d.env.App.Pipeline) {
			runs = append(runs, r)
			continue
		}
		data, err := r.encode(d)
		if err != nil {
			return err
		}
		for range max(r.times, 1) {
			topic := r.waits(d).UpstreamTopic
			msgs[topic] = append(msgs[topic], wire.Outgoing{Data: data})
		}
		in = append(in, r.label())
	}
	d.list("in  ", in)
	for topic, msgs := range msgs {
		if err := d.publish(ctx, topic, msgs...); err != nil {
			return err
		}
	}
	for _, r := range runs {
		r.count = r.rows()
		if err := d.runProcessor(ctx, r); err != nil {
			return err
		}
		ran = append(ran, r.label())
	}
	d.list("run ", ran)
	if err := d.env.Settle(ctx); err != nil {
		return err
	}
	d.showReceived()
	if err := d.showQuarantine(ctx); err != nil {
		return err
	}
	d.showTold()
	return d.showCycle(ctx, period, mode)
}

func (d *demo) publish(ctx context.Context, topic string, msgs ...wire.Outgoing) error {
	for _, sent := range d.env.App.Broker.Publish(ctx, topic, msgs) {
		if sent.Err != nil {
			return fmt.Errorf("publish completion: %w", sent.Err)
		}
	}
	return nil
}

// scenes plays scenes in order.
func (d *demo) scenes(scenes []func() error) error {
	for i, scene := range scenes {
		d.mu.Lock()
		d.silent = !d.Verbose && (i < d.heart[0] || i >= d.heart[1])
		d.mu.Unlock()
		if d.silent {
			d.progress(fmt.Sprintf("playing scene %d of %d of the night", i+1, len(scenes)))
		} else if !d.Verbose && i == d.heart[0] {
			d.progress("")
		}
		if err := scene(); err != nil {
			return err
		}
	}
	d.progress("")
	return nil
}

// progress says what takes its time without being printed; "" for nothing.
func (d *demo) progress(doing string) {
	if d.Progress != nil && !d.Verbose {
		d.Progress(doing)
	}
}

// begin sets the clock and the title of a scene.
func (d *demo) begin(when, title string) {
	d.env.Clock.AdvanceTo(d.at(when))
	d.say("\n%s  %s", d.bold(when), title)
	for _, line := range d.news {
		d.say("   %s", line)
	}
	d.news = nil
}

// relay is a scene in which nothing comes but the scheduler's job. The story sends it:
// a scheduler that follows a clock which jumps would send it at any point of a scene.
func (d *demo) relay(ctx context.Context, when, title string, period pipeline.Period, mode string) error {
	return d.job(ctx, wire.JobRelay, when, title, period, mode)
}

func (d *demo) job(ctx context.Context, job, when, title string, period pipeline.Period, mode string) error {
	if err := d.send(ctx, when, job); err != nil {
		return err
	}
	return d.scene(ctx, when, title, period, mode)
}

// send sends a job as the scheduler would at a time.
func (d *demo) send(ctx context.Context, when, job string) error {
	d.env.Clock.AdvanceTo(d.at(when))
	for _, s := range d.env.App.Pipeline.Schedules {
		if s.Job == job {
			if err := local.SendJob(ctx, d.env.App, s); err != nil {
				return fmt.Errorf("send the job %s: %w", job, err)
			}
		}
	}
	return nil
}

// redeliveries lets time pass until no delivery is waiting to be tried again.
func (d *demo) redeliveries(ctx context.Context, title string, period pipeline.Period, mode string) error {
	d.say("\n%s  %s", d.bold(d.env.Clock.Now().In(d.zone).Format("2006-01-02 15:04")), title)
	var times []string
	for began := d.env.Clock.Now(); ; {
		due, waiting := d.env.NextRetry()
		if !waiting {
			break
		}
		if due.Sub(began) > time.Hour {
			return errors.New("a delivery is refused again and again")
		}
		d.env.Clock.AdvanceTo(due)
		if err := d.env.Settle(ctx); err != nil {
			return err
		}
		at := d.env.Clock.Now().In(d.zone).Format(time.TimeOnly)
		if times = append(times, at); d.Verbose {
			d.say("   in   redelivered at %s", at)
			d.showReceived()
		}
	}
	if !d.Verbose {
		d.say("   in   redelivered at %s", strings.Join(times, ", "))
		d.showReceived()
	}
	g := d.phase4.guarded
	d.say("   %s  a service that ignores trigger_id, behind phasectl guard: %d deliveries so far, %d runs", d.green("out"), g.deliveries.Load(), g.runs.Load())
	d.showTold()
	return d.showCycle(ctx, period, mode)
}

// at is a local time of the pipeline; the story's times are constants.
func (d *demo) at(s string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, s, d.zone); err == nil {
			return t.UTC()
		}
	}
	panic("the story has no such time: " + s)
}
