package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

func TestF24_ACommandRunsUnderItsLock(t *testing.T) {
	d := newDesk(t)
	hold := d.pipe("hold")
	g := d.begin(underLock(`echo "$PHASEGATE_LOCK $PHASEGATE_EXECUTION_ID $PHASEGATE_LOCK_TOKEN"; cat ` + hold.path)...)
	words := strings.Fields(g.stdout.line(t, g.ended))
	locks := d.locks()
	if len(locks) != 1 || len(words) != 3 || words[0] != lockKey || words[2] == "" {
		t.Fatalf("%v: %v", words, locks)
	}
	if l := locks[0].(map[string]any); l["key"] != lockKey || l["execution_id"] != words[1] || l["state"] != "held" || l["foreign"] != false {
		t.Errorf("%v: %v", words, l)
	}
	want(t, 0, []string{lockKey + "  held  yes  0 s ago  ", "execution " + words[1] + " on "}, "locks", "list")
	hold.open()
	g.end(t, 0)
	want(t, 0, []string{"nothing is locked\n"}, "locks", "list")
	var events []string
	for _, line := range strings.Split(strings.TrimSpace(g.stderr.String()), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil || m["execution_id"] != words[1] {
			t.Errorf("%s: %v", line, err)
		}
		events = append(events, fmt.Sprint(m["event"]))
	}
	if len(events) != 1 || events[0] != "lock_acquired" {
		t.Errorf("%v", events)
	}
}

// While the lock is held, run exits with 75, so that the caller retries, and the command does not run.
func TestF26_AHeldLockIsAnAnswerThatComesAgain(t *testing.T) {
	d := newDesk(t)
	hold, made := d.pipe("hold"), filepath.Join(t.TempDir(), "made")
	first := d.begin(underLock("echo begun; cat " + hold.path)...)
	first.stdout.line(t, first.ended)
	want(t, 75, []string{lockKey + ` is locked by execution "run-`, "until ", " unless it is renewed"}, underLock("touch "+made)...)
	if _, err := os.Stat(made); err == nil {
		t.Error("the command ran without the lock")
	}
	waiting := d.begin(underLock("touch "+made, "--wait")...)
	waiting.stderr.line(t, waiting.ended) // it names the execution that holds the lock
	hold.open()
	first.end(t, 0)
	waiting.end(t, 0)
	if _, err := os.Stat(made); err != nil {
		t.Error("the command did not run:", err)
	}
}

func TestRun_WaitEndsWithCaller(t *testing.T) {
	d := newDesk(t)
	hold := d.pipe("hold")
	first := d.begin(underLock("echo begun; cat " + hold.path)...)
	first.stdout.line(t, first.ended)
	waiting := d.begin(underLock("echo ran", "--wait")...)
	waiting.stderr.line(t, waiting.ended)
	waiting.cancel()
	waiting.end(t, 75, "is locked by execution")
	hold.open()
	first.end(t, 0)
}

