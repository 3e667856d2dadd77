package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/scripts/dev/processors"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/wire"
)

// worstNight is the night of 2026-02-03 in an environment with tables, with the next phase and with
// a deployment, at 06:05 of the next morning.
type worstNight struct {
	*system
	data       sample.Data
	lost       bool // the next phase acknowledges triggers and does nothing
	transcript strings.Builder
	commands   int
}

func newWorstNight(t *testing.T) *worstNight {
	t.Helper()
	program := emulatortest.BigQuery(t)
	w := &worstNight{system: newSystem(t)}
	clocked := local.NewClock(time.Date(2026, 2, 4, 10, 50, 0, 0, time.UTC))
	clock = clocked.Now
	t.Cleanup(func() { clock = time.Now })
	var next processors.Processors
	phase4 := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.nextPhase(r, next); err != nil {
			t.Log(err)
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	w.start(local.Options{BigQuery: program, Seed: true, Slack: w.tell, Consumers: map[string]http.Handler{"nba-phase4-trigger": phase4}, Clock: clocked})
	t.Setenv("BIGQUERY_EMULATOR_HOST", w.BigQuery)
	t.Setenv("SLACK_WEBHOOK_URL", w.Slack)
	client, err := w.App.Warehouse.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.data = sample.Data{Client: client}
	next = processors.New(w.App, w.data)
	for _, table := range five {
		w.exec("UPDATE nba_analytics." + table + " SET processed_at = TIMESTAMP '2026-02-04 10:00:00+00' WHERE game_date = '2026-02-03'")
	}
	program = filepath.Join(t.TempDir(), "player_game_summary")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	sound(driftHash).serve(t)
	w.jobs(wire.JobSweep, wire.JobRelay, wire.JobHealth)
	return w
}

// nextPhase runs what a trigger asks for.
func (w *worstNight) nextPhase(r *http.Request, next processors.Processors) error {
	e, err := wire.FromRequest(r)
	if err != nil {
		return err
	}
	var t wire.Trigger
	if err := json.Unmarshal(e.Data, &t); err != nil || w.lost {
		return err
	}
	_, _, err = next.Next(context.WithoutCancel(r.Context()), t, e.PublishTime)
	return err
}

// types runs a command of an operator, and adds it and its output to the transcript.
func (w *worstNight) types(code int, args ...string) string {
	w.t.Helper()
	w.commands++
	defer w.settle()
	got, stdout, stderr := command(w.t, args...)
	fmt.Fprintf(&w.transcript, "$ phasectl %s\n%s%s", shellWords(args), stdout, logLines.ReplaceAllString(stderr, ""))
	if got != code {
		w.t.Errorf("phasectl %s: exit %d, want %d\n%s%s", shellWords(args), got, code, stdout, stderr)
	}
	return stdout
}

// logLines are not shown on a terminal.
var logLines = regexp.MustCompile(`(?m)^\{"time".*\n`)

func (w *worstNight) note(text string) { w.transcript.WriteString(text) }

func shellWords(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, " ") {
			out[i] = `"` + a + `"`
		}
	}
	return strings.Join(out, " ")
}

// later advances the clock, and runs the relay and health.
func (w *worstNight) later(hour, minute int) {
	w.t.Helper()
	zone := w.App.Pipeline.Calendar.Zone()
	w.Clock.AdvanceTo(time.Date(2026, 2, 4, hour, minute, 0, 0, zone))
	w.settle()
	w.jobs(wire.JobRelay, wire.JobHealth)
}

// rows are how many rows each table has of the night.
var rows = map[string]int{five[0]: 350, five[1]: 20, five[2]: 20, five[3]: 300, five[4]: 20}

// ran reports that processors have run.
func (w *worstNight) ran(names ...string) {
	w.t.Helper()
	for _, name := range names {
		c := completion(name, "2026-02-03")
		c["record_count"], c["execution_id"] = rows[name], "run-of-"+name
		w.report(c)
	}
}

