package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/devcmd"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestLocal_ReportsReadyAndCleansUp(t *testing.T) {
	data := filepath.Join(t.TempDir(), "it's here")
	_, first, stop := start(t, "local", "--data", data, "--port-base", "0", "--json")
	m := object(t, first)
	functions, _ := m["functions"].(map[string]any)
	for _, name := range pipeline.Functions() {
		url, _ := functions[name].(string)
		if body := get(t, url); !strings.Contains(body, `"name":"`+name+`"`) {
			t.Errorf("%s at %q: %q", name, url, body)
		}
	}
	if m["project"] != "phasegate-local" || m["store"] != "sqlite:"+filepath.Join(data, "store.db") || m["bigquery"] != "" {
		t.Errorf("%v", m)
	}

	code, stdout, _ := command(t, "env", "--data", data)
	if code != 0 {
		t.Fatalf("env: %d", code)
	}
	// A shell reads it back, the quote in the folder's name included.
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", stdout+`printf '%s\n' "$GOOGLE_CLOUD_PROJECT" "$PUBSUB_EMULATOR_HOST" "$PHASEGATE_STORE"`).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"phasegate-local", m["pubsub"].(string), m["store"].(string)}
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("env gives %q, want %q", got, want)
	}

	if code := stop(); code != 0 {
		t.Errorf("interrupted: %d, want 0", code)
	}
	if _, err := os.Stat(filepath.Join(data, devcmd.ReadyFile)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", devcmd.ReadyFile, err)
	}
	if code, _, _ := command(t, "env", "--data", data); code != 2 {
		t.Errorf("env afterwards: %d, want 2", code)
	}
}

func TestLocal_NamesEachServiceWithItsAddress(t *testing.T) {
	data := t.TempDir()
	out, _, _ := start(t, "local", "--data", data, "--port-base", "0")
	b, err := os.ReadFile(filepath.Join(data, devcmd.ReadyFile))
	if err != nil {
		t.Fatal(err)
	}
	var r devcmd.Ready
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	lines := "\n  Pub/Sub      " + r.PubSub + "  gRPC; REST: POST http://" + r.PubSub + "/v1/projects/phasegate-local/topics/TOPIC:publish" +
		"\n  BigQuery     none: no data is checked, written or swept; make build/bqemu builds one" +
		"\n  documents    " + filepath.Join(data, "store.db")
	for _, name := range pipeline.Functions() {
		lines += fmt.Sprintf("\n  %-12s %s", name, r.Functions[name])
	}
	lines += "\n  status page  " + r.Functions["health"] + "/\n  Slack        " + r.Slack + "  messages are printed here\nIn another terminal:  eval \"$(phasectl env --data '" + data + "')\"; phasectl status\n"
	if !strings.HasPrefix(out.String(), "Phasegate runs locally, as project phasegate-local. Stop with Ctrl-C."+lines) {
		t.Errorf("%s\nwant\n%s", out.String(), lines)
	}
}

func TestLocal_RefusesToSeedWithoutBigQuery(t *testing.T) {
	code, stdout, stderr := command(t, "local", "--data", t.TempDir(), "--port-base", "0", "--seed")
	if code != 64 || stdout != "" || !strings.Contains(stderr, "--seed: there is no BigQuery to make tables in: run make build/bqemu") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
}

func TestLocal_RefusesAFolderOnWhichAnotherOneRuns(t *testing.T) {
	data := t.TempDir()
	_, first, stop := start(t, "local", "--data", data, "--port-base", "0", "--json")
	object(t, first)
	code, stdout, stderr := command(t, "local", "--data", data, "--port-base", "0", "--json")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "another phasectl local runs on "+data) {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(data, devcmd.ReadyFile)); err != nil {
		t.Errorf("the first one's file: %v", err)
	}
	if code := stop(); code != 0 {
		t.Errorf("the first one ends with %d", code)
	}
	_, again, _ := start(t, "local", "--data", data, "--port-base", "0", "--json") // nothing is left locked
	object(t, again)
}

