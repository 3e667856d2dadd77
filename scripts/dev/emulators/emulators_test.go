package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// playing starts everything and returns when the command runs.
func playing(t *testing.T) (p *process, emulators []actor, command actor) {
	t.Helper()
	s := newStage(t, fakeGcloud)
	p = s.run()
	return p, s.enter(2), s.enter(1)[0]
}

func TestEmulators_RunWithCommandAndReturnItsStatus(t *testing.T) {
	for _, code := range []int{0, 3} {
		p, emulators, command := playing(t)
		for _, e := range emulators {
			want := command.Firestore
			if e.pubsub() {
				want = command.PubSub
			}
			if !strings.Contains(strings.Join(e.Args, " ")+" ", "--host-port="+want+" ") {
				t.Errorf("the emulator started with %v, the environment of the command has %q", e.Args, want)
			}
		}
		if emulators[0].pubsub() == emulators[1].pubsub() {
			t.Errorf("one of each: %v", emulators)
		}
		if got := strings.Join(command.Args, " "); got != "first -second" {
			t.Errorf("arguments %q", got)
		}
		command.end(t, code)
		p.want(code)
		for _, e := range emulators {
			e.gone(t)
		}
	}
}

func TestEmulators_SignalEndsEverything(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p, emulators, command := playing(t)
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.want(50 + int(sig)) // what the command makes of it
		command.gone(t)
		for _, e := range emulators {
			e.gone(t)
		}
	}
}

func TestEmulators_KilledParentEndsEverything(t *testing.T) {
	s := newStage(t, fakeGcloud)
	s.parent = `"$@" & wait`
	p := s.run()
	all := append(s.enter(2), s.enter(1)...)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		a.gone(t)
	}
}

func TestEmulators_SignalDuringStartEndsThem(t *testing.T) {
	s := newStage(t, strings.Replace(fakeGcloud, "PART=emulator", "PART=mute", 1))
	p := s.run()
	emulators := s.enter(2)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.want(exitSignal + int(syscall.SIGTERM))
	for _, e := range emulators {
		e.gone(t)
	}
}

