package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestExplain_ShowsLastErrorExitStatusAndAttempts(t *testing.T) {
	s := running(t)
	bad := completion(five[0], "2026-02-03")
	for n := range 2 {
		bad["status"], bad["execution_id"], bad["error_type"], bad["error_message"] = "failed", fmt.Sprintf("run-%d", n), "exit_status", fmt.Sprintf("python: exit status %d", n+3)
		s.report(bad)
	}
	want(t, 0, []string{"missing    player_game_summary (critical), 2 attempts", "the last one ended 2026-02-04 06:05:00 EST: failed", "error: exit_status: python: exit status 4", "exit status: 4", "missing    team_defense_game_summary (optional), 0 attempts"},
		"explain", "2026-02-03", "overnight")
	_, out, _ := command(t, "explain", "2026-02-03", "overnight", "--json")
	w := object(t, out)["cycles"].([]any)[0].(map[string]any)["waited_for"].([]any)[0].(map[string]any)
	if w["attempts"] != 2.0 || w["exit_status"] != 4.0 || w["error"] != "exit_status: python: exit status 4" || w["status"] != "failed" || w["critical"] != true || w["logs"] != nil {
		t.Errorf("%v", w)
	}
}

// The link opens the log of the processor's service, at the time of the cycle. A processor that ran on
// this machine has no link.
func TestExplain_LinksTheLogOfTheProcessor(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Transitions[0]
	m, _ := tr.Mode("overnight")
	key := cycle.Key{Transition: tr, Period: "2026-02-03"}
	x := cycle.Explanation{Status: cycle.Status{Missing: []string{five[0]}}, Runs: []cycle.RunStatus{{Processor: five[0], Status: wire.StatusFailed, Error: "timeout"}}}
	of := &app.App{Config: app.Config{Project: "my-project"}, Pipeline: p}
	w := waitedFor(x, of, key, m)
	link, err := url.PathUnescape(w[0].Logs)
	if err != nil || len(w) != 1 || w[0].Error != "timeout" || w[0].ExitStatus != nil {
		t.Errorf("%+v %v", w, err)
	}
	for _, part := range []string{"https://console.cloud.google.com/logs/query;query=", `resource.labels.service_name="nba-phase3-analytics-processors"`,
		`("player_game_summary" OR "PlayerGameSummaryProcessor")`, `timestamp>="2026-02-0`, `timestamp<="2026-02-06T05:00:00Z"`, "?project=my-project"} {
		if !strings.Contains(link, part) {
			t.Errorf("no %s in %s", part, link)
		}
	}
	if strings.ContainsAny(w[0].Logs, " +\"") {
		t.Errorf("%s is not escaped", w[0].Logs)
	}
	of.Config.PubSubHost = "127.0.0.1:8085"
	if w := waitedFor(x, of, key, m); w[0].Logs != "" {
		t.Errorf("%s: nothing of this machine is there", w[0].Logs)
	}
}

func TestExplain_ShowsRunsInPages(t *testing.T) {
	s := running(t)
	var all []map[string]any
	for n := range runsOfPage + 3 {
		r := completion(five[0], "2026-02-03")
		r["execution_id"], r["timestamp"] = fmt.Sprintf("run-%02d", n), fmt.Sprintf("2026-02-04T10:%02d:00Z", n)
		all = append(all, r)
	}
	s.report(all...)
	first := want(t, 0, []string{"(run-03)", "(run-22)", "3 older ones: phasectl explain 2026-02-03 overnight --page 2"}, "explain", "2026-02-03", "overnight")
	second := want(t, 0, []string{"(run-00)", "(run-02)"}, "explain", "2026-02-03", "overnight", "--page", "2")
	if strings.Contains(first, "(run-02)") || strings.Contains(second, "(run-03)") || strings.Contains(second, "older ones") {
		t.Errorf("a run is on two pages:\n%s%s", first, second)
	}
	want(t, 64, []string{"--page: 3 is not within 1 to 2"}, "explain", "2026-02-03", "overnight", "--page", "3")
}

// --watch shows the answer until an interrupt, which is no error.
func TestWatch_ShowsTheAnswerUntilItIsInterrupted(t *testing.T) {
	running(t)
	for _, args := range [][]string{{"status", "--watch"}, {"explain", "2026-02-03", "overnight", "--watch=1h"}} {
		ctx, cancel := context.WithCancel(t.Context())
		out, ended := newOutput(), make(chan int, 1)
		go func() { ended <- run(ctx, args, out, out) }()
		if line := out.line(t, ended); !strings.Contains(line, "environment this machine, at 20") {
			t.Errorf("%q", line)
		}
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("%q: %d\n%s", args, code, out.String())
		}
	}
}

func TestStatus_ExitCodeIsOneIfACycleIsOverdue(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "2026-02-03")) // by this machine's clock, its deadline has passed
	want(t, 0, []string{"overdue", "  why, and what to do: phasectl explain 2026-02-03 overnight\n", "\nchecks of tables, messages and locks: phasectl health\n"}, "status", "2026-02-03")
	want(t, 1, []string{"overdue", "a cycle is overdue or blocked"}, "status", "2026-02-03", "--exit-code")
	s.night("2026-02-03")
	want(t, 0, []string{"published"}, "status", "2026-02-03", "overnight", "--exit-code")
}

func TestShellCompletion_SuggestsWhatIsInTheStore(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "YESTERDAY"))
	id := firstID(want(t, 0, nil, "quarantine", "list"))
	if _, err := s.App.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	for line, part := range map[string]string{"locks release": "PlayerGameSummaryProcessor_2026-02-02\tleaked by run-1", "quarantine show": id + "\tgame_date: is no period",
		"quarantine discard": id + "\t", "status": time.Now().Format("2006-")} {
		if _, out, _ := command(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...); !strings.Contains(out, part) {
			t.Errorf("%s: no %q in %q", line, part, out)
		}
	}
	if _, out, _ := command(t, "__complete", "quarantine", "discard", id, ""); strings.Contains(out, id) {
		t.Errorf("one that is there is suggested again: %q", out)
	}
	t.Setenv("PHASEGATE_STORE", "sqlite:/nowhere/store.db")
	if _, out, _ := command(t, "__complete", "locks", "release", ""); !strings.HasPrefix(out, ":4") {
		t.Errorf("a store that cannot be read: %q", out)
	}
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
