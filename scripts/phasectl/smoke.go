package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// smoke tests a running system from end to end without an effect: completions go to the
// shadow's topic, and their cycles are published to no one. Every
// call is another execution, so it can be repeated at any time, also twice at once. One
// that is interrupted leaves completions in the shadow's collections, where they expire.
type smoke struct {
	say     func(format string, args ...any) // progress
	app     *app.App
	shadow  *app.App
	timeout time.Duration
	run     string // names this call in everything that it sends
	source  string // hash that the functions must report
	checks  []check
}

// smokeOptions are of the commands that try a running system.
type smokeOptions struct {
	*flags
	timeout time.Duration
	source  string
}

func smokeCommand(f *flags) *cobra.Command {
	o := smokeOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "smoke",
		Short: "Test a deployment from end to end in the shadow: nothing is published to the next phase",
		Long: "Check the subscriptions of the functions and the locations of the datasets, complete one cycle of each transition in\n" +
			"the collections of the shadow, and send the relay a job. Completions go to a topic that only Phasegate reads. Their\n" +
			"cycles are recorded as handed over, and no trigger is published.\n\n" +
			"Exit status: 0 all checks are ok, 1 a check is failing, 2 a check could not be made.",
		Example: "  phasectl smoke --project my-project",
	}
	cmd.Flags().DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long each of the functions may take; the first request after a deployment starts an instance")
	cmd.Flags().StringVar(&o.source, "source", app.SourceHash, "hash of the source that has to be running (default: the one that this phasectl was built from)")
	return answers(f, cmd, o.try("smoke", (*smoke).all))
}

// try opens the system, and makes all checks of one call, under a name of its own.
func (o *smokeOptions) try(name string, all func(*smoke, context.Context)) func(context.Context) (*checklist, error) {
	return func(ctx context.Context) (*checklist, error) {
		if o.timeout < time.Second || o.timeout > time.Hour {
			return nil, usage(fmt.Errorf("--timeout: %v is not within 1s to 1h", o.timeout))
		}
		a, err := o.open(ctx)
		if err != nil {
			return nil, err
		}
		defer a.Close()
		s := &smoke{say: o.progress, app: a, shadow: a.Shadowed(), timeout: o.timeout, run: name + "-" + rand.Text(), source: o.source}
		all(s, ctx)
		return s.answer()
	}
}

func (s *smoke) answer() (*checklist, error) {
	return checklistOf(s.checks, "everything works", "it does not work as it is deployed", "not everything could be tried")
}

func (s *smoke) all(ctx context.Context) {
	for _, pl := range s.app.Pipeline.PushSubscriptions() {
		s.add(s.subscription(ctx, pl))
	}
	if s.app.Warehouse != nil {
		s.add(s.located(ctx))
	}
	for _, t := range s.app.Pipeline.Transitions {
		s.add(s.cycle(ctx, t))
	}
	for _, sch := range s.app.Pipeline.Schedules {
		if sch.Job == wire.JobRelay { // the others take their time, and repair: not because of a smoke test
			s.add(s.job(ctx, sch))
		}
	}
	if checked := func(t *pipeline.Transition) bool { return t.Checks != nil }; s.app.Warehouse != nil && slices.ContainsFunc(s.app.Pipeline.Transitions, checked) {
		s.add(s.job(ctx, pipeline.Schedule{Name: "verify", Function: pipeline.FunctionReconcile, Job: wire.JobVerify}))
	}
}

// located looks whether what is written at night is where the tables are.
func (s *smoke) located(ctx context.Context) check {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v := locations(ctx, s.app.Warehouse, s.app.Config, s.app.Pipeline, s.app.Config.BigQueryHost == "")
	c := check{ID: v.Name, State: checkOK, Evidence: "all datasets are in one location"}
	switch {
	case v.Unknown:
		c.State, c.Evidence, c.Action = checkUnknown, v.Problem, "give this identity roles/bigquery.metadataViewer on the datasets, and run phasectl smoke again"
	case v.Problem != "":
		c.State, c.Evidence, c.Action = checkFailing, v.Problem, "bring the datasets of the tables into one location, then make deploy"
	}
	return c
}

