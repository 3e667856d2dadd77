package main

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
)

func TestHealth_ExitStatusReflectsState(t *testing.T) {
	s := running(t)
	// There is no warehouse: nothing is failing, and not everything is known.
	want(t, 2, []string{"unknown  tracking_accuracy", "no BigQuery is configured", "unknown  hand_overs", "ok       dead_letters",
		"\nunknown: 4 ok, 0 failing, 12 unknown\n"}, "health")
	code, stdout, _ := command(t, "health", "--json")
	m := object(t, stdout)
	if code != 2 || m["schema"] != 1.0 || m["overall"] != "unknown" || len(m["checks"].([]any)) != 16 {
		t.Errorf("%d %s", code, stdout)
	}
	want(t, 2, []string{"ok       dead_letters         none in 5 subscriptions"}, "health", "--verbose", "--date", "2026-02-03")
	if _, err := s.App.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	s.Clock.AdvanceTo(s.Clock.Now().Add(31 * time.Minute)) // its process died
	if code, stdout, stderr := command(t, "health"); code != 1 || !strings.Contains(stderr, "check is failing") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
}
