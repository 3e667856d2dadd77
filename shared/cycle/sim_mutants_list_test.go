//go:build unix && !race

// This file is one list, with a row for each fault: it is longer than others.

package cycle

// simMutants are faults that such an engine could have, most of them faults that one
// like it once had.
var simMutants = []simMutant{
	{"confirm_before_publish", 40, "publish.go",
		`complete = complete && m.ID != ""`,
		`complete = complete && (m.ID != "" || mutant("confirm_before_publish"))`},
	{"no_claim", 12, "next.go",
		`case open.live(s.now) && !by.mine(open):`,
		`case open.live(s.now) && !mutant("no_claim") && !by.mine(open):`},
	{"payload_rebuilt_at_publish", 1, "publish.go",
		`		names = append(names, name)
		msgs =`,
		`		names = append(names, name)
		if mutant("payload_rebuilt_at_publish") {
			if t, err := wire.DecodeTrigger([]byte(m.Payload)); err == nil {
				t.Timestamp = wire.Timestamp(c.Now())
				rebuilt, _ := t.Encode()
				m.Payload = string(rebuilt)
			}
		}
		msgs =`},
	{"latch_on_blocked", 4, "next.go",
		`		case b.State == StateBlocked && s.now.Before(b.NextAttempt) && b.Checked == fingerprint(h.runs):`,
		`		case b.State == StateBlocked && (s.now.Before(b.NextAttempt) || mutant("latch_on_blocked")):`},
	{"count_unknown_names", 7, "../policy/counting.go",
		`		if !m.Names(r.Processor) {
			return unexpected`,
		`		if !m.Names(r.Processor) {
			if mutant("count_unknown_names") && r.Processor == "" {
				return own
			}
			return unexpected`},
	{"mode_from_now", 1, "next.go",
		`	return policy.Input{Transition: s.key.Transition,`,
		`	if mutant("mode_from_now") {
		now := *s
		now.runs = slices.Clone(s.runs)
		for i := range now.runs {
			c := *now.runs[i].Completion
			c.EventTime = s.now
			now.runs[i].Completion = &c
		}
		s = &now
	}
	return policy.Input{Transition: s.key.Transition,`},
	{"relay_ignores_expired_claims", 7, "snapshot.go",
		`	return b.Holder != "" && !b.ClaimedAt.Add(b.Claim).Before(now)`,
		`	return b.Holder != "" && (!b.ClaimedAt.Add(b.Claim).Before(now) || mutant("relay_ignores_expired_claims"))`},
	{"overwrite_instead_of_merge", 1, "shards.go",
		`		field := store.F(r.text, append(r.path(), r.id)...)`,
		`		field := store.F(r.text, append(r.path(), r.id)...)
		if mutant("overwrite_instead_of_merge") {
			field = store.F(map[string]any{r.id: r.text}, r.path()...)
		}`},
	{"failure_overwrites_success", 5, "shards.go",
		`		if e.shards(k.Transition) == 1 {
			period`,
		`		if mutant("failure_overwrites_success") && !c.Status.Counts() && c.Processor != "" {
			field = store.F(map[string]any{r.id: r.text}, r.path()...)
		}
		if e.shards(k.Transition) == 1 {
			period`},
	{"drop_late_runs", 2, "../policy/pending.go",
		`		case g == nil || len(g.open) == 0:`,
		`		case g == nil || len(g.open) == 0 || mutant("drop_late_runs") && len(covered) > 0 && len(g.covered) == 0:`},
	{"ambiguous_conflict_is_a_loss", 414, "cycle.go",
		`			// A rival was faster, or our own write's answer was lost: the next read tells.`,
		`			if mutant("ambiguous_conflict_is_a_loss") {
				clear(c.taken)
			}`},
	{"freeze_another_set", 11, "steps.go",
		`	messages, err := c.payloads(ctx, s, a, ready)`,
		`	if mutant("freeze_another_set") {
		if s2, err := c.read(ctx, c.key, nil); err == nil {
			a.handing = s2.handing(a.mode, a.batch)
			h = a.handing
		}
	}
	messages, err := c.payloads(ctx, s, a, ready)`},
	{"project_incrementally", 1, "projection.go",
		`	if !slices.ContainsFunc(fields, func(f store.Field) bool { return !holds(s.compat, f) }) {`,
		`	if mutant("project_incrementally") {
		newest, _ := s.counted()
		before, _ := s.compat.Data["_completed_count"].(int64)
		count := before
		for _, f := range fields {
			if _, run := newest[f.Path[0]]; run && !holds(s.compat, f) {
				count++
			}
		}
		for i := range fields {
			if fields[i].Path[0] == "_completed_count" {
				fields[i].Value = int(count)
			}
		}
	}
	if !slices.ContainsFunc(fields, func(f store.Field) bool { return !holds(s.compat, f) }) {`},

	{"claim_trusted_for_ever", 29, "cycle.go",
		`	return safetime.Left(by.claim, by.taken[holder], by.now)`,
		`	if mutant("claim_trusted_for_ever") {
		return by.claim
	}
	return safetime.Left(by.claim, by.taken[holder], by.now)`},
	{"claim_not_given_back", 499, "next.go",
		`	case a.do == idle && held:`,
		`	case a.do == idle && held && mutant("claim_not_given_back"):
	case a.do == idle && held:`},
	{"own_claim_acknowledged", 7, "cycle.go",
		`				r.Busy = true`,
		`				r.Busy = true
				if mutant("own_claim_acknowledged") {
					continue
				}`},
	{"grace_without_end_or_beginning", 7, "next.go",
		`		in.GraceStart = b.GraceSince`,
		`		in.GraceStart = b.GraceSince
		if mutant("grace_without_end_or_beginning") {
			in.GraceStart = b.CreatedAt.Add(-time.Hour)
		}`},
	{"earlier_runs_that_their_mode_refuses", 375, "../policy/counting.go",
		`		case r.EventTime.Before(earlier[i]):`,
		`		case r.EventTime.Before(earlier[i]) && !mutant("earlier_runs_that_their_mode_refuses"):`},
	{"not_before_ignored", 181, "../policy/policy.go",
		`	case complete && in.Now.Before(notBefore):`,
		`	case complete && in.Now.Before(notBefore) && !mutant("not_before_ignored"):`},
	{"sent_again_what_was_sent", 43, "publish.go",
		`		if m.ID != "" {
			continue`,
		`		if m.ID != "" && !mutant("sent_again_what_was_sent") {
			continue`},
	{"confirm_forgets_on_conflict", 153, "publish.go",
		`		if !errors.Is(err, store.ErrConflict) {
			return err`,
		`		if !errors.Is(err, store.ErrConflict) || mutant("confirm_forgets_on_conflict") {
			return err`},
	{"unknown_readiness_passes", 16, "steps.go",
		`	if ready.Outcome != Passed && ready.Outcome != NotChecked {`,
		`	if ready.Outcome != Passed && ready.Outcome != NotChecked && !(mutant("unknown_readiness_passes") && ready.Outcome == Unknown) {`},
	{"later_batch_not_listed", 2, "steps.go",
		`	return c.inPeriod(ctx, c.key, s, []store.Field{store.F(store.Union(id), "batches"), c.stays(c.Now())}, store.Create(c.batchRef(id), fields...))`,
		`	if mutant("later_batch_not_listed") && a.n > 1 {
		return c.apply(ctx, store.Create(c.batchRef(id), fields...))
	}
	return c.inPeriod(ctx, c.key, s, []store.Field{store.F(store.Union(id), "batches"), c.stays(c.Now())}, store.Create(c.batchRef(id), fields...))`},
	{"failure_acknowledged", 165, "cycle.go",
		`	for id, err := range c.failed {`,
		`	if mutant("failure_acknowledged") {
		return nil
	}
	for id, err := range c.failed {`},
	{"runs_of_earlier_batches_again", 2, "snapshot.go",
		`	for _, b := range s.batches[mode] {
		for _, k := range b.Runs {`,
		`	for _, b := range s.batches[mode] {
		if mutant("runs_of_earlier_batches_again") && b.N > 1 {
			continue
		}
		for _, k := range b.Runs {`},
	{"too_late_is_in_time", 17, "../policy/pending.go",
		`		case r.inTime(limit):
			g.open`,
		`		case r.inTime(limit) || mutant("too_late_is_in_time"):
			g.open`},
	{"no_second_look", 1, "cycle.go",
		`		case err == nil && (a.do == project || a.do == settle):`,
		`		case err == nil && (a.do == project || a.do == settle || a.do == publish && mutant("no_second_look")):`},
	{"listed_batch_not_read", 8, "snapshot.go",
		`		if missing {`,
		`		if missing && !mutant("listed_batch_not_read") {`},
	{"claim_without_its_version", 81, "steps.go",
		`	return c.apply(ctx, store.MergeIf(c.batchRef(b.ID), b.Version, c.claimFields()...))`,
		`	if mutant("claim_without_its_version") {
		return c.apply(ctx, store.Merge(c.batchRef(b.ID), c.claimFields()...))
	}
	return c.apply(ctx, store.MergeIf(c.batchRef(b.ID), b.Version, c.claimFields()...))`},
	{"trust_from_the_answer", 2532, "steps.go",
		`	if mutant("claim_without_its_version") {`,
		`	if mutant("trust_from_the_answer") {
		err := c.apply(ctx, store.MergeIf(c.batchRef(b.ID), b.Version, c.claimFields()...))
		c.taken[c.fresh] = c.Now()
		return err
	}
	if mutant("claim_without_its_version") {`},
	{"projection_without_its_version", 1147, "projection.go",
		`		writes = append(writes, store.MergeIf(ref, s.compat.Version, a.fields...))`,
		`		if writes = append(writes, store.MergeIf(ref, s.compat.Version, a.fields...)); mutant("projection_without_its_version") {
			writes[0] = store.Merge(ref, a.fields...)
		}`},

	{"second_runs_not_collected", 1653, "../policy/pending.go",
		`		case in.Now.Before(in.DueAgain(name)):`,
		`		case in.Now.Before(in.DueAgain(name)) && !mutant("second_runs_not_collected"):`},
	{"collected_for_ever", 51, "../policy/pending.go",
		`	return last.Add(in.Mode.SecondRunsEvery)`,
		`	if mutant("collected_for_ever") {
		return last.AddDate(1, 0, 0)
	}
	return last.Add(in.Mode.SecondRunsEvery)`},
	{"summary_without_runs", 1, "handed.go",
		`		if !taken[key] {`,
		`		if !taken[key] && !mutant("summary_without_runs") {`},
	{"summary_beyond_an_open_batch", 1, "handed.go",
		`		if b.State != StatePublished || h.N > 0 && b.N != h.N+1 {`,
		`		if b.State != StatePublished && !mutant("summary_beyond_an_open_batch") || h.N > 0 && b.N != h.N+1 {`},

	// What an operator does, deadlines, definitions that change.
	{"hold_ignored_by_the_holder", 180, "next.go",
		`		case s.hold(m.Name) != nil && !(h.selected && b.Force):`,
		`		case s.hold(m.Name) != nil && !(h.selected && b.Force) && !mutant("hold_ignored_by_the_holder"):`},
	{"hold_does_not_touch", 633, "hold.go",
		`				case b.unfrozen() && b.Holder != "" && err == nil:`,
		`				case mutant("hold_does_not_touch"):
				case b.unfrozen() && b.Holder != "" && err == nil:`},
	{"request_without_its_record", 11, "operator.go",
		`	writes := []store.Write{record, c.watch(c.key)}`,
		`	writes := []store.Write{record, c.watch(c.key)}
	if mutant("request_without_its_record") {
		writes = writes[1:]
	}
	if mutant("request_not_watched") {
		writes = writes[:1]
	}`},
	{"request_not_watched", 11, "operator.go",
		`	if mutant("request_not_watched") {`,
		`	if mutant("request_not_watched") {`},
	{"request_takes_other_runs", 11, "next.go",
		`	case len(selected) > 0:`,
		`	case len(selected) > 0 && !mutant("request_takes_other_runs"):`},
	{"deadline_hands_over_without_critical", 9, "../policy/policy.go",
		`	atDeadline := handOver && all(m.Critical, inTime)`,
		`	atDeadline := handOver && (all(m.Critical, inTime) || mutant("deadline_hands_over_without_critical") && len(inTime) > 0)`},
	{"deadline_never_passes", 108, "../policy/policy.go",
		`	case atDeadline && passed:`,
		`	case atDeadline && passed && !mutant("deadline_never_passes"):`},
	{"gained_processor_reopens", 193, "../policy/pending.go",
		`		case in.Began != nil && !expected[name]:`,
		`		case in.Began != nil && !expected[name] && !mutant("gained_processor_reopens"):`},
	{"begun_with_the_first_batch", 1, "steps.go",
		`	if slices.ContainsFunc(a.mode.Critical, func(name string) bool { return !done[name] }) {`,
		`	if !mutant("begun_with_the_first_batch") && slices.ContainsFunc(a.mode.Critical, func(name string) bool { return !done[name] }) {`},
	{"grace_outlives_its_quorum", 94, "next.go",
		`			!b.GraceSince.IsZero() && !h.due() && (h.verdict.State == policy.Overdue ||`,
		`			!mutant("grace_outlives_its_quorum") && !b.GraceSince.IsZero() && !h.due() && (h.verdict.State == policy.Overdue && !mutant("found_grace_of_the_late") ||`},
	{"repair_hands_over_what_is_old", 259, "next.go",
		`		case by.repairer != "" && s.key.old(s.now) &&`,
		`		case !mutant("repair_hands_over_what_is_old") && by.repairer != "" && s.key.old(s.now) &&`},
	{"repair_forgets_its_cause", 125, "next.go",
		`b.Cause == CauseReconciliation && b.unfrozen()`,
		`b.Cause == CauseReconciliation && b.unfrozen() && !mutant("repair_forgets_its_cause")`},

	// Faults that the simulation has found, put back in.
	{"found_request_claimed_behind_another", 89, "operator.go",
		`	if firstUnpublished(s.batches[m.Name]) == nil {`,
		`	if firstUnpublished(s.batches[m.Name]) == nil || mutant("found_request_claimed_behind_another") {`},
	{"found_hold_misses_a_sleeper", 5115, "hold.go",
		`				case mutant("hold_does_not_touch"):`,
		`				case mutant("hold_does_not_touch"), mutant("found_hold_misses_a_sleeper") && !b.live(s.now):`},
	{"found_hold_lands_late", 210, "hold.go",
		`				write, store.IfUnchanged(list, e.listed(key.Period)...))`,
		`				write, map[bool]store.Write{true: e.watch(key), false: store.IfUnchanged(list, e.listed(key.Period)...)}[mutant("found_hold_lands_late")])`},
	{"found_hold_lands_after_its_release", 605, "hold.go",
		`		relist := store.IfUnchanged(list, e.listed()...)`,
		`		relist := store.IfUnchanged(list, e.listed()...)
		if mutant("found_hold_lands_after_its_release") {
			relist = store.Merge(store.Ref{Collection: "elsewhere", ID: e.NewID()}, e.listed()...)
		}`},
	{"found_grace_of_the_late", 94, "next.go",
		`!mutant("found_grace_of_the_late")`,
		`!mutant("found_grace_of_the_late")`},
	{"found_hold_unwatched_by_a_relay", 1636, "watch.go",
		`	fields := []store.Field{store.F(e.NewID(), "listing")}`,
		`	fields := []store.Field{store.F(map[bool]any{false: e.NewID()}[mutant("found_hold_unwatched_by_a_relay")], "listing")}`},
	{"found_no_mode_shown", 69, "projection.go",
		`			if own(r) {`,
		`			if own(r) && !(mutant("found_no_mode_shown") && at == "") {`},
	{"lock_taken_before_its_end", 1, "../lease/acquire.go",
		`	if exists && !s.Expired(snap.ReadTime) {`,
		`	if exists && !s.Expired(snap.ReadTime) && !(mutant("lock_taken_before_its_end") && s.Expired(snap.ReadTime.Add(l.Lease/2))) {`},
	{"lock_trusted_for_ever", 1, "../lease/lease.go",
		`	return safetime.Left(l.locks.Lease, l.confirmed, l.locks.Now())`,
		`	if mutant("lock_trusted_for_ever") {
		return l.locks.Lease
	}
	return safetime.Left(l.locks.Lease, l.confirmed, l.locks.Now())`},
	{"lock_trusted_from_the_answer", 10407, "../lease/lease.go",
		`		if err == nil {
			l.mu.Lock()
			l.version, l.confirmed = versions[0], began`,
		`		if err == nil {
			if mutant("lock_trusted_from_the_answer") {
				began = l.locks.Now()
			}
			l.mu.Lock()
			l.version, l.confirmed = versions[0], began`},
	{"lock_of_another_renewed", 15559, "../lease/lease.go",
		`	case !l.owns(s):
		return l.lost(`,
		`	case !l.owns(s) && !mutant("lock_of_another_renewed"):
		return l.lost(`},
	{"lock_of_another_released", 4452, "../lease/lease.go",
		`	mine := ok && l.owns(s)`,
		`	mine := ok && (l.owns(s) || mutant("lock_of_another_released"))`},
	{"tokens_forgotten", 1, "../lease/document.go",
		`	for _, n := range append(slices.Clone(others), nonce) {`,
		`	if mutant("tokens_forgotten") {
		others = nil
	}
	for _, n := range append(slices.Clone(others), nonce) {`},
	{"group_failure_acknowledged", 15941, "record.go",
		`			errs[i] = fmt.Errorf("record %d completions for %s: %w", len(reports), key, err)`,
		`			errs[i] = fmt.Errorf("record %d completions for %s: %w", len(reports), key, err)
			if mutant("group_failure_acknowledged") {
				errs[i] = nil
			}`},
	{"group_recorded_in_part", 47, "shards.go",
		`	for _, c := range all {
		r := newKept(&c)`,
		`	for i, c := range all {
		if mutant("group_recorded_in_part") && i > 0 && i == len(all)-1 {
			continue
		}
		r := newKept(&c)`},
	{"claim_names_the_first_of_a_group", 677, "steps.go",
		`			others = append(others, id)`,
		`			if mutant("claim_names_the_first_of_a_group") {
				continue
			}
			others = append(others, id)`},
	{"group_not_evaluated", 47, "group.go",
		`	c := e.convergence(key, ids...)
	result, err := c.run(ctx)`,
		`	c := e.convergence(key, ids...)
	if mutant("group_not_evaluated") && len(ids) > 1 {
		return make([]answer, len(ids))
	}
	result, err := c.run(ctx)`},
	{"closed_cycle_begins", 3, "next.go",
		`	if s.closed[m.Name] != nil ||`,
		`	if s.closed[m.Name] != nil && !mutant("closed_cycle_begins") ||`},
	{"closing_keeps_no_batch", 340, "next.go",
		`		case s.keeps(m, b):`,
		`		case s.keeps(m, b) && !mutant("closing_keeps_no_batch"):`},
	{"closing_does_not_touch", 12, "close.go",
		`	r.Publishing, err = e.touch(ctx, key, m.Name)`,
		`	if mutant("closing_does_not_touch") {
		return r, nil
	}
	r.Publishing, err = e.touch(ctx, key, m.Name)`},
	{"closing_names_no_batch", 12, "close.go",
		`	return r, err
}

// readClosed`,
		`	if mutant("closing_names_no_batch") {
		r.Publishing = nil
	}
	return r, err
}

// readClosed`},
	{"found_closing_and_a_choice_that_counts_no_more", 9193, "close.go",
		`	return s.closed[m.Name] != nil && b.unfrozen() && len(selected(s.input(m), b)) == 0`,
		`	if mutant("found_closing_and_a_choice_that_counts_no_more") {
		return s.closed[m.Name] != nil && b.unfrozen() && !b.Selected
	}
	return s.closed[m.Name] != nil && b.unfrozen() && len(selected(s.input(m), b)) == 0`},

	// What expires.
	{"numbers_restart", 1, "expiry.go",
		`	if !s.now.Before(from) && s.now.Before(from.Add(numberSpan)) {`,
		`	if mutant("numbers_restart") || !s.now.Before(from) && s.now.Before(from.Add(numberSpan)) {`},
	{"expires_with_an_open_batch", 340, "expiry.go",
		`		if firstUnpublished(bs) != nil {`,
		`		if firstUnpublished(bs) != nil && !mutant("expires_with_an_open_batch") {`},
	{"expires_on_hold", 3, "expiry.go",
		`		if mode != "" && s.now.Before(h.Until) {`,
		`		if mode != "" && s.now.Before(h.Until) && !mutant("expires_on_hold") {`},
	{"late_record_leaves_the_end", 13, "record.go",
		`	if end == nil && e.mayEnd(k) {`,
		`	if end == nil && e.mayEnd(k) && !mutant("late_record_leaves_the_end") {`},
	{"request_leaves_the_end", 12, "operator.go",
		`[]store.Field{store.F(store.Union(batch), "batches"), c.stays(c.Now())}`,
		`[]store.Field{store.F(store.Union(batch), "batches"), c.stays(c.Now())}[:map[bool]int{true: 1, false: 2}[mutant("request_leaves_the_end")]]`},
	{"expired_batch_is_damage", 273, "expiry.go",
		`	return ok && n <= h.N && !s.now.Before(h.At.Add(e.kept()))`,
		`	return ok && n <= h.N && !s.now.Before(h.At.Add(e.kept())) && !mutant("expired_batch_is_damage")`},
	{"batch_of_a_deleted_period_taken", 17, "snapshot.go",
		`		case !listed[doc.Ref.ID]: //`,
		`		case !listed[doc.Ref.ID] && !(doc.Exists && mutant("batch_of_a_deleted_period_taken")): //`},
	{"end_without_the_version_of_the_period", 1486, "projection.go",
		`		err := c.apply(ctx, slices.Concat(writes, s.shardsEnd(*a.end), []store.Write{period})...)`,
		`		if mutant("end_without_the_version_of_the_period") {
			period = store.Merge(period.Ref, period.Fields...)
		}
		err := c.apply(ctx, slices.Concat(writes, s.shardsEnd(*a.end), []store.Write{period})...)`},
	{"full_period_expires_with_an_open_batch", 593, "steps.go",
		`	period.Fields = []store.Field{e.stays(e.Now())}`,
		`	period.Fields = []store.Field{e.stays(e.Now())}
	if mutant("full_period_expires_with_an_open_batch") {
		_, err = e.Store.Apply(ctx, writes...)
		return err
	}`},
	{"end_without_room", 31, "expiry.go",
		`s.open() || !leavesRoom(`,
		`s.open() || !mutant("end_without_room") && !leavesRoom(`},
	{"end_without_the_room_of_its_summary", 450, "expiry.go",
		`append(slices.Clone(sums), f)`,
		`append(slices.Clone(sums[:len(sums)*map[bool]int{false: 1}[mutant("end_without_the_room_of_its_summary")]]), f)`},
	{"batch_expires_before_its_summary", 1, "publish.go",
		`		if c.mine(b) || complete {`,
		`		if complete && mutant("batch_expires_before_its_summary") {
			fields = append(fields, store.Expires(c.Now()))
		}
		if c.mine(b) || complete {`},
	// Writes that land late.
	{"block_without_its_version", 782, "steps.go",
		`			return c.apply(ctx, store.MergeIf(ref, a.batch.Version,
				store.F(string(StateBlocked), "state")`,
		`			if mutant("block_without_its_version") {
				return c.apply(ctx, store.Merge(ref, store.F(string(StateBlocked), "state"), store.F("", "holder"),
					store.F(blockedReason(ready), "reason"), store.F(encode(ready), "readiness"),
					store.F(attempts+1, "attempts"), store.F(s.now.Add(wait), "next_attempt"), store.F(fingerprint(h.runs), "checked")))
			}
			return c.apply(ctx, store.MergeIf(ref, a.batch.Version,
				store.F(string(StateBlocked), "state")`},
	{"freeze_without_its_version", 633, "steps.go",
		`	return c.apply(ctx, append(stay, freeze)...)`,
		`	if mutant("freeze_without_its_version") {
		freeze = store.Merge(ref, freeze.Fields...)
	}
	return c.apply(ctx, append(stay, freeze)...)`},
	// Parts.
	{"parts_with_shared_ids", 47, "parts.go",
		`	return b.ID + "~" + b.Holder + "~"`,
		`	if mutant("parts_with_shared_ids") {
		return b.ID + "~h~1~" + strconv.Itoa(k)
	}
	return b.ID + "~" + b.Holder + "~"`},
	{"published_without_reading_parts", 9, "parts.go",
		`			if m.ID == "" {
				return nil`,
		`			if m.ID == "" && !mutant("published_without_reading_parts") {
				return nil`},
	{"parts_named_before_they_exist", 5, "parts.go",
		`		_, err := c.Store.Apply(ctx, store.Create(ref, store.F(messageFields(group), "messages"), end))`,
		`		if mutant("parts_named_before_they_exist") && k > 0 {
			ids[k] = ref.ID
			continue
		}
		_, err := c.Store.Apply(ctx, store.Create(ref, store.F(messageFields(group), "messages"), end))`},
	{"frozen_parts_expire", 5, "parts.go",
		`		ids[k], stay = ref.ID, append(stay, store.Merge(ref, c.stays(c.Now())))`,
		`		ids[k] = ref.ID
		if !mutant("frozen_parts_expire") {
			stay = append(stay, store.Merge(ref, c.stays(c.Now())))
		}`},
	{"next_part_without_a_claim", 539, "parts.go",
		`	if c.safeRemaining(b.Holder) <= 0 {`,
		`	if !mutant("next_part_without_a_claim") && c.safeRemaining(b.Holder) <= 0 {`},
	{"part_confirmed_without_its_version", 859, "parts.go",
		`			err = c.apply(ctx, store.MergeIf(ref, version, fields...))`,
		`			if mutant("part_confirmed_without_its_version") {
				version = 0
				err = c.apply(ctx, store.Merge(ref, fields...))
				c.confirmed[ref.ID] = complete
				return err
			}
			err = c.apply(ctx, store.MergeIf(ref, version, fields...))`},
	{"request_without_its_version", 1329, "operator.go",
		`		return c.apply(ctx, append(writes, store.MergeIf(c.batchRef(b.ID), b.Version, fields...))...)`,
		`		if mutant("request_without_its_version") {
			return c.apply(ctx, append(writes, store.Merge(c.batchRef(b.ID), fields...))...)
		}
		return c.apply(ctx, append(writes, store.MergeIf(c.batchRef(b.ID), b.Version, fields...))...)`},
	{"period_unlisted_without_its_version", 1636, "watch.go",
		`	_, err := e.Store.Apply(ctx, store.MergeIf(list.Ref, list.Version, store.F(left, "periods")))`,
		`	write := store.MergeIf(list.Ref, list.Version, store.F(left, "periods"))
	if mutant("period_unlisted_without_its_version") {
		write = store.Merge(list.Ref, store.F(left, "periods"))
	}
	_, err := e.Store.Apply(ctx, write)`},

	// Clocks that diverge.
	{"claim_trusted_by_the_wall_clock", 110, "cycle.go",
		`	if mutant("claim_trusted_for_ever") {`,
		`	switch began, now := by.taken[holder], by.now; {
	case mutant("claim_trusted_by_the_wall_clock"):
		return safetime.Left(by.claim, began.Round(0), now.Round(0))
	case mutant("claim_trusted_by_the_monotonic_clock"):
		return by.claim - by.claim/10 - now.Sub(began)
	}
	if mutant("claim_trusted_for_ever") {`},
	{"claim_trusted_by_the_monotonic_clock", 424, "cycle.go",
		`	case mutant("claim_trusted_by_the_monotonic_clock"):`,
		`	case mutant("claim_trusted_by_the_monotonic_clock"):`},
	{"lock_trusted_by_the_wall_clock", 2752, "../lease/lease.go",
		`	if mutant("lock_trusted_for_ever") {`,
		`	switch now := l.locks.Now(); {
	case mutant("lock_trusted_by_the_wall_clock"):
		return safetime.Left(l.locks.Lease, l.confirmed.Round(0), now.Round(0))
	case mutant("lock_trusted_by_the_monotonic_clock"):
		return l.locks.Lease - l.locks.Lease/10 - now.Sub(l.confirmed)
	}
	if mutant("lock_trusted_for_ever") {`},
	{"lock_trusted_by_the_monotonic_clock", 5608, "../lease/lease.go",
		`	case mutant("lock_trusted_by_the_monotonic_clock"):`,
		`	case mutant("lock_trusted_by_the_monotonic_clock"):`},

	// A period that is full.
	{"full_period_begins_nothing", 30, "steps.go",
		`	if !errors.Is(err, store.ErrTooLarge) {
		return err
	}
	writes =`,
		`	if !errors.Is(err, store.ErrTooLarge) || mutant("full_period_begins_nothing") {
		return err
	}
	writes =`},
	{"full_period_drops_successes", 30, "room.go",
		`	if canCount(&c) && !policy.Whole(c) {`,
		`	if mutant("full_period_drops_successes") {
		return nil
	}
	if canCount(&c) && !policy.Whole(c) {`},
	{"full_period_takes_no_success", 30, "record.go",
		`	if errors.Is(err, store.ErrTooLarge) {
		e.Log.WarnContext`,
		`	if errors.Is(err, store.ErrTooLarge) && !mutant("full_period_takes_no_success") {
		e.Log.WarnContext`},
	{"overflow_not_counted", 30, "snapshot.go",
		`	for _, of := range withoutCopies(reports) {`,
		`	if mutant("overflow_not_counted") {
		reports = reports[:1]
	}
	for _, of := range withoutCopies(reports) {`},
	{"another_count_repeats", 383, "../policy/repeats.go",
		`		!equal(r.RecordCount, newest.RecordCount) ||`,
		`		!equal(r.RecordCount, newest.RecordCount) && !mutant("another_count_repeats") ||`},
	{"full_period_lists_no_batch", 249, "snapshot.go",
		`		s.listed = append(s.listed, f.strings("batches")...)`,
		`		if !mutant("full_period_lists_no_batch") || doc.Ref != periods[2].Ref {
			s.listed = append(s.listed, f.strings("batches")...)
		}`},
	{"full_period_has_no_hold", 523, "snapshot.go",
		`		if err := errors.Join(s.readHolds(doc), s.readClosed(doc), s.readSchedule(doc)); err != nil {`,
		`		if mutant("full_period_has_no_hold") && doc.Ref != e.periodRef(key) {
			continue
		}
		if err := errors.Join(s.readHolds(doc), s.readClosed(doc), s.readSchedule(doc)); err != nil {`},
	{"full_period_has_no_summary", 30, "snapshot.go",
		`		if err := errors.Join(f.err, s.readHanded(doc)); err != nil {`,
		`		if mutant("full_period_has_no_summary") && doc.Ref == periods[2].Ref {
			continue
		}
		if err := errors.Join(f.err, s.readHanded(doc)); err != nil {`},

	// What it costs.
	{"every_batch_read_again", 36, "snapshot.go",
		`return keep[id] || !s.summed(id) })`,
		`return keep[id] || !s.summed(id) || mutant("every_batch_read_again") })`},
	{"readiness_checked_at_each_evaluation", 1373, "next.go",
		`		case b.State == StateBlocked && (s.now.Before(b.NextAttempt) || mutant("latch_on_blocked")):`,
		`		case mutant("readiness_checked_at_each_evaluation"):
			a.do = freeze
		case b.State == StateBlocked && (s.now.Before(b.NextAttempt) || mutant("latch_on_blocked")):`},
	{"schedule_asked_at_each_evaluation", 64, "readiness.go",
		`&& !s.now.Before(s.schedule.next()) &&`,
		`&& (mutant("schedule_asked_at_each_evaluation") || !s.now.Before(s.schedule.next())) &&`},
	{"shown_at_the_end_alone", 6, "projection.go",
		`	if by.shadow || by.aheadWrites >= maxAheadWrites {`,
		`	if by.shadow || by.aheadWrites >= maxAheadWrites || mutant("shown_at_the_end_alone") {`},

	// Names that change, and definitions that are both at work.
	{"closed_under_its_present_name", 2515, "close.go",
		`"closed", key.Transition.StoredMode(m.Name))`,
		`"closed", map[bool]string{true: m.Name, false: key.Transition.StoredMode(m.Name)}[mutant("closed_under_its_present_name")])`},
	{"batches_under_their_present_name", 175, "record.go",
		`func cycleID(k Key, mode string) string { return`,
		`func cycleID(k Key, mode string) string {
	if mutant("batches_under_their_present_name") {
		return k.stored() + "_" + mode
	}
	return`},
	{"summary_under_its_present_name", 235, "handed.go",
		`"handed", strings.TrimSuffix(t.StoredMode(mode), "~")))`,
		`"handed", map[bool]string{true: mode, false: strings.TrimSuffix(t.StoredMode(mode), "~")}[mutant("summary_under_its_present_name")]))`},
	{"cut_list_is_handed_over_as_complete", 9, "payload.go",
		`		t.Incremental = t.Incremental && r.Incremental && !r.Truncated`,
		`		t.Incremental = t.Incremental && r.Incremental && (!r.Truncated || mutant("cut_list_is_handed_over_as_complete"))`},
	{"entities_of_the_newest_run_alone", 59, "payload.go",
		`		t.CorrelationID, t.ParentExecution = r.CorrelationID, r.ExecutionID`,
		`		if mutant("entities_of_the_newest_run_alone") {
			entities, seen = nil, map[string]bool{}
		}
		t.CorrelationID, t.ParentExecution = r.CorrelationID, r.ExecutionID`},
	{"identical_second_run_is_handed_over", 78, "../policy/pending.go",
		`		if equal(r.RecordCount, newest.RecordCount) && len(r.Entities) == 0 && !r.Truncated {`,
		`		if mutant("identical_second_run_is_handed_over") {
			return true
		}
		if equal(r.RecordCount, newest.RecordCount) && len(r.Entities) == 0 && !r.Truncated {`},

	// Marks of settled periods.
	{"mark_without_the_definition", 43, "settled.go",
		`	return brief([]byte(t.Definition()+" "+version)) + "." + brief(text)`,
		`	if mutant("mark_without_the_definition") {
		return brief(nil) + "." + brief(text)
	}
	return brief([]byte(t.Definition()+" "+version)) + "." + brief(text)`},
	{"mark_without_the_reports", 2, "settled.go",
		`	delete(fields, settledField)`,
		`	delete(fields, settledField)
	if mutant("mark_without_the_reports") {
		delete(fields, "runs")
	}`},
	{"any_mark_is_valid", 2, "settled.go",
		`	return has == mark, fields`,
		`	return has == mark || mutant("any_mark_is_valid"), fields`},
	{"mark_of_another_definition_stays", 1283, "settled.go",
		`	case a.do != idle && has != "":`,
		`	case a.do != idle && has != "" && !mutant("mark_of_another_definition_stays"):`},
	{"settled_before_the_projection", 113, "settled.go",
		`	case a.do != idle, !by.settles`,
		`	case a.do != idle && !(mutant("settled_before_the_projection") && a.do == project), !by.settles`},
	{"settled_with_a_batch_of_a_former_mode", 340, "settled.go",
		`	if s.open() || by.schedule && s.undecided() {
		return false
	}
	for _, id := range s.listed {
		if !s.summed(id) {`,
		`	if s.open() && !mutant("settled_with_a_batch_of_a_former_mode") || by.schedule && s.undecided() {
		return false
	}
	for _, id := range s.listed {
		if !s.summed(id) && !mutant("settled_with_a_batch_of_a_former_mode") {`},
	{"settled_before_the_deadline", 1858, "settled.go",
		`st.NextCheck.IsZero() && !st.Recorded()`,
		`(st.NextCheck.IsZero() || mutant("settled_before_the_deadline")) && !st.Recorded()`},
	{"settled_though_overdue", 84, "settled.go",
		`		default:
			return false
		}
	}
	return true`,
		`		default:
			if !mutant("settled_though_overdue") || st.State != string(policy.Overdue) {
				return false
			}
		}
	}
	return true`},
	{"shard_written_without_a_new_touched", 71, "shards.go",
		`store.F(e.NewID(), "touched")}`,
		`store.F(map[bool]string{false: e.NewID()}[mutant("shard_written_without_a_new_touched")], "touched")}`},
	{"shards_of_the_definition_alone", 21, "snapshot.go",
		`		missing := share(s.sharded)`,
		`		missing := !mutant("shards_of_the_definition_alone") && share(s.sharded)`},
	{"shard_that_is_not_listed", 20, "shards.go",
		`	return []store.Field{store.F(store.Union(shards...), "shards"),`,
		`	if mutant("shard_that_is_not_listed") {
		shards = nil
	}
	return []store.Field{store.F(store.Union(shards...), "shards"),`},
	{"shard_before_its_period", 20, "shards.go",
		`		return e.inPeriod(ctx, k, nil, fields, shards...)
	}
	refs`,
		`		if mutant("shard_before_its_period") {
			if _, err := e.Store.Apply(ctx, shards...); err != nil {
				return err
			}
			shards = nil
		}
		return e.inPeriod(ctx, k, nil, fields, shards...)
	}
	refs`},
	{"period_before_its_shard", 1351, "shards.go",
		`	if !e.mayEnd(k) {
`,
		`	if mutant("period_before_its_shard") && !e.mayEnd(k) {
		if err := e.inPeriod(ctx, k, nil, fields); err != nil {
			return err
		}
		_, err := e.Store.Apply(ctx, shards...)
		return err
	}
	if !e.mayEnd(k) {
`},
	{"shards_that_are_not_listed_are_read", 29, "shards.go",
		`		case !listed[name]:`,
		`		case !listed[name] && !(doc.Exists && mutant("shards_that_are_not_listed_are_read")):`},
	{"end_without_its_shards", 20, "shards.go",
		`	for _, doc := range s.shards {
		writes`,
		`	for _, doc := range s.shards {
		if mutant("end_without_its_shards") {
			break
		}
		writes`},
	{"shards_of_a_deleted_period_stay", 341, "shards.go",
		`	if len(left) > 0 {`,
		`	if len(left) > 0 && !mutant("shards_of_a_deleted_period_stay") {`},
	{"late_report_into_shards_blindly", 73, "shards.go",
		`	if !e.mayEnd(k) {
`,
		`	if !e.mayEnd(k) || mutant("late_report_into_shards_blindly") {
`},
	{"second_shards_first", 3116, "shards.go",
		`cmp.Or(second(a)-second(b),`,
		`cmp.Or((second(a)-second(b))*map[bool]int{false: 1, true: -1}[mutant("second_shards_first")],`},
	{"policy_begins_with_lost_shards", 2877, "next.go",
		`|| s.lost {`,
		`|| s.lost && !mutant("policy_begins_with_lost_shards") {`},
	{"shards_end_under_a_new_batch", 2997, "steps.go",
		`		writes = append(slices.Clone(writes), s.shardsEnd(e.stays(e.Now()))...)`,
		`		if !mutant("shards_end_under_a_new_batch") {
			writes = append(slices.Clone(writes), s.shardsEnd(e.stays(e.Now()))...)
		}`},
	{"shards_with_ends_of_their_own", 24, "expiry.go",
		`	if together && (`,
		`	if (together || mutant("shards_with_ends_of_their_own")) && (`},
	{"full_shard_without_its_period", 30, "room.go",
		`			if sharded {
`,
		`			if sharded && !mutant("full_shard_without_its_period") {
`},
}
