package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// system is a running local environment whose clock stands in the morning of
// 2026-02-04, and which the environment variables name.
type system struct {
	*local.Environment
	t    *testing.T
	down *atomic.Bool // every call to the functions' store fails

	mu       sync.Mutex
	messages []string // that Slack was sent
}

func (s *system) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, text)
}

// told are the messages that Slack was sent since the last call.
func (s *system) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.messages
	s.messages = nil
	return out
}

// standstill fails while down.
type standstill struct {
	store.Store
	down *atomic.Bool
}

func (s standstill) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if s.down.Load() {
		return nil, context.DeadlineExceeded
	}
	return s.Store.Apply(ctx, ws...)
}

func (s standstill) Close() error { return s.Store.(io.Closer).Close() }

func running(t *testing.T) *system {
	t.Helper()
	file := filepath.Join(t.TempDir(), "store.db")
	t.Setenv("GOOGLE_CLOUD_PROJECT", "phasegate-local")
	t.Setenv("PHASEGATE_STORE", "sqlite:"+file)
	s := &system{t: t, down: new(atomic.Bool)}
	c, err := (&flags{}).host().Config(os.Getenv("PHASEGATE_STORE"))
	if err != nil {
		t.Fatal(err)
	}
	opened := func(now func() time.Time) app.Stores {
		return func(ctx context.Context, c app.Config) (store.Store, error) {
			st, err := stores(now)(ctx, c)
			return standstill{st, s.down}, err
		}
	}
	phase4 := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.Environment, err = local.Start(t.Context(), local.Options{Config: c, Stores: opened, Logs: io.Discard, Errors: t.Logf,
		Consumers: map[string]http.Handler{"nba-phase4-trigger": phase4},
		Clock:     local.NewClock(time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("PUBSUB_EMULATOR_HOST", s.PubSub)
	return s
}

// report publishes completions and lets them be handled.
func (s *system) report(reports ...map[string]any) {
	s.t.Helper()
	var msgs []wire.Outgoing
	for _, r := range reports {
		data, err := json.Marshal(r)
		if err != nil {
			s.t.Fatal(err)
		}
		msgs = append(msgs, wire.Outgoing{Data: data})
	}
	for _, sent := range s.App.Broker.Publish(s.t.Context(), s.App.Pipeline.Transitions[0].UpstreamTopic, msgs) {
		if sent.Err != nil {
			s.t.Fatal(sent.Err)
		}
	}
	s.settle()
}

// jobs runs scheduled jobs once, so that their heartbeats are there. The nightly one is due at half
// past ten; it would repair the night before the operator comes.
func (s *system) jobs(names ...string) {
	s.t.Helper()
	for _, job := range s.App.Pipeline.Schedules {
		if !slices.Contains(names, job.Job) {
			continue
		}
		if err := local.SendJob(s.t.Context(), s.App, job); err != nil {
			s.t.Fatal(err)
		}
		s.settle()
	}
}

func (s *system) settle() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.Settle(ctx); err != nil {
		s.t.Fatal(err)
	}
}

func completion(processor, date string) map[string]any {
	return map[string]any{"processor_name": processor, "game_date": date, "status": "success", "record_count": 100, "execution_id": "run-" + processor + date}
}

var five = []string{"player_game_summary", "team_defense_game_summary", "team_offense_game_summary", "upcoming_player_game_context", "upcoming_team_game_context"}

func (s *system) night(date string) {
	s.t.Helper()
	for _, name := range five {
		s.report(completion(name, date))
	}
}

// columns is a text whose columns are two spaces apart: their widths depend on the longest cell.
// Lines stay as they are.
func columns(text string) string { return gap.ReplaceAllString(text, "  ") }

var gap = regexp.MustCompile(` {2,}`)

// firstID is the id in the first row of a list of messages: a time of three words is before it.
func firstID(list string) string { return strings.Fields(strings.Split(list, "\n")[2])[3] }

// want runs phasectl and checks its exit code and that its output has all parts.
func want(t *testing.T, code int, parts []string, args ...string) string {
	t.Helper()
	got, stdout, stderr := command(t, args...)
	out := stdout + stderr
	if got != code {
		t.Errorf("phasectl %s: exit %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	for _, part := range parts {
		if !strings.Contains(columns(out), columns(part)) {
			t.Errorf("phasectl %s: no %q in:\n%s", strings.Join(args, " "), part, out)
		}
	}
	return stdout
}

func TestTrigger_HandsOverAgain(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	want(t, 0, []string{"2026-02-03 overnight: would hand over batch 2 of player_game_summary, team_defense_game_summary"},
		"trigger", "--date", "2026-02-03", "--mode", "overnight", "--dry-run")
	want(t, 0, []string{"2026-02-03 overnight: batch 2 of player_game_summary published\n"},
		"trigger", "--date", "2026-02-03", "--mode", "overnight", "--processor", "player_game_summary", "--reason", "tables lost")
	want(t, 0, []string{"batch 2", "operator by " + actor() + ", tables lost", "player_game_summary → m"}, "explain", "2026-02-03", "overnight")
	want(t, 0, []string{"batch 2  published  operator, 1 of 1 message sent"}, "status", "--date", "2026-02-03")
}

func TestTrigger_RangeListsRefusedCycles(t *testing.T) {
	s := running(t)
	s.night("2026-02-02")
	s.night("2026-02-03")
	out := want(t, 1, []string{"2 of 4 cycles were not handed over"},
		"trigger", "--from", "2026-02-01", "--to", "2026-02-04", "--mode", "overnight", "--pace", "1ms", "--reason", "backfilled", "--json")
	var got struct {
		Schema   int
		Triggers []triggered
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != 1 || len(got.Triggers) != 4 {
		t.Fatalf("%s: %v", out, err)
	}
	for i, refused := range []bool{true, false, false, true} {
		tr := got.Triggers[i]
		if refused != strings.Contains(tr.Refusal, "no counting run is recorded") || refused == (tr.State == "published") || !refused && len(tr.Runs) != 5 {
			t.Errorf("%+v", tr)
		}
	}
}

func TestTrigger_RangeIsPacedAndNamesResumeCommand(t *testing.T) {
	s := running(t)
	s.night("2026-02-02")
	s.night("2026-02-03")
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"trigger", "--from", "2026-02-02", "--to", "2026-02-03", "--mode", "overnight", "--pace", "1h", "--reason", "again"}, out, out)
	}()
	out.line(t, ended) // the first was handed over; the second waits for its hour
	cancel()
	if code := <-ended; code != 1 || !strings.Contains(out.String(), "2026-02-02 overnight: batch 2") || !strings.Contains(out.String(), "go on with --from 2026-02-03 --to 2026-02-03") {
		t.Errorf("%d: %s", code, out.String())
	}
	if strings.Contains(out.String(), "2026-02-03 overnight: batch") {
		t.Errorf("the second was not paced: %s", out.String())
	}
}

func TestHold_KeepsCycleOnHoldUntilRelease(t *testing.T) {
	s := running(t)
	want(t, 0, []string{"2026-02-03 overnight is on hold until ", `phasectl release 2026-02-03 overnight --reason`},
		"hold", "2026-02-03", "overnight", "--for", "6h", "--reason", "scores are wrong")
	s.night("2026-02-03")
	want(t, 0, []string{"2026-02-03  overnight  on_hold    on hold by " + actor(), "scores are wrong; 5 of 5 complete"}, "status", "--date", "2026-02-03")
	want(t, 0, []string{"is on_hold", "hold       by " + actor(), "fix        the cycle is on hold", "phasectl release 2026-02-03 overnight"}, "explain", "2026-02-03", "overnight")
	want(t, 1, []string{"refused: ", "it is on hold by " + actor() + ": scores are wrong"}, "trigger", "--date", "2026-02-03", "--mode", "overnight", "--reason", "x")
	want(t, 0, []string{"2026-02-03 overnight is released; it was on hold by " + actor()}, "release", "2026-02-03", "overnight", "--reason", "right now")
	want(t, 0, []string{"2026-02-03  overnight  published  5 of 5 complete"}, "status", "--date", "2026-02-03")
	want(t, 0, []string{"2026-02-03 overnight is not on hold\n  now published: 5 of 5 complete"}, "release", "2026-02-03", "overnight", "--reason", "again")

	want(t, 0, []string{"every cycle of phase3_to_phase4 is on hold until "}, "hold", "--for", "1h", "--reason", "Phase 4 is being deployed")
	want(t, 0, []string{"overnight is published", "what comes next is on hold by", "hold       by"}, "explain", "2026-02-03", "overnight")
	want(t, 0, []string{"in place of the hold by " + actor() + " until ", ": Phase 4 is being deployed"}, "hold", "--for", "2h", "--reason", "it takes longer")
	want(t, 0, []string{"2026-02-01 overnight is not on hold\n  now on_hold: on hold by " + actor() + " until "}, "release", "2026-02-01", "overnight", "--reason", "x")
	want(t, 0, []string{"every cycle of phase3_to_phase4 is released"}, "release", "--reason", "deployed")
	for action, times := range map[string]int{"hold": 3, "release": 2} {
		n := 0
		for doc, err := range s.App.Store.Scan(t.Context(), "audit", "!", "~") {
			if err != nil {
				t.Fatal(err)
			}
			if doc.Data["action"] == action && doc.Data["actor"] == actor() {
				n++
			}
		}
		if n != times {
			t.Errorf("%d audit records of %s, want %d", n, action, times)
		}
	}
}

func TestQuarantine_CanBeReadAndReplayed(t *testing.T) {
	s := running(t)
	for _, name := range five[:4] {
		s.report(completion(name, "2026-02-03"))
	}
	bad := completion(five[4], "2026-02-03")
	bad["phase"] = "phase_3_\x1b[31mlegacy"
	s.report(bad)
	out := want(t, 0, []string{"transition", `is not phase_3_analytics`}, "quarantine", "list")
	if strings.Contains(out, "\x1b") {
		t.Errorf("a message writes to the terminal: %q", out)
	}
	id := firstID(out)
	want(t, 0, []string{`fix: to report its completion in its place: phasectl complete upcoming_team_game_context PERIOD --reason "…", and then phasectl quarantine discard ` + id + ` --reason "…"`}, "quarantine", "list")
	want(t, 0, []string{"reason", "topic      nba-phase3-analytics-complete", `\"processor_name\":\"upcoming_team_game_context\"`, "phasectl quarantine replay " + id}, "quarantine", "show", id)
	want(t, 1, []string{"no-such: ", "not in quarantine"}, "quarantine", "replay", "no-such", "--reason", "x")
	want(t, 1, []string{id + ": refused again", "0 accepted, 1 refused"}, "quarantine", "replay", id, "--reason", "try")

	// The definition learns the name of the phase; the message as it was is now sound.
	definition, err := os.ReadFile("../../shared/pipeline/nba.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "p.yaml")
	renamed := strings.ReplaceAll(string(definition), "phase_3_analytics", "legacy")
	if err := os.WriteFile(file, []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	bad = completion(five[4], "2026-02-03")
	bad["phase"] = "legacy"
	s.report(bad)
	want(t, 1, []string{": accepted\n", "1 accepted, 1 refused"}, "quarantine", "replay", "--all", "--pipeline", file, "--reason", "renamed")
	want(t, 0, []string{"2026-02-03  overnight  published  5 of 5 complete"}, "status", "--date", "2026-02-03")
	out = want(t, 0, []string{"replayed ", "by " + actor()}, "quarantine", "list", "--all")
	if n := strings.Count(out, "replayed"); n != 2 || strings.Count(out, "  waiting\n") != 1 { // a state, and a detail
		t.Errorf("%d words, want 2:\n%s", n, out)
	}
	out = want(t, 0, nil, "quarantine", "list", "--json")
	m := object(t, out)
	if list, _ := m["messages"].([]any); m["schema"] != 1.0 || len(list) != 1 {
		t.Errorf("%s", out)
	}
	want(t, 1, []string{"not in quarantine"}, "quarantine", "show", "no-such")
}

func TestDeadLetter_CanBeReadAndReplayed(t *testing.T) {
	s := running(t)
	for _, name := range five[:4] {
		s.report(completion(name, "2026-02-03"))
	}
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	s.down.Store(true)
	s.report(completion(five[4], "2026-02-03"))
	published := s.Clock.Now()
	for {
		due, waiting := s.NextRetry()
		if !waiting {
			break
		}
		s.Clock.AdvanceTo(due)
		s.settle()
	}
	s.down.Store(false)
	// A day later, in another mode's time: the original time decides.
	for range 2 { // looking changes nothing
		want(t, 0, []string{published.In(time.FixedZone("", -5*3600)).Format("2006-01-02 15:04"), "nba-phase3-analytics-complete  after 100 attempts", "upcoming_team_game_context"}, "dead-letter", "list")
	}
	want(t, 64, []string{`--topic`, "feeds no function"}, "dead-letter", "list", "--topic", "x")
	want(t, 1, []string{"no such message"}, "dead-letter", "replay", "m999", "--reason", "x")
	out := want(t, 0, nil, "dead-letter", "list", "--json")
	var got struct{ Messages []deadLetter }
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Messages) != 1 {
		t.Fatalf("%s: %v", out, err)
	}
	want(t, 0, []string{got.Messages[0].ID + ": accepted\n"}, "dead-letter", "replay", got.Messages[0].ID, "--reason", "the store is back")
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	want(t, 0, []string{"2026-02-03  overnight  published  5 of 5 complete"}, "status", "--date", "2026-02-03")
}

// A dead letter that cannot be handled now either stays, and one that is too large for
// quarantine is nowhere else.
func TestDeadLetter_IsAcknowledgedOnlyAfterSafeStorage(t *testing.T) {
	s := running(t)
	large := completion(five[0], "YESTERDAY")
	large["error_message"] = strings.Repeat("x", 2<<20)
	s.report(large)
	id := firstID(want(t, 0, []string{"too large for quarantine"}, "dead-letter", "list"))
	q := firstID(want(t, 0, []string{"YESTERDAY"}, "quarantine", "list"))
	want(t, 1, []string{"phasectl dead-letter replay"}, "quarantine", "replay", q, "--reason", "x")
	want(t, 0, []string{"too large to be kept here: phasectl dead-letter replay"}, "quarantine", "show", q)
	for range 2 {
		want(t, 1, []string{id + ": refused again"}, "dead-letter", "replay", "--all", "--reason", "x")
	}
	want(t, 0, []string{id}, "dead-letter", "list")
}

func TestOperator_MistakesAreNamed(t *testing.T) {
	s := running(t)
	_ = s
	for name, tc := range map[string]struct {
		args []string
		part string
	}{
		"no_reason":             {[]string{"trigger", "--date", "2026-02-03", "--mode", "overnight"}, "--reason"},
		"blank_reason":          {[]string{"hold", "--for", "1h", "--reason", " "}, "--reason"},
		"no_date":               {[]string{"trigger", "--mode", "overnight", "--reason", "x"}, "PERIOD is required:\n  phasectl trigger --mode=overnight --reason=x yesterday\n  phasectl trigger --mode=overnight --reason=x --from -7d --to yesterday\n"},
		"both":                  {[]string{"trigger", "--date", "2026-02-03", "--from", "2026-02-03", "--to", "2026-02-03", "--mode", "overnight", "--reason", "x"}, "a period, or --from"},
		"half_a_range":          {[]string{"trigger", "--from", "2026-02-03", "--mode", "overnight", "--reason", "x"}, "--to is required"},
		"backwards":             {[]string{"trigger", "--from", "2026-02-03", "--to", "2026-02-01", "--mode", "overnight", "--reason", "x"}, "is before --from"},
		"too_long":              {[]string{"trigger", "--from", "2020-02-03", "--to", "2026-02-01", "--mode", "overnight", "--reason", "x"}, "--from 2020-02-03 --to 2026-02-01: is not within 1 to 365 days"},
		"no_such_date":          {[]string{"trigger", "--date", "TODAY", "--mode", "overnight", "--reason", "x"}, `"TODAY"`},
		"no_such_mode":          {[]string{"trigger", "--date", "2026-02-03", "--mode", "over", "--reason", "x"}, `MODE: "over": phase3_to_phase4 has tomorrow, same_day, overnight`},
		"no_such_processor":     {[]string{"trigger", "--date", "2026-02-03", "--mode", "same_day", "--processor", five[0], "--reason", "x"}, `same_day does not expect "player_game_summary"`},
		"no_such_transition":    {[]string{"release", "--transition", "x", "--reason", "x"}, "the pipeline has phase3_to_phase4"},
		"checks_of_no_date":     {[]string{"checks", "run", "--mode", "overnight"}, "PERIOD is required"},
		"hold_for_no_time":      {[]string{"hold", "--reason", "x"}, "--for"},
		"hold_for_too_long":     {[]string{"hold", "--for", "1000h", "--reason", "x"}, "--for"},
		"hold_half_a_cycle":     {[]string{"hold", "2026-02-03", "--for", "1h", "--reason", "x"}, "MODE is required:\n"},
		"hold_no_such_mode":     {[]string{"hold", "2026-02-03", "x", "--for", "1h", "--reason", "x"}, "MODE"},
		"quarantine_what":       {[]string{"quarantine", "replay", "--reason", "x"}, "ID or --all is required:\n  phasectl quarantine replay --reason=x 4711\n  phasectl quarantine replay --reason=x --all\n"},
		"dead_letter_what":      {[]string{"dead-letter", "replay", "a", "--all", "--reason", "x"}, "either ids or --all"},
		"quarantine_unknown_do": {[]string{"quarantine", "drop"}, "drop"},
	} {
		t.Run(name, func(t *testing.T) { want(t, 64, []string{tc.part}, tc.args...) })
	}
}

// Whoever interrupts a range is told where to go on, whatever was under way.
func TestTrigger_InterruptedRangeNamesFirstCycleNotRequested(t *testing.T) {
	s := running(t)
	for _, date := range []string{"2026-02-01", "2026-02-02", "2026-02-03"} {
		s.night(date)
	}
	for _, pace := range []string{"0s", "1ms", "1h"} {
		ctx, cancel := context.WithCancel(t.Context())
		out := &interrupting{cancel: cancel}
		var errs strings.Builder
		code := run(ctx, []string{"trigger", "--from", "2026-02-01", "--to", "2026-02-03", "--mode", "overnight", "--pace", pace, "--reason", "again"}, out, &errs)
		if code != 1 || !strings.Contains(errs.String(), "go on with --from 2026-02-02 --to 2026-02-03") || strings.Contains(out.String(), "2026-02-02") {
			t.Errorf("pace %s: %d\n%s%s", pace, code, out.String(), errs.String())
		}
	}
}

// interrupting is a terminal at which somebody presses Ctrl-C after the first line.
type interrupting struct {
	strings.Builder
	cancel func()
}

func (i *interrupting) Write(b []byte) (int, error) {
	defer i.cancel()
	return i.Builder.Write(b)
}

// A command that failed half-way says that it must not be repeated, and repeating it
// does no harm.
func TestTrigger_UnconfirmedMessagesAreNotPublishedAgain(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // nobody answers there
	t.Setenv("PHASEGATE_CLAIM", "2s")               // and nobody waits for long
	args := []string{"trigger", "--date", "2026-02-03", "--mode", "overnight", "--reason", "again"}
	want(t, 2, []string{"batch 2 of player_game_summary", "is publishing and goes on by itself; do not ask again"}, args...)
	want(t, 1, []string{"is being sent with these runs: it goes on by itself"}, args...)
}

func TestExplain_SuggestsFix(t *testing.T) {
	s := running(t)
	failed := completion(five[0], "2026-02-03")
	failed["status"] = "failed"
	s.report(failed)
	want(t, 0, []string{"fix        player_game_summary reported failed: repair the cause and run it again, in its own way or by phasectl run 2026-02-03 --processor player_game_summary --publish -- COMMAND\n",
		"team_defense_game_summary, team_offense_game_summary, upcoming_player_game_context, upcoming_team_game_context have not reported. Those whose rows are in their tables: phasectl reconcile 2026-02-03 --fix. "}, "explain", "2026-02-03", "overnight") // by now its deadline has passed
	for _, name := range five[:2] {
		s.report(completion(name, "2026-02-03"))
	}
	want(t, 0, []string{"to hand over the complete processors without them: phasectl trigger 2026-02-03 overnight --force --reason"}, "explain", "2026-02-03", "overnight")
	s.report(completion(five[3], "2026-02-03"))
	s.report(completion(five[4], "2026-02-03"))
	want(t, 0, []string{"without waiting: phasectl trigger 2026-02-03 overnight --reason"}, "explain", "2026-02-03", "overnight")
	want(t, 0, []string{"published"}, "trigger", "--date", "2026-02-03", "--mode", "overnight", "--reason", "now")
	want(t, 0, []string{"and hand over again: phasectl trigger"}, "explain", "2026-02-03", "overnight")
}
