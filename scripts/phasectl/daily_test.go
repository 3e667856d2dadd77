package main

import (
	"os"
	"strings"
	"testing"
)

func TestDaily_CombinesHealthReconcileAndDrift(t *testing.T) {
	running(t)
	sound(driftHash).serve(t)
	dir := checkout(t, driftHash)
	of := os.Args // the parts have arguments of their own, not those of the process
	os.Args = []string{"phasectl", "daily", "--source", dir}
	t.Cleanup(func() { os.Args = of })
	// There is no warehouse: nothing is known of tables, by health and by reconciliation.
	want(t, 2, []string{"Health\n", "unknown  tracking_accuracy", "\nReconciliation\n", "\nDrift\nSTATE  CHECK\nok  function phasegate-health\n  source " + driftHash, "\nok: nothing differs\n\nunknown\n"}, "daily", "--source", dir)
	code, stdout, stderr := command(t, "daily", "--source", dir, "--days", "3", "--json")
	m := object(t, stdout)
	if code != 2 || m["schema"] != 1.0 || m["overall"] != "unknown" || !strings.Contains(stderr, "health: ") || !strings.Contains(stderr, "reconcile: ") || strings.Contains(stderr, "drift: ") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	for name, field := range map[string]string{"health": "checks", "reconcile": "findings", "drift": "checks"} {
		part, ok := m[name].(map[string]any)
		if _, has := part[field].([]any); !ok || !has || part["schema"] != 1.0 {
			t.Errorf("%s: %v", name, m[name])
		}
	}
	// One failing part makes the result failing, even if others are unknown; the others still run.
	sound("ffffffffffff").serve(t)
	want(t, 1, []string{"failing  function phasegate-health\n  source ffffffffffff", "\n\nfailing\n"}, "daily", "--source", dir)
	// A part that cannot run is reported on stderr, and the others still run.
	code, stdout, stderr = command(t, "daily", "--source", t.TempDir(), "--json")
	if m := object(t, stdout); code != 2 || m["drift"] != nil || m["health"] == nil || !strings.Contains(stderr, "is no checkout") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
}
