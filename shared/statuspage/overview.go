package statuspage

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/policy"
)

// overview is what the template of the overview shows.
type overview struct {
	frame
	Headline, Tone, Symbol string
	Report                 string   // what health found last, and when
	Newer                  string   // what it does not know yet
	Notes                  []string // of live state, next to the cycles
	Readable               bool     // the cycles of a transition at least
	Todo                   []todo
	More                   int // of Todo
	Empty                  []string
	Tiles                  []tile
	Histories              []history
	Adopted                []string
	Settled                []string // which periods are shown as they were read before
	Days                   []choice
	Legend                 []choice
	Processors             []string
	Query                  query
	Columns                []string
	Rows                   []recentRow
	RowsMore               int
	Checks                 []check
	OKChecks               []check
	ChecksProblem          string
	Locks, Sweeps          listing
	Quarantine, Jobs       listing
	DeadLetters            *check
}

// frame is what both pages have.
type frame struct {
	Pipeline, Project, Zone, Title string
	Root                           string // the relative address of the overview
	Shadow, Hourly                 bool
	At, Stamp                      string
	Refresh                        int // seconds; 0: never
	RefreshLink                    string
	Version, Source, Definition    string
}

// todo is a cycle that needs an operator.
type todo struct {
	Look               look
	Name, Link         string
	Age, Since         string
	Why, Error, Remark string
	Command            string
}

// choice is a link that chooses what is shown.
type choice struct {
	Look    *look
	Text    string
	N       int
	Link    string
	Current bool
}

type check struct {
	ID, State, Tone, Symbol string
	Evidence                []string
	More                    int
	Since, Command, Advice  string
}

const (
	mostTodo     = 20
	mostEvidence = 3
	recentDays   = 4 // periods that the table shows without a filter
	recentHours  = 6
	mostRows     = 100
)

func newFrame(a *app.App, clk clock, q query, root string) frame {
	return frame{Pipeline: a.Config.Prefix + a.Pipeline.Name, Project: a.Config.Project, Zone: clk.cal.Zone().String(), Root: root,
		Shadow: a.Config.Shadow != "", Hourly: clk.cal.Hourly(), At: clk.long(clk.now), Stamp: clk.in(clk.now).Format(time.RFC3339),
		Refresh: q.Refresh, Version: app.Version, Source: app.SourceHash, Definition: a.Pipeline.Hash}
}

func newOverview(a *app.App, s *state, q query) overview {
	clk := clock{a.Pipeline.Calendar, s.at}
	o := overview{frame: newFrame(a, clk, q, ""), Query: q}
	o.RefreshLink = q.With("refresh", "60")
	o.head(a, s, clk)
	o.Title = o.Headline
	o.Tiles = tiles(a, s, clk)
	o.choices(a, s, clk)
	for _, t := range s.transitions {
		if words := t.managed.Words(t.Transition); words != "" {
			since := strings.TrimPrefix(words, t.Prefix())
			since = strings.ToUpper(since[:1]) + since[1:]
			if slices.Contains(o.Adopted, since) {
				continue
			}
			if len(o.Adopted) > 0 { // another time: it needs the name
				since = words
			}
			o.Adopted = append(o.Adopted, since)
		}
	}
	for _, t := range s.transitions {
		if t.err == nil && !t.settledAt.IsZero() {
			o.Settled = append(o.Settled, fmt.Sprintf("%speriods before %s are settled, as of %s", t.Prefix(), t.live, clk.short(t.settledAt)))
		}
		o.Histories = append(o.Histories, histories(s, t, q, clk)...)
	}
	o.recent(s, q, clk)
	o.checks(s, clk)
	o.Locks, o.Sweeps, o.Quarantine, o.Jobs = locks(a, s, clk), sweeps(s, clk), quarantine(s, clk), jobs(s, clk)
	return o
}

// processorFailed is the word of a cycle that waits for a failed critical processor.
const processorFailed = "processor failed"

