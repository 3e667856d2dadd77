package health

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// The checks, in the order in which they are shown.
const (
	TrackingAccuracy   = "tracking_accuracy"   // tables with rows are shown as complete
	HandOvers          = "hand_overs"          // no cycle is overdue, blocked or late
	NextPhase          = "next_phase"          // hand-overs have had an effect
	Duplicates         = "duplicates"          // no rows share a key
	Reconciliation     = "reconciliation"      // nothing else differs
	LateUpstream       = "late_upstream"       // what runs before the first phase has run in time
	ExpectedProcessors = "expected_processors" // those that are waited for report
	Locks              = "locks"               // every lock is given back
	LockingActive      = "locking_active"      // locks are taken, and keep runs apart
	Quarantine         = "quarantine"          // no message waits for a person
	DeadLetterMessages = "dead_letters"        // no message was dead-lettered
	Receipts           = "receipts"            // no delivery under a guard is lost, unknown or worked twice
	Heartbeats         = "heartbeats"          // every job has finished in time
	DeployedCode       = "deployed_code"       // all functions run one source and one pipeline file
	DeployedServices   = "deployed_services"   // their newest revisions have all traffic
	Configuration      = "configuration"       // the functions have a Slack channel
)

// ErrNoWarehouse means that tables cannot be read here.
var ErrNoWarehouse = errors.New("no BigQuery is configured")

var checks = []struct {
	id    string
	judge func(*facts) Check
}{
	{TrackingAccuracy, accuracy}, {HandOvers, handOvers}, {NextPhase, ofFindings(reconcile.NextPhaseMissing)},
	{Duplicates, ofFindings(reconcile.DuplicateRows)}, {Reconciliation, otherFindings}, {LateUpstream, lateUpstream},
	{ExpectedProcessors, expectedProcessors}, {Locks, ofFindings(reconcile.LeakedLock)}, {LockingActive, lockingActive},
	{Quarantine, ofFindings(reconcile.QuarantineWaiting)}, {DeadLetterMessages, deadLettersCheck}, {Receipts, guardReceipts}, {Heartbeats, heartbeats}, {DeployedCode, deployedCode}, {DeployedServices, deployedServices},
	{Configuration, configuration},
}

// ofPeriods are the checks that leave planned maintenance alone, and say so.
var ofPeriods = []string{TrackingAccuracy, HandOvers, NextPhase, Duplicates, Reconciliation, LateUpstream, ExpectedProcessors, LockingActive}

// verdict gathers what a check finds.
type verdict struct {
	bad, unknown, fine []string
	commands           []string // of each that is bad, "" for the action of all
	notes              []string // said in any state
	action             string   // that helps against what is bad
	whenUnknown        string   // suggested command when the answer is unknown
	cycles             []Cycle  // that are bad
}

func (v *verdict) failing(format string, args ...any) { v.item("", format, args...) }

// item is failing with a command of its own.
func (v *verdict) item(command, format string, args ...any) {
	v.bad, v.commands = append(v.bad, fmt.Sprintf(format, args...)), append(v.commands, command)
}
func (v *verdict) notKnown(format string, args ...any) {
	v.unknown = append(v.unknown, fmt.Sprintf(format, args...))
}
func (v *verdict) ok(format string, args ...any) {
	v.fine = append(v.fine, fmt.Sprintf(format, args...))
}

// mostLinks bounds how many cycles a check names with their pages.
const mostLinks = 3

// mostNotes bounds how many notes stand next to evidence of what is wrong.
const mostNotes = 10

// noted puts the notes behind the first item, which logs and notifications show: at the end
// they would be cut off with long evidence.
func (v *verdict) noted(evidence []string) []string {
	notes := slices.Clone(v.notes)
	if more := len(notes) - mostNotes; more > 0 {
		notes = append(notes[:mostNotes], "and "+telemetry.Count(more)+" more")
	}
	return slices.Concat(evidence[:1], notes, evidence[1:])
}

