package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
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
	LeakedLock        = "leaked_lock"         // a lock that nobody gave back
	QuarantineWaiting = "quarantine_waiting"  // messages that nobody could read, and nobody has looked at
	DeadLetterWaiting = "dead_letter_waiting" // messages that were given up after all their attempts
	DuplicateRows     = "duplicate_rows"      // rows with the key of another
)

const (
	// Settled is for how long nothing was written into a table's slice before anything is
	// concluded from it.
	Settled = 30 * time.Minute
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
	completions []message.Completion
	reasons     []string
	promised    bool // only what is frozen may go on
}

// compare names every difference. It has no effects and asks nobody.
func compare(w *world) *comparison {
	c := &comparison{world: w, findings: []*Finding{}, unknown: append([]string{}, w.problems...), repairs: map[pipeline.Period]*repair{}}
	for i := range w.books {
		b := &w.books[i]
		switch {
		case w.since == "" || b.Period < w.since:
		case b.Problem != nil:
			c.unknown = append(c.unknown, fmt.Sprintf("%s: %v", b.Key, b.Problem))
		default:
			c.period(b)
		}
	}
	for _, l := range w.locks {
		if l.Leaked(w.lockTime) {
			i := strings.LastIndexByte(l.Key, '_') + 1
			c.add(&Finding{Type: LeakedLock, Period: pipeline.Period(l.Key[i:]), Severity: Warning, Evidence: map[string]any{"lock": l.Key, "execution_id": l.Execution, "renewed": l.Renewed},
				Repair: "phasectl locks release " + l.Key + " --reason '…', once its run is known to have ended"})
		}
	}
	if w.waiting > 0 {
		c.add(&Finding{Type: QuarantineWaiting, Severity: Warning, Evidence: map[string]any{"messages": w.waiting}, Repair: "phasectl quarantine list"})
	}
	if w.givenUp > 0 {
		c.add(&Finding{Type: DeadLetterWaiting, Severity: Critical, Evidence: map[string]any{"messages": w.givenUp}, Repair: "phasectl dead-letter list"})
	}
	return c
}

func (c *comparison) add(f *Finding) {
	if f.Status == "" {
		f.Status = Open
	}
	c.findings = append(c.findings, f)
}

// mend adds a finding that the engine mends when it looks at the period again, with
// these completions on record.
func (c *comparison) mend(f *Finding, completions ...message.Completion) {
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

func (c *comparison) unclear(b *cycle.Books, format string, args ...any) {
	c.unknown = append(c.unknown, string(b.Period)+": "+fmt.Sprintf(format, args...))
}

// sum is what is known of a period's tables, together.
type sum struct {
	rows   int64
	known  bool // all of them
	newest time.Time
}

func (c *comparison) period(b *cycle.Books) {
	all := sum{known: true}
	counting := map[string]map[string]gate.Run{} // by mode and processor
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
	}
	if !all.known { // else the evidence of an earlier mode would be newer than what cannot be read
		all.newest = time.Time{}
	}
	c.expectation(b, all, reported)
	c.handOvers(b, all, counting)
	c.nextPhase(b)
	c.document(b)
}

// handedOver reports whether the next phase has run about a period after a time: whoever
// has set it off, it need not be again. What we have handed over ourselves in between
// explains such a run, and then it proves nothing about what we have not. known: it can
// be told.
func (c *comparison) handedOver(b *cycle.Books, since time.Time) (yes, known bool) {
	next, _, known := c.newestNext(b.Period)
	if !next.After(since) {
		return false, known
	}
	for _, st := range b.Cycles {
		for _, batch := range st.Batches {
			if batch.PublishedAt.After(since) && batch.PublishedAt.Before(next.Add(gate.ReportsWithin)) {
				return false, true
			}
		}
	}
	return true, true
}