// head makes the headline, from live state.
func (o *overview) head(a *app.App, s *state, clk clock) {
	n := map[kind]int{}
	late, recorded, unread := 0, false, []string(nil)
	var newer []string
	var failed []*shown
	for _, t := range s.transitions {
		if t.err != nil {
			unread = append(unread, fmt.Sprintf("%s cannot be read: %v", t.ID, t.err))
			continue
		}
		recorded = recorded || t.managed.Since != ""
		for _, c := range t.cycles {
			l := lookOf(c.kind)
			since := c.since()
			if l.loud {
				n[c.kind]++
			} else if at, stuck := c.stuck(s.at); stuck {
				late, since = late+1, at
				l.Tone, l.Symbol = "bad", "over"
			} else if len(c.failed) > 0 { // as urgent as its notification, which is critical
				failed, since = append(failed, c), c.failed[0].EventTime
				l.Word, l.Tone, l.Symbol = processorFailed, "bad", "fail"
			} else {
				continue
			}
			item := todo{Look: l, Name: c.name(), Link: c.link(), Age: clk.age(since), Since: clk.short(since), Why: sentence(c.Reason), Command: c.command(), Error: c.error}
			if since.IsZero() {
				item.Since = ""
			}
			if !l.loud && len(c.failed) == 0 {
				item.Why = "the hand-over is due and is not complete; " + item.Why
			}
			if c.planned != "" {
				item.Remark = "Planned maintenance: " + c.planned
			}
			o.Todo = append(o.Todo, item)
			if !s.report.At.IsZero() && since.After(s.report.At) {
				is := " is " + l.Word
				if l.Word == processorFailed {
					is = " waits for a failed processor"
				}
				newer = append(newer, c.name()+is)
			}
		}
	}
	slices.SortStableFunc(o.Todo, func(a, b todo) int {
		return cmp.Or(toneRank(a.Look.Tone)-toneRank(b.Look.Tone), rank(a.Look.Kind)-rank(b.Look.Kind))
	})
	if len(o.Todo) > mostTodo {
		o.Todo, o.More = o.Todo[:mostTodo], len(o.Todo)-mostTodo
	}
	var parts []string
	for _, l := range looks {
		if n[l.Kind] > 0 && len(parts) == 0 {
			parts = append(parts, count(n[l.Kind], "cycle")+" "+l.Word)
		} else if n[l.Kind] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[l.Kind], l.Word))
		}
	}
	if late > 0 && len(parts) == 0 {
		parts = append(parts, count(late, "cycle")+" not handed over in time")
	} else if late > 0 {
		parts = append(parts, fmt.Sprintf("%d not handed over in time", late))
	}
	switch n := len(failed); {
	case n == 1 && len(parts) == 0:
		parts = append(parts, "1 cycle waits for a failed processor: "+failure(failed[0].failed, clk))
	case n > 1 && len(parts) == 0:
		parts = append(parts, fmt.Sprintf("%d cycles wait for failed processors", n))
	case n == 1:
		parts = append(parts, "1 waits for a failed processor")
	case n > 1:
		parts = append(parts, fmt.Sprintf("%d wait for failed processors", n))
	}
	o.Notes, o.Readable = unread, len(unread) < len(s.transitions)
	jobsLate := 0
	for _, j := range s.jobs {
		if j.State == health.Failing {
			jobsLate++
			o.Notes = append(o.Notes, "The job "+j.Name+" is late: "+lastEnd(j, clk)+".")
		}
	}
	if s.jobsErr != nil {
		o.Notes = append(o.Notes, "The jobs cannot be read: "+s.jobsErr.Error())
	}
	waits := o.waiting(s)
	fresh := o.evaluated(s, clk)
	if len(newer) > 0 {
		o.Newer = fmt.Sprintf("It does not know yet: %s.", few(newer))
	}
	switch {
	case len(unread) == len(s.transitions):
		o.Headline, o.Tone, o.Symbol = "Unknown: the state cannot be read", "fair", "ask"
	case len(parts) > 0 || len(unread) > 0:
		if len(unread) > 0 {
			parts = append(parts, fmt.Sprintf("%s unknown", count(len(unread), "transition")))
		}
		o.Headline, o.Tone, o.Symbol = strings.Join(parts, ", "), "fair", "block"
		if n[looks[0].Kind]+late+len(failed) > 0 {
			o.Tone, o.Symbol = "bad", "over"
		} else if len(parts) == 1 && n["on_hold"] > 0 && jobsLate == 0 && fresh == health.OK {
			o.Tone, o.Symbol = "hold", "pause"
		} else if n["blocked"] == 0 {
			o.Symbol = "ask"
		}
	case !recorded:
		o.Headline, o.Tone, o.Symbol = "Nothing is recorded yet", "calm", "wait"
		for _, t := range s.transitions {
			o.Empty = append(o.Empty, fmt.Sprintf("%s waits for the first completion on %s.", t.ID, a.Config.Prefix+t.UpstreamTopic))
		}
	default:
		o.Headline, o.Tone, o.Symbol = "Every cycle is handed over, or is not due yet", "good", "ok"
		if jobsLate > 0 || s.jobsErr != nil || fresh != health.OK || waits {
			o.Tone = "fair"
			if fresh == "" && jobsLate == 0 && s.jobsErr == nil && !waits {
				o.Tone = "calm"
			}
		}
	}
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
	return len(o.Notes) > before || s.locksErr != nil || s.quarantineErr != nil
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

