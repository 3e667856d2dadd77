package statuspage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/health"
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
	Receipts               listing
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
	o.choices(s)
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
		if t.err == nil && !t.settledAt.IsZero() && len(t.cycles) > 0 && t.cycles[0].period < t.live {
			o.Settled = append(o.Settled, fmt.Sprintf("%sCycles before %s are settled, as of %s", t.Prefix(), t.live, clk.short(t.settledAt)))
		}
		o.Histories = append(o.Histories, histories(s, t, q, clk)...)
	}
	o.recent(s, q, clk)
	o.checks(s, clk)
	o.Locks, o.Sweeps, o.Quarantine, o.Jobs, o.Receipts = locks(s, clk), sweeps(s, clk), quarantine(s, clk), jobs(s, clk), receipts(s, clk)
	return o
}

// mostProcessors is how many processors can be chosen from a list. Others can be named in the address.
const mostProcessors = 500

// choices are the links that choose days and kinds, and the processors.
func (o *overview) choices(s *state) {
	for _, n := range []int{defaultDays, 30, maxDays} {
		o.Days = append(o.Days, choice{Text: fmt.Sprintf("%d days", n), Link: o.Query.With("days", strconv.Itoa(n)), Current: n == s.days})
	}
	n, all, named := map[kind]int{}, 0, map[string]bool{}
	for _, t := range s.transitions {
		for _, c := range t.cycles {
			if o.Query.ofProcessor(c) {
				n[c.kind]++
				all++
			}
		}
		for _, name := range t.Order {
			if !named[name] && (len(named) < mostProcessors || name == o.Query.Processor) {
				named[name] = true
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