// table compares one table's rows of a period with the runs that have reported them.
func (c *comparison) table(b *cycle.Books, p pipeline.Processor, s warehouse.Slice, counting map[string]map[string]gate.Run) {
	var newest *gate.Run // that counts for any mode
	mode := ""
	for _, m := range c.transition.Modes {
		if r, ok := counting[m.Name][p.Name]; ok && (newest == nil || gate.Older(*newest, r) < 0) {
			newest, mode = &r, m.Name
		}
	}
	inFlight := ""
	switch {
	case c.locked(p, b.Period):
		inFlight = "in flight, a run of " + p.Class + " has the lock"
	case !s.Newest.IsZero() && b.At.Sub(s.Newest) < Settled:
		inFlight = "in flight, its newest row is of " + s.Newest.Format(time.RFC3339)
	}
	if s.Rows == 0 {
		c.empty(b, p, newest, mode, inFlight)
		return
	}
	if s.Surplus > 0 && inFlight == "" {
		c.add(&Finding{Type: DuplicateRows, Period: b.Period, Table: p.Table, Severity: surplus(s.Surplus),
			Evidence: map[string]any{"rows": s.Rows, "duplicates": s.Surplus}, Repair: "a sweep of the table"})
	}
	if s.Newest.IsZero() {
		c.unclear(b, "%s: no row says when it was written (%s)", p.Table, p.OrderBy)
		return
	}
	var lacking []string // modes for which the rows count, and no run
	attributable := false
	for _, m := range c.transition.Modes {
		if !b.WouldCount(m, p.Name, s.Newest) || !b.WouldCount(m, p.Name, s.Oldest) {
			continue
		}
		attributable = true
		if _, ok := counting[m.Name][p.Name]; !ok {
			lacking = append(lacking, m.Name)
		}
	}
	rows := s.Rows - s.Surplus
	counted := newest != nil && newest.RecordCount != nil && !newest.Incremental
	again := counted && *newest.RecordCount != rows && s.Newest.Sub(newest.EventTime) > gate.ReportsWithin
	missing := attributable && (len(lacking) > 0 || again)
	if inFlight != "" && (missing || !attributable && newest == nil || counted && *newest.RecordCount != rows) {
		c.unclear(b, "%s: %s", p.Table, inFlight)
		return
	}
	evidence := map[string]any{"rows": rows, "oldest": s.Oldest, "newest": s.Newest}
	if newest != nil {
		evidence["reported"], evidence["execution_id"], evidence["completed_at"] = newest.RecordCount, newest.ExecutionID, newest.EventTime
	}
	switch {
	case missing:
		if len(lacking) == 0 {
			lacking = []string{mode}
		}
		if !c.missing(b, p, s, lacking[0], evidence) {
			return
		}
	case !attributable && newest == nil:
		c.unclear(b, "%s: %d rows, written from %s to %s, belong to no mode", p.Table, s.Rows, s.Oldest.Format(time.RFC3339), s.Newest.Format(time.RFC3339))
		return
	case counted && rows < *newest.RecordCount:
		c.add(&Finding{Type: PartialData, Period: b.Period, Mode: mode, Table: p.Table, Severity: Warning, Evidence: evidence,
			Repair: "run " + p.Name + " for " + string(b.Period) + " again, if rows are missing"})
	case counted && rows > *newest.RecordCount:
		c.add(&Finding{Type: CountDrift, Period: b.Period, Mode: mode, Table: p.Table, Severity: Info, Evidence: evidence,
			Repair: "none: more rows than " + p.Name + " has reported"})
	}
	c.tables++
	_, there := b.Document[p.Name].(map[string]any)
	if b.Shown[p.Name] || there && !b.Recorded { // what others wrote is not ours to judge
		c.shown++
	}
}

