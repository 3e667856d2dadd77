//go:build unix && !race

package simulation

import (
	"flag"
	"testing"

	"github.com/phasegate/phasegate/shared/mutanttest"
)

var all = flag.Bool("sim.mutants", false, "TestMutantsAreCaught plays the mutants")

// TestMutantsAreCaught proves that the simulation notices faults of the functions, of delivery, the relay,
// reconciliation, the shadow and the calendar.
func TestMutantsAreCaught(t *testing.T) {
	if !*all {
		t.Skip("compiles the functions with their mutants and plays each for seconds; make test-all does that")
	}
	mutanttest.Caught(t, mutants, 400, 50)
}

var mutants = []mutanttest.Mutant{
	{Name: "heartbeat_of_a_failed_relay", Seed: 3, File: "../../../functions/reconcile/reconcile.go",
		From: `	if err := errors.Join(err, unnamed); err != nil {`,
		To:   `	if err := errors.Join(err, unnamed); err != nil && !mutant("heartbeat_of_a_failed_relay") {`},
	{Name: "nightly_lock_left", Seed: 1, File: "../../../functions/reconcile/reconcile.go",
		From: `	if released := held.Release(after); released != nil {`,
		To: `	if mutant("nightly_lock_left") {
		return a.Heartbeat(ctx, "reconcile", wire.JobNightly)
	}
	if released := held.Release(after); released != nil {`},
	{Name: "nightly_tokens_left", Seed: 1, File: "../../../functions/reconcile/reconcile.go",
		From: `	err = errors.Join(err, held.Settle(`,
		To: `	if mutant("nightly_tokens_left") {
		return errors.Join(err, held.Release(after), a.Heartbeat(ctx, "reconcile", wire.JobNightly))
	}
	err = errors.Join(err, held.Settle(`},
	{Name: "job_always_superseded", Seed: 1, File: "../../../shared/delivery/periodic.go",
		From: `	if olderThan(ctx, a, e, interval) {
		return superseded(slog.LevelWarn, "it was not run`,
		To: `	if olderThan(ctx, a, e, interval) || mutant("job_always_superseded") {
		return superseded(slog.LevelWarn, "it was not run`},
	{Name: "quarantine_keeps_nothing", Seed: 1, File: "../../../shared/delivery/quarantine.go",
		From: `	large := len(push) > maxEnvelope`,
		To: `	large := len(push) > maxEnvelope
	if mutant("quarantine_keeps_nothing") {
		return "", nil, nil
	}`},
	{Name: "discard_without_its_mark", Seed: 1, File: "../../../shared/delivery/read.go",
		From: `	for range 10 { // a replay`,
		To: `	if mutant("discard_without_its_mark") {
		return true, nil
	}
	for range 10 { // a replay`},
	{Name: "completion_of_the_first_transition", Seed: 1, File: "../../../functions/transition/transition.go",
		From: `	t, ok := a.Pipeline.Transition(id)`,
		To: `	t, ok := a.Pipeline.Transition(id)
	if mutant("completion_of_the_first_transition") {
		t = a.Pipeline.Transitions[0]
	}`},
	{Name: "failed_completion_acknowledged", Seed: 6, File: "../../../functions/transition/transition.go",
		From: `	if err == nil && result.OwnClaim {`,
		To: `	if mutant("failed_completion_acknowledged") {
		err = nil
	}
	if err == nil && result.OwnClaim {`},
	{Name: "shadow_publishes", Seed: 4, File: "../../../shared/cycle/cycle.go",
		From: `	if c.Shadow {
		c.Publish = unsent`,
		To: `	if c.Shadow && !mutant("shadow_publishes") {
		c.Publish = unsent`},
	{Name: "shadow_stays_for_ever", Seed: 4, File: "../../../shared/cycle/shadow.go",
		From: `	if !e.Shadow {
		return nil`,
		To: `	if !e.Shadow || mutant("shadow_stays_for_ever") {
		return nil`},
	{Name: "day_of_24_hours", Seed: 1, File: "../../../shared/pipeline/calendar.go",
		From: `	day := c.wall(p).AddDate(0, 0, o.Periods)`,
		To: `	if mutant("day_of_24_hours") {
		at := c.wall(p)
		return at.Add(-c.offset(at)).Add(time.Duration(o.Periods)*24*time.Hour + time.Duration(o.Minute)*time.Minute).UTC()
	}
	day := c.wall(p).AddDate(0, 0, o.Periods)`},
	{Name: "found_repair_ends_at_a_panic", Seed: 3, File: "../../../shared/reconcile/reconcile.go",
		From: `		if v := recover(); v != nil {`,
		To: `		if v := recover(); v != nil {
			if mutant("found_repair_ends_at_a_panic") {
				panic(v)
			}`},
	{Name: "missing_completion_left", Seed: 3, File: "../../../shared/reconcile/tables.go",
		From: `		c.mend(f, c.completion(b, p, s))
	}
	return true`,
		To: `		if mutant("missing_completion_left") {
			return true
		}
		c.mend(f, c.completion(b, p, s))
	}
	return true`},
	{Name: "missing_completion_of_now", Seed: 3, File: "../../../shared/reconcile/tables.go",
		From: `	id := fmt.Sprintf("reconciliation-%s-%d", p.Name, s.Newest.UnixMicro())`,
		To: `	id := fmt.Sprintf("reconciliation-%s-%d", p.Name, s.Newest.UnixMicro())
	if mutant("missing_completion_of_now") {
		s.Newest = s.Newest.AddDate(0, 0, -1)
	}`},
	{Name: "notified_at_each_message", Seed: 20, File: "../../../shared/notify/notify.go",
		From: `		case state == notifications[i].State && !again:`,
		To:   `		case state == notifications[i].State && !again && !mutant("notified_at_each_message"):`},
	{Name: "notification_sent_is_not_recorded", Seed: 128, File: "../../../shared/notify/notify.go",
		From: `	_, noted := n.Store.Apply(after, writes...)`,
		To: `	if mutant("notification_sent_is_not_recorded") {
		return err
	}
	_, noted := n.Store.Apply(after, writes...)`},
	{Name: "quarantine_notifies_nobody", Seed: 20, File: "../../../shared/delivery/delivery.go",
		From: `	m.Notifier.Notify(ctx, notifications...)`,
		To: `	if !mutant("quarantine_notifies_nobody") {
		m.Notifier.Notify(ctx, notifications...)
	}`},
}
