package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestReport_RoundTrips(t *testing.T) {
	end := time.Date(2026, 2, 4, 11, 3, 12, 123456000, time.UTC)
	r := wire.Report{ProcessorName: "player_game_summary", Phase: "phase_3_analytics", ExecutionID: "run-1", CorrelationID: "run-1", GameDate: "2026-02-03",
		OutputTable: "player_game_summary", OutputDataset: "nba_analytics", Status: wire.StatusFailed, Timestamp: wire.Timestamp(end),
		DurationSeconds: 28.9, TriggerSource: "phasectl run", ErrorType: "exit_status", ErrorMessage: "exit status 3",
		Metadata: wire.ReportMetadata{IsIncremental: true}}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := wire.DecodeCompletion(wire.Envelope{MessageID: "m", PublishTime: end.Add(time.Second), Data: data}, nba(t))
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	if c.Processor != r.ProcessorName || c.Period != r.GameDate || c.Status != r.Status || c.EventTime != end || c.TimeSource != "" || c.ExecutionID != "run-1" ||
		c.IDSource != "" || *c.Duration != 28.9 || c.OutputTable != r.OutputTable || c.ErrorMessage != r.ErrorMessage || c.ErrorType != r.ErrorType || c.RecordCount != nil {
		t.Errorf("%+v", c)
	}
	if !c.Incremental || !c.Truncated {
		t.Errorf("the report does not say that its changed entities are unknown: %+v", c)
	}
}

func TestReport_InvalidIsNotEncoded(t *testing.T) {
	_, err := wire.Report{}.Encode()
	for _, want := range []string{"processor_name is empty", "game_date is empty", "status is empty", "execution_id is empty"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestReport_SaysThatItNamesNotAllEntities(t *testing.T) {
	names := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint("e", i)
		}
		return out
	}
	for name, tc := range map[string]struct {
		entities               []string
		incremental, truncated bool
		named                  int
	}{
		"all":                         {nil, false, false, 0},
		"200":                         {names(200), true, false, 200},
		"201":                         {names(201), false, true, 0},
		"a_name_that_no_reader_takes": {append(names(2), ""), false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := wire.Report{ProcessorName: "player_game_summary", ExecutionID: "e", GameDate: "2026-02-03", Status: wire.StatusSuccess,
				Timestamp: wire.Timestamp(time.Date(2026, 2, 4, 11, 0, 0, 0, time.UTC)), Metadata: wire.Changed(tc.entities)}
			data, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			c, warnings := decode(t, string(data))
			wantWarnings(t, warnings)
			if c.Incremental != tc.incremental || c.Truncated != tc.truncated || len(c.Entities) != tc.named {
				t.Errorf("read as incremental %t, truncated %t, with %d entities", c.Incremental, c.Truncated, len(c.Entities))
			}
		})
	}
}