// empty is about a table without rows.
func (c *comparison) empty(b *cycle.Books, p pipeline.Processor, newest *gate.Run, mode, inFlight string) {
	expected, known := c.expected[b.Period]
	switch {
	case newest == nil, newest.RecordCount != nil && *newest.RecordCount == 0:
	case newest.RecordCount == nil && known && expected == 0: // it did not say that there are any
	case inFlight != "":
		c.unclear(b, "%s: %s", p.Table, inFlight)
	default:
		c.add(&Finding{Type: PhantomCompletion, Period: b.Period, Mode: mode, Table: p.Table, Severity: Critical,
			Evidence: map[string]any{"execution_id": newest.ExecutionID, "completed_at": newest.EventTime, "reported": newest.RecordCount, "rows": 0},
			Repair:   "run " + p.Name + " for " + string(b.Period) + " again"})
	}
}

// missing is about rows of which no run has reported. It reports whether the document
// should show them.
func (c *comparison) missing(b *cycle.Books, p pipeline.Processor, s warehouse.Slice, mode string, evidence map[string]any) bool {
	f := &Finding{Type: MissingCompletion, Period: b.Period, Mode: mode, Table: p.Table, Severity: Warning, Evidence: evidence,
		Repair: "put on record that " + p.Name + " has completed, and look again"}
	last, reported := b.Newest(p.Name)
	yes, known := c.handedOver(b, s.Newest)
	switch {
	case reported && last.Status == message.StatusFailed && last.EventTime.After(s.Newest.Add(-gate.ReportsWithin)):
		c.unclear(b, "%s: %d rows, and the run that may have written them has reported that it failed", p.Table, s.Rows)
		return false
	case !known:
		c.unclear(b, "%s: %d rows of which no run has reported, and whether the next phase has run about them cannot be read", p.Table, s.Rows)
		return false
	case yes:
		f.Severity, f.Status, f.Repair = Info, Skipped, "none: the next phase has run since"
		c.add(f)
		return false
	case c.stuck(b):
		f.Repair = "none by itself: the period is too old, and something else of it is due; phasectl explain says what"
		c.add(f)
	default:
		c.mend(f, c.completion(b, p, s))
	}
	return true
}

func surplus(n int64) Severity {
	switch {
	case n <= 5:
		return Info
	case n <= 20:
		return Warning
	}
	return Critical
}

// completion stands for the report that is missing. It follows from the rows alone, so
// that whoever finds them puts the same run on record.
func (c *comparison) completion(b *cycle.Books, p pipeline.Processor, s warehouse.Slice) message.Completion {
	dataset, table, _ := strings.Cut(p.Table, ".")
	id := fmt.Sprintf("reconciliation-%s-%d", p.Name, s.Newest.UnixMicro())
	rows := s.Rows - s.Surplus
	return message.Completion{Processor: p.Name, Reported: p.Name, Period: b.Period, Status: message.StatusSuccess, EventTime: s.Newest,
		ExecutionID: id, CorrelationID: id, RecordCount: &rows, OutputTable: table, OutputDataset: dataset, TriggerSource: "reconciliation", Found: true, FoundLate: c.old(b)}
}

// old reports whether a period ended too long ago for anything to be handed over by
// itself.
func (c *comparison) old(b *cycle.Books) bool {
	return b.At.After(c.transition.Calendar().End(b.Period).Add(c.transition.TriggerWithin))
}

// stuck reports whether a look of the engine would hand over what is too old for that.
func (c *comparison) stuck(b *cycle.Books) bool {
	return c.old(b) && slices.ContainsFunc(b.Cycles, func(st cycle.Status) bool { return st.Due && st.State != string(cycle.StatePublishing) })
}

// expectation compares a period with the schedule.
func (c *comparison) expectation(b *cycle.Books, all sum, reported bool) {
	expected, known := c.expected[b.Period]
	over := c.transition.Calendar().End(b.Period)
	for _, m := range c.transition.Modes {
		if d := c.deadline(b, m); d.After(over) {
			over = d
		}
	}
	switch {
	case known && expected == 0 && (all.rows > 0 || reported):
		c.add(&Finding{Type: UnexpectedPeriod, Period: b.Period, Severity: Info, Evidence: map[string]any{"expected": 0, "rows": all.rows},
			Repair: "none, if the schedule is right"})
	case all.rows > 0 || reported:
		if known && expected > 0 && !b.At.Before(over) {
			c.absent(b, expected)
		}
	case b.At.Before(over):
	case !known && c.expected != nil:
		c.unclear(b, "the schedule does not say how much to expect, and nothing is there")
	case known && expected > 0 && all.known:
		c.add(&Finding{Type: MissingPeriod, Period: b.Period, Severity: Critical, Evidence: map[string]any{"expected": expected, "rows": 0, "due": over},
			Repair: "run the processors of " + c.transition.UpstreamPhase + " for " + string(b.Period)})
	}
}

