package statuspage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/receipt"
)

// processorFailed is the word of a cycle that waits for a failed critical processor.
const processorFailed = "processor failed"

// live is what the headline counts.
type live struct {
	kinds    map[kind]int // of the cycles that need an operator
	late     int          // cycles whose hand-over is due and is not complete
	failed   []*shown     // cycles that wait for a failed critical processor
	newer    []string     // what the health report does not know yet
	unread   []string     // transitions that cannot be read
	recorded bool         // something is
	lists    bool         // something in the lists waits for an operator, or they cannot be read
	jobs     bool         // a job is late, or the jobs cannot be read
	health   health.State // "" where it was never evaluated
}

// head makes the headline, from live state.
func (o *overview) head(a *app.App, s *state, clk clock) {
	n := o.gather(s, clk)
	o.Notes, o.Readable = n.unread, len(n.unread) < len(s.transitions)
	n.jobs = o.lateJobs(s, clk)
	n.lists = o.waiting(s)
	n.health = o.evaluated(s, clk)
	if len(n.newer) > 0 {
		o.Newer = fmt.Sprintf("The report does not know yet: %s.", few(n.newer))
	}
	parts := n.words(clk)
	switch {
	case !o.Readable:
		o.Headline, o.Tone, o.Symbol = "Unknown: the state cannot be read", "fair", "ask"
	case len(parts) > 0:
		o.Headline = strings.Join(parts, ", ")
		o.Tone, o.Symbol = n.urgency(len(parts))
	case !n.recorded:
		o.Headline, o.Tone, o.Symbol = "Nothing is recorded yet", "calm", "wait"
		for _, t := range s.transitions {
			o.Empty = append(o.Empty, fmt.Sprintf("%s waits for the first completion on %s.", t.ID, a.Config.Prefix+t.UpstreamTopic))
		}
	default:
		o.Headline, o.Tone, o.Symbol = "Every cycle is handed over, or is not due yet", "good", "ok"
		switch {
		case n.jobs || n.lists || n.health != health.OK && n.health != "":
			o.Tone = "fair"
		case n.health == "":
			o.Tone = "calm"
		}
	}
}

// gather counts the cycles, and lists those that need an operator.
func (o *overview) gather(s *state, clk clock) *live {
	n := &live{kinds: map[kind]int{}}
	for _, t := range s.transitions {
		if t.err != nil {
			n.unread = append(n.unread, fmt.Sprintf("%s cannot be read: %v", t.ID, t.err))
			continue
		}
		n.recorded = n.recorded || t.managed.Since != ""
		for _, c := range t.cycles {
			if item, needed := n.add(c, s, clk); needed {
				o.Todo = append(o.Todo, item)
			}
		}
	}
	slices.SortStableFunc(o.Todo, func(a, b todo) int {
		return cmp.Or(toneRank(a.Look.Tone)-toneRank(b.Look.Tone), rank(a.Look.Kind)-rank(b.Look.Kind))
	})
	if len(o.Todo) > mostTodo {
		o.Todo, o.More = o.Todo[:mostTodo], len(o.Todo)-mostTodo
	}
	return n
}

// add counts a cycle, and describes it if it needs an operator.
func (n *live) add(c *shown, s *state, clk clock) (item todo, needed bool) {
	l, since, why := lookOf(c.kind), c.since(), sentence(c.Reason)
	if l.loud {
		n.kinds[c.kind]++
	} else if at, stuck := c.stuck(s.at); stuck {
		n.late, since = n.late+1, at
		l.Tone, l.Symbol, why = "bad", "over", "the hand-over is due and is not complete; "+why
	} else if len(c.failed) > 0 { // as urgent as its notification, which is critical
		n.failed, since = append(n.failed, c), c.failed[0].EventTime
		l.Word, l.Tone, l.Symbol = processorFailed, "bad", "fail"
	} else {
		return item, false
	}
	item = todo{Look: l, Name: c.name(), Link: c.link(), Age: clk.age(since), Since: clk.short(since), Why: why, Command: c.command(), Error: c.error}
	if since.IsZero() {
		item.Since = ""
	}
	if strings.Contains(c.Reason, c.error) { // once is enough
		item.Error = ""
	}
	var remarks []string
	if len(c.failed) > 0 {
		var names []string
		for _, r := range c.failed {
			names = append(names, r.Processor)
		}
		remarks = append(remarks, "Repair the cause, and run "+few(names)+" again: each completion is handled at once")
	}
	if due := c.mode.Due(c.of.Calendar(), c.period); c.mode.Deadline != nil && s.at.Before(due) {
		remarks = append(remarks, "The deadline is "+clk.short(due))
	}
	if c.planned != "" {
		remarks = append(remarks, "Planned maintenance: "+c.planned)
	}
	item.Remark = strings.Join(remarks, ". ")
	if !s.report.At.IsZero() && since.After(s.report.At) {
		is := " is " + l.Word
		if l.Word == processorFailed {
			is = " waits for a failed processor"
		}
		n.newer = append(n.newer, c.name()+is)
	}
	return item, true
}