// worst are the bad nights: the events, and the commands that the operator types. The last command of
// each is health, and it is ok.
var worst = []struct {
	name, title, text string
	happens           func(w *worstNight)
	types             func(w *worstNight)
}{
	{"processor_failed", "A processor failed",
		"player_game_summary ended with exit status 3. Its data is repaired. Run it again; its completion hands the cycle over.", func(w *worstNight) {
			w.ran(five[1:]...)
			bad := completion(five[0], "2026-02-03")
			bad["status"], bad["error_type"], bad["error_message"] = "failed", "exit_status", "player_game_summary: exit status 3"
			w.report(bad)
			w.later(10, 10)
		}, func(w *worstNight) {
			w.types(1, "health")
			w.types(0, "explain", "yesterday", "overnight")
			w.types(0, "run", "yesterday", "--processor", "player_game_summary", "--publish", "--", "player_game_summary")
			w.types(0, "status", "yesterday", "overnight", "--exit-code")
		}},
	{"processor_never_reports", "A processor never reports",
		"player_game_summary wrote its rows and reported nothing. Its deadline has passed. Reconciliation records the completion.", func(w *worstNight) {
			w.ran(five[1:]...)
			w.later(10, 10)
		}, func(w *worstNight) {
			w.types(1, "health")
			w.types(0, "explain", "yesterday", "overnight")
			w.types(1, "reconcile", "yesterday")
			w.types(0, "reconcile", "yesterday", "--fix")
		}},
	{"duplicate_rows", "Duplicate rows",
		"Ten rows of player_game_summary are in the table twice. A sweep removes them, and the command that undoes this is in its output.", func(w *worstNight) {
			w.ran(five...)
			w.exec("INSERT INTO nba_analytics.player_game_summary SELECT * FROM nba_analytics.player_game_summary WHERE game_date = '2026-02-03' LIMIT 10")
			w.later(8, 10)
		}, func(w *worstNight) {
			w.types(1, "health")
			w.types(1, "sweep", "yesterday", "--table", "player_game_summary")
			w.types(0, "sweep", "yesterday", "--table", "player_game_summary", "--fix")
		}},
	{"invalid_message", "An invalid message",
		"player_game_summary reported the date YESTERDAY. The message is in quarantine. Report the completion in its place, and discard the message.", func(w *worstNight) {
			w.ran(five[1:]...)
			w.report(completion(five[0], "YESTERDAY"))
			w.later(8, 10)
		}, func(w *worstNight) {
			w.types(1, "health")
			id := firstID(w.types(0, "quarantine", "list"))
			w.types(0, "complete", "player_game_summary", "yesterday", "--rows", "350", "--reason", "its report named no date")
			w.types(0, "quarantine", "discard", id, "--reason", "reported by hand")
		}},
	{"lost_trigger", "A lost trigger",
		"The next phase acknowledged its triggers and wrote nothing. Hand the cycle over again.", func(w *worstNight) {
			w.lost = true
			w.ran(five...)
			w.lost = false
			w.later(8, 40)
		}, func(w *worstNight) {
			w.types(1, "health")
			w.types(0, "explain", "yesterday", "overnight")
			w.types(0, "trigger", "yesterday", "overnight", "--reason", "the next phase lost its triggers", "--dry-run")
			w.types(0, "trigger", "yesterday", "overnight", "--reason", "the next phase lost its triggers")
		}},
	{"stuck_lock", "A stuck lock",
		"The machine of player_game_summary died, and its lock was never released. The next run takes the lock over.", func(w *worstNight) {
			w.ran(five[1:]...)
			if _, err := w.App.Locks.Acquire(w.t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-03"}, "run-1"); err != nil {
				w.t.Fatal(err)
			}
			w.later(8, 10)
		}, func(w *worstNight) {
			w.types(1, "health")
			w.types(0, "locks", "list")
			w.types(0, "run", "yesterday", "--processor", "player_game_summary", "--publish", "--", "player_game_summary")
			w.types(0, "status", "yesterday", "overnight")
		}},
}