func TestEnv_NamesWarehouseIfPresent(t *testing.T) {
	data := t.TempDir()
	for host, want := range map[string]bool{"127.0.0.1:9050": true, "": false} {
		b, err := json.Marshal(devcmd.Ready{Project: "p", PubSub: "127.0.0.1:8085", BigQuery: host})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, devcmd.ReadyFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, _ := command(t, "env", "--data", data)
		if got := strings.Contains(stdout, "export BIGQUERY_EMULATOR_HOST='127.0.0.1:9050'\n"); code != 0 || got != want {
			t.Errorf("%q: %d %q", host, code, stdout)
		}
	}
}

func TestLocal_UsesAbsolutePipelinePath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	definition, err := os.ReadFile("../../shared/pipeline/nba.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, definition, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	_, first, _ := start(t, "local", "--data", dir, "--port-base", "0", "--json", "--pipeline", "p.yaml")
	if got := object(t, first)["pipeline_file"]; got != file {
		t.Errorf("%v, want %s", got, file)
	}
	if _, stdout, _ := command(t, "env", "--data", dir); !strings.Contains(stdout, "export PIPELINE_FILE='"+file+"'\n") {
		t.Errorf("env: %q", stdout)
	}
}

func TestServe_ReportsReadyAndDrains(t *testing.T) {
	_, first, stop := start(t, "serve", "transition", "--port", "0", "--project", "p")
	m := object(t, first)
	url, _ := m["url"].(string)
	if len(m) != 2 || m["event"] != "ready" || !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Fatalf("first line %q", first)
	}
	if body := get(t, url+"/transition/x"); !strings.Contains(body, `"name":"transition"`) {
		t.Errorf("%q", body)
	}
	if code := stop(); code != 0 {
		t.Errorf("drained with %d, want 0", code)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/transition", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("still serving")
	}
}

// night leaves the documents of a cycle that waits and one that was handed over, and
// points the environment variables at them.
func night(t *testing.T) {
	t.Helper()
	s := newSystem(t)
	s.start(local.Options{Clock: local.NewClock(time.Date(2026, 2, 3, 15, 40, 0, 0, time.UTC))})
	for _, processor := range []string{"upcoming_team_game_context", "upcoming_player_game_context", "roster\x1b[31m"} {
		s.report(map[string]any{"processor_name": processor, "game_date": "2026-02-03", "status": "success"})
	}
	s.stop()
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // status publishes nothing
}

func TestStatus_PrintsText(t *testing.T) {
	night(t)
	code, stdout, _ := command(t, "status", "--date", "2026-02-03")
	for _, part := range []string{"2026-02-03  same_day   published  2 of 2 complete\n", "batch 1  published  all_complete, 2 of 2 messages sent\n      upcoming_team_game_context@m0\n",
		"2026-02-03  overnight  ", `ignored: "roster\x1b[31m"`} {
		if code != 0 || !strings.Contains(stdout, part) {
			t.Errorf("%d, %q does not contain %q", code, stdout, part)
		}
	}
	if strings.Contains(stdout, "\x1b") {
		t.Errorf("a reported name writes to the terminal: %q", stdout)
	}
	if code, stdout, _ := command(t, "status", "--date", "2025-02-03"); code != 0 || stdout != "project phasegate-local, pipeline nba, environment this machine\nno completions are recorded for 2025-02-03\n  to report one: phasectl complete PROCESSOR yesterday --reason \"…\"; to show more days: phasectl status --days 30\nadopted on 2026-02-03; earlier days are not judged\nchecks of tables, messages and locks: phasectl health\n" {
		t.Errorf("%d %q", code, stdout)
	}
	if code, _, stderr := command(t, "status", "--date", "tomorrow"); code != 64 || !strings.Contains(stderr, "PERIOD") {
		t.Errorf("%d %q, want 64", code, stderr)
	}
}