func TestRun_ReturnsExitStatusOfCommand(t *testing.T) {
	d := newDesk(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command []string
		want    int
	}{
		{"fine", []string{"true"}, 0},
		{"failed", []string{"sh", "-c", "exit 3"}, 3},
		{"the_status_of_a_held_lock", []string{"sh", "-c", "exit 75"}, 75},
		{"killed", []string{"sh", "-c", "kill -9 $$"}, 137},
		{"not_there", []string{"no-such-program"}, 127},
		{"no_such_path", []string{"/no/such/program"}, 127},
		{"not_executable", []string{text}, 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, c.want, nil, append([]string{"run", "--processor", "player_game_summary", "--date", "2026-02-03", "--"}, c.command...)...)
			if n := len(d.locks()); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

func TestRun_NamesInvalidFlags(t *testing.T) {
	newDesk(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run"}, "PERIOD, --processor and COMMAND are required:\n  phasectl run yesterday --processor P -- COMMAND\n"},
		{[]string{"run", "--processor", "player_game_summary", "--date", "2026-02-03"}, "COMMAND is required"},
		{[]string{"run", "2026-02-03", "--", "true", "x"}, "--processor is required:\n  phasectl run 2026-02-03 --processor P -- true x\n"},
		{[]string{"run", "--processor", "x", "2026-02-03", "--", "true"}, `--processor: "x": the pipeline has player_game_summary, `},
		{[]string{"run", "--processor", "PlayerSummary", "--date", "2026-02-03", "--", "true"}, `--processor: "PlayerSummary": the pipeline has`},
		{[]string{"run", "--processor", "player_game_summary", "--date", "TODAY", "--", "true"}, `PERIOD: "TODAY" is no date`},
		{[]string{"run", "--processor", "MLFeatureStoreProcessor", "--date", "2026-02-03", "--publish", "--", "true"},
			"--publish: no transition expects completions of ml_feature_store_v2 of phase_4_precompute"},
	} {
		want(t, 64, []string{c.want}, c.args...)
	}
}

func TestF30_WithoutTheLockNothingRuns(t *testing.T) {
	d := newDesk(t)
	made := filepath.Join(t.TempDir(), "made")
	ref := store.Ref{Collection: "lock_tokens", ID: lockKey}
	if _, err := d.store().Apply(t.Context(), store.Create(ref, store.F("what is this", "nonces"))); err != nil {
		t.Fatal(err)
	}
	want(t, 2, []string{"lock_tokens/" + lockKey + ": nonces"}, underLock("touch "+made)...)
	t.Setenv("PHASEGATE_STORE", "sqlite:"+filepath.Dir(d.file))
	want(t, 2, nil, underLock("touch "+made)...)
	if _, err := os.Stat(made); err == nil {
		t.Error("the command ran without the lock")
	}
}

// When its lock is revoked, run ends the command, and fails even if the command exits with 0.
func TestRun_LostLockEndsCommand(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         int
	}{
		{"by_term", "echo begun; exec cat GATE", 143},
		{"by_kill", "trap '' TERM; echo begun; cat GATE; cat GATE; cat GATE", 137},
		{"and_says_that_it_is_fine", "trap 'exit 0' TERM; echo begun; cat GATE & wait", 0},
		{"that_is_stopped", "trap 'exit 3' TERM; echo begun; kill -STOP $$; wait", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			t.Setenv("PHASEGATE_LEASE", "3s")
			g := d.begin(underLock(strings.ReplaceAll(c.script, "GATE", d.pipe("never").path))...)
			g.stdout.line(t, g.ended)
			want(t, 0, []string{lockKey + " is free; it was held by execution run-"}, "locks", "release", lockKey, "--reason", "its machine is gone")
			g.end(t, 75, fmt.Sprintf("(exit status %d)", c.want), "ending the command: lock lost: "+lockKey+": another process deleted it", `"event":"lock_lost"`)
			want(t, 1, []string{"not locked"}, "locks", "release", lockKey, "--reason", "again")
			records := 0
			for doc, err := range d.store().Scan(t.Context(), "audit", "!", "~") {
				if err != nil {
					t.Fatal(err)
				}
				records++
				if doc.Data["action"] != "lock_release" || doc.Data["reason"] != "its machine is gone" || doc.Data["actor"] != actor() {
					t.Errorf("%v", doc.Data)
				}
			}
			if records != 1 {
				t.Errorf("%d records", records)
			}
		})
	}
}

