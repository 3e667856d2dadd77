package health

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

// The checks, in the order in which they are shown.
const (
	TrackingAccuracy   = "tracking_accuracy"   // what is there is shown as complete
	HandOvers          = "hand_overs"          // nothing is held, blocked or waiting beyond its time
	NextPhase          = "next_phase"          // what was handed over has had an effect
	Duplicates         = "duplicates"          // no rows share a key
	Reconciliation     = "reconciliation"      // nothing else differs
	LateUpstream       = "late_upstream"       // what runs before the first phase has run in time
	ExpectedProcessors = "expected_processors" // those that are waited for report
	Locks              = "locks"               // every lock is given back
	LockingActive      = "locking_active"      // locks are taken, and keep runs apart
	Quarantine         = "quarantine"          // no message waits for a person
	DeadLetterMessages = "dead_letters"        // no message was given up
	Heartbeats         = "heartbeats"          // every job comes to its end
	DeployedCode       = "deployed_code"       // all functions run one source and one pipeline file
)

// ErrNoWarehouse says why nothing is known of the tables.
var ErrNoWarehouse = errors.New("there is no warehouse here")

var checks = []struct {
	id    string
	judge func(*facts) Check
}{
	{TrackingAccuracy, accuracy}, {HandOvers, handOvers}, {NextPhase, ofFindings(reconcile.NextPhaseMissing)},
	{Duplicates, ofFindings(reconcile.DuplicateRows)}, {Reconciliation, otherFindings}, {LateUpstream, lateUpstream},
	{ExpectedProcessors, expectedProcessors}, {Locks, ofFindings(reconcile.LeakedLock)}, {LockingActive, lockingActive},
	{Quarantine, ofFindings(reconcile.QuarantineWaiting)}, {DeadLetterMessages, deadLettersCheck}, {Heartbeats, heartbeats}, {DeployedCode, deployedCode},
}

// verdict gathers what a check finds.
type verdict struct {
	bad, unknown, fine []string
	action             string // that helps against what is bad
	look               string // where to look when it is not known
}

func (v *verdict) failing(format string, args ...any) {
	v.bad = append(v.bad, fmt.Sprintf(format, args...))
}
func (v *verdict) notKnown(format string, args ...any) {
	v.unknown = append(v.unknown, fmt.Sprintf(format, args...))
}
func (v *verdict) ok(format string, args ...any) {
	v.fine = append(v.fine, fmt.Sprintf(format, args...))
}

func (v *verdict) check() Check {
	switch {
	case len(v.bad) > 0:
		return Check{State: Failing, Evidence: append(v.bad, v.unknown...), Action: v.action}
	case len(v.unknown) > 0:
		return Check{State: Unknown, Evidence: v.unknown, Action: v.look}
	}
	if len(v.fine) == 0 {
		v.ok("there is nothing to look at")
	}
	return Check{State: OK, Evidence: v.fine}
}

const reconcileCommand = "phasectl reconcile --days 7 --verbose"

// each calls do for each transition that could be looked at, and notes the others.
func (f *facts) each(v *verdict, do func(t *pipeline.Transition, r reconcile.Report)) {
	for _, t := range f.pipeline.Transitions {
		if err := f.comparedErr[t.ID]; err != nil {
			v.notKnown("%s: %v", t.ID, err)
			continue
		}
		do(t, f.compared[t.ID])
	}
}

// recorded is each for those of which anything is on record. Where something was to do,
// nothing on record is no good sign.
func (f *facts) recorded(v *verdict, do func(t *pipeline.Transition, r reconcile.Report)) {
	f.each(v, func(t *pipeline.Transition, r reconcile.Report) {
		if r.Since != "" {
			do(t, r)
			return
		}
		switch todo, known := f.todo(t, f.today); {
		case !known:
			v.notKnown("%s: nothing was ever recorded, and whether anything was to do is not known", t.ID)
		case todo:
			v.notKnown("%s: nothing was ever recorded, and something was to do", t.ID)
		default:
			v.ok("%s: nothing was ever recorded, and nothing was to do", t.ID)
		}
	})
}

// tables notes the tables that could not be read: of what is in them nothing is known.
func (v *verdict) tables(r reconcile.Report) {
	for _, u := range r.Unknown {
		v.notKnown("%s", u)
	}
}

func accuracy(f *facts) Check {
	v := verdict{action: reconcileCommand, look: reconcileCommand}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		pct, known := r.Accuracy()
		switch {
		case known && pct < 100:
			v.failing("%s: %s", t.ID, r.AccuracyText())
		case len(r.Unknown) > 0 || !known:
			v.tables(r)
		case r.Tables == 0:
			v.ok("%s: 100 %%: no table has rows of the last %d days", t.ID, Days)
		default:
			v.ok("%s: %s", t.ID, r.AccuracyText())
		}
	})
	return v.check()
}

