package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/store"
)

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

	// With the name of the phase in the definition, the unchanged message is valid.
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

func TestQuarantineDiscard_IsRecordedOnce(t *testing.T) {
	s := running(t)
	bad := completion(five[0], "YESTERDAY")
	s.report(bad)
	id := firstID(want(t, 0, []string{"YESTERDAY"}, "quarantine", "list"))
	want(t, 64, []string{"--reason"}, "quarantine", "discard", id)
	want(t, 64, []string{"ID is required:\n  phasectl quarantine discard --reason=x 4711\n"}, "quarantine", "discard", "--reason", "x")
	want(t, 1, []string{"no-such: ", "not in quarantine", id + ": discarded\n", "1 discarded, 1 refused"}, "quarantine", "discard", id, "no-such", "--reason", "a test message")
	want(t, 0, []string{id + ": replayed or discarded before"}, "quarantine", "discard", id, "--reason", "a test message")
	want(t, 0, []string{"nothing is in quarantine"}, "quarantine", "list")
	want(t, 0, []string{"discarded ", "by " + actor()}, "quarantine", "list", "--all")
	want(t, 0, []string{"discarded ", "nothing is to be done: it was discarded"}, "quarantine", "show", id)
	if n := s.audits("quarantine_discard"); n != 1 {
		t.Errorf("%d records", n)
	}
	s.report(bad) // another message, of the same content
	want(t, 0, []string{"YESTERDAY"}, "quarantine", "list")
}

// interrupted is a store whose next write fails; with applied it fails after it has written.
type interrupted struct {
	store.Store
	applied bool
	done    bool
}

func (i *interrupted) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	if i.done {
		return i.Store.Apply(ctx, ws...)
	}
	i.done = true
	if i.applied {
		if _, err := i.Store.Apply(ctx, ws...); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the process died")
}

func TestQuarantineDiscard_CanBeRepeatedAfterACrash(t *testing.T) {
	for name, applied := range map[string]bool{"before_the_write": false, "after_the_write": true} {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.report(completion(five[0], "YESTERDAY"))
			id := firstID(want(t, 0, []string{"YESTERDAY"}, "quarantine", "list"))
			a := *s.App
			a.Store = &interrupted{Store: s.App.Store, applied: applied}
			record := audit.Record{Action: "quarantine_discard", Actor: "ada", Reason: "a test message"}
			if _, err := delivery.MarkDiscarded(t.Context(), &a, id, record, "first"); err == nil {
				t.Error("no error")
			}
			if done, err := delivery.MarkDiscarded(t.Context(), &a, id, record, "second"); err != nil || done == applied {
				t.Errorf("%v, %v", done, err)
			}
			if n := s.audits("quarantine_discard"); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}
