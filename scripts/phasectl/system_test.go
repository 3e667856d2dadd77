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

// system is a running local environment whose clock begins in the morning of 2026-02-04. The
// environment variables point at it.
type system struct {
	*local.Environment
	t    *testing.T
	down *atomic.Bool // writes to the functions' store fail

	mu       sync.Mutex
	messages []string // sent to Slack
}

func (s *system) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, text)
}

// told returns the messages to Slack since the last call.
func (s *system) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.messages
	s.messages = nil
	return out
}

// standstill is a store whose writes fail while down is set.
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

// newSystem is a system that is not started yet, with a store of its own.
func newSystem(t *testing.T) *system {
	t.Helper()
	t.Setenv("GOOGLE_CLOUD_PROJECT", "phasegate-local")
	t.Setenv("PHASEGATE_STORE", "sqlite:"+filepath.Join(t.TempDir(), "store.db"))
	return &system{t: t, down: new(atomic.Bool)}
}

// start starts the system on its documents, until the test ends.
func (s *system) start(o local.Options) {
	s.t.Helper()
	var err error
	if o.Config, err = (&flags{}).host().Config(os.Getenv("PHASEGATE_STORE")); err != nil {
		s.t.Fatal(err)
	}
	o.Logs, o.Errors = io.Discard, s.t.Logf
	o.Stores = func(now func() time.Time) app.Stores {
		return func(ctx context.Context, c app.Config) (store.Store, error) {
			st, err := stores(now)(ctx, c)
			return standstill{st, s.down}, err
		}
	}
	if s.Environment, err = local.Start(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	s.t.Setenv("PUBSUB_EMULATOR_HOST", s.PubSub)
}

func (s *system) stop() {
	s.t.Helper()
	if s.Environment != nil {
		if err := s.Close(); err != nil {
			s.t.Error(err)
		}
		s.Environment = nil
	}
}

// runningAt is a system whose clock begins at a time. It counts what the next phase is sent.
func runningAt(t *testing.T, at time.Time) (s *system, received *atomic.Int64) {
	t.Helper()
	s, received = newSystem(t), new(atomic.Int64)
	phase4 := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		received.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})
	s.start(local.Options{Slack: s.tell, Consumers: map[string]http.Handler{"nba-phase4-trigger": phase4}, Clock: local.NewClock(at)})
	return s, received
}

func running(t *testing.T) *system {
	t.Helper()
	s, _ := runningAt(t, time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC))
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

// jobs runs scheduled jobs once, so that they have heartbeats. Without the nightly job, which is due
// at 10:30, an operator can still see the bad night before it is repaired.
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

// columns sets columns two spaces apart, because their widths depend on the longest cell. It keeps
// the lines.
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

// audits counts the records of an action.
func (s *system) audits(action string) (n int) {
	s.t.Helper()
	for doc, err := range s.App.Store.Scan(s.t.Context(), "audit", "!", "~") {
		if err != nil {
			s.t.Fatal(err)
		}
		if doc.Data["action"] == action {
			n++
		}
	}
	return n
}

// fail delivers a completion while the store is down, until it is dead-lettered.
func (s *system) fail(completion map[string]any) {
	s.t.Helper()
	s.down.Store(true)
	s.report(completion)
	for {
		due, waiting := s.NextRetry()
		if !waiting {
			break
		}
		s.Clock.AdvanceTo(due)
		s.settle()
	}
	s.down.Store(false)
}

// tooLarge reports a completion that is invalid and too large for quarantine, and returns the id of
// its dead letter.
func (s *system) tooLarge() string {
	s.t.Helper()
	large := completion(five[0], "YESTERDAY")
	large["error_message"] = strings.Repeat("x", 2<<20)
	s.report(large)
	return firstID(want(s.t, 0, []string{"too large for quarantine"}, "dead-letter", "list"))
}