// ofFindings is failing while reconciliation finds something of a type.
func ofFindings(kind string) func(*facts) Check {
	return func(f *facts) Check {
		v := verdict{action: reconcileCommand, look: reconcileCommand}
		f.each(&v, func(t *pipeline.Transition, r reconcile.Report) {
			for _, found := range open(r) {
				if found.Type == kind {
					v.failing("%s", describe(found))
					v.action = found.Repair
				}
			}
			if kind == reconcile.DuplicateRows || kind == reconcile.NextPhaseMissing { // the others need no table
				v.tables(r)
			}
		})
		v.ok("none in the last %d days", Days)
		return v.check()
	}
}

// named are the types of findings that have a check of their own.
var named = []string{reconcile.NextPhaseMissing, reconcile.DuplicateRows, reconcile.LeakedLock, reconcile.QuarantineWaiting, reconcile.DeadLetterWaiting}

func otherFindings(f *facts) Check {
	v := verdict{action: reconcileCommand, look: reconcileCommand}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		for _, found := range open(r) {
			if !slices.Contains(named, found.Type) {
				v.failing("%s", describe(found))
			}
		}
		v.tables(r)
	})
	v.ok("books, tables and schedule of the last %d days agree", Days)
	return v.check()
}

// open are the findings that want somebody. Duplicates are told however few.
func open(r reconcile.Report) (out []*reconcile.Finding) {
	for _, found := range r.Findings {
		if found.Status != reconcile.Skipped && (found.Severity != reconcile.Info || found.Type == reconcile.DuplicateRows) {
			out = append(out, found)
		}
	}
	return out
}

func describe(found *reconcile.Finding) string {
	words := []string{found.Type, string(found.Period), found.Mode, found.Table}
	if n, ok := found.Evidence["duplicates"]; ok {
		words = append(words, fmt.Sprint(n, " rows too many"))
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// stuckAfter is how long a hand-over may be under way before somebody is told: the relay
// comes every few minutes.
const stuckAfter = 15 * time.Minute

func handOvers(f *facts) Check {
	v := verdict{look: "phasectl status"}
	whole := map[string]bool{}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		for _, b := range r.Books {
			if b.Period < r.Since {
				continue
			}
			if b.Problem != nil {
				v.notKnown("%s: %v", b.Period, b.Problem)
				continue
			}
			for i, st := range b.Cycles {
				if b.Period == r.Since && t.ManagedSince == "" && !st.Recorded() {
					continue // of before somebody managed it
				}
				if st.Hold != nil && st.Hold.Whole {
					if !whole[t.ID] { // its cycles are quiet meanwhile, and it is not
						v.failing("%s is on hold until %s: %s (%s)", t.ID, f.local(st.Hold.Until), st.Hold.Reason, st.Hold.Actor)
						v.action = "phasectl release --reason '…'"
					}
					whole[t.ID] = true
					continue
				}
				why := unfinished(f, t, b.Period, st)
				switch later := handedOverSince(b.Cycles[i+1:]); {
				case why == "":
				case later != "" && st.Hold == nil: // nobody can do anything about it any more, nor has to
					v.ok("%s %s: %s; %s was handed over since", st.Period, st.Mode, why, later)
				default:
					v.failing("%s %s: %s", st.Period, st.Mode, why)
					v.action = fmt.Sprintf("phasectl explain %s %s", st.Period, st.Mode)
				}
			}
		}
	})
	v.ok("every cycle of the last %d days is handed over, or still has its time", Days)
	return v.check()
}

// handedOverSince returns the first of a period's later modes that has a hand-over, "" when
// none has: it made up for what an earlier one has missed.
func handedOverSince(later []cycle.Status) string {
	for _, st := range later {
		for _, b := range st.Batches {
			if b.State == cycle.StatePublished {
				return st.Mode
			}
		}
	}
	return ""
}

// degradedFor is how long a hand-over without all of it is told: after that it is history.
const degradedFor = 24 * time.Hour

// degraded reports whether what a mode is without has missed its time, not long ago.
func degraded(f *facts, t *pipeline.Transition, p pipeline.Period, mode string) bool {
	m, ok := t.Mode(mode)
	if !ok || m.Complete != pipeline.CompleteAll {
		return false
	}
	deadline := f.pipeline.Calendar.End(p)
	if m.Deadline != nil {
		deadline = f.pipeline.Calendar.Instant(p, *m.Deadline)
	}
	return f.now.After(deadline) && f.now.Sub(deadline) < degradedFor
}

