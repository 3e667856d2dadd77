package main

import (
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/wire"
)

// overnight returns the newest report of a processor for 2026-02-03, and the cycle.
func (s *system) overnight(processor string) (policy.Run, cycle.Explanation) {
	s.t.Helper()
	t := s.App.Pipeline.Transitions[0]
	mode, _ := t.Mode("overnight")
	x, err := s.App.Engine.Explain(s.t.Context(), cycle.Key{Transition: t, Period: "2026-02-03"}, mode)
	if err != nil {
		s.t.Fatal(err)
	}
	states, err := s.App.Engine.PeriodStates(s.t.Context(), t, "2026-02-03", "2026-02-03")
	if err != nil {
		s.t.Fatal(err)
	}
	r, _ := states[0].Newest(processor)
	return r, x
}

// executions returns the different execution ids of a processor's runs.
func executions(x cycle.Explanation, processor string) map[string]bool {
	ids := map[string]bool{}
	for _, r := range x.Runs {
		if r.Processor == processor {
			ids[r.ExecutionID] = true
		}
	}
	return ids
}

func TestComplete_ReportsAsTheProcessorDoes(t *testing.T) {
	s := running(t)
	for i, name := range five {
		parts := []string{name + " success, 100 rows for 2026-02-03 is recorded, as execution phasectl-", "2026-02-03 overnight is "}
		if i == len(five)-1 {
			parts = append(parts, "overnight is published")
		}
		want(t, 0, parts, "complete", name, "2026-02-03", "--rows", "100", "--reason", "a test message")
	}
	r, x := s.overnight("player_game_summary")
	if r.Status != wire.StatusSuccess || r.RecordCount == nil || *r.RecordCount != 100 || r.TriggerSource != "phasectl complete" || r.OutputTable != "player_game_summary" || len(x.Batches) != 1 {
		t.Errorf("%+v, %+v", r, x.Batches)
	}
	if n := s.audits("complete"); n != 5 {
		t.Errorf("%d audit records", n)
	}
	s.Clock.AdvanceTo(s.Clock.Now().Add(time.Minute))
	want(t, 0, []string{`"status":"failed"`, `"error":"no box scores"`, `"published":true`, `"recorded":true`},
		"complete", "PlayerGameSummaryProcessor", "2026-02-03", "--status", "failed", "--error", "no box scores", "--reason", "a test message", "--json")
	if r, _ := s.overnight("player_game_summary"); r.Status != wire.StatusFailed || r.ErrorMessage != "no box scores" {
		t.Errorf("%+v", r)
	}
}

func TestComplete_RepeatedCommandHasNoSecondEffect(t *testing.T) {
	s := running(t)
	s.night("2026-02-03") // each with 100 rows
	for _, args := range [][]string{nil, {"--rows", "100"}} {
		want(t, 0, []string{"is recorded already, as execution run-player_game_summary2026-02-03: nothing was published"},
			append([]string{"complete", "player_game_summary", "2026-02-03", "--reason", "a test message"}, args...)...)
	}
	if n := s.audits("complete"); n != 0 {
		t.Errorf("%d audit records of commands without an effect", n)
	}
	s.Clock.AdvanceTo(s.Clock.Now().Add(time.Minute))
	for range 2 {
		want(t, 0, nil, "complete", "player_game_summary", "2026-02-03", "--rows", "101", "--reason", "a test message")
	}
	s.settle()
	if _, x := s.overnight("player_game_summary"); len(x.Batches) != 2 || s.audits("complete") != 1 {
		t.Errorf("%+v, %d audit records", x.Batches, s.audits("complete"))
	}
}

// While the store of the functions is down, commands publish completions, two of them at once. None of
// them can tell whether the completion is recorded.
func TestComplete_AgainBeforeItIsRecordedIsTheSameExecution(t *testing.T) {
	s := running(t)
	for _, name := range five[1:] {
		s.report(completion(name, "2026-02-03"))
	}
	s.down.Store(true)
	again := []string{"complete", "player_game_summary", "2026-02-03", "--rows", "100", "--reason", "a test message", "--timeout", "200ms"}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { want(t, 2, []string{"is published, and not recorded within 200ms"}, again...) })
	}
	all.Wait()
	want(t, 2, []string{"is published, and not recorded within 200ms"}, again...)
	s.down.Store(false)
	for {
		next, ok := s.NextRetry()
		if !ok {
			break
		}
		s.Clock.AdvanceTo(next)
		s.settle()
	}
	want(t, 0, []string{"is recorded already", "overnight is published"}, again...)
	if _, x := s.overnight("player_game_summary"); len(x.Batches) != 1 || len(executions(x, "player_game_summary")) != 1 {
		t.Errorf("%+v %+v", x.Batches, x.Runs)
	}
}

