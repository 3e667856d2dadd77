package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
