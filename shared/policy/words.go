package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func partition(order []string, m pipeline.Mode, first map[string]time.Time) (satisfied, missing []string) {
	satisfied, missing = []string{}, []string{}
	for _, name := range order {
		if !m.Names(name) {
			continue
		}
		if _, ok := first[name]; ok {
			satisfied = append(satisfied, name)
		} else {
			missing = append(missing, name)
		}
	}
	return satisfied, missing
}

// ignored names what was reported in the mode's time and counts nowhere: unknown
// names, failed runs, runs before counts_from. A processor that is satisfied all
// the same is not ignored.
func ignored(in Input, first map[string]time.Time) []string {
	counters := sync.OnceValue(func() (out []func(Run) bool) { // seldom needed
		for _, m := range in.Transition.Modes {
			out = append(out, counter(in.Transition, m, in.Period))
		}
		return out
	})
	names, modeAt := map[string]bool{}, in.Transition.ModesOf(in.Period)
	for _, r := range in.Runs {
		name := r.Processor
		if name == "" {
			name = r.Reported
		}
		_, satisfied := first[name]
		if !satisfied && modeAt(r.EventTime) == in.Mode.Name &&
			!slices.ContainsFunc(counters(), func(counts func(Run) bool) bool { return counts(r) }) {
			names[name] = true
		}
	}
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(names))))
}

func policy(m pipeline.Mode) string {
	s := "complete: " + string(m.Complete)
	if m.Grace != nil {
		s += fmt.Sprintf(", or critical and %d%% after %s", m.Grace.QuorumPct, Short(m.Grace.After))
	}
	if m.NotBefore != nil {
		s += ", not before " + m.NotBefore.String()
	}
	if m.Deadline != nil {
		s += ", deadline " + m.Deadline.String()
		if m.AtDeadline == pipeline.DeadlineHandOver {
			s += " without the optional ones"
		}
	}
	return s
}

// summary says how far the cycle is, the critical processors first: they decide.
func summary(m pipeline.Mode, v Verdict) string {
	of := fmt.Sprintf("%d of %d", len(v.Satisfied), m.Size())
	if len(v.Missing) == 0 || len(v.Satisfied) == 0 {
		return of + " complete"
	}
	var done []string
	satisfied := pipeline.SetOf(v.Satisfied)
	for _, name := range m.Critical {
		if satisfied[name] {
			done = append(done, name)
		}
	}
	switch len(done) {
	case 0:
		return of + " complete, none of them critical"
	case len(m.Critical):
		return fmt.Sprintf("%s complete, %s", join(done), of)
	}
	return fmt.Sprintf("%s complete, %s, not every critical one", join(done), of)
}

// BadReports returns the last report of each missing processor in the mode's time, or
// where a success would have counted, if it is none.
func BadReports(in Input, missing []string) []Run {
	if len(missing) == 0 {
		return nil
	}
	last, modeAt := map[string]Run{}, in.Transition.ModesOf(in.Period)
	belongs := belonging(in.Transition, in.Mode, in.Period)
	for _, r := range in.Runs {
		if modeAt(r.EventTime) != in.Mode.Name && !belongs(r) {
			continue
		}
		if old, ok := last[r.Processor]; !ok || Older(old, r) < 0 {
			last[r.Processor] = r
		}
	}
	var out []Run
	for _, name := range missing {
		if r, ok := last[name]; ok && !r.Status.Counts() {
			out = append(out, r)
		}
	}
	return out
}

// ranked names missing processors: those without which nothing is handed over, then the others.
func ranked(m pipeline.Mode, names []string) string {
	var critical, optional, words []string
	for _, name := range names {
		if m.IsCritical(name) {
			critical = append(critical, name)
		} else {
			optional = append(optional, name)
		}
	}
	if len(critical) > 0 {
		words = append(words, join(critical)+" (critical)")
	}
	if len(optional) > 0 {
		words = append(words, join(optional)+" (optional)")
	}
	return strings.Join(words, ", ")
}

