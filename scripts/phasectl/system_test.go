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
