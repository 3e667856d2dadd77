package statuspage

import (
	"context"
	_ "embed" // the template
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

//go:embed cycle.html
var cycleTemplate string

var cyclePage = template.Must(template.Must(common.Clone()).New("cycle").Parse(cycleTemplate))

// cycleState is what the page of a cycle shows, as of one read.
type cycleState struct {
	at         time.Time
	shown      *shown
	explained  cycle.Explanation
	records    []audit.Recorded // of the cycle, oldest first
	recordsErr error
	cut        bool // there are more records than are read
	err        error
}

// auditAround is how long before its first runs and after its period people act on a cycle.
const (
	auditBefore = 7 * 24 * time.Hour
	auditAfter  = 31 * 24 * time.Hour
	mostRecords = 5000 // documents that are read for one page
)

// Cycle answers /cycle/PERIOD/MODE, with ?transition= where there are several.
func (p *Page) Cycle(ctx context.Context, a *app.App, r *http.Request, w http.ResponseWriter) error {
	key, m, err := parseCycle(a, r)
	if err != nil {
		return err
	}
	q, err := parseQuery(a, url.Values{"refresh": r.URL.Query()["refresh"]})
	if err != nil {
		return err
	}
	got, err := p.reads.do(ctx, "cycle "+key.String()+" "+m.Name, func(ctx context.Context) any { return readCycle(ctx, a, key, m) })
	if err != nil {
		return err
	}
	s := got.(*cycleState)
	if s.err != nil {
		return s.err
	}
	return answer(w, r, cyclePage, newCyclePage(a, s, q))
}

func parseCycle(a *app.App, r *http.Request) (key cycle.Key, m pipeline.Mode, err error) {
	bad := func(name, value, problem string) error {
		return &wire.PermanentError{Field: name, Value: value, Problem: problem}
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 3 {
		return key, m, bad("path", r.URL.Path, "is not /cycle/PERIOD/MODE")
	}
	id := r.URL.Query().Get("transition")
	t, ok := a.Pipeline.Transition(id)
	if !ok {
		return key, m, bad("transition", id, "is none of "+a.Pipeline.TransitionIDs())
	}
	period, err := a.Pipeline.Calendar.Parse(parts[1])
	if err != nil {
		return key, m, bad("period", parts[1], "is no period of the pipeline")
	}
	if m, ok = t.Mode(parts[2]); !ok {
		return key, m, bad("mode", parts[2], "is no mode of "+t.ID)
	}
	return cycle.Key{Transition: t, Period: period}, m, nil
}

func readCycle(ctx context.Context, a *app.App, key cycle.Key, m pipeline.Mode) *cycleState {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	s := &cycleState{at: a.Now()}
	periods, err := a.Engine.PeriodStates(ctx, key.Transition, key.Period, key.Period)
	var managed cycle.Managed
	if err == nil {
		managed, err = a.Engine.Managed(ctx, key.Transition)
	}
	if err == nil && periods[0].Problem != nil {
		err = periods[0].Problem
	}
	if err == nil {
		s.explained, err = a.Engine.Explain(ctx, key, m)
	}
	if err != nil {
		s.err = err
		return s
	}
	s.shown = &shown{Status: s.explained.Status, of: key.Transition, mode: m, period: key.Period, kind: kind(s.explained.State)}
	for _, c := range cyclesOf(a, key.Transition, managed, periods[0]) {
		if c.mode.Name == m.Name {
			s.shown = c
		}
	}
	s.people(ctx, a, key, m)
	return s
}

// people reads the audit records of the cycle, and those of its whole transition.
func (s *cycleState) people(ctx context.Context, a *app.App, key cycle.Key, m pipeline.Mode) {
	cal := key.Transition.Calendar()
	from, to := cal.Instant(key.Period, m.CountsFrom).Add(-auditBefore), cal.End(key.Period).Add(auditAfter)
	n := 0
	for r, err := range audit.List(ctx, a.Store, a.Config.StatePrefix(), from, to) {
		if err != nil {
			s.recordsErr = err
			return
		}
		if n++; n > mostRecords {
			s.cut = true
			return
		}
		mine := key.Transition.ID == r.Transition || slices.Contains(key.Transition.Formerly, r.Transition)
		if mine && (r.Period == "" || r.Period == string(key.Period)) && (r.Mode == "" || key.Transition.PresentMode(r.Mode) == m.Name) {
			s.records = append(s.records, r)
		}
	}
}

// cycleView is what the template of a cycle shows.
type cycleView struct {
	frame
	Headline, Tone, Symbol string
	Reason                 string
	Since, Age             string
	Acts                   []act
	Share                  string
	Before, After          neighbour
	Timeline               timeline
	Complete, Policy, ID   string
	Runs                   []runRow
	RunsCut, ReadyCut      int    // that are not shown
	All                    string // the command that shows all
	Logs                   bool
	Log                    string
	Batches                []batchRow
	Ready                  []readyRow
	ReadyNote              string
	People                 []personRow
	PeopleProblem          string
	PeopleCut              bool
}

type neighbour struct{ Text, Link string }

// A page stays readable, and below 1 MB, for thousands of processors: it shows this many of a kind.
const (
	mostRuns     = 200
	mostTriggers = 100
	mostChecks   = 200
	mostLanes    = 40
)

// act is a command with its purpose.
type act struct{ When, What, Command string }

func newCyclePage(a *app.App, s *cycleState, q query) cycleView {
	clk := clock{a.Pipeline.Calendar, s.at}
	c, x := s.shown, s.explained
	l := lookOf(c.kind)
	v := cycleView{frame: newFrame(a, clk, q, "../../"), Tone: l.Tone, Symbol: l.Symbol, Reason: sentence(c.Reason), ID: x.Cycle, Policy: x.Policy,
		Complete: fmt.Sprintf("%d of %d complete", len(c.Satisfied), c.size()), Logs: !a.Config.Local}
	v.Headline = c.name() + " is " + l.Word
	v.Title = v.Headline
	if since := c.since(); l.loud && !since.IsZero() {
		v.Since, v.Age = clk.short(since), clk.age(since)
	}
	v.Acts = acts(c)
	if a.Config.Page != "" {
		v.Share = a.Config.Page + "/" + c.link()
	}
	link := func(p pipeline.Period) neighbour {
		return neighbour{Text: string(p), Link: "../../" + c.of.CyclePath(p, c.mode.Name)}
	}
	v.Before, v.After = link(clk.cal.Add(c.period, -1)), link(clk.cal.Add(c.period, 1))
	v.RefreshLink = "?" + refreshing(c)
	v.Log = logs(a, c, fmt.Sprintf("jsonPayload.transition=%q jsonPayload.period=%q", c.of.ID, c.period))
	v.All = "phasectl explain " + string(c.period) + " " + c.mode.Name + " --json" + c.of.Option()
	v.RunsCut = max(0, len(x.Runs)-mostRuns)
	for _, r := range slices.Backward(x.Runs[v.RunsCut:]) {
		v.Runs = append(v.Runs, newRunRow(a, c, r, clk))
	}
	for _, b := range x.Batches {
		v.Batches = append(v.Batches, newBatchRow(b, clk))
	}
	v.ready(x)
	v.people(s, clk)
	v.Timeline = newTimeline(s, clk)
	return v
}

// refreshing is the query of the page that loads itself every minute.
func refreshing(c *shown) string {
	values := url.Values{"refresh": {"60"}}
	if c.of.Option() != "" {
		values.Set("transition", c.of.ID)
	}
	return values.Encode()
}

// acts are what an operator can do, the most likely first.
func acts(c *shown) []act {
	args, option := string(c.period)+" "+c.mode.Name, c.of.Option()
	explain := act{"Look", "why it is in this state, and what is checked next", "phasectl explain " + args + option}
	force := act{"Or hand over", "what would be handed over now; then without --dry-run", "phasectl trigger " + args + " --force --reason '…' --dry-run" + option}
	end := act{"Or close", "it shall never be handed over", "phasectl close " + args + " --reason '…'" + option}
	switch c.State {
	case string(policy.Overdue):
		return []act{explain, force, end}
	case string(cycle.StateBlocked):
		return []act{{"Look", "the values of the readiness checks now", "phasectl checks run " + args + option}, force, end}
	case string(cycle.StateOnHold):
		return []act{{"Release", "what is due is handed over at once", c.command()}, explain}
	case string(cycle.StatePublished):
		return []act{explain, {"Or repeat", "a further hand-over, with new trigger ids; then without --dry-run", "phasectl trigger " + args + " --reason '…' --dry-run" + option}}
	case string(policy.Closed):
		return []act{explain}
	}
	return []act{explain, {"Or hold", "nothing is handed over meanwhile", "phasectl hold " + args + " --for 2h --reason '…'" + option}}
}

// logs is the address of a search in Cloud Logging; "" where there is none. The times in the filter
// take the place of the page's own, which are of the last hour.
func logs(a *app.App, c *shown, filter string) string {
	if a.Config.Local {
		return ""
	}
	cal := c.of.Calendar()
	from, to := cal.Instant(c.period, c.mode.CountsFrom), c.of.LastInTime(c.period).Add(24*time.Hour)
	filter += fmt.Sprintf(" timestamp>=%q timestamp<=%q", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	return "https://console.cloud.google.com/logs/query;query=" + url.PathEscape(filter) + "?project=" + url.QueryEscape(a.Config.Project)
}
