package local

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

// checked is a world with a warehouse of its own.
func checked(t *testing.T, days ...sample.Day) (*world, *warehousetest.World) {
	t.Helper()
	wh := warehousetest.NBA(t, days...)
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte(wh.Definition()), 0o600); err != nil {
		t.Fatal(err)
	}
	return newWorld(t, "sqlite", func(o *Options) {
		o.Config.BigQueryHost, o.Config.PipelineFile, o.Config.Project = wh.Host, file, wh.Project
	}), wh
}

func TestRelay_HandsOverBlockedCycleWhenDataArrives(t *testing.T) {
	w, wh := checked(t, sample.Day{Date: night, Games: 10, Players: 35, Minutes: 25, Context: 30})
	w.atTime("2026-02-04 06:05", morning()...)
	const why = "readiness fail: minutes_coverage_pct is 71.43, blocks when < 80"
	if s := w.status("overnight"); s.State != "blocked" || s.Reason != why || len(w.phase4.deliveries()) != 0 {
		t.Fatalf("%s: %s; %d deliveries", s.State, s.Reason, len(w.phase4.deliveries()))
	}
	w.send("phasegate-reconcile", wire.Outgoing{Data: []byte(`{"job":"verify"}`)}) // the job succeeds and leaves a heartbeat
	w.settle()
	status, err := w.App.Store.Get(t.Context(), store.Ref{Collection: "function_status", ID: "reconcile"})
	if err != nil {
		t.Fatal(err)
	}
	if beats, _ := status.Docs[0].Data["heartbeats"].(map[string]any); beats["verify"] == nil {
		t.Errorf("no heartbeat: %v", status.Docs[0].Data)
	}
	wh.Exec("UPDATE nba_analytics.player_game_summary SET minutes_played = 0 WHERE game_date = '2026-02-03' AND minutes_played IS NULL")
	w.relay("2026-02-04 06:09")
	if s := w.status("overnight"); s.State != "blocked" {
		t.Errorf("before its next attempt: %s", s.State)
	}
	w.relay("2026-02-04 06:11")
	w.wantPublishedOnce("overnight")
	w.wantHandedOver("overnight", five...)
	for _, r := range w.phase4.accepted() {
		if r.Trigger.MinutesCoverage == nil || *r.Trigger.MinutesCoverage != 100 || !r.Trigger.FreshnessChecked {
			t.Errorf("%s: minutes %v, verified %t", r.Trigger.SourceTable, r.Trigger.MinutesCoverage, r.Trigger.FreshnessChecked)
		}
	}
	got, err := w.App.Store.Get(t.Context(), store.Ref{Collection: "phase_triggers", ID: "phase3_to_phase4_2026-02-03_overnight~1"})
	if err != nil {
		t.Fatal(err)
	}
	if kept, _ := got.Docs[0].Data["readiness"].(string); !strings.Contains(kept, `"name":"minutes_coverage_pct","state":"pass","value":100,`) {
		t.Errorf("the trigger keeps %q", kept)
	}
}

// F17, end to end: if a column is missing, the check is unknown, it is logged, and nothing is handed over.
func TestReadiness_RenamedColumnBlocksAndIsReported(t *testing.T) {
	w, wh := checked(t, sample.Day{Date: night, Games: 10, Players: 35, Minutes: 35, Context: 30})
	wh.Exec("CREATE TABLE nba_analytics.other AS SELECT * EXCEPT (minutes_played), minutes_played AS minutes FROM nba_analytics.player_game_summary",
		"DROP TABLE nba_analytics.player_game_summary",
		"CREATE TABLE nba_analytics.player_game_summary AS SELECT * FROM nba_analytics.other")
	w.atTime("2026-02-04 06:05", morning()...)
	s := w.status("overnight")
	if s.State != "blocked" || !strings.HasPrefix(s.Reason, "readiness unknown: minutes_coverage_pct unknown: ") || len(w.phase4.deliveries()) != 0 {
		t.Errorf("%s: %s; %d deliveries", s.State, s.Reason, len(w.phase4.deliveries()))
	}
	if n := w.logs.count(`"event":"` + telemetry.CheckUnknown + `","check":"minutes_coverage_pct"`); n != 1 {
		t.Errorf("%d lines about it", n)
	}
}

