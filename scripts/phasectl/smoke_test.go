package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// runningNow is a system in real time.
func runningNow(t *testing.T) (s *system, received *atomic.Int64) {
	t.Helper()
	return runningAt(t, time.Time{})
}

func TestSmoke_CompletesShadowCycleOnEveryCall(t *testing.T) {
	// Otherwise the third call waits two minutes for the second runs.
	every := filepath.Join(t.TempDir(), "nba.yaml")
	quick := regexp.MustCompile(`(?m)^( *)second_runs: resend_if_changed.*$`).ReplaceAll(pipeline.Default(), []byte("$0\n${1}second_runs_every: 1s"))
	if err := os.WriteFile(every, quick, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_FILE", every)
	s, received := runningNow(t)
	tr := s.App.Pipeline.Transitions[0]
	for range 3 {
		want(t, 0, []string{
			"ok       subscription nba-phase3-analytics-complete-transition\n  delivers to " + s.Functions["transition"],
			"ok       subscription phasegate-shadow-phase3_to_phase4-transition\n  delivers to ",
			"ok       subscription phasegate-reconcile-reconcile\n  delivers to ",
			"ok       shadow of phase3_to_phase4\n  ", "5 completions, handed over in shadow after ",
			"ok       job relay\n  done by reconcile, source ", "\nok: everything works\n",
		}, "smoke")
	}
	s.settle()
	if n := received.Load(); n != 0 {
		t.Errorf("the next phase was sent %d messages", n)
	}
	batches := 0
	for n := -7; n <= 1; n++ {
		key := cycle.Key{Transition: tr, Period: tr.Calendar().Add(tr.Calendar().At(time.Now()), n)}
		active, err := s.App.Engine.Status(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range active {
			if len(st.Satisfied)+len(st.Ignored)+len(st.Batches) > 0 {
				t.Errorf("the documents of the active engine have %+v", st)
			}
		}
		shadow, err := s.App.Shadowed().Engine.Status(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range shadow {
			batches += len(st.Batches)
		}
	}
	if batches < 3 {
		t.Errorf("%d batches in shadow after three calls", batches)
	}
}

func TestSmoke_NamesFailures(t *testing.T) {
	subscription := func(s *system, name string) string {
		return "projects/phasegate-local/subscriptions/" + name
	}
	for name, tc := range map[string]struct {
		broken func(s *system)
		parts  []string
	}{
		"function_cannot_reach_its_store": {func(s *system) { s.down.Store(true) },
			[]string{"failing  shadow of phase3_to_phase4\n  ", "not handed over within 1s; no part of it is recorded", "failing  job relay\n  no heartbeat of reconcile within 1s, the last: never"}},
		"subscription_is_gone": {func(s *system) {
			if err := s.App.Broker.Client.SubscriptionAdminClient.DeleteSubscription(s.t.Context(), &pubsubpb.DeleteSubscriptionRequest{
				Subscription: subscription(s, "nba-phase3-analytics-complete-transition")}); err != nil {
				s.t.Fatal(err)
			}
		}, []string{"failing  subscription nba-phase3-analytics-complete-transition\n  ", "NotFound", "make deploy"}},
		"subscription_delivers_elsewhere": {func(s *system) {
			s.push("nba-phase3-analytics-complete-transition", "http://127.0.0.1:1/transition?transition=phase3_to_phase4")
		},
			[]string{"failing  subscription nba-phase3-analytics-complete-transition\n  delivers to http://127.0.0.1:1/transition, and phasegate-shadow-"}},
		"shadow_is_not_asked_for": {func(s *system) {
			s.push("phasegate-shadow-phase3_to_phase4-transition", s.Functions["transition"]+"?transition=phase3_to_phase4")
		}, []string{"failing  subscription phasegate-shadow-phase3_to_phase4-transition\n  delivers to ", `ends in "?transition=phase3_to_phase4&shadow=1"`}},
		"dead_letter_is_gone": {func(s *system) {
			if err := s.App.Broker.Client.SubscriptionAdminClient.DeleteSubscription(s.t.Context(), &pubsubpb.DeleteSubscriptionRequest{
				Subscription: subscription(s, "phasegate-reconcile-dead-letter")}); err != nil {
				s.t.Fatal(err)
			}
		}, []string{"failing  subscription phasegate-reconcile-reconcile\n  cannot read its dead-letter subscription: "}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := runningNow(t)
			tc.broken(s)
			want(t, 1, append(tc.parts, "\nfailing: it does not work as it is deployed\n"), "smoke", "--timeout", "1s")
		})
	}
}

// push changes the push endpoint of a subscription in the broker.
func (s *system) push(name, url string) {
	s.t.Helper()
	_, err := s.App.Broker.Client.SubscriptionAdminClient.UpdateSubscription(s.t.Context(), &pubsubpb.UpdateSubscriptionRequest{
		Subscription: &pubsubpb.Subscription{Name: "projects/phasegate-local/subscriptions/" + name, PushConfig: &pubsubpb.PushConfig{PushEndpoint: url}},
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"push_config"}}})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestSmoke_PrintsOneJSONObject(t *testing.T) {
	runningNow(t)
	var got struct {
		Schema  int
		Overall string
		Checks  []check
	}
	out := want(t, 0, nil, "smoke", "--json")
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != 1 || got.Overall != "ok" || len(got.Checks) != 7 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSmoke_UnreadableStoreIsUnknown(t *testing.T) {
	s, _ := runningNow(t)
	a := *s.App
	a.Store = blind{s.App.Store}
	try := &smoke{say: t.Logf, app: &a, shadow: a.Shadowed(), timeout: time.Second, run: "smoke-test"}
	try.all(t.Context())
	var e cli.ExitError
	if _, err := try.answer(); !errors.As(err, &e) || e.Code != cli.ExitUnknown {
		t.Errorf("%v: %+v", err, try.checks)
	}
	for _, c := range try.checks[5:] {
		if c.State != checkUnknown || !strings.Contains(c.Evidence, errBlind.Error()) {
			t.Errorf("%+v", c)
		}
	}
}

var errBlind = errors.New("the store cannot be read")

type blind struct{ store.Store }

func (blind) Get(context.Context, ...store.Ref) (store.Snapshot, error) {
	return store.Snapshot{}, errBlind
}

func TestSmoke_DetectsOtherSourceRunning(t *testing.T) {
	s, _ := runningNow(t)
	a := *s.App
	a.Store = foreign{s.App.Store}
	try := &smoke{say: t.Logf, app: &a, shadow: a.Shadowed(), timeout: time.Minute, run: "smoke-test"}
	for source, state := range map[string]string{app.SourceHash: checkFailing, "0123456789ab": checkOK} {
		try.source = source
		c := try.job(t.Context(), a.Pipeline.Schedules[0])
		if c.State != state || !strings.Contains(c.Evidence, "source 0123456789ab") {
			t.Errorf("%s is expected: %+v", source, c)
		}
	}
}

// foreign reads heartbeats as if functions of another source had written them.
type foreign struct{ store.Store }

func (f foreign) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	got, err := f.Store.Get(ctx, refs...)
	for i := range got.Docs {
		if got.Docs[i].Data["source_hash"] != nil {
			got.Docs[i].Data["source_hash"] = "0123456789ab"
		}
	}
	return got, err
}

func TestSmoke_StopsWhenInterrupted(t *testing.T) {
	s, _ := runningNow(t)
	ctx, cancel := context.WithCancel(t.Context())
	a := *s.App
	asked := make(chan struct{})
	try := &smoke{say: t.Logf, app: &a, shadow: a.Shadowed(), timeout: time.Hour, run: "smoke-test"}
	ended := make(chan error, 1)
	go func() {
		first := true
		ended <- try.await(ctx, func(context.Context) (bool, error) {
			if first {
				close(asked)
				first = false
			}
			return false, nil
		})
	}()
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// smoke finds a cycle that it can complete at any time of the day, also on a day of 23 or 25 hours.
func TestSmoke_FindsCycleAtAnyTime(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Transitions[0]
	for _, day := range []string{"2026-02-04", "2026-03-08", "2026-11-01", "2026-12-31"} {
		start, err := time.ParseInLocation(time.DateOnly, day, p.Calendar.Zone())
		if err != nil {
			t.Fatal(err)
		}
		for at := start; at.Before(start.Add(25 * time.Hour)); at = at.Add(13 * time.Minute) {
			now := func() time.Time { return at }
			a := &app.App{Pipeline: p, Store: memory.New(now), Now: now}
			a.Engine = cycle.New(cycle.Config{Store: a.Store, Now: now, Shadow: true})
			s := &smoke{app: a, shadow: a}
			key, m, err := s.choose(t.Context(), tr)
			if err != nil || m.Name != "overnight" || key.Period < tr.Calendar().Add(tr.Calendar().At(at), -2) {
				t.Fatalf("%v: %s %s, %v", at, key.Period, m.Name, err)
			}
		}
	}
}

// If a mode ignores second runs, smoke cannot use its cycle again.
func TestSmoke_UsesCycleOnceIfSecondRunsIgnored(t *testing.T) {
	mode := pipeline.Mode{Name: "same_day", SecondRuns: pipeline.SecondRunsIgnore}
	done := []cycle.Status{{Mode: "overnight", Batches: []cycle.BatchStatus{{}}}, {Mode: "same_day", Batches: []cycle.BatchStatus{{}}}}
	if free(done, mode) || !free(done[:1], mode) || !free(nil, mode) {
		t.Error("smoke uses a cycle that is handed over, or refuses one that is not")
	}
	if mode.SecondRuns = pipeline.SecondRunsResend; !free(done, mode) {
		t.Error("smoke refuses a cycle that may have a further batch")
	}
}

// A command in shadow uses the same documents as functions in shadow, so env exports the mode.
func TestLocal_ReportsShadowMode(t *testing.T) {
	t.Setenv("PHASEGATE_SHADOW", "true")
	data := t.TempDir()
	_, first, _ := start(t, "local", "--data", data, "--port-base", "0", "--json")
	if got := object(t, first)["shadow"]; got != true {
		t.Errorf("shadow %v", got)
	}
	if _, stdout, _ := command(t, "env", "--data", data); !strings.Contains(stdout, "export PHASEGATE_SHADOW='true'\n") {
		t.Errorf("env: %q", stdout)
	}
}

func TestDemo_HandsOverInShadowEnvironment(t *testing.T) {
	t.Setenv("PHASEGATE_SHADOW", "true")
	want(t, 0, []string{"lost=0 doubled=0"}, "demo")
}