func TestEmulators_DeadEmulatorEndsCommand(t *testing.T) {
	p, emulators, command := playing(t)
	if err := syscall.Kill(emulators[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.want(exitFailed, "emulator died", "gcloud speaking")
	command.gone(t)
	for _, e := range emulators {
		e.gone(t)
	}
}

func TestEmulators_FailedStartEndsOtherAndShowsLog(t *testing.T) {
	s := newStage(t, strings.Replace(fakeGcloud, "PART", "test $1 = beta && echo 'no Java' && exit 1\nPART", 1))
	p := s.run()
	p.want(exitFailed, "the Pub/Sub emulator ended while it started", "no Java")
	if len(s.actors) > 0 {
		s.enter(1)[0].gone(t)
	}
}

func TestEmulators_AddressFromEnvironmentIsUsed(t *testing.T) {
	s := newStage(t, fakeGcloud)
	s.env = []string{"FIRESTORE_EMULATOR_HOST=127.0.0.1:7"}
	p := s.run()
	e, command := s.enter(1)[0], s.enter(1)[0]
	if !e.pubsub() || command.Firestore != "127.0.0.1:7" || command.PubSub == "" {
		t.Errorf("the emulator started with %v, the environment of the command is %+v", e.Args, command)
	}
	command.end(t, 0)
	p.want(0)
	e.gone(t)

	s = newStage(t, "")
	s.env = []string{"FIRESTORE_EMULATOR_HOST=127.0.0.1:7", "PUBSUB_EMULATOR_HOST=127.0.0.1:8", "REQUIRE_EMULATORS=1"}
	p = s.run()
	command = s.enter(1)[0]
	if command.Firestore != "127.0.0.1:7" || command.PubSub != "127.0.0.1:8" {
		t.Errorf("the environment of the command is %+v, want both addresses as they were", command)
	}
	command.end(t, 0)
	p.want(0)
}

func TestEmulators_CommandRunsWithoutGcloud(t *testing.T) {
	s := newStage(t, "")
	p := s.run()
	command := s.enter(1)[0]
	if command.Firestore != "" || command.PubSub != "" {
		t.Errorf("the environment of the command is %+v, want no emulators", command)
	}
	command.end(t, 4)
	p.want(4, "gcloud is not installed: tests that need the emulators are skipped")
}

func TestEmulators_CommandRunsWithoutComponent(t *testing.T) {
	s := newStage(t, "")
	bin := filepath.Join(s.path, "sdk", "bin")
	for _, dir := range []string{bin, filepath.Join(s.path, "sdk", "platform", "cloud-firestore-emulator")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "gcloud"), []byte(fakeGcloud), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(bin, "gcloud"), filepath.Join(s.path, "gcloud")); err != nil {
		t.Fatal(err)
	}
	p := s.run()
	s.enter(1)[0].end(t, 0)
	p.want(0, "gcloud has no Pub/Sub emulator (component pubsub-emulator)")
}

func TestEmulators_RequiredGcloudMissingRunsNothing(t *testing.T) {
	s := newStage(t, "")
	s.env = []string{"REQUIRE_EMULATORS=1"}
	s.run().want(exitFailed, "gcloud is not installed, and REQUIRE_EMULATORS=1")
	if len(s.actors) > 0 {
		t.Error("the command ran")
	}
}

func TestEmulators_BuiltBigQueryRunsWithCommand(t *testing.T) {
	s := newStage(t, "")
	s.build(fakeBqemu)
	s.env = []string{"FIRESTORE_EMULATOR_HOST=" + elsewhere, "PUBSUB_EMULATOR_HOST=" + elsewhere, "PATH=/usr/bin:/bin", "REQUIRE_EMULATORS=1"}
	p := s.run()
	e, command := s.enter(1)[0], s.enter(1)[0]
	if _, port, _ := strings.Cut(command.BigQuery, "127.0.0.1:"); port == "" || strings.Join(e.Args, " ") != "--port="+port {
		t.Errorf("the emulator started with %v, the environment of the command has %q", e.Args, command.BigQuery)
	}
	if want := filepath.Join(s.path, "build", "bqemu"); command.Program != want {
		t.Errorf("the program is %q, want %q", command.Program, want)
	}
	command.end(t, 0)
	p.want(0)
	e.gone(t)

	// If all emulators run elsewhere, none is started, and the command still gets the path of bqemu.
	s = newStage(t, "")
	s.build(fakeBqemu)
	s.env = []string{"FIRESTORE_EMULATOR_HOST=" + elsewhere, "PUBSUB_EMULATOR_HOST=" + elsewhere, "BIGQUERY_EMULATOR_HOST=" + elsewhere}
	p = s.run()
	command = s.enter(1)[0]
	if want := filepath.Join(s.path, "build", "bqemu"); command.Program != want || command.BigQuery != elsewhere {
		t.Errorf("the environment of the command is %+v, want the program %q", command, want)
	}
	command.end(t, 0)
	p.want(0)
}

func TestEmulators_OthersRunWithoutBigQuery(t *testing.T) {
	s := newStage(t, fakeGcloud)
	s.build("")
	p := s.run()
	emulators, command := s.enter(2), s.enter(1)[0]
	if command.Firestore == "" || command.PubSub == "" || command.BigQuery != "" || command.Program != "" {
		t.Errorf("the environment of the command is %+v, want Firestore and Pub/Sub without BigQuery", command)
	}
	command.end(t, 0)
	p.want(0, "build/bqemu is not built (make build/bqemu): tests that need the emulators are skipped")
	for _, e := range emulators {
		e.gone(t)
	}

	s = newStage(t, fakeGcloud)
	s.build("")
	s.env = []string{"REQUIRE_EMULATORS=1"}
	s.run().want(exitFailed, "build/bqemu is not built (make build/bqemu), and REQUIRE_EMULATORS=1")
	if len(s.actors) > 0 {
		t.Error("something ran")
	}
}

func TestEmulators_WrongUsageIsRefused(t *testing.T) {
	newStage(t, fakeGcloud).run("--").want(exitUsage, "usage")
	newStage(t, fakeGcloud).run("no-such-command").want(exitNotFound, "no-such-command")
}
