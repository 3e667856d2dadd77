package transition_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/functions/transition"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

var now = time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC) // 06:05 in New York

func handler(w *apptest.World) http.Handler {
	return transition.New(func(context.Context) (*app.App, error) { return w.App, nil })
}

// deliver posts a completion as Pub/Sub does.
func deliver(h http.Handler, path, id string, completion map[string]any) *httptest.ResponseRecorder {
	data, err := json.Marshal(completion)
	if err != nil {
		panic(err)
	}
	body := wire.Envelope{MessageID: id, PublishTime: now, Data: data}.Push()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body))))
	return rec
}

func completed(processor string) map[string]any {
	return map[string]any{"processor_name": processor, "game_date": "2026-02-03", "status": "success",
		"execution_id": processor, "timestamp": now.Format(time.RFC3339), "record_count": 348}
}

var five = []string{"PlayerGameSummaryProcessor", "TeamDefenseGameSummaryProcessor", "TeamOffenseGameSummaryProcessor",
	"AsyncUpcomingPlayerGameContextProcessor", "upcoming_team_game_context"}

func TestTransition_FiveCompletionsTriggerPhase(t *testing.T) {
	w := apptest.New(t, now)
	h := handler(w)
	for i, name := range five {
		if rec := deliver(h, "/", fmt.Sprint(i), completed(name)); rec.Code != 204 {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
	if rec := deliver(h, "/", "0", completed(five[0])); rec.Code != 204 {
		t.Errorf("a completion that was already handed over: %d, want 204", rec.Code)
	}
}

func TestF10_ARedeliveryOfARunAlreadyOnRecordStillTriggers(t *testing.T) {
	w := apptest.New(t, now)
	tr := w.Pipeline.Transitions[0]
	var last wire.Envelope
	for i, name := range five { // every one recorded, by tries that died right after it
		data, err := json.Marshal(completed(name))
		if err != nil {
			t.Fatal(err)
		}
		last = wire.Envelope{MessageID: fmt.Sprint(i), PublishTime: now, Data: data}
		c, _, err := wire.DecodeCompletion(last, tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Engine.Record(context.Background(), cycle.Key{Transition: tr, Period: c.Period}, c); err != nil {
			t.Fatal(err)
		}
	}
	body := strings.TrimSuffix(string(last.Push()), "}") + `,"deliveryAttempt":2}`
	rec := httptest.NewRecorder()
	handler(w).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
	if n := len(w.PubSub.Messages()); rec.Code != 204 || n != 5 {
		t.Errorf("answered %d, %d messages published, want 5", rec.Code, n)
	}
}

func TestTransition_UnknownIDIsSubscriptionErrorAndRetried(t *testing.T) {
	w := apptest.New(t, now)
	rec := deliver(handler(w), "/?transition=phase9", "1", completed(five[0]))
	if rec.Code != 503 || !strings.Contains(rec.Body.String(), `"phase9"`) || !strings.Contains(rec.Body.String(), "phase3_to_phase4") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := deliver(handler(w), "/?transition=phase3_to_phase4", "1", completed(five[0])); rec.Code != 204 {
		t.Errorf("named transition: %d %s", rec.Code, rec.Body)
	}
}

func TestTransition_LeavesActiveClaimToHolder(t *testing.T) {
	for name, tc := range map[string]struct {
		claimMessage string
		status       int
	}{
		"taken_for_another_message":   {"another", 204},
		"taken_for_this_very_message": {"mine", 429}, // its earlier try has died, or still runs
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			h := handler(w)
			for i, name := range five[:4] {
				deliver(h, "/", fmt.Sprint(i), completed(name))
			}
			// Four of five processors are in the grace period. Another worker has just claimed their batch.
			ref := store.Ref{Collection: "phase_triggers", ID: "phase3_to_phase4_2026-02-03_overnight~1"}
			_, err := w.Store.Apply(context.Background(), store.Merge(ref, store.F("someone", "holder"),
				store.F(store.ServerTime, "claimed_at"), store.F(60_000, "claim_ms"), store.F(tc.claimMessage, "claim_message")))
			if err != nil {
				t.Fatal(err)
			}
			if rec := deliver(h, "/", "mine", completed(five[4])); rec.Code != tc.status {
				t.Errorf("answered %d, want %d", rec.Code, tc.status)
			}
			if n := len(w.PubSub.Messages()); n != 0 {
				t.Errorf("%d messages published while another worker holds the claim", n)
			}
			w.SetNow(now.Add(61 * time.Second)) // the holder has died
			if rec := deliver(h, "/", "mine", completed(five[4])); rec.Code != 204 {
				t.Errorf("after the claim: %d", rec.Code)
			}
			if n := len(w.PubSub.Messages()); n != 5 {
				t.Errorf("%d messages published, want 5", n)
			}
		})
	}
}

func TestTransition_HostileNamesNeverBecomeFieldNames(t *testing.T) {
	w := apptest.New(t, now)
	h := handler(w)
	hostile := []string{"a.b.c", "_mode", "__name__", "a/b", strings.Repeat("x", 2000), "_completed_count", "pl\u0430yer_game_summary", "`", "batches", "\x00"}
	for i, name := range hostile {
		if rec := deliver(h, "/", fmt.Sprint(i), completed(name)); rec.Code != 204 {
			t.Errorf("%q: %d %s", name, rec.Code, rec.Body)
		}
	}
	if rec := deliver(h, "/", "empty", completed("")); rec.Code != 202 {
		t.Errorf("empty name: %d, want quarantine", rec.Code)
	}
	period := w.Doc(t, "phase_periods", "phase3_to_phase4_2026-02-03")
	if diff := cmp.Diff([]string{"expires_at", "unexpected"}, slices.Sorted(maps.Keys(period.Data))); diff != "" {
		t.Errorf("fields of the period (-want +got):\n%s", diff)
	}
	for key := range period.Data["unexpected"].(map[string]any) {
		if strings.Trim(key, "0123456789abcdef") != "" || len(key) != 16 {
			t.Errorf("field name %q is no hash", key)
		}
	}
	if doc := w.Doc(t, "phase3_completion", "2026-02-03"); doc.Exists {
		t.Errorf("projected: %v", doc.Data)
	}
}

func TestF46_AMessageWithoutADateIsQuarantinedAndAnsweredForGood(t *testing.T) {
	for name, edit := range map[string]func(map[string]any){
		"literal_date":    func(c map[string]any) { c["game_date"] = "TODAY" },
		"impossible_date": func(c map[string]any) { c["game_date"] = "2026-02-30" },
		"unknown_status":  func(c map[string]any) { c["status"] = "done" },
		"other_phase":     func(c map[string]any) { c["phase"] = "phase_2_raw" },
		"no_name":         func(c map[string]any) { delete(c, "processor_name") },
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			c := completed(five[0])
			edit(c)
			for range 3 {
				if rec := deliver(handler(w), "/", "7", c); rec.Code != 202 {
					t.Fatalf("answered %d", rec.Code)
				}
			}
			if !w.Doc(t, "quarantine", "7").Exists {
				t.Error("not in quarantine")
			}
			if n := len(w.Logs.Lines("severity", "ERROR")); n != 1 {
				t.Errorf("%d ERROR lines for one message, want 1", n)
			}
		})
	}
}

func TestTransition_TooManyEntitiesAreTruncated(t *testing.T) {
	w := apptest.New(t, now)
	c := completed(five[0])
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("player-%d", i)
	}
	c["metadata"] = map[string]any{"is_incremental": true, "entities_changed": names}
	if rec := deliver(handler(w), "/", "1", c); rec.Code != 204 {
		t.Fatalf("answered %d %s", rec.Code, rec.Body)
	}
	runs := w.Doc(t, "phase_periods", "phase3_to_phase4_2026-02-03").Data["runs"].(map[string]any)["player_game_summary"].(map[string]any)
	for _, value := range runs {
		run, err := wire.ParseCompletion(value.(string))
		if err != nil || len(run.Entities) != wire.MaxEntities || !run.Truncated {
			t.Errorf("%d entities, truncated %t: %v", len(run.Entities), run.Truncated, err)
		}
	}
	if n := len(w.Logs.Lines("severity", "WARNING")); n != 1 || len(runs) != 1 {
		t.Errorf("%d warnings, %d runs", n, len(runs))
	}
}
