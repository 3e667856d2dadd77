package main

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

func TestHold_KeepsCycleOnHoldUntilRelease(t *testing.T) {
	s := running(t)
	want(t, 0, []string{"2026-02-03 overnight is on hold until ", `phasectl release 2026-02-03 overnight --reason`},
		"hold", "2026-02-03", "overnight", "--for", "6h", "--reason", "scores are wrong")
	s.night("2026-02-03")
	want(t, 0, []string{"2026-02-03  overnight  on_hold    on hold by " + actor(), "scores are wrong; 5 of 5 complete"}, "status", "--date", "2026-02-03")
	want(t, 0, []string{"is on_hold", "hold       by " + actor(), "fix        the cycle is on hold", "phasectl release 2026-02-03 overnight"}, "explain", "2026-02-03", "overnight")
	want(t, 1, []string{"refused: ", "it is on hold by " + actor() + ": scores are wrong"}, "trigger", "--date", "2026-02-03", "--mode", "overnight", "--reason", "x")
	want(t, 0, []string{"2026-02-03 overnight is released; it was on hold by " + actor()}, "release", "2026-02-03", "overnight", "--reason", "right now")
	want(t, 0, []string{"2026-02-03  overnight  published  5 of 5 complete"}, "status", "--date", "2026-02-03")
	want(t, 0, []string{"2026-02-03 overnight is not on hold\n  now published: 5 of 5 complete"}, "release", "2026-02-03", "overnight", "--reason", "again")

	want(t, 0, []string{"every cycle of phase3_to_phase4 is on hold until "}, "hold", "--for", "1h", "--reason", "Phase 4 is being deployed")
	want(t, 0, []string{"overnight is published", "what comes next is on hold by", "hold       by"}, "explain", "2026-02-03", "overnight")
	want(t, 0, []string{"in place of the hold by " + actor() + " until ", ": Phase 4 is being deployed"}, "hold", "--for", "2h", "--reason", "it takes longer")
	want(t, 0, []string{"2026-02-01 overnight is not on hold\n  now on_hold: on hold by " + actor() + " until "}, "release", "2026-02-01", "overnight", "--reason", "x")
	want(t, 0, []string{"every cycle of phase3_to_phase4 is released"}, "release", "--reason", "deployed")
	for action, times := range map[string]int{"hold": 3, "release": 2} {
		if n := s.audits(action); n != times {
			t.Errorf("%d audit records of %s, want %d", n, action, times)
		}
	}
}

// The relay does not evaluate old periods, so close itself must set the time of expiry.
func TestClose_LetsAnOldPeriodExpire(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "2026-02-03"))
	expires := func() bool {
		snap, err := s.App.Store.Get(t.Context(), store.Ref{Collection: "phase_periods", ID: "phase3_to_phase4_2026-02-03"})
		if err != nil || !snap.Docs[0].Exists {
			t.Fatalf("%+v, %v", snap, err)
		}
		_, ends := snap.Docs[0].Data[store.ExpiresAt].(time.Time)
		return ends
	}
	if expires() {
		t.Error("a period with an open cycle expires")
	}
	want(t, 0, []string{"is closed"}, "close", "2026-02-03", "overnight", "--reason", "cancelled")
	if !expires() {
		t.Error("a period whose only cycle is closed does not expire")
	}
}

func TestClose_EndsACycle(t *testing.T) {
	s := running(t)
	s.report(completion(five[0], "2026-02-03"))
	want(t, 64, []string{"--reason"}, "close", "2026-02-03", "overnight")
	want(t, 64, []string{"MODE is required:\n  phasectl close 2026-02-03 --reason=x --mode tomorrow\n  phasectl close 2026-02-03 --reason=x --mode same_day\n"}, "close", "2026-02-03", "--reason", "x")
	want(t, 0, []string{"2026-02-03 overnight is closed\n  now closed: closed by " + actor()}, "close", "2026-02-03", "overnight", "--reason", "cancelled")
	want(t, 0, []string{"2026-02-03 overnight was closed already, by " + actor()}, "close", "2026-02-03", "overnight", "--reason", "again")
	want(t, 0, []string{"is closed", "nothing; to hand it over in spite of that: phasectl trigger"}, "explain", "2026-02-03", "overnight")
}
