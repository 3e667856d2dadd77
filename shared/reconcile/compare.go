package reconcile

import (
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

// The types of findings.
const (
	MissingCompletion = "missing_completion"  // rows are there, and no run that wrote them has reported
	PhantomCompletion = "phantom_completion"  // a run has reported rows, and there are none
	CountDrift        = "count_drift"         // a number that does not agree with what it counts
	FlagDrift         = "flag_drift"          // a flag that says what did not happen
	Untriggered       = "untriggered"         // the policy is met, and nothing was handed over
	Unpublished       = "unpublished"         // a hand-over is promised, and the broker has not all of it
	MissingPeriod     = "missing_period"      // something was expected, and nothing came
	UnexpectedPeriod  = "unexpected_period"   // nothing was expected, and something came
	PartialData       = "partial_data"        // fewer rows than the run that wrote them has reported
	NextPhaseMissing  = "next_phase_missing"  // handed over, and the next phase has written nothing since
	LeakedLock        = "leaked_lock"         // a lock that was not released
	QuarantineWaiting = "quarantine_waiting"  // invalid messages that no operator has handled
	DeadLetterWaiting = "dead_letter_waiting" // messages that were dead-lettered
	DuplicateRows     = "duplicate_rows"      // rows with the key of another
	StrayRows         = "stray_rows"          // rows within a period whose date is not its beginning
	LocalTimestamp    = "local_timestamp"     // a processor's newest report has a local time without offset, which is read as UTC
	DoubtfulReport    = "doubtful_report"     // a report whose processor or period is most likely misspelt
	Renamed           = "renamed"             // a transition, mode or processor has another name, and its state the one before
)

const (
	// settled is for how long nothing was written into a table's slice before anything is
	// concluded from it.
	settled = 30 * time.Minute
	// nextPhaseWithin is what the next phase gets before it is missed.
	nextPhaseWithin = 2 * time.Hour
	// relayed is what the relay gets to do by itself what is due.
	relayed = 15 * time.Minute
	// shownFor is for how long compatibility documents are kept: others may delete older ones.
	shownFor = 30 * 24 * time.Hour
)

// comparison is the outcome of one.
type comparison struct {
	*world
	findings []*Finding
	unknown  []string
	repairs  map[pipeline.Period]*repair

	tables, shown int
}

// repair is what is to be done about a period.
type repair struct {
	completions []wire.Completion
	reasons     []string
}

// compare names every difference. It has no effects and makes no call.
func compare(w *world) *comparison {
	c := &comparison{world: w, findings: []*Finding{}, unknown: append([]string{}, w.problems...), repairs: map[pipeline.Period]*repair{}}
	if len(w.periods) > 0 {
		if why := w.transition.Unmanaged(w.periods[0].At); why != "" {
			c.unknown = append(c.unknown, why)
		}
	}
	for i := range w.periods {
		b := &w.periods[i]
		switch {
		case w.since == "" || b.Period < w.since:
		case b.Problem != nil:
			c.unknown = append(c.unknown, fmt.Sprintf("%s: %v", b.Key, b.Problem))
		case b.Expired: // whether its tables agree with what was recorded is not known any more
			c.unclear(b, "%s", b.Cycles[0].Reason)
		default:
			c.period(b)
		}
	}
	c.localTimestamps()
	for _, l := range w.locks {
		if w.first && l.Leaked(w.lockTime) {
			i := strings.LastIndexByte(l.Key, '_') + 1
			c.add(&Finding{Type: LeakedLock, Period: pipeline.Period(l.Key[i:]), Severity: Warning, Evidence: map[string]any{"lock": l.Key, "execution_id": l.Execution, "renewed": l.Renewed},
				Repair: "phasectl locks release " + l.Key + " --reason '…', after its run has ended"})
		}
	}
	doubts := w.ahead
	for _, b := range w.periods {
		doubts = append(doubts, b.Doubts()...)
	}
	for _, d := range doubts {
		c.add(&Finding{Type: DoubtfulReport, Period: d.Period, Severity: Warning, Evidence: map[string]any{"reported": d.Reported, "did_you_mean": d.DidYouMean},
			Repair: d.String() + " Correct the report and run the processor again"})
	}
	for _, r := range w.renamed {
		c.add(&Finding{Type: Renamed, Period: r.Last, Severity: Critical, Evidence: map[string]any{"what": r.What, "old": r.Old, "new": r.New, "from": r.First},
			Repair: r.String()})
	}
	if w.waiting > 0 {
		c.add(&Finding{Type: QuarantineWaiting, Severity: Warning, Evidence: map[string]any{"messages": w.waiting}, Repair: "phasectl quarantine list"})
	}
	if w.givenUp > 0 {
		c.add(&Finding{Type: DeadLetterWaiting, Severity: Critical, Evidence: map[string]any{"messages": w.givenUp}, Repair: "phasectl dead-letter list"})
	}
	if len(w.renamed) > 0 || w.namesUnread {
		// What looks missing may be there by the other name: a repair could hand it over again.
		clear(c.repairs)
		for _, f := range c.findings {
			f.repairable = false
		}
	}
	return c
}

func (c *comparison) add(f *Finding) {
	if f.Status == "" {
		f.Status = Open
	}
	c.findings = append(c.findings, f)
}

// mend adds a finding that the engine repairs when it evaluates the period again, with these
// completions recorded.
func (c *comparison) mend(f *Finding, completions ...wire.Completion) {
	f.repairable = true
	c.add(f)
	r := c.repairs[f.Period]
	if r == nil {
		r = &repair{}
		c.repairs[f.Period] = r
	}
	r.completions = append(r.completions, completions...)
	reason := f.Type
	if f.Table != "" {
		reason += " of " + f.Table
	}
	r.reasons = append(r.reasons, reason)
}

func (c *comparison) unclear(b *cycle.PeriodState, format string, args ...any) {
	c.unknown = append(c.unknown, string(b.Period)+": "+fmt.Sprintf(format, args...))
}

// sum is what is known of a period's tables, together.
type sum struct {
	rows   int64
	known  bool      // all of them
	newest time.Time // row of the tables that could be read
}

func (c *comparison) period(b *cycle.PeriodState) {
	all := sum{known: true}
	counting := map[string]map[string]policy.Run{} // by mode and processor
	reported := false
	for _, m := range c.transition.Modes {
		counting[m.Name] = b.Counting(m)
		reported = reported || len(counting[m.Name]) > 0
	}
	for _, p := range c.upstream {
		s, known := c.slice(p, b.Period)
		all.rows, all.known = all.rows+s.Rows, all.known && known
		if s.Newest.After(all.newest) {
			all.newest = s.Newest
		}
	}
	for _, p := range c.upstream {
		if s, known := c.slice(p, b.Period); known {
			c.table(b, p, s, counting)
		}
		if s := c.world.tables[p.Table].Strays[b.Period]; s.Rows > 0 {
			c.add(&Finding{Type: StrayRows, Period: b.Period, Table: p.Table, Severity: Warning, Evidence: map[string]any{"rows": s.Rows, p.DateColumn: s.Example},
				Repair: "set " + p.DateColumn + " of these rows to the beginning of their period, or delete them"})
		}
	}
	c.expectation(b, all, reported)
	c.handOvers(b, all, counting)
	c.nextPhase(b)
	c.document(b)
	if b.Full != "" {
		c.add(&Finding{Type: cycle.PeriodFull, Period: b.Period, Severity: Warning, Evidence: map[string]any{"full": b.Full},
			Repair: "none: phasectl explain " + string(b.Period) + " MODE" + c.transition.Option() + " names the reports; stop their sender"})
	}
}
