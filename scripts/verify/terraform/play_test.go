package terraform

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/deployed"
	healthy "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	rec "github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// play simulates a deployment of the NBA pipeline on a clock of its own: the functions on the memory
// store, their log lines, and the platform's metrics. Processors run three times a day. They also run
// before the deployment, when another orchestrator hands over.
type play struct {
	*recorder
	plan    *plan
	check   *healthy.Checker
	metrics metrics
	since   time.Time // the deployment
	end     time.Time
	wrong   night

	contents map[string]map[pipeline.Period]warehouse.Slice // by table
	scraped  []warehouse.FirstRun
	runs     []warehouse.ProcessorRun
	refused  []*push // deliveries that are retried
	messages int
}

// night has the faults of the night of 2026-02-03.
type night struct {
	failed, silent, backfilled string // processors
	idle                       bool   // the next phase does nothing
	again                      bool   // every message is delivered twice
	surplus                    int    // rows too many
	invalid                    bool   // a message with a wrong date arrives
	noRelay                    bool   // the scheduler sends no relay
	leaked                     bool   // a run dies under its lock
	down                       bool   // the store fails for an hour
	unready                    bool   // the data is not ready until noon
}

const badDay = pipeline.Period("2026-02-03")

func newPlay(t *testing.T, p *plan, since time.Time, length time.Duration, wrong night) *play {
	r := record(t)
	w := &play{recorder: r, plan: p, metrics: metrics{}, since: since, end: since.Add(length), wrong: wrong, contents: map[string]map[pipeline.Period]warehouse.Slice{}}
	w.SetNow(since.AddDate(0, 0, -28))
	c := r.Engine.Config
	c.Expected = func(context.Context, cycle.Key) (int64, error) { return 7, nil }
	c.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness {
		if w.wrong.unready && w.onBadDay(5, 12) {
			return cycle.Readiness{Outcome: cycle.Failed, Reasons: []string{"coverage 60 %, at least 80 % are needed"}}
		}
		return cycle.Readiness{Outcome: cycle.Passed}
	}
	publish := c.Publish
	c.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		for _, m := range msgs {
			var trigger struct {
				Period pipeline.Period `json:"analysis_date"`
			}
			if err := json.Unmarshal(m.Data, &trigger); err != nil {
				t.Error(err)
			}
			if !w.wrong.idle || !w.onBadDay(5, 24) {
				w.nextPhase(trigger.Period)
			}
		}
		return publish(ctx, topic, msgs)
	}
	r.App.Engine = cycle.New(c)
	slack := notify.FromEnv(func(name string) string {
		return map[string]string{"SLACK_BOT_TOKEN": "xoxb", "SLACK_CHANNEL": "#night"}[name]
	})
	r.App.Config.Slack = slack
	for _, phase := range r.Pipeline.Phases {
		for _, p := range phase.Processors {
			w.contents[p.Table] = map[pipeline.Period]warehouse.Slice{}
		}
	}
	w.check = w.checker()
	return w
}

// onBadDay tells whether it is the day after the night that goes wrong, between two hours.
func (w *play) onBadDay(from, to int) bool {
	cal := w.Pipeline.Calendar
	local := w.Now().In(cal.Zone())
	return cal.At(w.Now()) == cal.Add(badDay, 1) && local.Hour() >= from && local.Hour() < to
}

