package wire_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/wire"
)

// exactly compares timestamps as the instants that they are.
var exactly = cmp.Comparer(func(a, b wire.Timestamp) bool { return time.Time(a).Equal(time.Time(b)) })

// trigger returns the contract's example with the fields that we add.
func trigger() wire.Trigger {
	coverage := 97.4
	return wire.Trigger{
		SourceTable: "player_game_summary", AnalysisDate: "2026-02-03", GameDate: "2026-02-03", Success: true,
		CorrelationID: "abc-123", TriggerSource: "orchestrator", TriggeredBy: "phase3_to_phase4_orchestrator",
		Timestamp:       wire.Timestamp(time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)),
		EntitiesChanged: map[string][]string{"players": {"lebronjames"}, "teams": {"LAL"}},
		Incremental:     true, Mode: "overnight", TriggerReason: "all_complete", FreshnessChecked: true, MinutesCoverage: &coverage,
		ParentExecution: "def-456", ParentProcessor: "Phase3Orchestrator",
		TriggerID: "phase3_to_phase4_2026-02-03_overnight~1/player_game_summary", Cycle: "phase3_to_phase4_2026-02-03_overnight", Batch: 1,
	}
}

func encoded(t *testing.T, trigger wire.Trigger) []byte {
	t.Helper()
	out, err := trigger.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTrigger_MatchesContract(t *testing.T) {
	out := encoded(t, trigger())
	golden(t, "trigger.golden.json", append(out, '\n'))
}

func TestTrigger_BeginsWithBytesOfContract(t *testing.T) {
	var example bytes.Buffer
	if err := json.Compact(&example, testdata(t, "phase4_trigger.json")); err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSuffix(example.String(), "}") + ","
	if got := string(encoded(t, trigger())); !strings.HasPrefix(got, want) {
		t.Errorf("%s\ndoes not begin with\n%s", got, want)
	}
}

func TestTrigger_FullRun(t *testing.T) {
	full := trigger()
	full.MinutesCoverage, full.Incremental = nil, false
	for name, entities := range map[string]map[string][]string{
		"nil": nil, "empty": {}, "empty_lists": {"players": {}, "teams": nil},
	} {
		full.EntitiesChanged = entities
		data := string(encoded(t, full))
		for _, part := range []string{`"entities_changed":{},`, `"minutes_coverage_pct":null,`, `"is_incremental":false,`} {
			if !strings.Contains(data, part) {
				t.Errorf("%s: %s does not contain %s", name, data, part)
			}
		}
	}
}

func TestTrigger_TextIsNotEscaped(t *testing.T) {
	odd := trigger()
	odd.CorrelationID = "<a&b>"
	data := encoded(t, odd)
	if !bytes.Contains(data, []byte(`"<a&b>"`)) || bytes.ContainsRune(data, '\n') {
		t.Errorf("%q", data)
	}
}

func TestTrigger_WithoutIdentityIsRefused(t *testing.T) {
	for field, spoil := range map[string]func(*wire.Trigger){
		"source_table":  func(t *wire.Trigger) { t.SourceTable = "" },
		"analysis_date": func(t *wire.Trigger) { t.AnalysisDate = "" },
		"game_date":     func(t *wire.Trigger) { t.GameDate = "" },
		"trigger_id":    func(t *wire.Trigger) { t.TriggerID = "" },
		"NaN":           func(t *wire.Trigger) { nan := math.NaN(); t.MinutesCoverage = &nan },
		"the year 10000": func(t *wire.Trigger) {
			t.Timestamp = wire.Timestamp(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
		},
		"source_table is empt": func(t *wire.Trigger) { *t = wire.Trigger{} },
	} {
		bad := trigger()
		spoil(&bad)
		if out, err := bad.Encode(); err == nil || !strings.Contains(err.Error(), field) || out != nil {
			t.Errorf("%s: error %v, data %s", field, err, out)
		}
	}
}

func TestDecodeTrigger_RoundTrips(t *testing.T) {
	for _, want := range []wire.Trigger{trigger(), {
		SourceTable: "t", AnalysisDate: "d", GameDate: "d", TriggerID: "i",
		Timestamp: wire.Timestamp(time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)), EntitiesChanged: map[string][]string{},
	}} {
		got, err := wire.DecodeTrigger(encoded(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, exactly); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestDecodeTrigger_RequiresFieldsOfCurrentReaders(t *testing.T) {
	for _, data := range []string{
		`{"source_table":"t","analysis_date":"2026-02-03","success":true}`,
		`{"source_table":"t","game_date":"2026-02-03","success":true,"Source_Table":"u","other":1}`,
		`{"source_table":"t","analysis_date":"2026-02-03","game_date":null,"success":true,"entities_changed":null}`,
	} {
		got, err := wire.DecodeTrigger([]byte(data))
		want := wire.Trigger{SourceTable: "t", AnalysisDate: "2026-02-03", GameDate: "2026-02-03", Success: true, EntitiesChanged: map[string][]string{}}
		if diff := cmp.Diff(want, got, exactly); err != nil || diff != "" {
			t.Errorf("%s: error %v (-want +got):\n%s", data, err, diff)
		}
	}
	for _, tc := range []struct{ data, field string }{
		{`{"analysis_date":"2026-02-03","success":true}`, "source_table"},
		{`{"source_table":"","analysis_date":"2026-02-03","success":true}`, "source_table"},
		{`{"Source_table":"t","analysis_date":"2026-02-03","success":true}`, "source_table"},
		{`{"source_table":"t","success":true}`, "analysis_date or game_date"},
		{`{"source_table":"t","analysis_date":"2026-02-03"}`, "success"},
		{`{"source_table":"t","analysis_date":"2026-02-03","success":null}`, "success"},
		{`{"source_table":"t","analysis_date":"2026-02-03","success":"yes"}`, "success"},
		{`{"source_table":5,"analysis_date":"2026-02-03","success":true}`, "source_table"},
		{`{"source_table":"t","analysis_date":"2026-02-03","success":true,"timestamp":"noon"}`, "timestamp"},
		{`{"source_table":"t","analysis_date":"2026-02-03","success":true,"timestamp":5}`, "timestamp"},
		{`[]`, "data"}, {``, "data"},
	} {
		_, err := wire.DecodeTrigger([]byte(tc.data))
		wantPermanent(t, err, tc.field)
	}
}

func TestTimestamp_IsWrittenAsInPython(t *testing.T) {
	east := time.FixedZone("", 2*3600)
	for want, at := range map[string]time.Time{
		`"2026-02-04T11:05:00.000000+00:00"`: time.Date(2026, 2, 4, 13, 5, 0, 0, east),
		`"2026-02-04T11:05:00.000001+00:00"`: time.Date(2026, 2, 4, 11, 5, 0, 1999, time.UTC),
	} {
		got, err := json.Marshal(wire.Timestamp(at))
		if err != nil || string(got) != want {
			t.Errorf("%s, error %v, want %s", got, err, want)
		}
	}
}

func TestTimestamp_RoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := time.UnixMicro(rapid.Int64Range(-62_000_000_000_000_000, 253_000_000_000_000_000).Draw(t, "µs")).UTC()
		written, err := json.Marshal(wire.Timestamp(want))
		if err != nil {
			t.Fatal(err)
		}
		var got wire.Timestamp
		if err := json.Unmarshal(written, &got); err != nil || time.Time(got) != want {
			t.Fatalf("%s: %v, error %v, want %v", written, time.Time(got), err, want)
		}
	})
}

func TestTrigger_BytesAreDeterministic(t *testing.T) {
	first := string(encoded(t, trigger()))
	for i := range 20 {
		if again := string(encoded(t, trigger())); again != first {
			t.Fatalf("time %d: %s", i, again)
		}
	}
}
