package transition_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
)

func TestShadow_EvaluatesWithoutHandOver(t *testing.T) {
	w := apptest.New(t, now)
	h := handler(w)
	for i, name := range five {
		if rec := deliver(h, "/?shadow=1", fmt.Sprint(i), completed(name)); rec.Code != 204 {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	key := cycle.Key{Transition: w.Pipeline.Transitions[0], Period: "2026-02-03"}
	for books, want := range map[string]int{"shadow": 1, "active": 0} {
		engine := w.Engine
		if books == "shadow" {
			engine = w.Shadowed().Engine
		}
		ss, err := engine.Status(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		published := 0
		for _, s := range ss {
			if s.State == "published" {
				published++
			}
		}
		if published != want {
			t.Errorf("%s: %d cycles published, want %d: %+v", books, published, want, ss)
		}
	}
	if n := len(w.PubSub.Messages()); n != 0 {
		t.Errorf("%d messages published", n)
	}
	if n := len(w.Logs.Lines("event", "batch_published")); n != 0 {
		t.Errorf("%d lines that alerts take for a hand-over", n)
	}
	if n := len(w.Logs.Lines("shadow_event", "batch_published")); n != 1 {
		t.Errorf("%d lines of the shadow's hand-over, want 1", n)
	}
	// Decisions in shadow do not prevent the real hand-over.
	for i, name := range five {
		if rec := deliver(h, "/", fmt.Sprint(i), completed(name)); rec.Code != 204 {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d messages published, want 5", n)
	}
}

func TestShadow_InvalidMessageStaysInShadowState(t *testing.T) {
	for name, padding := range map[string]int{"small": 0, "too_large_for_a_document": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			c := completed(five[0])
			c["game_date"], c["error_message"] = "TODAY", strings.Repeat("x", padding)
			if rec := deliver(handler(w), "/?shadow=1", "7", c); rec.Code != 202 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
			if !w.Doc(t, "shadow_quarantine", "7").Exists || w.Doc(t, "quarantine", "7").Exists {
				t.Error("it is not in the shadow's quarantine alone")
			}
			if n := len(w.PubSub.Messages()); n != 0 {
				t.Errorf("%d messages published", n)
			}
			listed := func(a *app.App) (n int) {
				for _, err := range delivery.ListQuarantine(t.Context(), a) {
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
				return n
			}
			if active, shadow := listed(w.App), listed(w.Shadowed()); active != 0 || shadow != 1 {
				t.Errorf("listed: %d, in shadow %d", active, shadow)
			}
		})
	}
}

// A subscription set up with a wrong value must not be taken for an active one.
func TestShadow_UnknownValueIsRetriedUntilDeadLettered(t *testing.T) {
	w := apptest.New(t, now)
	if rec := deliver(handler(w), "/?shadow=yes", "1", completed(five[0])); rec.Code != 503 || !strings.Contains(rec.Body.String(), `?shadow="yes"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	for _, collection := range []string{"phase_periods", "shadow_phase_periods"} {
		if w.Doc(t, collection, "phase3_to_phase4_2026-02-03").Exists {
			t.Errorf("it was recorded in %s", collection)
		}
	}
}