func TestComplete_LeavesAnAuditRecordBeforeItPublishes(t *testing.T) {
	s := running(t)
	topic := "projects/phasegate-local/topics/" + s.App.Pipeline.Transitions[0].UpstreamTopic
	if err := s.App.Broker.Client.TopicAdminClient.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topic}); err != nil {
		t.Fatal(err)
	}
	args := []string{"complete", "player_game_summary", "2026-02-03", "--reason", "a test message"}
	want(t, 2, []string{"it is unknown whether the completion was published; run the command again", "NotFound"}, args...)
	if n := s.audits("complete"); n != 1 {
		t.Errorf("%d audit records", n)
	}
}

func TestComplete_RefusesNamesAndPeriodsThatThePipelineLacks(t *testing.T) {
	running(t)
	for _, tc := range []struct {
		code int
		part string
		args []string
	}{
		{64, `PROCESSOR: the pipeline has no processor "player_game_sumary": did you mean player_game_summary?`, []string{"player_game_sumary", "2026-02-03"}},
		{64, `did you mean PlayerDailyCacheProcessor?`, []string{"PlayerDailyCachProcessor", "2026-02-03"}},
		{64, `the pipeline has no processor "sales": it has player_game_summary, `, []string{"sales", "2026-02-03"}},
		{64, `PROCESSOR: no transition expects completions of player_daily_cache, a processor of phase_4_precompute`, []string{"player_daily_cache", "2026-02-03"}},
		{64, `PERIOD: "2026-02-30" is no date`, []string{"player_game_summary", "2026-02-30"}},
		{64, `PERIOD: "2026-02-03T14" is no date`, []string{"player_game_summary", "2026-02-03T14"}},
		{64, `PERIOD: 2099-02-03 is in the future: phase3_to_phase4 expects completions of periods up to `, []string{"player_game_summary", "2099-02-03"}},
		{64, `--status: "done" is not one of`, []string{"player_game_summary", "2026-02-03", "--status", "done"}},
		{64, `--rows: -1 is not within`, []string{"player_game_summary", "2026-02-03", "--rows", "-1"}},
		{64, `--error: a run with --status success has no error`, []string{"player_game_summary", "2026-02-03", "--error", "none"}},
		{64, `PERIOD is required`, []string{"player_game_summary"}},
	} {
		want(t, tc.code, []string{tc.part}, append([]string{"complete", "--reason", "a test message"}, tc.args...)...)
	}
	want(t, 64, []string{"--reason is required"}, "complete", "player_game_summary", "2026-02-03")
}

func TestComplete_IsRefusedWhereOthersReadOrWrite(t *testing.T) {
	s := running(t)
	for name, value := range map[string]string{"PHASEGATE_TABLES": "read", "PHASEGATE_SHADOW": "true"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			out := want(t, 1, []string{"refused: this environment", name + "=" + value}, "complete", "player_game_summary", "2026-02-03", "--reason", "a test message")
			if out != "" {
				t.Errorf("%q", out)
			}
		})
	}
	if n := s.audits("complete"); n != 0 || strings.Contains(want(t, 0, nil, "status", "--date", "2026-02-03"), "1 of 5") {
		t.Errorf("%d audit records", n)
	}
}

// A completion that begins the grace period is recorded a moment before the period begins.
func TestComplete_WaitsUntilTheGracePeriodThatItBeginsHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12 * time.Hour) // 07:00 in New York
		p, err := pipeline.Parse(pipeline.Default())
		if err != nil {
			t.Fatal(err)
		}
		tr := p.Transitions[0]
		engine := cycle.New(cycle.Config{Store: memory.New(time.Now), Check: cycle.Unchecked, Now: time.Now, NewID: rand.Text, Claim: time.Minute, Log: slog.New(slog.DiscardHandler)})
		key := cycle.Key{Transition: tr, Period: "1999-12-31"}
		for _, name := range five {
			if name == "upcoming_team_game_context" { // optional
				continue
			}
			c := wire.Completion{Processor: name, Reported: name, Period: key.Period, Status: wire.StatusSuccess, ExecutionID: name, EventTime: time.Now()}
			if err := engine.Record(t.Context(), key, c); err != nil {
				t.Fatal(err)
			}
		}
		evaluated := make(chan error)
		go func() {
			time.Sleep(time.Second)
			_, err := engine.Converge(t.Context(), key, "m")
			evaluated <- err
		}()
		c := reported{t: tr, Period: key.Period, Mode: "overnight", at: time.Now()}
		st, err := c.settled(t.Context(), &app.App{Engine: engine})
		if err != nil || st.State != string(cycle.StateGrace) {
			t.Errorf("%s (%s), %v", st.State, st.Reason, err)
		}
		if err := <-evaluated; err != nil {
			t.Error(err)
		}
	})
}