// absent finds the processors of which nothing has come, neither a row nor a report, of a
// period that is over.
func (c *comparison) absent(b *cycle.Books, expected int64) {
	told := map[string]bool{}
	for i := len(b.Cycles) - 1; i >= 0; i-- {
		st := b.Cycles[i]
		m, known := c.transition.Mode(st.Mode)
		due := c.deadline(b, m)
		if !known || due.IsZero() || b.At.Before(due) || st.Hold != nil {
			continue
		}
		for _, p := range c.upstream {
			s, readable := c.slice(p, b.Period)
			if told[p.Name] || !readable || s.Rows > 0 || !slices.Contains(st.Missing, p.Name) || c.locked(p, b.Period) {
				continue
			}
			told[p.Name] = true
			severity := Warning
			if slices.Contains(m.Critical, p.Name) {
				severity = Critical
			}
			c.add(&Finding{Type: MissingPeriod, Period: b.Period, Mode: m.Name, Table: p.Table, Severity: severity,
				Evidence: map[string]any{"expected": expected, "rows": 0, "due": due}, Repair: "run " + p.Name + " for " + string(b.Period)})
		}
	}
}

// deadline is the zero time where a mode has none.
func (c *comparison) deadline(b *cycle.Books, m pipeline.Mode) time.Time {
	if m.Deadline == nil {
		return time.Time{}
	}
	return c.transition.Calendar().Instant(b.Period, *m.Deadline)
}

// handOvers finds what was not handed over.
func (c *comparison) handOvers(b *cycle.Books, all sum, counting map[string]map[string]gate.Run) {
	for _, st := range b.Cycles {
		since := all.newest // of what is to be handed over
		for _, r := range counting[st.Mode] {
			if r.EventTime.After(since) {
				since = r.EventTime
			}
		}
		due, promised, blocked := since, false, false
		if st.Since.After(due) {
			due = st.Since
		}
		for _, batch := range st.Batches {
			blocked = blocked || batch.State == cycle.StateBlocked
			if batch.State == cycle.StatePublishing {
				due, promised = batch.DueAt, true
			}
		}
		m, _ := c.transition.Mode(st.Mode)
		yes, _ := c.handedOver(b, since)
		f := &Finding{Type: Untriggered, Period: b.Period, Mode: st.Mode, Severity: Info, Status: Skipped,
			Evidence: map[string]any{"reason": st.Reason, "state": st.State, "satisfied": st.Satisfied}, Repair: "none: the next phase has run since"}
		trigger := fmt.Sprintf("phasectl trigger --date %s --mode %s --reason '…'", b.Period, st.Mode)
		switch {
		case st.TooLate && yes:
			c.add(f)
		case st.TooLate:
			f.Repair = "too old to be handed over by itself: " + trigger
			c.add(f)
		case blocked && st.Hold == nil && !st.Live && b.At.After(c.deadline(b, m)):
			f.Severity, f.Status, f.Repair = Critical, Open, fmt.Sprintf("its data is not ready: phasectl checks run --date %s --mode %s", b.Period, st.Mode)
			c.add(f)
		case !st.Due || b.At.Sub(due) < relayed:
		case promised:
			f.Type, f.Severity, f.Status, f.Repair = Unpublished, Critical, Open, "publish what has no id"
			c.mend(f)
			c.repairs[b.Period].promised = c.stuck(b)
		case yes:
			c.add(f)
		case c.old(b):
			f.Severity, f.Status, f.Repair = Warning, Open, "too old to be handed over by itself: "+trigger
			c.add(f)
		default:
			f.Severity, f.Status, f.Repair = Critical, Open, "hand over what the policy allows"
			c.mend(f)
		}
	}
}

