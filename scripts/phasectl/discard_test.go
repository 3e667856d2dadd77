package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/store"
)

// audits counts the records of an action.
func (s *system) audits(action string) (n int) {
	s.t.Helper()
	for doc, err := range s.App.Store.Scan(s.t.Context(), "audit", "!", "~") {
		if err != nil {
			s.t.Fatal(err)
		}
		if doc.Data["action"] == action && doc.Data["reason"] == "a test message" {
			n++
		}
	}
	return n
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

// interrupted is a store whose next write is lost, or was made and its answer is lost.
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

// The record comes before the acknowledgement: a crash in between leaves the message, and
// discarding it again adds no second record.
func TestDeadLetterDiscard_RecordsBeforeItAcknowledges(t *testing.T) {
	s := running(t)
	s.down.Store(true)
	s.report(completion(five[0], "2026-02-03"))
	for {
		due, waiting := s.NextRetry()
		if !waiting {
			break
		}
		s.Clock.AdvanceTo(due)
		s.settle()
	}
	s.down.Store(false)
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

// A message that is too large for quarantine is discarded in both places by one command.
func TestDeadLetterDiscard_SettlesItsQuarantine(t *testing.T) {
	s := running(t)
	large := completion(five[0], "YESTERDAY")
	large["error_message"] = strings.Repeat("x", 2<<20)
	s.report(large)
	id := firstID(want(t, 0, []string{"too large for quarantine"}, "dead-letter", "list"))
	want(t, 0, []string{id + ": discarded\n"}, "dead-letter", "discard", id, "--reason", "a test message")
	want(t, 0, []string{"no dead-lettered messages"}, "dead-letter", "list")
	want(t, 0, []string{"nothing is in quarantine"}, "quarantine", "list")
	if n := s.audits("dead_letter_discard"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// The relay evaluates no old period.
func TestClose_LetsAnOldPeriodExpire(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "2026-02-03"))
	expires := func() bool {
		snap, err := s.App.Store.Get(t.Context(), store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"})
		if err != nil || !snap.Docs[0].Exists {
			t.Fatalf("%+v, %v", snap, err)
		}
		_, ends := snap.Docs[0].Data[store.ExpiresAt].(time.Time)
		return ends
	}
	if expires() {
		t.Error("a period with an open cycle expires")
	}
	want(t, 0, []string{"is closed"}, "close", "2026-02-03", "overnight", "--reason", "cancelled")
	if !expires() {
		t.Error("a period whose only cycle is closed stays for ever")
	}
}

func TestClose_EndsACycle(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "2026-02-03"))
	want(t, 64, []string{"--reason"}, "close", "2026-02-03", "overnight")
	want(t, 64, []string{"MODE is required:\n  phasectl close 2026-02-03 --reason=x --mode tomorrow\n  phasectl close 2026-02-03 --reason=x --mode same_day\n"}, "close", "2026-02-03", "--reason", "x")
	want(t, 0, []string{"2026-02-03 overnight is closed\n  now closed: closed by " + actor()}, "close", "2026-02-03", "overnight", "--reason", "cancelled")
	want(t, 0, []string{"2026-02-03 overnight was closed already, by " + actor()}, "close", "2026-02-03", "overnight", "--reason", "again")
	want(t, 0, []string{"is closed", "nothing; to hand it over in spite of that: phasectl trigger"}, "explain", "2026-02-03", "overnight")
}