// unfinished says what keeps a cycle beyond its time; "" when nothing does.
func unfinished(f *facts, t *pipeline.Transition, p pipeline.Period, st cycle.Status) string {
	if st.Hold != nil {
		return fmt.Sprintf("on hold until %s: %s (%s)", f.local(st.Hold.Until), st.Hold.Reason, st.Hold.Actor)
	}
	for _, b := range st.Batches {
		if b.State != cycle.StatePublished && !b.DueAt.IsZero() && f.now.Sub(b.DueAt) > stuckAfter {
			return fmt.Sprintf("%s since %s: %s", b.State, f.local(b.DueAt), st.Reason)
		}
	}
	switch {
	case st.State == "held":
		return st.State + ": " + st.Reason
	case st.State == string(cycle.StateBlocked) && !st.Since.IsZero() && f.now.Sub(st.Since) > stuckAfter:
		return fmt.Sprintf("blocked since %s: %s", f.local(st.Since), st.Reason)
	case st.Due && !st.Since.IsZero() && f.now.Sub(st.Since) > stuckAfter:
		return fmt.Sprintf("due since %s, and nobody has handed it over", f.local(st.Since))
	case st.State == string(cycle.StatePublished) && len(st.Missing) > 0 && degraded(f, t, p, st.Mode):
		return "handed over without " + strings.Join(st.Missing, ", ")
	}
	return ""
}

func (f *facts) local(t time.Time) string {
	return t.In(f.pipeline.Calendar.Zone()).Format("2006-01-02 15:04")
}

// usualDays is how far back is looked for what is usual upstream.
const usualDays = 28

// lateUpstream compares the first run of each source on a day with when it usually runs.
// Until it is late it is judged by the day before, so that what is dead stays failing over
// midnight.
func lateUpstream(f *facts) Check {
	u := f.pipeline.Health.Upstream
	if u == nil {
		return Check{State: OK, Evidence: []string{"the pipeline file says nothing about what runs upstream"}}
	}
	v := verdict{action: "look at the log of the scraper", look: "phasectl health --verbose"}
	if f.firstErr != nil {
		v.notKnown("%v", f.firstErr)
		return v.check()
	}
	cal := f.pipeline.Calendar
	if f.dayAt.After(cal.Instant(f.day, u.FailingAfter)) {
		v.upstream(f, f.day, false)
	} else {
		v.upstream(f, cal.Add(f.day, -1), true)
		v.ok("those of %s are expected by %s, and failing after %s", f.day, f.clock(cal.Instant(f.day, u.ExpectedBy)), f.clock(cal.Instant(f.day, u.FailingAfter)))
	}
	return v.check()
}

// upstream judges the first runs of a day that are late if they have not come. A source is
// expected when it has run early on at least half of the days before on which any has run.
// over: the day is over, and what came late has come.
func (v *verdict) upstream(f *facts, day pipeline.Period, over bool) {
	u, cal := f.pipeline.Health.Upstream, f.pipeline.Calendar
	failingAfter := cal.Instant(day, u.FailingAfter)
	early, ran, days := map[string]int{}, map[string]time.Time{}, map[pipeline.Period]bool{}
	for _, r := range f.firstRuns {
		switch {
		case r.Day == day:
			ran[r.Source] = r.At
		case r.Day < day:
			days[r.Day] = true
			if !r.At.After(cal.Instant(r.Day, u.FailingAfter)) {
				early[r.Source]++
			}
		}
	}
	// Sources fetch what the day before has brought.
	todo, known := f.anything(cal.Add(day, -1))
	expected := 0
	for _, name := range sorted(early) {
		if 2*early[name] < len(days) {
			continue
		}
		expected++
		at, has := ran[name]
		switch {
		case has && at.After(failingAfter) && !over:
			v.failing("%s ran first at %s, expected by %s", name, f.clock(at), f.clock(cal.Instant(day, u.ExpectedBy)))
		case has && at.After(cal.Instant(day, u.ExpectedBy)):
			v.ok("%s was late on %s: %s", name, day, f.clock(at))
		case has:
		case known && !todo:
			v.ok("%s has not run on %s, and nothing was to do the day before", name, day)
		default:
			v.failing("%s has not run on %s, expected by %s", name, day, f.clock(cal.Instant(day, u.ExpectedBy)))
		}
	}
	switch {
	case expected > 0:
		v.ok("%d sources are expected on %s", expected, day)
	case len(ran) > 0:
		v.ok("what is usual upstream is not known yet; %d sources have run on %s", len(ran), day)
	case !known:
		v.notKnown("nothing has run upstream by %s, and whether anything was to do is not known", day)
	case todo:
		v.failing("nothing has run upstream on %s, and there was something to do", day)
	default:
		v.ok("nothing has run upstream on %s, and nothing was to do", day)
	}
}