// choices are the links that choose days and kinds, and the processors.
func (o *overview) choices(a *app.App, s *state, clk clock) {
	for _, n := range []int{defaultDays, 30, MaxDays} {
		o.Days = append(o.Days, choice{Text: fmt.Sprintf("%d days", n), Link: o.Query.With("days", strconv.Itoa(n)), Current: n == s.days})
	}
	n, all := map[kind]int{}, 0
	for _, t := range s.transitions {
		for _, c := range t.cycles {
			if o.Query.ofProcessor(c) {
				n[c.kind]++
				all++
			}
		}
		for _, name := range t.Order {
			if !slices.Contains(o.Processors, name) {
				o.Processors = append(o.Processors, name)
			}
		}
	}
	o.Legend = []choice{{Text: "all", N: all, Link: o.Query.With("state", ""), Current: o.Query.State == ""}}
	for i, l := range looks {
		if n[l.Kind] > 0 || o.Query.State == l.Kind {
			o.Legend = append(o.Legend, choice{Look: &looks[i], Text: l.Word, N: n[l.Kind], Link: o.Query.With("state", string(l.Kind)), Current: o.Query.State == l.Kind})
		}
	}
}

// checks are those of the last report: what is not ok first.
func (o *overview) checks(s *state, clk clock) {
	if s.reportErr != nil {
		o.ChecksProblem = s.reportErr.Error()
		return
	}
	if s.report.At.IsZero() {
		return
	}
	for _, st := range []health.State{health.Failing, health.Unknown, health.OK} {
		for _, c := range s.report.Checks {
			if c.State != st {
				continue
			}
			out := check{ID: c.ID, State: string(c.State), Evidence: c.Evidence, Since: clk.short(c.Since)}
			out.Command, out.Advice = command(c.Action)
			out.Tone, out.Symbol = toneOf(c.State)
			if c.ID == health.DeadLetterMessages {
				dead := out
				dead.Evidence = c.Evidence[:min(len(c.Evidence), mostEvidence)]
				o.DeadLetters = &dead
			}
			if st == health.OK {
				o.OKChecks = append(o.OKChecks, out)
				continue
			}
			if out.More = len(c.Evidence) - mostEvidence; out.More > 0 {
				out.Evidence = c.Evidence[:mostEvidence]
			}
			o.Checks = append(o.Checks, out)
		}
	}
}

// command splits a suggestion into what can be typed, and the rest.
func command(action string) (typed, advice string) {
	if program, _, _ := strings.Cut(action, " "); !slices.Contains([]string{"phasectl", "gcloud", "make"}, program) {
		return "", action
	}
	typed, advice, _ = strings.Cut(action, ", ")
	return typed, advice
}

func toneOf(s health.State) (tone, symbol string) {
	switch s {
	case health.OK:
		return "good", "ok"
	case health.Failing:
		return "bad", "fail"
	}
	return "fair", "ask"
}

// query is what a request asks for.
type query struct {
	Days      int
	State     kind
	Processor string
	Refresh   int
	values    url.Values // as asked, known names alone
}

// With is the address of the overview with another value.
func (q query) With(name, value string) string {
	values := url.Values{}
	for k, v := range q.values {
		values[k] = v
	}
	values.Del(name)
	if value != "" {
		values.Set(name, value)
	}
	return "?" + values.Encode()
}

func (q query) ofProcessor(c *shown) bool { return q.Processor == "" || c.mode.Names(q.Processor) }

func (q query) matches(c *shown) bool {
	return q.ofProcessor(c) && (q.State == "" || q.State == c.kind)
}

func (q query) Filters() bool { return q.State != "" || q.Processor != "" }
