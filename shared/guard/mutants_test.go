//go:build unix && !race

package guard

import (
	"flag"
	"testing"

	"github.com/phasegate/phasegate/shared/mutanttest"
)

// mutants are faults that a guard could have, most of them of its first design.
var mutants = []mutanttest.Mutant{
	{Name: "holder_is_the_instance", Seed: 14, File: "../receipt/claim.go",
		From: `nonce: r.NewID()}`,
		To: `nonce: r.NewID()}
	if mutant("holder_is_the_instance") {
		c.nonce = r.Instance
	}`},
	{Name: "no_check_before_forwarding", Seed: 2206, File: "deliver.go",
		From: `		err = claim.Check() // immediately before forwarding`,
		To: `		err = claim.Check() // immediately before forwarding
		if mutant("no_check_before_forwarding") {
			err = nil
		}`},
	{Name: "hang_up_cancels", Seed: 83, File: "deliver.go",
		From: `	ctx = context.WithoutCancel(ctx) // a client that hangs up must not end the work`,
		To: `	if !mutant("hang_up_cancels") {
		ctx = context.WithoutCancel(ctx)
	}`},
	{Name: "failure_passed_on_as_200", Seed: 382, File: "deliver.go",
		From: `	if slices.Contains(acknowledged, a.status) {`,
		To:   `	if slices.Contains(acknowledged, a.status) && !mutant("failure_passed_on_as_200") {`},
	{Name: "skipped_work_counts_as_done", Seed: 382, File: "http.go",
		From: `	if len(g.SuccessJSON) == 0 {`,
		To:   `	if len(g.SuccessJSON) == 0 || mutant("skipped_work_counts_as_done") {`},
	{Name: "conflict_taken_for_loss", Seed: 116, File: "../receipt/settle.go",
		From: `		case found.epoch != c.epoch:
			return Superseded, nil`,
		To: `		case found.epoch != c.epoch || mutant("conflict_taken_for_loss"):
			return Superseded, nil`},
	{Name: "done_does_not_absorb", Seed: 840, File: "../receipt/settle.go",
		From: `mutant("conflict_taken_for_loss"):`,
		To:   `mutant("conflict_taken_for_loss") || mutant("done_does_not_absorb") && found.holder != c.nonce:`},
	{Name: "done_over_a_newer_epoch", Seed: 3713, File: "../receipt/settle.go",
		From: `case found.epoch != c.epoch || mutant`,
		To:   `case found.epoch != c.epoch && !mutant("done_over_a_newer_epoch") || mutant`},
	{Name: "released_at_unknown_result", Seed: 309, File: "deliver.go",
		From: `		if unsure { // the service`,
		To:   `		if unsure && !mutant("released_at_unknown_result") { // the service`},
	{Name: "release_without_version", Seed: 6839, File: "../receipt/settle.go",
		From: `		if _, err = c.receipts.apply(ctx, c.closing(c.open, released)...); err == nil {`,
		To: `		if mutant("release_without_version") {
			released = store.Merge(released.Ref, released.Fields...)
		}
		if _, err = c.receipts.apply(ctx, c.closing(c.open, released)...); err == nil {`},
	{Name: "renewal_without_version", Seed: 64, File: "../receipt/claim.go",
		From: `		versions, err := c.receipts.apply(ctx, store.MergeIf(c.receipts.ref(c.id), version, store.F(next, "renewed")))`,
		To: `		write := store.MergeIf(c.receipts.ref(c.id), version, store.F(next, "renewed"))
		if mutant("renewal_without_version") {
			write = store.Merge(c.receipts.ref(c.id), store.F(next, "renewed"), store.F(c.nonce, "holder"), store.F(Working, "state"))
		}
		versions, err := c.receipts.apply(ctx, write)`},
	{Name: "subscription_in_the_key", Seed: 6, File: "http.go",
		From: `	if d.Key == "" {`,
		To: `	if mutant("subscription_in_the_key") {
		d.Key += e.Subscription
	}
	if d.Key == "" || mutant("key_is_the_message_id") {`},
	{Name: "key_is_the_message_id", Seed: 6, File: "http.go",
		From: `		d.Key = e.Subscription + " " + e.MessageID
	}
	return`,
		To: `		d.Key = e.Subscription + " " + e.MessageID
		if mutant("key_is_the_message_id") {
			d.Key = e.MessageID
		}
	}
	return`},
	{Name: "take_over_without_version", Seed: 372, File: "../receipt/claim.go",
		From: `	// The safe time counts from the first attempt`,
		To: `	if mutant("take_over_without_version") && write.Op == store.OpMergeIf {
		write = store.Merge(write.Ref, write.Fields...)
	}
	// The safe time counts from the first attempt`},
	{Name: "done_without_version", Seed: 206, File: "../receipt/settle.go",
		From: `	for pause := 50 * time.Millisecond; ; pause`,
		To: `	if mutant("done_without_version") {
		_, err := c.receipts.apply(ctx, store.Merge(c.receipts.ref(c.id), store.F(Done, "state"), store.F(c.nonce, "holder")))
		return Recorded, err
	}
	for pause := 50 * time.Millisecond; ; pause`},
	{Name: "lost_answer_taken_for_ours", Seed: 39, File: "../receipt/claim.go",
		From: `		return false, fmt.Errorf("%w: %w", errUnclear, err)`,
		To: `		if mutant("lost_answer_taken_for_ours") {
			return true, nil
		}
		return false, fmt.Errorf("%w: %w", errUnclear, err)`},
	{Name: "copy_at_work_answered_204", Seed: 6, File: "deliver.go",
		From: `		return nil, retryLater(err)
	case errors.Is(err, receipt.ErrReused):`,
		To: `		if mutant("copy_at_work_answered_204") {
			return nil, answer{status: http.StatusNoContent}
		}
		return nil, retryLater(err)
	case errors.Is(err, receipt.ErrReused):`},
	{Name: "expiry_by_the_local_clock", Seed: 8, File: "../receipt/claim.go",
		From: `		case found.Live(readAt):`,
		To:   `		case found.Live(readAt) && !(mutant("expiry_by_the_local_clock") && !found.Live(r.Now())):`},
	{Name: "live_claims_expire", Seed: 4, File: "../receipt/claim.go",
		From: `store.F(readAt.Add(Keep), "expires_at")}`,
		To: `store.F(readAt.Add(Keep), "expires_at")}
	if mutant("live_claims_expire") {
		fields[len(fields)-1] = store.F(readAt.Add(r.TTL/2), "expires_at")
	}`},
	{Name: "done_is_claimed", Seed: 4, File: "../receipt/claim.go",
		From: `		case found.State == Done:
			return false, fmt.Errorf("%w: %s", ErrDone, d.Key)`,
		To: `		case found.State == Done && !(mutant("done_is_claimed") && found.Attempt > 1):
			return false, fmt.Errorf("%w: %s", ErrDone, d.Key)`},
	{Name: "safe_time_from_the_answer", Seed: 2206, File: "../receipt/claim.go",
		From: `	c.version, c.open = versions[0], versions[1]
	return true, nil`,
		To: `	if c.version, c.open = versions[0], versions[1]; mutant("safe_time_from_the_answer") {
		c.confirmed = r.Now()
	}
	return true, nil`},
	{Name: "safe_time_for_ever", Seed: 2206, File: "../receipt/claim.go",
		From: `	case safetime.Left(c.receipts.TTL, c.confirmed, c.receipts.Now()) <= 0:`,
		To:   `	case safetime.Left(c.receipts.TTL, c.confirmed, c.receipts.Now()) <= 0 && !mutant("safe_time_for_ever"):`},
	{Name: "renewal_changes_nothing", Seed: 8, File: "../receipt/claim.go",
		From: `c.renewed+1`,
		To:   `c.renewed+map[bool]int64{false: 1}[mutant("renewal_changes_nothing")]`},
	{Name: "never_renewed", Seed: 166, File: "deliver.go",
		From: `	stop := claim.Keep(ctx, lost)`,
		To: `	stop := func() {}
	if !mutant("never_renewed") {
		stop = claim.Keep(ctx, lost)
	}`},
	{Name: "renewed_after_an_unknown_result", Seed: 31, File: "deliver.go",
		From: `	a := g.forward(ctx, log, send, lost)
	stop()`,
		To: `	a := g.forward(ctx, log, send, lost)
	if !(mutant("renewed_after_an_unknown_result") && a.result == unknown) {
		stop()
	}`},
	{Name: "forget_keeps_the_epoch", Seed: 346, File: "../receipt/operator.go",
		From: `	epoch := r.NewID()`,
		To: `	epoch := r.NewID()
	if mutant("forget_keeps_the_epoch") {
		epoch = found.epoch
	}`},
	{Name: "forget_of_a_live_claim", Seed: 122, File: "../receipt/operator.go",
		From: `	if r.Live(at) {`,
		To:   `	if r.Live(at) && !mutant("forget_of_a_live_claim") {`},
	{Name: "forget_without_version", Seed: 1662, File: "../receipt/operator.go",
		From: `	writes := []store.Write{store.MergeIf(r.ref(id), found.version, `,
		To: `	merge := store.MergeIf
	if mutant("forget_without_version") {
		merge = func(ref store.Ref, _ store.Version, fields ...store.Field) store.Write { return store.Merge(ref, fields...) }
	}
	writes := []store.Write{merge(r.ref(id), found.version, `},
	{Name: "done_stays_open", Seed: 1, File: "../receipt/settle.go",
		From: `c.closing(c.open, done)...)`,
		To:   `c.closing(map[bool]store.Version{false: c.open}[mutant("done_stays_open")], done)...)`},
	{Name: "closed_while_the_other_is_at_work", Seed: 219, File: "../receipt/settle.go",
		From: `		if overlap { // the other run is still open`,
		To:   `		if overlap && !mutant("closed_while_the_other_is_at_work") { // the other run is still open`},
	{Name: "forgotten_stays_open", Seed: 24, File: "../receipt/operator.go",
		From: `	if found.open != 0 {`,
		To:   `	if found.open != 0 && !mutant("forgotten_stays_open") {`},
	{Name: "work_before_the_locks", Seed: 6, File: "deliver.go",
		From: `	if g.Serial == nil {`,
		To:   `	if g.Serial == nil || mutant("work_before_the_locks") {`},
	{Name: "locks_given_back_after_an_unknown_result", Seed: 487, File: "deliver.go",
		From: `		if giveBack {`,
		To:   `		if giveBack || mutant("locks_given_back_after_an_unknown_result") {`},
	{Name: "locks_may_be_old", Seed: 4218, File: "deliver.go",
		From: `g.Locks.Lease*9/10-freshFor {`,
		To:   `g.Locks.Lease*9/10-freshFor && !mutant("locks_may_be_old") {`},
	{Name: "failure_recorded_as_done", Seed: 6, File: "deliver.go",
		From: `	case succeeded:
		g.record`,
		To: `	case map[bool]result{true: a.result, false: succeeded}[mutant("failure_recorded_as_done") && a.result == failed]:
		g.record`},
	{Name: "killed_service_counts_as_done", Seed: 382, File: "deliver.go",
		From: `		unsure := a.result == unknown`,
		To: `		if mutant("killed_service_counts_as_done") && a.result == killed {
			return answer{status: http.StatusOK}
		}
		unsure := a.result == unknown`},
}

var all = flag.Bool("sim.mutants", false, "TestMutantsAreCaught plays the mutants")

func TestMutantsAreCaught(t *testing.T) {
	if !*all {
		t.Skip("compiles the guard with its mutants and plays each for seconds; make test-all does that")
	}
	mutanttest.Caught(t, mutants, 20_000, 2000)
}
