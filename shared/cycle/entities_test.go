package cycle

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// wired sends a report over the wire, as a function gets it, and returns the payload of
// the last message to the next phase.
func (w *world) wired(report []byte, at time.Time) string {
	w.t.Helper()
	w.clock.set(at)
	w.msgs++
	c, _, err := wire.DecodeCompletion(wire.Envelope{MessageID: fmt.Sprint("m", w.msgs), PublishTime: at, Data: report}, w.tr)
	if err != nil {
		w.t.Fatal(err)
	}
	sent := ""
	publish := w.engine.Publish
	w.engine.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
		sent = string(msgs[len(msgs)-1].Data)
		return publish(ctx, topic, msgs)
	}
	w.mustDeliver(c)
	w.engine.Publish = publish
	return sent
}

func players(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("player-", i)
	}
	return names
}

// A truncated list of entities looks complete, and consumers would not update the missing
// ones. So if a run names more entities than are kept, its hand-over is a full one.
func TestHandOver_IsFullWhereEntitiesAreMissing(t *testing.T) {
	ours := func(n int) []byte {
		rows := int64(100)
		r := wire.Report{ProcessorName: pgs, GameDate: "2026-02-03", ExecutionID: "second", Status: wire.StatusSuccess,
			Timestamp: wire.Timestamp(at("2026-02-04 07:10")), RecordCount: &rows, Metadata: wire.Changed(players(n))}
		data, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	theirs := func(n int) []byte {
		data, err := json.Marshal(map[string]any{"processor_name": pgs, "game_date": "2026-02-03", "execution_id": "second", "status": "success",
			"timestamp": at("2026-02-04 07:10"), "record_count": 100, "metadata": map[string]any{"is_incremental": true, "entities_changed": players(n)}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, tc := range map[string]struct {
		report      []byte
		incremental bool
		kept        int
	}{
		"200_names":                        {theirs(200), true, 200},
		"201_names":                        {theirs(201), false, 200},
		"20000_names":                      {theirs(20_000), false, 200},
		"200_names_of_a_processor_in_go":   {ours(200), true, 200},
		"201_names_of_a_processor_in_go":   {ours(201), false, 0},
		"20000_names_of_a_processor_in_go": {ours(20_000), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.ready()
			w.converge("2026-02-03")
			payload := w.wired(tc.report, at("2026-02-04 07:10")) // the same count as before: only the entities are new
			want := []string{`"is_incremental":false`, `"entities_changed":{}`}
			if tc.incremental {
				want = []string{`"is_incremental":true`, `"entities_changed":{"players":["player-0",`}
			}
			for _, part := range want {
				if !strings.Contains(payload, part) {
					t.Errorf("no %s in the trigger %.300s", part, payload)
				}
			}
			runs := w.doc("phase_periods", "phase3_to_phase4_2026-02-03").Data["runs"].(map[string]any)[pgs].(map[string]any)
			for _, v := range runs {
				c, err := wire.ParseCompletion(v.(string))
				if err != nil {
					t.Fatal(err)
				}
				if c.ExecutionID == "second" && (len(c.Entities) != tc.kept || c.Truncated == tc.incremental) {
					t.Errorf("%d names are stored, truncated %t", len(c.Entities), c.Truncated)
				}
			}
			shown := w.projection()[pgs].(map[string]any)
			if shown["is_incremental"] != tc.incremental || len(shown["entities_changed"].([]any)) != tc.kept {
				t.Errorf("the document shows %d names, incremental %v", len(shown["entities_changed"].([]any)), shown["is_incremental"])
			}
		})
	}
}
