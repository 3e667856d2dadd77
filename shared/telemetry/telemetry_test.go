package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/telemetry"
)

func TestLog_LinesMatchCloudLogging(t *testing.T) {
	var b bytes.Buffer
	log, err := telemetry.New(&b, "debug")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("a")
	log.Info("b", "event", telemetry.BatchPublished, "seconds", 1.5)
	log.Warn("c")
	log.Error("d")
	want := []string{"DEBUG", "INFO", "WARNING", "ERROR"}
	dec := json.NewDecoder(&b)
	for i, severity := range want {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line["severity"] != severity || line["message"] != string(rune('a'+i)) || line["time"] == nil {
			t.Errorf("line %d: %v", i, line)
		}
		if severity == "INFO" && (line["event"] != "batch_published" || line["seconds"] != 1.5) {
			t.Errorf("attributes: %v", line)
		}
	}
}

func TestLog_LevelComesFromEnvironment(t *testing.T) {
	var b bytes.Buffer
	log, err := telemetry.New(&b, "")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("hidden")
	if b.Len() != 0 {
		t.Errorf("the default shows debug lines: %s", b.String())
	}
	if _, err := telemetry.New(&b, "loud"); err == nil {
		t.Error(`"loud" is accepted as a level`)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("closed") }

func TestLog_BrokenWriterFailsNoCaller(t *testing.T) {
	log, err := telemetry.New(broken{}, "")
	if err != nil {
		t.Fatal(err)
	}
	log.Error("into the void")
}

func TestLog_ShadowEventsHaveOtherName(t *testing.T) {
	var b bytes.Buffer
	log, err := telemetry.New(&b, "")
	if err != nil {
		t.Fatal(err)
	}
	telemetry.InShadow(log).With("function", "transition").Error("overdue", "event", telemetry.CycleOverdue, "mode", "overnight")
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["event"] != nil || line["shadow_event"] != "cycle_overdue" || line["mode"] != "overnight" || line["function"] != "transition" ||
		line["severity"] != "ERROR" || line["message"] != "overdue" || line["time"] == nil {
		t.Errorf("%v", line)
	}
}

// A line that Cloud Logging would drop is cut: what alerts read stays, and the line says what
// it has lost.
func TestLog_CutsLongLines(t *testing.T) {
	many := make([]string, 5588)
	for i := range many {
		many[i] = strings.Repeat("<é>", 60)
	}
	deep := map[string]any{}
	for i := range 5000 {
		deep[fmt.Sprintf("key %04d", i)] = many[:50]
	}
	for name, value := range map[string]any{"list": many, "text": strings.Repeat("é<", 400_000), "map": deep} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			log, err := telemetry.New(&b, "")
			if err != nil {
				t.Fatal(err)
			}
			log.Warn(strings.Repeat("m", 300_000), "event", telemetry.Finding, "check", "hand_overs", "state", "failing", "n", 1<<60, "evidence", value)
			log.Info("the next")
			line, next, _ := strings.Cut(b.String(), "\n")
			if len(line) >= 256_000 || !strings.Contains(next, "the next") {
				t.Fatalf("%d bytes, then %q", len(line), next)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err)
			}
			if got["severity"] != "WARNING" || got["event"] != "finding" || got["check"] != "hand_overs" || got["state"] != "failing" || !strings.Contains(line, `"n":1152921504606846976`) || !strings.Contains(line, " more") {
				t.Errorf("%.2000s", line)
			}
		})
	}
}