func TestStatus_PrintsJSON(t *testing.T) {
	night(t)
	_, stdout, _ := command(t, "status", "--date", "2026-02-03", "--json")
	m := object(t, stdout)
	cycles, _ := m["cycles"].([]any)
	if since, _ := m["managed_since"].(map[string]any); since["phase3_to_phase4"] != "2026-02-03" {
		t.Errorf("%s", stdout)
	}
	if len(m) != 4 || m["schema"] != 1.0 || len(cycles) < 2 || m["ahead"] == nil {
		t.Fatalf("%s", stdout)
	}
	for _, c := range cycles {
		c := c.(map[string]any)
		delete(c, "next_check") // there only when something is due by time
		wantKeys(t, c, "cycle transition period mode state reason", "satisfied missing ignored batches")
		for _, b := range c["batches"].([]any) {
			b := b.(map[string]any)
			if messages, ok := b["messages"].(map[string]any); !ok || messages["upcoming_player_game_context"] == "" {
				t.Errorf("messages %v", b["messages"])
			}
			delete(b, "messages")
			delete(b, "n")
			wantKeys(t, b, "id cause actor reason state", "runs")
		}
	}
	if _, stdout, _ = command(t, "status", "--date", "2025-02-03", "--json"); stdout != `{"schema":1,"cycles":[],"ahead":[],"managed_since":{"phase3_to_phase4":"2026-02-03"}}`+"\n" {
		t.Errorf("no records: %q", stdout)
	}
}

// wantKeys checks that an object has exactly these strings and arrays, none null.
func wantKeys(t *testing.T, m map[string]any, strs, arrays string) {
	t.Helper()
	for _, key := range strings.Fields(strs) {
		if _, ok := m[key].(string); !ok {
			t.Errorf("%s is %#v, want a string", key, m[key])
		}
	}
	for _, key := range strings.Fields(arrays) {
		if _, ok := m[key].([]any); !ok {
			t.Errorf("%s is %#v, want an array", key, m[key])
		}
	}
	if want := len(strings.Fields(strs)) + len(strings.Fields(arrays)); len(m) != want {
		t.Errorf("%d keys in %v, want %d", len(m), m, want)
	}
}

// An environment with a prefix writes tables only if PHASEGATE_TABLES says so. The commands next to
// it need the same variable.
func TestEnv_SaysThatAnEnvironmentWithAPrefixWrites(t *testing.T) {
	vars := devcmd.Ready{Prefix: "dev-", Tables: "write"}.Variables()
	if out := fmt.Sprintln(vars[len(vars)-2], vars[len(vars)-1]); out != "export PHASEGATE_PREFIX='dev-' export PHASEGATE_TABLES='write'\n" {
		t.Errorf("%q", out)
	}
}

// A completion of a day before the adoption makes no cycle of the days in between overdue.
func TestStatus_NamesTheDateOfAdoptionAndJudgesNoEarlierDay(t *testing.T) {
	night(t)
	a, err := (&flags{}).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	tr := a.Pipeline.Transitions[0]
	if err := a.Engine.Relay(t.Context(), tr, "", nil); err != nil {
		t.Fatal(err)
	}
	c := wire.Completion{Processor: tr.Order[0], Reported: "x", Period: "2026-01-30", Status: wire.StatusSuccess, EventTime: time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC), ExecutionID: "x", CorrelationID: "x"}
	if err := a.Engine.Record(t.Context(), cycle.Key{Transition: tr, Period: c.Period}, c); err != nil {
		t.Fatal(err)
	}
	for _, day := range []string{"2026-01-31", "2026-02-01", "2026-02-02"} {
		if code, stdout, _ := command(t, "status", "--date", day); code != 0 || stdout != "project phasegate-local, pipeline nba, environment this machine\nno completions are recorded for "+day+"\n  to report one: phasectl complete PROCESSOR yesterday --reason \"…\"; to show more days: phasectl status --days 30\nadopted on 2026-02-03; earlier days are not judged\nchecks of tables, messages and locks: phasectl health\n" {
			t.Errorf("%s: %d %q", day, code, stdout)
		}
	}
	if code, stdout, _ := command(t, "status", "--date", "2026-01-30"); code != 0 || !strings.Contains(stdout, "2026-01-30  overnight") {
		t.Errorf("%d %q", code, stdout)
	}
}
