package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/lease"
)

func locksCommand(f *flags) *cobra.Command {
	return group("locks", "List the locks of processors, and revoke one", locksList(f), locksRelease(f))
}

// lockState is how a lock stands.
type lockState string

const (
	lockHeld    lockState = "held"
	lockExpired lockState = "expired"
	lockLeaked  lockState = "leaked"
)

// lockLine is a lock as it is shown.
type lockLine struct {
	Key       string    `json:"key"`
	State     lockState `json:"state"`
	Execution string    `json:"execution_id"`
	Instance  string    `json:"instance"`
	Foreign   bool      `json:"foreign"` // of a processor in another language
	Since     time.Time `json:"since"`
	Renewed   time.Time `json:"renewed"`
	// RenewedAgo is how many seconds before the listing the lock was renewed, by the server's clock.
	RenewedAgo int64     `json:"renewed_seconds_ago"`
	Until      time.Time `json:"until"`
}

func lineOf(s lease.State, at time.Time) lockLine {
	l := lockLine{Key: s.Key, State: lockHeld, Execution: s.Execution, Instance: s.Instance, Foreign: s.Foreign, Since: s.Since, Renewed: s.Renewed, RenewedAgo: int64(at.Sub(s.Renewed).Seconds()), Until: s.Until}
	switch {
	case s.Leaked(at):
		l.State = lockLeaked
	case s.Expired(at):
		l.State = lockExpired
	}
	return l
}

func locksList(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the locks that have a document: holder, last renewal and end",
		Example: "  phasectl locks list --json",
	}
	return answers(f, cmd, on(f.open, listLocks))
}

func listLocks(ctx context.Context, a *app.App) (*locksAnswer, error) {
	states, at, err := a.Locks.List(ctx)
	if err != nil {
		return nil, unknown(err)
	}
	r := &locksAnswer{Locks: []lockLine{}}
	for _, s := range states {
		r.Locks = append(r.Locks, lineOf(s, at))
	}
	return r, nil
}

type locksAnswer struct {
	Locks []lockLine `json:"locks"`
}

func (r *locksAnswer) text(p *page) {
	p.listing("nothing is locked", "LOCK", "STATE", "ALIVE", "LAST RENEWED", "SINCE")
	for _, l := range r.Locks {
		alive := "yes"
		if l.State != lockHeld {
			alive = "no"
		}
		p.row(l.Key, string(l.State), alive, fmt.Sprintf("%d s ago", l.RenewedAgo), p.at(l.Since))
		p.detail("execution %s on %s", quoted(l.Execution), quoted(l.Instance))
		switch l.State {
		case lockHeld:
			p.detail("until %s unless it is renewed", p.at(l.Until))
		case lockExpired:
			p.detail("not renewed since %s: the next run gets it", p.at(l.Renewed))
		default:
			p.detail("not renewed since %s, and no run has asked for it", p.at(l.Renewed))
			p.detail("fix: run the processor again, in its own way or by %s; or phasectl locks release %s --reason \"…\"", runAgain(l.Key), l.Key)
		}
		if l.Foreign {
			p.detail("not by Phasegate: waited for until %s", p.at(l.Until))
		}
	}
}

// runAgain is the command that runs the processor of a lock, CLASS_PERIOD.
func runAgain(key string) string {
	class, period := key, "PERIOD"
	if i := strings.LastIndexByte(key, '_'); i > 0 {
		class, period = key[:i], key[i+1:]
	}
	return fmt.Sprintf("phasectl run %s --processor %s --publish -- COMMAND", period, class)
}

type lockReleaseOptions struct {
	act
	key string
}

func locksRelease(f *flags) *cobra.Command {
	var o lockReleaseOptions
	cmd := &cobra.Command{
		Use:   "release KEY",
		Short: "Revoke a lock from its holder",
		Long: "Revoke a lock, with an audit record of the actor and the reason. Do not release an expired lock: the next run takes\n" +
			"it over. A live holder learns of it at its next renewal, within a third of its lease, and is ended soon after; until\n" +
			"then two runs may be at work.",
		Example: "  phasectl locks release PlayerGameSummaryProcessor_2026-02-03 --reason \"its machine is gone\"",
	}
	f.words(cmd, word{"KEY", "PlayerGameSummaryProcessor_2026-02-03", &o.key})
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.run))
}

// lockReleased is a lock that was revoked, or would be.
type lockReleased struct {
	DryRun bool     `json:"dry_run"`
	Lock   lockLine `json:"lock"`
}

func (r *lockReleased) text(p *page) {
	holder := fmt.Sprintf("held by execution %s on %s since %s, last renewed %d s ago", quoted(r.Lock.Execution), quoted(r.Lock.Instance), p.at(r.Lock.Since), r.Lock.RenewedAgo)
	if r.DryRun {
		p.line("would revoke %s, which is %s", r.Lock.Key, holder)
		return
	}
	p.line("%s is free; it was %s", r.Lock.Key, holder)
	p.line("  if its work is not done: %s", runAgain(r.Lock.Key))
}

func (o *lockReleaseOptions) run(ctx context.Context, a *app.App) (*lockReleased, error) {
	states, at, err := a.Locks.List(ctx)
	if err != nil {
		return nil, unknown(err)
	}
	i := slices.IndexFunc(states, func(s lease.State) bool { return s.Key == o.key })
	if i < 0 {
		return nil, findings(fmt.Errorf("%s: %w", o.key, lease.ErrNotLocked))
	}
	r := &lockReleased{DryRun: o.dryRun, Lock: lineOf(states[i], at)}
	if o.dryRun {
		return r, nil
	}
	if err := o.confirm(ctx, "revoke %s from execution %s on %s, last renewed %d s ago", o.key, r.Lock.Execution, r.Lock.Instance, r.Lock.RenewedAgo); err != nil {
		return nil, err
	}
	s, err := a.Locks.Break(ctx, o.key, audit.Record{Action: "lock_release", Actor: actor(), Reason: o.reason})
	if err != nil {
		return nil, findingsIf(err, lease.ErrNotLocked)
	}
	r.Lock = lineOf(s, at)
	return r, nil
}