func (w *play) checker() *healthy.Checker {
	c := healthy.New(w.App)
	w.fill(c.Reconcile)
	c.FirstRuns = func(context.Context, pipeline.Period, pipeline.Period) ([]warehouse.FirstRun, error) {
		return w.scraped, nil
	}
	c.Runs = func(_ context.Context, from, _ pipeline.Period) (out []warehouse.ProcessorRun, err error) {
		for _, r := range w.runs {
			if w.Pipeline.Calendar.At(r.Began) >= from {
				out = append(out, r)
			}
		}
		return out, nil
	}
	c.Services = func(context.Context) (map[string]deployed.Service, error) {
		out := map[string]deployed.Service{}
		for _, f := range w.plan.some("google_cloudfunctions2_function") {
			out[f.text("name")] = service
		}
		for _, phase := range w.Pipeline.Phases {
			out[phase.Service] = service
		}
		return out, nil
	}
	c.Dead = func(context.Context) (map[string]int64, error) {
		out := map[string]int64{}
		for _, s := range w.plan.some("google_pubsub_subscription") {
			if s.name == "dead_letter" {
				out[s.text("name")] = 0
			}
		}
		return out, nil
	}
	return c
}

var service = deployed.Service{Created: "r-7", Ready: "r-7", Commit: "4f2a", Traffic: []deployed.Target{{Revision: "r-7", Latest: true, Percent: 100}}}

// fill gives a reconciler the tables.
func (w *play) fill(r *rec.Reconciler) {
	r.Contents = func(_ context.Context, ps []pipeline.Processor, _, _ pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range ps {
			out[p.Table] = warehouse.Contents{Slices: w.contents[p.Table]}
		}
		return out
	}
	r.Expected = func(_ context.Context, _ *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		out := map[pipeline.Period]int64{}
		for p := from; p <= to; p = w.Pipeline.Calendar.Add(p, 1) {
			out[p] = 7
		}
		return out, nil
	}
}

// job runs a scheduled job. Health and the nightly job read tables, so job calls their parts here as
// the functions do.
func (w *play) job(s pipeline.Schedule) {
	data := []byte(`{"job":"` + s.Job + `"}`)
	m := w.message(s.Function, data)
	switch s.Job {
	case wire.JobRelay:
		if !w.wrong.noRelay || !w.onBadDay(5, 24) {
			w.deliverAndRetry(m)
		}
	case wire.JobSweep:
		players := w.contents["nba_analytics.player_game_summary"]
		s := players[badDay]
		w.App.Warehouse = warehouse.New("test", doubled(w.t, int(s.Surplus)))
		w.deliverAndRetry(m)
		if s.Surplus > 0 { // the sweep has removed these rows
			s.Rows, s.Surplus = s.Rows-s.Surplus, 0
			players[badDay] = s
		}
	case wire.JobHealth, wire.JobNightly:
		err := w.look()
		if s.Job == wire.JobNightly {
			err = w.reconciled()
		}
		code := http.StatusNoContent
		if err != nil {
			w.App.Log.ErrorContext(w.t.Context(), err.Error())
			code = http.StatusServiceUnavailable
		}
		w.keep("phasegate-" + s.Function)
		w.answered(m, code)
		w.refused = slices.DeleteFunc(w.refused, func(x *push) bool { return x == m }) // it is not redelivered: the next scheduled one follows
	default:
		w.t.Fatalf("job %s", s.Job)
	}
}

func (w *play) look() error {
	ctx := w.t.Context()
	r := w.check.Run(ctx)
	w.check.LogReport(ctx, r)
	if err := w.check.Remember(ctx, r); err != nil {
		return err
	}
	return w.Heartbeat(ctx, "health", wire.JobHealth)
}

func (w *play) reconciled() error {
	ctx := w.t.Context()
	r := rec.New(w.App)
	w.fill(r)
	for _, t := range w.Pipeline.Transitions {
		from, to := t.Window(w.Now(), 7)
		report, err := r.Run(ctx, t, from, to, "nightly")
		if err != nil {
			return err
		}
		r.LogReport(ctx, t, report)
	}
	return w.Heartbeat(ctx, "reconcile", wire.JobNightly)
}

