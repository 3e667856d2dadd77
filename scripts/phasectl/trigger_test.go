package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
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

// An interrupted range names the dates that are left, with and without a pause between two cycles.
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

// If the publication is not confirmed, the command says that it must not be repeated. A repetition
// is refused.
func TestTrigger_UnconfirmedMessagesAreNotPublishedAgain(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // no server listens there
	t.Setenv("PHASEGATE_CLAIM", "2s")               // and the command does not wait long
	args := []string{"trigger", "--date", "2026-02-03", "--mode", "overnight", "--reason", "again"}
	want(t, 2, []string{"batch 2 of player_game_summary", "is publishing and goes on by itself; do not ask again"}, args...)
	want(t, 1, []string{"is being sent with these runs: it goes on by itself"}, args...)
}

// interrupting is a terminal whose user presses Ctrl-C after the first line.
type interrupting struct {
	strings.Builder
	cancel func()
}

func (i *interrupting) Write(b []byte) (int, error) {
	defer i.cancel()
	return i.Builder.Write(b)
}