func (w *worstNight) exec(sql string) {
	w.t.Helper()
	if err := w.data.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

// varying are the parts of the output that differ between runs of the tests.
var varying = []struct {
	is   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`run-[a-z0-9]{26}`), "run-ID"}, {regexp.MustCompile(`drill-[A-Z0-9]{26}`), "drill-ID"}, {regexp.MustCompile(` on "[^"]+"`), ` on "host 4711"`}, {regexp.MustCompile(`phasectl-[0-9a-f]{16}`), "phasectl-ID"},
	{regexp.MustCompile(`(\d{8}t)\d{6}-[a-z0-9]{8}`), "${1}131000-ID"}, {regexp.MustCompile(regexp.QuoteMeta(actor())), "operator@host"},
	{regexp.MustCompile(`[1-9]\d+ s ago`), "7500 s ago"},
	{regexp.MustCompile(`#[0-9a-f]{16}`), "#KEY"}, {regexp.MustCompile(`( on )\S+ \d+\n`), "${1}host 4711\n"},
}

const nightsIntro = `# Worst nights

Each night is solved and closed with what the commands print: at the end ` + "`phasectl health`" + ` is ok. The transcripts are the
output of a test, on the tables of the NBA pipeline. The night is that of 2026-02-03, and yesterday is its date. Rows of health that
are ok are left out. To write this page again:
` + "`go run ./scripts/dev/emulators -- go test ./scripts/phasectl -run WorstNights -update`" + `.
`

// okRows are the rows of checks that are ok.
var okRows = regexp.MustCompile(`(?m)^ok  .*\n`)

// clockTime is a time in the output. Times are cut to five minutes, because a slow machine prints
// later ones.
var clockTime = regexp.MustCompile(`(\d\d:\d)(\d)(:\d\d)?( EST| CET|Z)\b`)

func roundTime(text string) string {
	return clockTime.ReplaceAllStringFunc(text, func(at string) string {
		m, minute := clockTime.FindStringSubmatch(at), "0"
		if m[2] >= "5" {
			minute = "5"
		}
		if m[3] != "" {
			m[3] = ":00"
		}
		return m[1] + minute + m[3] + m[4]
	})
}

// An operator repairs each of six bad nights with at most five commands that the tools print.
func TestWorstNights_AreClosedByFiveCommands(t *testing.T) {
	emulatortest.BigQuery(t)
	const path = "../../docs/how-to/worst-nights.md"
	var page strings.Builder
	page.WriteString(nightsIntro)
	for _, night := range worst {
		t.Run(night.name, func(t *testing.T) {
			began := time.Now()
			w := newWorstNight(t)
			w.Clock.AdvanceTo(time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC))
			night.happens(w)
			night.types(w)
			w.Clock.AdvanceTo(w.Clock.Now().Add(45 * time.Minute)) // a table is judged once it has been idle for 30 minutes
			w.settle()
			w.jobs(wire.JobRelay, wire.JobHealth)
			w.note("# 45 minutes later\n")
			if out := w.types(0, "health"); !strings.Contains(out, "\nok: ") {
				t.Errorf("health is not ok at the end:\n%s", &w.transcript)
			}
			if w.commands > 5 {
				t.Errorf("%d commands", w.commands)
			}
			text := roundTime(w.transcript.String())
			for _, v := range varying {
				text = v.is.ReplaceAllString(text, v.with)
			}
			fmt.Fprintf(&page, "\n## %s\n\n%s\n\n```\n%s```\n", night.title, night.text, okRows.ReplaceAllString(text, ""))
			t.Logf("%d commands, %v with the setup\n%s", w.commands, time.Since(began).Round(time.Second), text)
		})
	}
	if *update {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if diff := cmp.Diff(string(got), page.String()); err != nil || diff != "" {
		t.Errorf("%s is not what the commands print (%v): go run ./scripts/dev/emulators -- go test ./scripts/phasectl -run WorstNights -update\n%s", path, err, diff)
	}
}