func (s *smoke) add(c check) {
	s.say("%s: %s", c.ID, c.State)
	s.checks = append(s.checks, c)
}

// subscription looks at how a function is fed: the address, and the dead letter's own
// subscription. Those of one function all go to the same place, the shadow's too, so
// that what is tried in shadow is what runs.
func (s *smoke) subscription(ctx context.Context, pl pipeline.PushSubscription) check {
	name := s.app.Config.Prefix + pl.Name
	id := "subscription " + name
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sub, err := s.get(ctx, name)
	if err != nil {
		return failed(id, err, redeploy)
	}
	dead := s.app.Config.Prefix + pl.DeadLetter()
	if _, err := s.get(ctx, dead); err != nil {
		return failed(id, fmt.Errorf("cannot read its dead-letter subscription: %w", err), redeploy)
	}
	address, ok := strings.CutSuffix(sub.PushConfig.GetPushEndpoint(), pl.Query)
	if topic := "projects/" + s.app.Config.Project + "/topics/" + s.app.Config.Prefix + pl.Topic; sub.Topic != topic {
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("reads %s, not %s", sub.Topic, topic), Action: redeploy}
	}
	if !ok || address == "" || strings.ContainsRune(address, '?') {
		return check{ID: id, State: checkFailing, Action: redeploy,
			Evidence: fmt.Sprintf("delivers to %q, which is no address of %s that ends in %q", sub.PushConfig.GetPushEndpoint(), pl.Function, pl.Query)}
	}
	for _, other := range s.app.Pipeline.PushSubscriptions() {
		if other.Function != pl.Function || other.Name == pl.Name {
			continue
		}
		o, err := s.get(ctx, s.app.Config.Prefix+other.Name)
		if err != nil {
			continue // has a check of its own
		}
		if at := strings.TrimSuffix(o.PushConfig.GetPushEndpoint(), other.Query); at != address {
			return check{ID: id, State: checkFailing, Action: redeploy,
				Evidence: fmt.Sprintf("delivers to %s, and %s to %s: two addresses of one function", address, s.app.Config.Prefix+other.Name, at)}
		}
	}
	return check{ID: id, State: checkOK, Evidence: "delivers to " + address}
}

func (s *smoke) get(ctx context.Context, name string) (*pubsubpb.Subscription, error) {
	return s.app.Broker.Client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: subscriptionName(s.app, name)})
}

// cycle completes one cycle in shadow and waits until the shadow has handed it over.
func (s *smoke) cycle(ctx context.Context, t *pipeline.Transition) check {
	id := "shadow of " + t.ID
	key, mode, err := s.choose(ctx, t)
	if err != nil {
		return failed(id, err, "try again when the first cycle of the day can be completed")
	}
	wanted, msgs, err := s.completions(t, key, mode)
	if err != nil {
		return failed(id, err, again)
	}
	if err := s.publish(ctx, t.ShadowTopic(), msgs); err != nil {
		return failed(id, err, redeploy)
	}
	began := s.app.Now()
	seen := "no part of it is recorded"
	limit := s.timeout
	if s.handedOver(ctx, key, mode) {
		limit += mode.SecondRunsEvery
	}
	var collected time.Time // what ran again is handed over then, by the message that comes next
	err = awaitFor(ctx, limit, func(ctx context.Context) (bool, error) {
		if !collected.IsZero() && s.app.Now().After(collected) {
			collected = time.Time{}
			if err := s.publish(ctx, t.ShadowTopic(), msgs); err != nil {
				return false, err
			}
		}
		statuses, err := s.shadow.Engine.Status(ctx, key)
		if err != nil {
			return false, err
		}
		left := slices.Clone(wanted)
		for _, st := range statuses {
			if st.Mode != mode.Name || len(st.Satisfied)+len(st.Batches) == 0 {
				continue
			}
			seen = st.State + ": " + st.Reason
			if st.NextCheck.After(s.app.Now()) {
				collected = st.NextCheck
			}
			for _, b := range st.Batches {
				if b.State == cycle.StatePublished {
					left = slices.DeleteFunc(left, func(run string) bool {
						return slices.ContainsFunc(b.Runs, func(r string) bool { return strings.HasPrefix(r, run+"#") })
					})
				}
			}
		}
		return len(left) == 0, nil
	})
	what := fmt.Sprintf("%s %s, as %s", key.Period, mode.Name, s.run)
	action := s.readLog(pipeline.FunctionTransition)
	switch {
	case errors.Is(err, errWaited):
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("%s: not handed over within %v; %s", what, s.timeout, seen), Action: action}
	case err != nil:
		return failed(id, fmt.Errorf("%s: %w", what, err), again)
	}
	return check{ID: id, State: checkOK, Evidence: fmt.Sprintf("%s: %s, handed over in shadow after %.1f s", what, pipeline.Count(len(wanted), "completion", "completions"), s.app.Now().Sub(began).Seconds())}
}