func TestReadiness_DateWithoutGamesClosesAndRowsReopenIt(t *testing.T) {
	w, _ := checked(t, sample.Day{Date: "2026-02-02", Games: 4, Players: 35, Minutes: 35, Context: 30}) // none on 2026-02-03
	w.atTime("2026-02-03 10:35", done(upg, "2026-02-03 10:35", with("record_count", 0)), done(utg, "2026-02-03 10:35", with("record_count", 0)))
	if s := w.status("same_day"); s.State != "closed" {
		t.Fatalf("%s: %s", s.State, s.Reason)
	}
	w.relay("2026-02-04 10:05")
	if s := w.status("overnight"); s.State != "closed" {
		t.Errorf("overnight: %s: %s", s.State, s.Reason)
	}
	if n := w.logs.count(`"event":"` + telemetry.CycleOverdue + `"`); n != 0 {
		t.Errorf("%d alerts that a cycle is overdue, want none", n)
	}
	w.atTime("2026-02-04 10:20", done(upg, "2026-02-03 12:00", with("record_count", 10)))
	if s := w.status("same_day"); s.State == "closed" || len(s.Batches) == 0 {
		t.Errorf("a run with rows: %s, %s", s.State, s.Reason)
	}
}

func TestBigQuery_RunsAndEndsWithEnvironment(t *testing.T) {
	program := emulatortest.BigQuery(t)
	w := newWorld(t, "memory", func(o *Options) { o.BigQuery = program })
	if w.BigQuery == "" || w.App.Config.BigQueryHost != w.BigQuery {
		t.Fatalf("BigQuery at %q, the functions ask %q", w.BigQuery, w.App.Config.BigQueryHost)
	}
	if host, _, err := net.SplitHostPort(w.BigQuery); err != nil || host != "127.0.0.1" {
		t.Errorf("listens on %s: %v", w.BigQuery, err)
	}
	wh := warehouse.New("a-project", w.BigQuery)
	defer wh.Close()
	client, err := wh.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := (sample.Data{Client: client}).Create(t.Context()); err != nil {
		t.Errorf("a project exists once it is named: %v", err)
	}
	address := w.BigQuery
	if err := w.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// Sweeps and fenced writes need BigQuery as well.
func TestBigQuery_IsStartedWithoutChecks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	before, rest, _ := strings.Cut(string(pipeline.Default()), "    checks:\n")
	_, after, _ := strings.Cut(rest, "\n# Jobs")
	if err := os.WriteFile(file, []byte(before+"\n# Jobs"+after), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Config: app.Config{Project: "test", PipelineFile: file}, Clock: NewClock(time.Time{}), BigQuery: "/bin/false"})
	if err == nil || !strings.Contains(err.Error(), "start BigQuery: /bin/false") {
		t.Error(err)
	}
}

func TestBigQuery_FailedStartIsError(t *testing.T) {
	for _, program := range []string{"/no/such/program", "/bin/false", "/bin/echo"} {
		b, err := startBigQuery(t.Context(), program, 0)
		if err == nil || b != nil || !strings.Contains(err.Error(), program) {
			t.Errorf("%s: %v", program, err)
		}
	}
}

func TestBigQuery_EndsOnSignalOrClosedInput(t *testing.T) {
	program := emulatortest.BigQuery(t)
	for name, end := range map[string]func(cmd *exec.Cmd, input interface{ Close() error }) error{
		"stdin_closed": func(_ *exec.Cmd, input interface{ Close() error }) error { return input.Close() },
		"SIGTERM":      func(cmd *exec.Cmd, _ interface{ Close() error }) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		cmd := exec.Command(program)
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, `"event":"ready"`) {
			t.Errorf("%s: first line %q: %v", name, line, err)
		}
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		if err := errors.Join(end(cmd, input), cmd.Wait()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		kill.Stop()
	}
	// The parent dies while another process holds the standard input open.
	hold, err := os.CreateTemp(t.TempDir(), "fifo")
	if err != nil {
		t.Fatal(err)
	}
	fifo := hold.Name() + ".in"
	if err := errors.Join(hold.Close(), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	parent := exec.Command("/bin/sh", "-c", `"$1" <"$2" & wait`, "parent", program, fifo)
	parent.Stdout = write
	if err := errors.Join(parent.Start(), write.Close()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(read)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"event":"ready"`) {
		t.Errorf("first line %q: %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	if err := read.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the emulator outlives the process that started it")
	}
}