// words are the parts of the headline: the first names what it counts.
func (n *live) words(clk clock) (parts []string) {
	add := func(count int, alone, next string) {
		if count > 0 && len(parts) == 0 {
			parts = append(parts, alone)
		} else if count > 0 {
			parts = append(parts, next)
		}
	}
	for _, l := range looks {
		add(n.kinds[l.Kind], count(n.kinds[l.Kind], "cycle")+" "+l.Word, fmt.Sprintf("%d %s", n.kinds[l.Kind], l.Word))
	}
	add(n.late, count(n.late, "cycle")+" not handed over in time", fmt.Sprintf("%d not handed over in time", n.late))
	if len(n.failed) == 1 {
		add(1, "1 cycle waits for a failed processor: "+failure(n.failed[0].failed, clk), "1 waits for a failed processor")
	} else {
		add(len(n.failed), fmt.Sprintf("%d cycles wait for failed processors", len(n.failed)), fmt.Sprintf("%d wait for failed processors", len(n.failed)))
	}
	if len(n.unread) > 0 {
		parts = append(parts, count(len(n.unread), "transition")+" unknown")
	}
	return parts
}

// urgency is how the headline looks when something needs an operator.
func (n *live) urgency(parts int) (tone, symbol string) {
	switch {
	case n.kinds[looks[0].Kind]+n.late+len(n.failed) > 0:
		return "bad", "over"
	case parts == 1 && n.kinds[kind(cycle.StateOnHold)] > 0 && !n.jobs && n.health == health.OK:
		return "hold", "pause"
	case n.kinds[kind(cycle.StateBlocked)] > 0:
		return "fair", "block"
	}
	return "fair", "ask"
}

// lateJobs notes the jobs that are late.
func (o *overview) lateJobs(s *state, clk clock) (late bool) {
	for _, j := range s.jobs {
		if j.State == health.Failing {
			late = true
			o.Notes = append(o.Notes, "The job "+j.Name+" is late: "+lastEnd(j, clk)+".")
		}
	}
	if s.jobsErr != nil {
		o.Notes = append(o.Notes, "The jobs cannot be read: "+s.jobsErr.Error())
	}
	return late || s.jobsErr != nil
}

// toneRank puts what is red first.
func toneRank(tone string) int {
	if tone == "bad" {
		return 0
	}
	return 1
}

// mostWords bounds what the headline shows of an error; the list below it shows more.
const mostWords = 60

// failure names the failed processors of a cycle, with the first words of the first error.
func failure(runs []policy.Run, clk clock) string {
	var names []string
	for _, run := range runs {
		names = append(names, run.Processor)
	}
	out := few(names) + ", since " + clk.short(runs[0].EventTime)
	words := ""
	for word := range strings.FieldsSeq(cycle.ErrorOf(runs[0])) {
		if len(words)+len(word) > mostWords {
			words = strings.TrimRight(words, ",;:") + " …"
			break
		}
		words = strings.TrimSpace(words + " " + word)
	}
	if words = strings.TrimSpace(words); words != "" {
		out += ": " + words
	}
	return out
}

// waiting notes what waits for an operator in the lists.
func (o *overview) waiting(s *state) bool {
	before := len(o.Notes)
	if n := len(s.quarantine); n == 1 {
		o.Notes = append(o.Notes, "1 message waits in quarantine.")
	} else if n > 1 {
		o.Notes = append(o.Notes, fmt.Sprintf("%d messages wait in quarantine.", n))
	}
	leaked := 0
	for _, lock := range s.locks {
		if lock.Leaked(s.locksAt) {
			leaked++
		}
	}
	if leaked > 0 {
		o.Notes = append(o.Notes, count(leaked, "lock")+" leaked.")
	}
	kinds := map[string]int{}
	for _, p := range s.receipts.Problems {
		kinds[p.Kind]++
	}
	for _, kind := range []string{receipt.Lost, receipt.Unknown, receipt.Overlapping} {
		if n := kinds[kind]; n == 1 {
			o.Notes = append(o.Notes, "1 delivery under a guard is "+kind+".")
		} else if n > 1 {
			o.Notes = append(o.Notes, fmt.Sprintf("%d deliveries under guards are %s.", n, kind))
		}
	}
	return len(o.Notes) > before || s.locksErr != nil || s.quarantineErr != nil || s.receiptsErr != nil || s.receipts.More
}

// evaluated says what health found, and returns its state; "" where it was never evaluated.
func (o *overview) evaluated(s *state, clk clock) health.State {
	r := s.report
	switch {
	case s.reportErr != nil:
		o.Report = "The health report cannot be read: " + s.reportErr.Error() + "."
		return health.Unknown
	case r.At.IsZero():
		o.Report = "Health is not evaluated yet."
		return ""
	}
	var parts []string
	for _, st := range []health.State{health.Failing, health.Unknown, health.OK} {
		if n := r.Count(st); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, st))
		}
	}
	o.Report = fmt.Sprintf("Health was evaluated at %s, %s ago: %s.", clk.short(r.At), span(s.at.Sub(r.At)), strings.Join(parts, ", "))
	return r.Overall
}

// sentence ends a reason with a full stop. It begins as the reason does, often with a name.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return s + "."
}