// choose asks the policy which cycles would be ready if all their processors had ended just
// now. It takes the mode with the most processors, and of it the newest period.
func (s *smoke) choose(ctx context.Context, t *pipeline.Transition) (cycle.Key, pipeline.Mode, error) {
	cal, now := t.Calendar(), s.app.Now()
	today := cal.At(now)
	back := (int(t.TriggerWithin/(24*time.Hour)) + 2) * cal.PerDay() // beyond, nothing is handed over by itself
	for _, m := range slices.SortedStableFunc(slices.Values(t.Modes), func(a, b pipeline.Mode) int { return b.Size() - a.Size() }) {
		for n := t.Lead(); n >= -back; n-- {
			key := cycle.Key{Transition: t, Period: cal.Add(today, n)}
			v := policy.Decide(policy.Input{Transition: t, Mode: m, Period: key.Period, Runs: s.runs(t, m, key.Period, now), Now: now})
			if v.State != policy.Ready || len(v.Missing) > 0 {
				continue
			}
			known, err := s.shadow.Engine.Status(ctx, key)
			if err != nil || free(known, m) {
				return key, m, err
			}
		}
	}
	return cycle.Key{}, pipeline.Mode{}, fmt.Errorf("no cycle of %s from %s to %s could be completed now that the shadow has not handed over already",
		t.ID, cal.Add(today, -back), cal.Add(today, t.Lead()))
}

// free reports whether one more run of each processor of a mode would be handed over. That
// may be a first run, or a second one if the mode hands over second runs.
func free(known []cycle.Status, m pipeline.Mode) bool {
	for _, st := range known {
		if st.Mode == m.Name && len(st.Batches) > 0 {
			return m.SecondRuns == pipeline.SecondRunsResend
		}
	}
	return true
}

// handedOver reports whether the shadow has handed a cycle over before, so that runs may be
// collected first.
func (s *smoke) handedOver(ctx context.Context, key cycle.Key, m pipeline.Mode) bool {
	known, err := s.shadow.Engine.Status(ctx, key)
	return err == nil && slices.ContainsFunc(known, func(st cycle.Status) bool { return st.Mode == m.Name && len(st.Batches) > 0 })
}

// runs are a mode's processors, all ended now.
func (s *smoke) runs(t *pipeline.Transition, m pipeline.Mode, p pipeline.Period, now time.Time) []policy.Run {
	var runs []policy.Run
	for _, name := range t.Order {
		if m.Names(name) {
			runs = append(runs, policy.Run{Key: name, Completion: &wire.Completion{Processor: name, Reported: name, Period: p,
				Status: wire.StatusSuccess, EventTime: now, ExecutionID: s.run}})
		}
	}
	return runs
}