// anything reports whether something was expected of a period, by any transition.
func (f *facts) anything(p pipeline.Period) (yes, known bool) {
	known = true
	for _, t := range f.pipeline.Transitions {
		n, ok := f.compared[t.ID].Expected[p]
		yes, known = yes || n > 0, known && ok
	}
	return yes, known
}

// todo reports whether something was expected of a transition's periods before one, of
// those that are looked at.
func (f *facts) todo(t *pipeline.Transition, before pipeline.Period) (yes, known bool) {
	for p, n := range f.compared[t.ID].Expected {
		if p < before {
			yes, known = yes || n > 0, true
		}
	}
	return yes, known
}

func (f *facts) clock(t time.Time) string {
	return t.In(f.pipeline.Calendar.Zone()).Format("15:04")
}

func sorted[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// expectedProcessors finds processors that are waited for and have not reported for days
// with something to do.
func expectedProcessors(f *facts) Check {
	v := verdict{action: "phasectl status --days 7", look: reconcileCommand}
	days := f.pipeline.Health.UnseenDays
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		if len(r.Expected) == 0 {
			v.notKnown("%s: how much was to do is not known", t.ID)
			return
		}
		var periods []int // of r.Books: the last days that are over and had something to do
		for i := len(r.Books) - 1; i >= 0 && len(periods) < days; i-- {
			b := r.Books[i]
			if b.Problem == nil && f.now.After(lastDeadline(t, b.Period)) && b.Period >= r.Since && r.Expected[b.Period] > 0 {
				periods = append(periods, i)
			}
		}
		if len(periods) < days {
			v.ok("%s: only %d days with something to do, %d are looked at", t.ID, len(periods), days)
			return
		}
		for _, name := range t.Order {
			if !slices.ContainsFunc(periods, func(i int) bool { _, ok := r.Books[i].Newest(name); return ok }) {
				v.failing("%s has not reported for any of the last %d days with something to do", name, days)
			}
		}
		v.ok("%s: all %d have reported", t.ID, len(t.Order))
	})
	return v.check()
}

// lastDeadline is when the last mode of a period should have been handed over.
func lastDeadline(t *pipeline.Transition, p pipeline.Period) time.Time {
	last := t.Calendar().End(p)
	for _, m := range t.Modes {
		if m.Deadline != nil {
			if at := t.Calendar().Instant(p, *m.Deadline); at.After(last) {
				last = at
			}
		}
	}
	return last
}

// lockingActive looks at what processors did: two runs of one at once are what locks are
// to keep apart, and locks that nobody takes keep nothing apart.
func lockingActive(f *facts) Check {
	if f.pipeline.Health.Runs == "" {
		return Check{State: OK, Evidence: []string{"the pipeline file names no history of runs"}}
	}
	v := verdict{action: "phasectl locks list", look: "phasectl locks list"}
	if f.runsErr != nil {
		v.notKnown("%v", f.runsErr)
	}
	if f.lockedErr != nil {
		v.notKnown("%v", f.lockedErr)
	}
	if len(v.unknown) > 0 {
		return v.check()
	}
	v.overlaps(f)
	// Locks are looked at of these processors and days alone: backfills of others tell nothing.
	var newest time.Time
	looked := 0
	for _, r := range f.runs {
		_, _, known := f.pipeline.Processor(r.Processor)
		if cal := f.pipeline.Calendar; known && r.Period >= cal.Add(f.today, -Days) && r.Period <= cal.Add(f.today, 1) {
			looked++
			if r.Began.After(newest) {
				newest = r.Began
			}
		}
	}
	switch {
	case looked == 0:
		v.ok("no processor has run about the last %d days", Days)
	case f.lockedAt.IsZero():
		v.failing("%d runs in the last %d days, and none has taken a lock", looked, Days)
	case newest.Sub(f.lockedAt) > unlocked:
		v.failing("a run began at %s, and no lock was taken since %s", f.local(newest), f.local(f.lockedAt))
	default:
		v.ok("%d runs, none beside another; a lock was taken last at %s", looked, f.local(f.lockedAt))
	}
	return v.check()
}

// unlocked is by how much the last run may be younger than the last lock: one that is
// turned away, or wrote its history by a clock of its own, takes none.
const unlocked = time.Hour

