package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
)

func TestDeadLetter_CanBeReadAndReplayed(t *testing.T) {
	s := running(t)
	for _, name := range five[:4] {
		s.report(completion(name, "2026-02-03"))
	}
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	published := s.Clock.Now()
	s.fail(completion(five[4], "2026-02-03"))
	// By now it is the time of another mode. The list and the replay use the time of the first publication.
	for range 2 { // list acknowledges no message
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

// A dead letter stays if its replay fails: a message that is too large for quarantine is stored
// nowhere else.
func TestDeadLetter_IsAcknowledgedOnlyAfterSafeStorage(t *testing.T) {
	s := running(t)
	id := s.tooLarge()
	q := firstID(want(t, 0, []string{"YESTERDAY"}, "quarantine", "list"))
	want(t, 1, []string{"phasectl dead-letter replay"}, "quarantine", "replay", q, "--reason", "x")
	want(t, 0, []string{"too large to be kept here: phasectl dead-letter replay"}, "quarantine", "show", q)
	for range 2 {
		want(t, 1, []string{id + ": refused again"}, "dead-letter", "replay", "--all", "--reason", "x")
	}
	want(t, 0, []string{id}, "dead-letter", "list")
}

// discard writes the audit record before the acknowledgement. A crash in between leaves the message,
// and a second discard adds no second record.
func TestDeadLetterDiscard_RecordsBeforeItAcknowledges(t *testing.T) {
	s := running(t)
	s.fail(completion(five[0], "2026-02-03"))
	id := firstID(want(t, 0, []string{"after 100 attempts"}, "dead-letter", "list"))
	a := *s.App
	a.Store = &interrupted{Store: s.App.Store, applied: true}
	ds, err := allDead(t.Context(), &a, "")
	if err != nil || len(ds) != 1 {
		t.Fatalf("%d, %v", len(ds), err)
	}
	if err := discardOne(t.Context(), &a, ds[0], "a test message"); err == nil {
		t.Error("no error")
	}
	if err := giveBack(t.Context(), &a, ds); err != nil {
		t.Fatal(err)
	}
	want(t, 0, []string{id}, "dead-letter", "list")
	want(t, 1, []string{"no such message"}, "dead-letter", "discard", "m999", "--reason", "x")
	want(t, 0, []string{id + ": discarded\n"}, "dead-letter", "discard", id, "--reason", "a test message")
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	if n := s.audits("dead_letter_discard"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// One command discards a message that is too large for quarantine in quarantine and in the dead letters.
func TestDeadLetterDiscard_SettlesItsQuarantine(t *testing.T) {
	s := running(t)
	id := s.tooLarge()
	want(t, 0, []string{id + ": discarded\n"}, "dead-letter", "discard", id, "--reason", "a test message")
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	want(t, 0, []string{"nothing is in quarantine"}, "quarantine", "list")
	if n := s.audits("dead_letter_discard"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// The error names the failure even if the command cannot return the message to the subscription.
func TestDeadLetter_NamesTheFailureAndWhatWasNotGivenBack(t *testing.T) {
	s := running(t)
	f := &flags{}
	o := messagesOptions{flags: f, act: act{flags: f, fix: true}, ids: []string{s.tooLarge()}}
	_, err := on(o.openAct, o.eachDead("accepted", "deliver again", func(_ context.Context, a *app.App, _ deadLetter, _ string) error {
		return errors.Join(errors.New("it fails"), a.Broker.Close())
	}))(t.Context())
	if err == nil || !strings.Contains(err.Error(), "1 failed") || !strings.Contains(err.Error(), "connection is closing") {
		t.Errorf("%v", err)
	}
}