// completions returns the messages that complete a cycle, and the keys that
// their runs will have.
func (s *smoke) completions(t *pipeline.Transition, key cycle.Key, m pipeline.Mode) (runs []string, msgs []wire.Outgoing, err error) {
	now := s.app.Now()
	for _, r := range s.runs(t, m, key.Period, now) {
		// Another figure than any run before: what ran again and changed nothing is not handed over.
		msg, err := s.completion(t, key.Period, now, r.Processor, wire.StatusSuccess, "record_count", now.UnixMilli())
		if err != nil {
			return nil, nil, err
		}
		runs, msgs = append(runs, r.Processor+"@"+s.run), append(msgs, msg)
	}
	return runs, msgs, nil
}

// completion is the message of one processor, with a field of its own.
func (s *smoke) completion(t *pipeline.Transition, p pipeline.Period, at time.Time, processor string, status wire.Status, field string, value any) (wire.Outgoing, error) {
	source, _, _ := strings.Cut(s.run, "-")
	data, err := json.Marshal(map[string]any{
		"processor_name": processor, "phase": t.UpstreamPhase, "game_date": p, "status": status, "execution_id": s.run, "correlation_id": s.run,
		"trigger_source": source, "timestamp": at.UTC().Format(time.RFC3339Nano), field: value,
	})
	return wire.Outgoing{Data: data}, err
}

// job sends a schedule's job, as the scheduler does, and waits for its heartbeat.
func (s *smoke) job(ctx context.Context, sch pipeline.Schedule) check {
	id := "job " + sch.Name
	before, _, err := s.heartbeat(ctx, sch)
	if err != nil {
		return failed(id, err, again)
	}
	if err := s.send(ctx, sch.Topic(), wire.Job{Job: sch.Job}); err != nil {
		return failed(id, err, redeploy)
	}
	var beat time.Time
	var source string
	err = s.await(ctx, func(ctx context.Context) (done bool, err error) {
		beat, source, err = s.heartbeat(ctx, sch)
		return beat.After(before), err
	})
	last := "never"
	if !before.IsZero() {
		last = localTime(s.app.Pipeline.Calendar.Zone(), before)
	}
	switch {
	case errors.Is(err, errWaited):
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("no heartbeat of %s within %v, the last: %s", sch.Function, s.timeout, last),
			Action: s.readLog(sch.Function)}
	case err != nil:
		return failed(id, err, again)
	case source != s.source:
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("%s runs source %s, not %s", sch.Function, source, s.source),
			Action: "deploy the source that is meant: make deploy; or name the one that runs: --source"}
	}
	return check{ID: id, State: checkOK, Evidence: fmt.Sprintf("done by %s, source %s", sch.Function, source)}
}

// heartbeat reads when a job last ended well, and what ran it.
func (s *smoke) heartbeat(ctx context.Context, sch pipeline.Schedule) (at time.Time, source string, err error) {
	got, err := s.app.Store.Get(ctx, store.Ref{Collection: s.app.Config.StatePrefix() + app.StatusCollection, ID: sch.Function})
	if err != nil {
		return at, "", err
	}
	data := got.Docs[0].Data
	beats, _ := data["heartbeats"].(map[string]any)
	at, _ = beats[sch.Job].(time.Time)
	source, _ = data["source_hash"].(string)
	return at, source, nil
}

// readLog is the advice for a function that did not answer.
func (s *smoke) readLog(function string) string {
	return "look at the function's log: gcloud logging read 'resource.labels.service_name=\"" + s.app.Config.Prefix + pipeline.ResourceName(function) + "\"' --freshness=10m"
}

// send publishes a job, as the scheduler does.
func (s *smoke) send(ctx context.Context, topic string, j wire.Job) error {
	msg, err := j.Outgoing()
	if err != nil {
		return err
	}
	return s.publish(ctx, topic, []wire.Outgoing{msg})
}

func (s *smoke) publish(ctx context.Context, topic string, msgs []wire.Outgoing) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range s.app.Broker.Publish(ctx, s.app.Config.Prefix+topic, msgs) {
		if p.Err != nil {
			return p.Err // one request, one outcome
		}
	}
	return nil
}

// await is awaitFor, for as long as a function may take.
func (s *smoke) await(ctx context.Context, done func(context.Context) (bool, error)) error {
	return awaitFor(ctx, s.timeout, done)
}