// mostShown bounds what is told of one kind.
const mostShown = 5

// overlaps finds runs of one processor and period that were at work at once.
func (v *verdict) overlaps(f *facts) {
	runs := slices.Clone(f.runs)
	class := func(name string) string {
		if _, p, ok := f.pipeline.Processor(name); ok {
			return p.Class
		}
		return name
	}
	sort.SliceStable(runs, func(i, j int) bool { return runs[i].Began.Before(runs[j].Began) })
	type place struct {
		class  string
		period pipeline.Period
	}
	before := map[place]int{} // the run of the place that ends last
	end := func(i int) time.Time {
		if runs[i].Ended.IsZero() { // it died, or goes on: how long it lived is not known
			return runs[i].Began.Add(time.Minute)
		}
		return runs[i].Ended
	}
	found := 0
	for i, r := range runs {
		at := place{class(r.Processor), r.Period}
		j, ok := before[at]
		if ok && runs[j].ID != r.ID && r.Began.Before(end(j)) {
			if found++; found <= mostShown {
				v.failing("two runs of %s for %s at once: %s from %s and %s from %s", at.class, r.Period, runs[j].ID, f.local(runs[j].Began), r.ID, f.local(r.Began))
			}
		}
		if !ok || end(j).Before(end(i)) {
			before[at] = i
		}
	}
	if found > mostShown {
		v.failing("and %d more", found-mostShown)
	}
}

// heartbeats compares when each job was due with when it has come to its end. That of
// health itself is watched from outside.
func heartbeats(f *facts) Check {
	v := verdict{action: "gcloud scheduler jobs list", look: "phasectl smoke"}
	if f.statusErr != nil {
		v.notKnown("%v", f.statusErr)
		return v.check()
	}
	for _, s := range f.pipeline.Schedules {
		if s.Function == "health" {
			continue
		}
		due := f.pipeline.LastDue(s, f.now)
		grace := min(due.Sub(f.pipeline.LastDue(s, due)), time.Hour)
		if f.now.Sub(due) < grace { // it may still be at work: the one before is what counts
			due = f.pipeline.LastDue(s, due)
		}
		last := f.functions[s.Function].heartbeats[s.Job]
		switch {
		case due.IsZero():
			v.ok("%s is not due in ten days", s.Name)
		case last.IsZero():
			v.notKnown("%s has never come to its end", s.Name)
		case last.Before(due.Add(-clockSkew)):
			v.failing("%s has not come to its end since %s, and was due at %s", s.Name, f.local(last), f.local(due))
		default:
			v.ok("%s: %s", s.Name, f.local(last))
		}
	}
	return v.check()
}

// clockSkew is by how much the scheduler's clock and the store's may differ.
const clockSkew = time.Minute

// deployedCode compares what the functions say that they are. A function says it when it
// has done a job; one that has not run since the newest was first seen says nothing yet.
func deployedCode(f *facts) Check {
	v := verdict{action: "make deploy", look: "phasectl smoke"}
	if f.statusErr != nil {
		v.notKnown("%v", f.statusErr)
		return v.check()
	}
	newest := "" // that was seen first last
	for _, code := range sorted(f.seen) {
		if newest == "" || f.seen[code].After(f.seen[newest]) {
			newest = code
		}
	}
	for _, name := range sorted(f.functions) {
		s := f.functions[name]
		switch {
		case s.source == "" || s.definition == "":
			v.notKnown("%s has not said what it is", name)
		case s.code() == newest:
			v.ok("%s runs %s", name, newest)
		case s.last().After(f.seen[newest]):
			v.failing("%s runs %s, and the newest is %s, since %s", name, s.code(), newest, f.local(f.seen[newest]))
		default:
			v.ok("%s has not run since %s, when %s was first seen", name, f.local(f.seen[newest]), newest)
		}
	}
	v.ok("transition has no schedule and is not among them: phasectl smoke asks it")
	return v.check()
}

// code names what a function runs.
func (s status) code() string { return "source " + s.source + ", pipeline file " + s.definition }

// last is when a function has done a job last.
func (s status) last() (newest time.Time) {
	for _, at := range s.heartbeats {
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}

// seen returns when each code that a function runs was seen first, of which before was
// known.
func seen(functions map[string]status, before map[string]time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for _, s := range functions {
		if s.source == "" || s.definition == "" {
			continue
		}
		first, known := before[s.code()]
		if other, also := out[s.code()]; !known && (!also || s.last().Before(other)) {
			first, known = s.last(), true
		}
		if known {
			out[s.code()] = first
		}
	}
	return out
}