// A command that exits with 0 after SIGTERM may not have finished its work, so run exits with 143.
func TestRun_StoppedCallerEndsCommandAndReleasesLock(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   int
		says   string
	}{
		"with_its_own_status": {"trap 'echo cleaning up; exit 7' TERM; echo begun; cat NEVER & wait", 7, "cleaning up"},
		"politely":            {"trap 'exit 0' TERM; echo begun; cat NEVER & wait", 143, "was asked to stop"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			g := d.begin(underLock(strings.ReplaceAll(c.script, "NEVER", d.pipe("never").path))...)
			g.stdout.line(t, g.ended)
			g.cancel()
			g.end(t, c.want, c.says)
			if n := len(d.locks()); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

// run ends processes that the command left: they would go on without the lock.
func TestRun_EndsProcessesThatCommandLeft(t *testing.T) {
	d := newDesk(t)
	for name, start := range map[string]string{"in_its_group": "", "in_a_session_of_its_own": "setsid "} {
		if name != "in_its_group" && runtime.GOOS != "linux" {
			continue // only Linux lets run find such a process
		}
		t.Run(name, func(t *testing.T) {
			alive := d.pipe("alive")
			g := d.begin(underLock("exec 3>" + alive.path + "; " + start + "cat " + d.pipe("never").path + " & echo begun")...)
			if got := alive.read(); got != "" { // end of file: no process has the pipe open any more
				t.Errorf("%q", got)
			}
			g.end(t, 0)
		})
	}
}

func TestLocks_ShowLeakedAndForeignLocks(t *testing.T) {
	d := newDesk(t)
	old := sqliteAt(t, d.file, time.Now().Add(-time.Hour))
	if _, err := old.Apply(t.Context(), store.Create(store.Ref{Collection: "processing_locks", ID: "OldProcessor_2026-02-03"},
		store.F("py\x1b[31m", "execution_id"), store.F("worker-7", "instance"))); err != nil {
		t.Fatal(err)
	}
	out := want(t, 0, []string{"OldProcessor_2026-02-03  leaked  no  3", "and no run has asked for it\n  fix: run the processor again, in its own way or by phasectl run 2026-02-03 --processor OldProcessor --publish -- COMMAND; or phasectl locks release OldProcessor_2026-02-03", "not by Phasegate"}, "locks", "list")
	if strings.Contains(out, "\x1b") {
		t.Errorf("%q has control characters for the terminal", out)
	}
	l := d.locks()[0].(map[string]any)
	if l["state"] != "leaked" || l["foreign"] != true {
		t.Errorf("%v", l)
	}
}

// The engine handles a completion that run publishes like a processor's own.
func TestRun_PublishesCompletionWithCommandStatus(t *testing.T) {
	s := running(t)
	publish := func(processor, script string) []string {
		return []string{"run", "--processor", processor, "--date", "2026-02-03", "--publish", "--", "sh", "-c", script}
	}
	want(t, 0, nil, publish("PlayerGameSummaryProcessor", "true")...)
	want(t, 4, nil, publish("team_offense_game_summary", "exit 4")...)
	s.settle()
	out := want(t, 0, nil, "status", "--date", "2026-02-03", "--json")
	var status struct {
		Cycles []struct {
			Mode      string
			Satisfied []string
			Missing   []string
		}
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(out))).Decode(&status); err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Cycles {
		if c.Mode == "overnight" && (fmt.Sprint(c.Satisfied) != "[player_game_summary]" || len(c.Missing) != 4) {
			t.Errorf("%+v", c)
		}
	}
	want(t, 0, []string{"team_offense_game_summary", "failed"}, "explain", "2026-02-03", "overnight")
	for _, name := range five[1:] {
		want(t, 0, nil, publish(name, "true")...)
	}
	s.settle()
	want(t, 0, []string{"published"}, "status", "--date", "2026-02-03")
	// A second run that does not report what it changed is handed over, too.
	want(t, 0, nil, publish("player_game_summary", "true")...)
	s.settle()
	want(t, 0, []string{"all_complete", "second_run"}, "explain", "2026-02-03", "overnight")
}

// run revokes the fencing tokens of earlier runs before the command starts, and the token of the
// command after it ends.
func TestRun_RevokesWriteRightOfEarlierRuns(t *testing.T) {
	w, d := atWarehouse(t), newDesk(t)
	t.Setenv("GOOGLE_CLOUD_PROJECT", w.Project)
	ref := store.Ref{Collection: "lock_tokens", ID: lockKey}
	zombie := "zombie" + strings.ReplaceAll(w.Suffix(), "_", "")
	if _, err := d.store().Apply(t.Context(), store.Create(ref, store.F([]any{zombie}, "nonces"))); err != nil {
		t.Fatal(err)
	}
	out := want(t, 0, nil, underLock(`echo "$PHASEGATE_LOCK_TOKEN"`)...)
	snap, err := d.store().Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if left := snap.Docs[0].Data["nonces"].([]any); len(left) != 0 {
		t.Errorf("%v are left outstanding", left)
	}
	client, err := w.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{zombie, strings.TrimSpace(out)} {
		late := client.Query(w.Rename("INSERT INTO nba_analytics.player_game_summary (game_date) VALUES (DATE '2026-02-03')"))
		late.JobID = "phasegate-" + lockKey + "-" + nonce
		if _, err := late.Run(t.Context()); err == nil {
			t.Errorf("a write under the token %s is begun after the run", nonce)
		}
	}
	if n := w.Count("nba_analytics.player_game_summary"); n != 0 {
		t.Errorf("%d late rows", n)
	}
	w.Exec("DROP TABLE nba_analytics.player_game_summary")
	if _, err := d.store().Apply(t.Context(), store.Merge(ref, store.F([]any{zombie}, "nonces"))); err != nil {
		t.Fatal(err)
	}
	want(t, 2, []string{"does not exist"}, underLock("echo ran")...) // without the table, run cannot tell whether the zombie can write
	if n := len(d.locks()); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}