func (v *verdict) check() Check {
	switch {
	case len(v.bad) == 1 && v.commands[0] != "":
		v.action = v.commands[0]
		fallthrough
	case len(v.bad) > 0:
		v.action = cmp.Or(v.action, v.commands[0])
		for i, command := range v.commands {
			if command != "" && command != v.action {
				v.bad[i] += ": " + command
			}
		}
		return Check{State: Failing, Evidence: v.noted(append(v.bad, v.unknown...)), Action: v.action, Cycles: v.cycles[:min(len(v.cycles), mostLinks)]}
	case len(v.unknown) > 0:
		return Check{State: Unknown, Evidence: v.noted(v.unknown), Action: v.whenUnknown}
	}
	if len(v.fine) == 0 {
		v.ok("nothing to check")
	}
	return Check{State: OK, Evidence: v.fine}
}

const reconcileCommand = "phasectl reconcile --days 7 --verbose"

// each calls do for each transition that could be compared, and notes the others.
func (f *facts) each(v *verdict, do func(t *pipeline.Transition, r reconcile.Report)) {
	for _, t := range f.pipeline.Transitions {
		if err := f.comparedErr[t.ID]; err != nil {
			v.notKnown("%s: %v", t.ID, err)
			continue
		}
		do(t, f.compared[t.ID])
	}
}

// firstReport is how long after a deployment nothing has to be recorded: each processor runs once
// in a day.
const firstReport = 24 * time.Hour

// recorded is each for transitions with records. Without records the answer is unknown if
// work was expected.
func (f *facts) recorded(v *verdict, do func(t *pipeline.Transition, r reconcile.Report)) {
	f.each(v, func(t *pipeline.Transition, r reconcile.Report) {
		if why := t.Unmanaged(f.now); why != "" {
			v.notKnown("%s", why)
			return
		}
		if r.Since != "" {
			do(t, r)
			return
		}
		switch todo, known := f.todo(t, f.today); {
		case !known:
			v.notKnown("%s: nothing was ever recorded, and it is unknown whether work was expected", t.ID)
		case todo && f.now.Before(f.deployed().Add(firstReport)):
			v.ok("%s: nothing is recorded yet: the deployment is of %s", t.ID, f.local(f.deployed()))
		case todo:
			v.notKnown("%s: nothing was ever recorded, and work was expected", t.ID)
		default:
			v.ok("%s: nothing was ever recorded, and no work was expected", t.ID)
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
	v := verdict{action: reconcileCommand, whenUnknown: reconcileCommand}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		pct, known := r.Accuracy()
		switch {
		case known && pct < 100:
			v.failing("%s: %s", t.ID, r.AccuracyText())
		case len(r.Unknown) > 0:
			v.tables(r)
		case !known:
			v.ok("%s: no table has rows of the last %d days that must be shown as complete", t.ID, days)
		default:
			v.ok("%s: %s", t.ID, r.AccuracyText())
		}
	})
	return v.check()
}

// numbers are those of all transitions; nil where a table or a transition could not be read.
func (f *facts) numbers() (*Tracking, *int64) {
	tracking, surplus := &Tracking{}, int64(0)
	for _, t := range f.pipeline.Transitions {
		r := f.compared[t.ID]
		if f.comparedErr[t.ID] != nil || len(r.Unknown) > 0 {
			return nil, nil
		}
		tracking.Tables, tracking.Shown = tracking.Tables+r.Tables, tracking.Shown+r.Shown
		for _, found := range r.Findings {
			if n, ok := found.Evidence["duplicates"].(int64); ok && found.Type == reconcile.DuplicateRows {
				surplus += n
			}
		}
	}
	if tracking.Tables == 0 {
		tracking = nil
	}
	return tracking, &surplus
}

// ofFindings is failing while reconciliation finds something of a type.
func ofFindings(kind string) func(*facts) Check {
	return func(f *facts) Check {
		v := verdict{action: reconcileCommand, whenUnknown: reconcileCommand}
		f.each(&v, func(t *pipeline.Transition, r reconcile.Report) {
			for _, found := range open(r) {
				if found.Type == kind {
					v.item(found.Command(), "%s", f.describe(found))
				}
			}
			if kind == reconcile.DuplicateRows || kind == reconcile.NextPhaseMissing { // the others need no table
				v.tables(r)
			}
		})
		v.ok("none in the last %d days", days)
		return v.check()
	}
}

// named are the types of findings that have a check of their own.
var named = []string{reconcile.NextPhaseMissing, reconcile.DuplicateRows, reconcile.LeakedLock, reconcile.QuarantineWaiting, reconcile.DeadLetterWaiting}

func otherFindings(f *facts) Check {
	v := verdict{action: reconcileCommand, whenUnknown: reconcileCommand}
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		for _, found := range open(r) {
			if !slices.Contains(named, found.Type) {
				v.item(found.Command(), "%s", f.describe(found))
			}
		}
		v.tables(r)
	})
	v.ok("documents, tables and schedule of the last %d days agree", days)
	return v.check()
}