// failures says what missing processors reported instead: the first thing that the
// person on call wants to know.
func failures(bad []Run, local func(time.Time) string) string {
	var out string
	for i, r := range bad {
		if i == MostNames {
			return out + fmt.Sprintf(", and %d more reported no success", len(bad)-i)
		}
		out += map[bool]string{true: "; ", false: ", "}[i == 0]
		out += fmt.Sprintf("%s reported %s at %s", r.Processor, r.Status, local(r.EventTime))
		if words := r.ErrorText(); r.Status == wire.StatusFailed && words != "" {
			out += " (" + printable(words) + ")"
		}
	}
	return out
}

// ErrorText is what the run reported as its error: the type and the message.
func (r Run) ErrorText() string {
	words := slices.DeleteFunc([]string{r.ErrorType, r.ErrorMessage}, func(s string) bool { return s == "" })
	return strings.Join(words, ": ")
}

// tooLate adds what completed only after the limit: a hand-over leaves it out.
func tooLate(satisfied []string, first, inTime map[string]time.Time, limit time.Time, local func(time.Time) string) string {
	var out string
	n := 0
	for _, name := range satisfied {
		if _, ok := inTime[name]; !ok {
			if n++; n > MostNames {
				continue
			}
			out += fmt.Sprintf("; %s only %s, too late to be handed over automatically", name, since(first[name], limit, local))
		}
	}
	if n > MostNames {
		out += fmt.Sprintf("; and %d more are too late, too", n-MostNames)
	}
	return out
}

// since says when something came that came too late: what ended in time was found too late.
func since(at, limit time.Time, local func(time.Time) string) string {
	if at.After(limit) {
		return "at " + local(at)
	}
	return "found"
}

// printable keeps what a processor reported from writing to a terminal or flooding a
// line.
func printable(s string) string {
	if q := strconv.QuoteToGraphic(s); q != `"`+s+`"` {
		s = q
	}
	return pipeline.Clip(s, 100)
}

// MostNames is how many processors a text, a log line and a document's verdict name. A transition has
// up to thousands, and a log entry takes 256 KB. phasectl explain --json has all of them.
const MostNames = 20

// Capped returns the first [MostNames] of names, and then how many more there are.
func Capped(names []string) []string {
	if len(names) <= MostNames {
		return names
	}
	return append(slices.Clone(names[:MostNames]), fmt.Sprintf("and %d more", len(names)-MostNames))
}

// Listed names the first of many, separated by commas.
func Listed(names []string) string { return strings.Join(Capped(names), ", ") }

// join lists names as a sentence does.
func join(names []string) string {
	if len(names) > MostNames {
		return Listed(names)
	}
	return pipeline.And(names)
}

// clock writes an instant in local time, with its date unless it lies in the period.
func clock(cal pipeline.Calendar, p pipeline.Period, t time.Time) string {
	if !cal.Hourly() && cal.At(t) == p {
		return t.In(cal.Zone()).Format("15:04 MST")
	}
	return cal.Local(t)
}

func instant(cal pipeline.Calendar, p pipeline.Period, o *pipeline.Offset) time.Time {
	if o == nil {
		return time.Time{}
	}
	return cal.Instant(p, *o)
}

func all(names []string, first map[string]time.Time) bool {
	for _, n := range names {
		if _, ok := first[n]; !ok {
			return false
		}
	}
	return true
}

// heldSince returns when the mode's policy came to be met, as far as runs go: the
// critical processors were there, and as many others as it needs.
func heldSince(m pipeline.Mode, first map[string]time.Time) time.Time {
	need := m.Size()
	switch {
	case m.Complete == pipeline.CompleteCritical:
		need = len(m.Critical)
	case m.Grace != nil && len(first) < need:
		need = (m.Grace.QuorumPct*need + 99) / 100
	}
	times := slices.SortedFunc(maps.Values(first), time.Time.Compare)
	return later(times[min(need, len(times))-1], lastOf(m.Critical, first))
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// sooner returns a, or b if that comes first and counts.
func sooner(a, b time.Time, counts bool) time.Time {
	if counts && b.Before(a) {
		return b
	}
	return a
}

// lastOf returns when the last of the named processors was done.
func lastOf(names []string, done map[string]time.Time) (at time.Time) {
	for _, name := range names {
		at = later(at, done[name])
	}
	return at
}

// Short writes a duration without its zero parts: 30m, not 30m0s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