// nextPhase finds what was handed over and has had no effect.
func (c *comparison) nextPhase(b *cycle.Books) {
	var published time.Time
	mode := ""
	for _, st := range b.Cycles { // in the order in which a period lives through them
		for _, batch := range st.Batches {
			if batch.PublishedAt.After(published) {
				published, mode = batch.PublishedAt, st.Mode
			}
		}
	}
	next, empty, known := c.newestNext(b.Period)
	if published.IsZero() || b.At.Sub(published) <= nextPhaseWithin {
		return
	}
	f := &Finding{Type: NextPhaseMissing, Period: b.Period, Mode: mode, Severity: Critical,
		Evidence: map[string]any{"published_at": published, "newest": next, "empty": empty},
		Repair:   fmt.Sprintf("look at the next phase; then phasectl trigger --date %s --mode %s --reason '…'", b.Period, mode)}
	modes := c.transition.Modes
	switch {
	case known && next.Before(published.Add(-gate.ReportsWithin)):
		c.add(f)
	case len(empty) > 0 && mode == modes[len(modes)-1].Name: // before that not all of it has been set off
		f.Severity = Warning
		c.add(f)
	}
}

// document compares the compatibility document with the books or, where nothing is on
// record, with itself.
func (c *comparison) document(b *cycle.Books) {
	if b.Document == nil && b.At.Sub(c.transition.Calendar().End(b.Period)) > shownFor {
		return
	}
	// It is written last: whoever is at work has not come to it.
	live := func(st cycle.Status) bool { return st.Live }
	if slices.ContainsFunc(b.Cycles, live) {
		return
	}
	for _, p := range c.upstream {
		if r, ok := b.Newest(p.Name); ok && b.At.Sub(r.EventTime) < gate.ReportsWithin {
			return
		}
	}
	if len(b.Wrong)+len(b.Shown) == 0 { // nothing on record has to do with it
		c.foreign(b)
		return
	}
	var counts, flags []string
	for _, name := range b.Wrong {
		if strings.HasPrefix(name, "_trigger") || name == "_mode" {
			flags = append(flags, name)
		} else {
			counts = append(counts, name)
		}
	}
	mend := func(f *Finding) { c.mend(f) }
	if c.stuck(b) {
		mend = c.add
	}
	if len(counts) > 0 {
		mend(&Finding{Type: CountDrift, Period: b.Period, Severity: Warning, Evidence: map[string]any{"fields": counts, "shown": b.Document["_completed_count"]},
			Repair: "write what is on record"})
	}
	if len(flags) > 0 {
		mend(&Finding{Type: FlagDrift, Period: b.Period, Severity: Critical, Evidence: map[string]any{"fields": flags, "triggered": b.Document["_triggered"]},
			Repair: "write what is on record"})
	}
}

// foreign looks at a document that others wrote about a period of which nothing is on
// record.
func (c *comparison) foreign(b *cycle.Books) {
	complete := int64(0)
	for _, p := range c.upstream {
		if _, ok := b.Document[p.Name].(map[string]any); ok {
			complete++
		}
	}
	if shown, ok := b.Document["_completed_count"].(int64); ok && shown != complete {
		c.add(&Finding{Type: CountDrift, Period: b.Period, Severity: Warning, Evidence: map[string]any{"shown": shown, "present": complete},
			Repair: "none by itself: others wrote it"})
	}
	next, _, known := c.newestNext(b.Period)
	if triggered, _ := b.Document["_triggered"].(bool); triggered && known && next.IsZero() {
		c.add(&Finding{Type: FlagDrift, Period: b.Period, Severity: Critical, Evidence: map[string]any{"triggered": true, "published": 0},
			Repair: "none by itself: others wrote it, and the next phase has written nothing"})
	}
}
