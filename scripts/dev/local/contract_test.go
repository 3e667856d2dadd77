package local

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

// golden is the message that Phase 4 receives for the players' summary, apart from its
// timestamp. Services in production read these bytes.
const golden = `{"source_table":"player_game_summary","analysis_date":"2026-02-03","game_date":"2026-02-03","success":true,` +
	`"correlation_id":"abc-123","trigger_source":"orchestrator","triggered_by":"phase3_to_phase4_orchestrator",` +
	`"timestamp":"TIMESTAMP","entities_changed":{"players":["lebronjames"]},` +
	`"is_incremental":true,"mode":"overnight","trigger_reason":"all_complete","data_freshness_verified":false,` +
	`"minutes_coverage_pct":null,"parent_execution_id":"def-456","parent_processor":"Phase3Orchestrator",` +
	`"trigger_id":"phase3_to_phase4_2026-02-03_overnight~1/player_game_summary",` +
	`"cycle":"phase3_to_phase4_2026-02-03_overnight","batch":1}`

func TestF04_TheMessageHasEveryFieldThatTheNextPhaseReads(t *testing.T) {
	onEachStore(t, func(t *testing.T, kind string) {
		w := newWorld(t, kind)
		w.phase4.answer = strict
		rs := morning()
		// The last one, so that all are complete when anything is handed over.
		players := done("PlayerGameSummaryProcessor", "2026-02-04 06:05", with("execution_id", "def-456"), with("correlation_id", "abc-123"),
			with("metadata", map[string]any{"is_incremental": true, "entities_changed": []string{"lebronjames"}}))
		w.atTime("2026-02-04 06:05", append(rs[1:], players)...)
		w.exhaust()

		got := w.phase4.deliveries()
		if len(got) != 5 || len(w.phase4.accepted()) != 5 {
			t.Fatalf("%d deliveries, %d taken, want 5 and none refused", len(got), len(w.phase4.accepted()))
		}
		for _, r := range got {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(r.Data, &fields); err != nil || len(fields) != 19 {
				t.Errorf("%s: %d fields, want the 16 of the contract and 3 of ours: %v", r.Data, len(fields), err)
			}
			id := "phase3_to_phase4_2026-02-03_overnight~1/" + r.Trigger.SourceTable
			want := map[string]string{"trigger_id": id, "cycle": "phase3_to_phase4_2026-02-03_overnight", "batch": "1"}
			if diff := cmp.Diff(want, r.Attributes); diff != "" {
				t.Errorf("%s: attributes (-want +got):\n%s", r.Trigger.SourceTable, diff)
			}
			if r.Trigger.SourceTable != pgs {
				continue
			}
			sent := time.Time(r.Trigger.Timestamp)
			if age := w.Clock.Now().Sub(sent); age < 0 || age > 10*time.Minute {
				t.Errorf("timestamp %s is %s old", sent, age)
			}
			stamp, err := json.Marshal(wire.Timestamp(sent))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(golden, strings.Replace(string(r.Data), string(stamp), `"TIMESTAMP"`, 1)); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		}
	})
}

// strict must refuse incomplete messages; otherwise the test above would always pass.
func TestStrictReader_RefusesMissingField(t *testing.T) {
	for data, want := range map[string]int{
		`{"source_table":"t","analysis_date":"2026-02-03","success":true}`:       http.StatusOK,
		`{"source_table":"t","game_date":"2026-02-03","success":false}`:          http.StatusOK,
		`{"analysis_date":"2026-02-03","game_date":"2026-02-03","success":true}`: http.StatusBadRequest,
		`{"source_table":"t","success":true}`:                                    http.StatusBadRequest,
		`{"source_table":"t","game_date":"2026-02-03"}`:                          http.StatusBadRequest,
		`nothing`: http.StatusBadRequest,
	} {
		if got := strict(1, received{Data: []byte(data)}); got != want {
			t.Errorf("%s: %d, want %d", data, got, want)
		}
	}
}