// open are the findings for an operator. Duplicates are reported in any number.
func open(r reconcile.Report) (out []*reconcile.Finding) {
	for _, found := range r.Findings {
		if found.Status != reconcile.Skipped && (found.Severity != reconcile.Info || found.Type == reconcile.DuplicateRows) {
			out = append(out, found)
		}
	}
	return out
}

// describe says which, how many and since when.
func (f *facts) describe(found *reconcile.Finding) string {
	words := []string{found.Type, string(found.Period), found.Mode, found.Table}
	if lock, ok := found.Evidence["lock"].(string); ok {
		words = append(words, lock)
	}
	if at, ok := found.Evidence["renewed"].(time.Time); ok {
		words = append(words, "not renewed since "+f.local(at))
	}
	if n, ok := found.Evidence["messages"].(int); ok {
		words = append(words, pipeline.Count(n, "message", "messages"))
	}
	if at, ok := found.Evidence["published_at"].(time.Time); ok {
		words = append(words, "published "+f.local(at))
	}
	if n, ok := found.Evidence["duplicates"]; ok {
		words = append(words, fmt.Sprint(n, " rows too many"))
	}
	if name, ok := found.Evidence["reported"].(string); ok {
		words = append(words, fmt.Sprintf("%q", name))
	}
	if meant, ok := found.Evidence["did_you_mean"]; ok && meant != "" {
		words = append(words, fmt.Sprintf("(did you mean %v?)", meant))
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// expectedProcessors finds processors that are waited for and have not reported for days
// with something to do.
func expectedProcessors(f *facts) Check {
	v := verdict{action: "phasectl status --days 7", whenUnknown: reconcileCommand}
	days := f.pipeline.Health.UnseenDays
	f.recorded(&v, func(t *pipeline.Transition, r reconcile.Report) {
		if len(r.Expected) == 0 {
			v.notKnown("%s: it is unknown how much work was expected", t.ID)
			return
		}
		var periods []int // of r.Periods: of the last days that are over and had something to do
		found := map[pipeline.Period]bool{}
		for i := len(r.Periods) - 1; i >= 0; i-- {
			b, day := r.Periods[i], t.Calendar().Day(r.Periods[i].Period)
			if len(found) == days && !found[day] {
				break
			}
			if b.Problem == nil && f.now.After(t.LastDue(b.Period)) && b.Period >= r.Since && r.Expected[b.Period] > 0 {
				periods, found[day] = append(periods, i), true
			}
		}
		if len(found) < days {
			v.ok("%s: only %s with expected work, %d are needed", t.ID, pipeline.Count(len(found), "day", "days"), days)
			return
		}
		for _, name := range t.Order {
			if !slices.ContainsFunc(periods, func(i int) bool { _, ok := r.Periods[i].Newest(name); return ok }) {
				v.failing("%s has not reported for any of the last %d days with expected work", name, days)
			}
		}
		v.ok("%s: all %d have reported", t.ID, len(t.Order))
	})
	return v.check()
}