// live plays all events, from four weeks before the deployment on.
func (w *play) live() {
	cal := w.Pipeline.Calendar
	order := w.Pipeline.Transitions[0].Order
	var events []event
	add := func(at time.Time, do func()) {
		if at.Before(w.end) {
			events = append(events, event{at, do})
		}
	}
	for day := cal.At(w.since.AddDate(0, 0, -28)); cal.Start(day).Before(w.end); day = cal.Add(day, 1) {
		at := func(hour, minute int) time.Time { return cal.Instant(day, pipeline.Offset{Minute: 60*hour + minute}) }
		add(at(6, 3), func() {
			for _, name := range []string{"nbac_gamebook", "bdl_box_scores"} {
				w.scraped = append(w.scraped, warehouse.FirstRun{Source: name, Day: day, At: w.Now()})
			}
		})
		for i, name := range order {
			add(at(7, 10+i), func() { w.run(name, cal.Add(day, -1)) })
			if strings.HasPrefix(name, "upcoming") {
				add(at(10, 40+i), func() { w.run(name, day) })
				add(at(17, 10+i), func() { w.run(name, cal.Add(day, 1)) })
			}
		}
		if day == cal.Add(badDay, 1) {
			add(at(7, 12), func() {
				if w.wrong.invalid {
					w.report("player_game_summary", "YESTERDAY", "run-invalid", "success")
				}
			})
			add(at(8, 1), func() { w.SetDown(w.wrong.down) })
			add(at(9, 1), func() { w.SetDown(false) })
			add(at(18, 0), func() { w.mend() })
		}
	}
	for _, s := range w.Pipeline.Schedules {
		for at := w.Pipeline.NextDue(s, w.since); at.Before(w.end); at = w.Pipeline.NextDue(s, at) {
			add(at.Add(2*time.Second), func() { w.job(s) })
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for minute := w.since; len(events) > 0; {
		at := events[0].at
		if len(w.refused) > 0 && minute.Before(at) {
			at = minute
		}
		w.SetNow(at)
		if at.Equal(events[0].at) {
			do := events[0].do
			events = events[1:]
			do()
		}
		w.retry()
		minute = at.Truncate(time.Minute).Add(time.Minute)
	}
}

type event struct {
	at time.Time
	do func()
}

// retry redelivers the messages that are due, and records the age of all waiting ones.
func (w *play) retry() {
	waiting := w.refused
	w.refused = nil
	for _, m := range waiting {
		w.metrics.add("pubsub_googleapis_com:subscription_oldest_unacked_message_age",
			map[string]string{"monitored_resource": "pubsub_subscription", "subscription_id": m.subscription}, w.Now(), w.Now().Sub(m.sent).Seconds())
		if m.due.After(w.Now()) {
			w.refused = append(w.refused, m)
			continue
		}
		w.deliverAndRetry(m)
	}
}

// mend is the repair of the bad night, which operators have done by its evening.
func (w *play) mend() {
	for _, name := range []string{w.wrong.failed, w.wrong.silent} {
		if name != "" {
			was := w.wrong
			w.wrong = night{}
			w.run(name, badDay)
			w.wrong = was
		}
	}
	if w.wrong.idle {
		for _, p := range []pipeline.Period{badDay, w.Pipeline.Calendar.Add(badDay, 1), w.Pipeline.Calendar.Add(badDay, 2)} {
			w.nextPhase(p)
		}
	}
	if w.wrong.leaked {
		_, p, _ := w.Pipeline.Processor("team_offense_game_summary")
		if _, err := w.Locks.Break(w.t.Context(), p.Class+"_"+string(badDay), audit.Record{Action: "lock_release", Actor: "ann", Reason: "its machine is gone"}); err != nil {
			w.t.Fatal(err)
		}
		w.keep("nowhere")
	}
	for q, err := range delivery.ListQuarantine(w.t.Context(), w.App) {
		if err == nil {
			_, err = delivery.MarkDiscarded(w.t.Context(), w.App, q.ID, audit.Record{Action: "quarantine_discard", Actor: "ann", Reason: "a wrong date"}, "discard-"+q.ID)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}
