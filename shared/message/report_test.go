package message_test

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/message"
)

func TestAReportIsReadAsItWasMeant(t *testing.T) {
	end := time.Date(2026, 2, 4, 11, 3, 12, 123456000, time.UTC)
	r := message.Report{ProcessorName: "player_game_summary", Phase: "phase_3_analytics", ExecutionID: "run-1", CorrelationID: "run-1", GameDate: "2026-02-03",
		OutputTable: "player_game_summary", OutputDataset: "nba_analytics", Status: message.StatusFailed, Timestamp: message.Timestamp(end),
		DurationSeconds: 28.9, TriggerSource: "phasectl run", ErrorType: "exit_status", ErrorMessage: "exit status 3",
		Metadata: message.ReportMetadata{IsIncremental: true}}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := message.DecodeCompletion(message.Envelope{MessageID: "m", PublishTime: end.Add(time.Second), Data: data}, nba(t))
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	if c.Processor != r.ProcessorName || c.Period != r.GameDate || c.Status != r.Status || c.EventTime != end || c.TimeSource != "" || c.ExecutionID != "run-1" ||
		c.IDSource != "" || *c.Duration != 28.9 || c.OutputTable != r.OutputTable || c.ErrorMessage != r.ErrorMessage || c.ErrorType != r.ErrorType || c.RecordCount != nil {
		t.Errorf("%+v", c)
	}
	if !c.Incremental || !c.Truncated {
		t.Errorf("something changed and nobody knows what: %+v", c)
	}
}

func TestAReportThatNobodyWouldTakeIsNotEncoded(t *testing.T) {
	_, err := message.Report{}.Encode()
	for _, want := range []string{"processor_name is empty", "game_date is empty", "status is empty", "execution_id is empty"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
