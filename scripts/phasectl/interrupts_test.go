package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An interrupted range keeps the cycles that it has handed over, and names the command for the rest.
func TestTrigger_InterruptedProcessIsFinishedByTheCommandItNames(t *testing.T) {
	s := running(t)
	for _, date := range []string{"2026-02-01", "2026-02-02", "2026-02-03"} {
		s.night(date)
	}
	rest := []string{"--mode", "overnight", "--pace", "1h", "--reason", "backfilled"}
	cmd, g := (&desk{t: t}).process("", append([]string{"trigger", "--from", "2026-02-01", "--to", "2026-02-03"}, rest...)...)
	g.stdout.until(t, "2026-02-01 overnight: batch 2 of ", g.ended)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	g.end(t, 1, "stopped; go on with --from 2026-02-02 --to 2026-02-03")
	if strings.Contains(g.stdout.String(), "2026-02-02") {
		t.Errorf("%s", g.stdout)
	}
	rest[3] = "0s"
	want(t, 0, []string{"2026-02-02 overnight: batch 2 of ", "2026-02-03 overnight: batch 2 of "}, append([]string{"trigger", "--from", "2026-02-02", "--to", "2026-02-03"}, rest...)...)
	for _, date := range []string{"2026-02-01", "2026-02-02", "2026-02-03"} {
		if out := want(t, 0, []string{"batch 2  published"}, "status", date, "overnight"); strings.Contains(out, "batch 3") {
			t.Errorf("%s", out)
		}
	}
}

// An interrupted replay has replayed some messages. The others wait, and the same command replays them.
func TestQuarantineReplay_InterruptedProcessIsFinishedByTheSameCommand(t *testing.T) {
	s := running(t)
	s.report(completion(five[1], "2026-02-03"), completion(five[2], "2026-02-03"))
	for _, c := range []map[string]any{completion(five[0], "2026-02-03"), completion(five[3], "2026-02-03"), completion(five[4], "2026-02-03"), completion(five[0], "2026-02-02")} {
		c["phase"] = "legacy"
		s.report(c)
	}
	t.Setenv("PIPELINE_FILE", written(t, "phase_3_analytics", "legacy"))
	t.Setenv("PHASEGATE_CLAIM", "1s") // of the process that is interrupted, which publishes
	broker, asked := s.PubSub, make(chan struct{})
	t.Setenv("PUBSUB_EMULATOR_HOST", stuckBroker(t, broker, asked)) // the third completion leads to a hand-over
	args := []string{"quarantine", "replay", "--all", "--definition-differs", "--reason", "the phase is known now"}
	cmd, g := (&desk{t: t}).process("", args...)
	select {
	case <-asked:
	case code := <-g.ended:
		t.Fatalf("ended with %d\n%s%s", code, g.stdout, g.stderr)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	g.end(t, 2, ": accepted\n", "2 accepted, 0 refused, 1 failed", "stopped: what was done stays done, and the same command does the rest; 3 of 4 messages were tried")
	t.Setenv("PUBSUB_EMULATOR_HOST", broker)
	accepted := 0
	for began := time.Now(); accepted < 2 && time.Since(began) < time.Minute; { // until the claim has expired
		_, out, _ := command(t, args...)
		accepted += strings.Count(out, ": accepted\n")
	}
	if accepted != 2 {
		t.Errorf("%d accepted, want 2", accepted)
	}
	want(t, 0, []string{"overnight  published", "5 of 5 complete\n", "all_complete, 5 of 5 messages sent\n"}, "status", "2026-02-03", "overnight")
	want(t, 0, []string{"nothing is in quarantine\n"}, "quarantine", "list")
}

// stuckBroker forwards the calls between a client and a broker until the first trigger. It reports
// that one and then stops answering.
func stuckBroker(t *testing.T, broker string, asked chan<- struct{}) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	stuck := sync.OnceFunc(func() { close(asked) })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", broker)
			if err != nil {
				t.Error(err)
				client.Close()
				return
			}
			go func() {
				defer client.Close()
				_, _ = io.Copy(client, server)
			}()
			go func() {
				defer server.Close()
				for said := make([]byte, 1<<16); ; {
					n, err := client.Read(said)
					if bytes.Contains(said[:n], []byte("trigger_reason")) {
						stuck()
						<-t.Context().Done()
					}
					if _, writeErr := server.Write(said[:n]); err != nil || writeErr != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}
