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

// Size is how many triggers the batch has.
func (b batchRow) Size() int { return len(b.Triggers) + b.TriggersCut }

// A page stays readable, and below 1 MB, for thousands of processors: it shows this many of a kind.
const (
	mostRuns     = 200
	mostTriggers = 100
	mostChecks   = 200
	mostLanes    = 40
)

// act is a command with its purpose.
type act struct{ When, What, Command string }

type runRow struct {
	Processor, Tone, Symbol, Status string
	Ended, Rows, Took, Execution    string
	HandOver, Error, Log            string
}

type batchRow struct {
	N                         int
	Tone, Symbol, State       string
	Cause, Due, Published     string
	After, Actor, ID, Waiting string
	Triggers                  []trigger
	TriggersCut               int // that are not shown
}

type trigger struct{ Table, ID, Message string }

type readyRow struct {
	Name, Tone, Symbol, Result, Value, Warn, Block, Problem string
	Bullet                                                  *bullet
}

// bullet draws a share against its bound, in per cent.
type bullet struct{ Value, Bound string }

type personRow struct{ At, Actor, Action, Reason string }

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
		v.Batches = append(v.Batches, newBatchRow(c, b, clk))
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

func newRunRow(a *app.App, c *shown, r cycle.RunStatus, clk clock) runRow {
	out := runRow{Processor: r.Processor, Tone: "good", Symbol: "dot", Status: string(r.Status), Ended: clk.exact(r.EventTime), Rows: "unknown", Took: "unknown",
		Execution: r.ExecutionID, Error: r.Error, Log: logs(a, c, fmt.Sprintf("jsonPayload.execution_id=%q", r.ExecutionID))}
	switch {
	case r.Status == wire.StatusFailed:
		out.Tone, out.Symbol = "bad", "fail"
	case !r.Counts:
		out.Tone, out.Symbol = "calm", "dash"
	case late(c, r):
		out.Tone, out.Status = "fair", out.Status+", after the deadline"
	}
	if r.RecordCount != nil {
		out.Rows = fmt.Sprint(*r.RecordCount)
	}
	if r.Duration != nil {
		out.Took = span(time.Duration(*r.Duration * float64(time.Second)))
	}
	switch {
	case r.Batch > 0:
		out.HandOver = fmt.Sprint(r.Batch)
	case r.Why != "":
		out.HandOver = "no: " + r.Why
	case c.State == string(cycle.StatePublished): // as of a further run that changed nothing
		out.HandOver = "none is due"
	default:
		out.HandOver = "not yet"
	}
	return out
}

// late reports whether a run ended after the deadline of the cycle.
func late(c *shown, r cycle.RunStatus) bool {
	return c.mode.Deadline != nil && r.EventTime.After(c.mode.Due(c.of.Calendar(), c.period))
}

func newBatchRow(c *shown, b cycle.BatchStatus, clk clock) batchRow {
	l := lookOf(kind(b.State))
	out := batchRow{N: b.N, Tone: l.Tone, Symbol: l.Symbol, State: l.Word, Cause: b.Cause, Actor: b.Actor, ID: b.ID, Due: clk.exact(begun(b)), Published: "not yet"}
	switch {
	case !b.PublishedAt.IsZero():
		out.Published = clk.exact(b.PublishedAt)
		if !b.DueAt.IsZero() {
			out.After = span(b.PublishedAt.Sub(b.DueAt))
		}
	default:
		out.After = clk.age(begun(b))
	}
	for table, id := range b.Messages {
		if id == "" {
			id = "no id yet"
		}
		out.Triggers = append(out.Triggers, trigger{table, fmt.Sprintf("~%d/%s", b.N, table), id})
	}
	slices.SortFunc(out.Triggers, func(a, b trigger) int { return strings.Compare(a.Table, b.Table) })
	if out.TriggersCut = max(0, len(out.Triggers)-mostTriggers); out.TriggersCut > 0 {
		out.Triggers = out.Triggers[:mostTriggers]
	}
	if len(out.Triggers) == 0 {
		out.Waiting = "none yet"
	}
	return out
}

// ready shows the answers of the newest readiness check.
func (v *cycleView) ready(x cycle.Explanation) {
	if x.Readiness == nil {
		v.ReadyNote = "No readiness check has run."
		return
	}
	v.ReadyNote = "Result: " + string(x.Readiness.Outcome) + "."
	if !x.NextCheck.IsZero() && x.State == string(cycle.StateBlocked) {
		v.ReadyNote += " It runs again by itself."
	}
	checks := x.Readiness.Checks
	if v.ReadyCut = max(0, len(checks)-mostChecks); v.ReadyCut > 0 { // those that pass come last
		passes := func(c policy.CheckResult) int {
			if c.State == string(policy.Passed) {
				return 1
			}
			return 0
		}
		checks = slices.Clone(checks)
		slices.SortStableFunc(checks, func(a, b policy.CheckResult) int { return passes(a) - passes(b) })
		checks = checks[:mostChecks]
	}
	for _, c := range checks {
		row := readyRow{Name: c.Name, Tone: "good", Symbol: "ok", Result: "passes", Value: "—", Warn: c.Warn, Block: c.Block, Problem: c.Problem}
		switch c.State {
		case "warn":
			row.Tone, row.Symbol, row.Result = "fair", "ask", "warns"
		case string(policy.Failed):
			row.Tone, row.Symbol, row.Result = "bad", "fail", "blocks"
		case string(policy.Unknown):
			row.Tone, row.Symbol, row.Result = "fair", "ask", "unknown"
		}
		if c.Value != nil {
			row.Value = fmt.Sprintf("%.4g", *c.Value)
			var bound float64
			n, _ := fmt.Sscanf(strings.TrimLeft(c.Block, "<= "), "%g", &bound)
			if n == 1 && strings.HasPrefix(c.Block, "<") && strings.HasSuffix(c.Name, "_pct") && *c.Value >= 0 && *c.Value <= 100 {
				row.Bullet = &bullet{fmt.Sprintf("%.3g%%", *c.Value), fmt.Sprintf("%.3g%%", bound)}
			}
		}
		v.Ready = append(v.Ready, row)
	}
}

func (v *cycleView) people(s *cycleState, clk clock) {
	v.PeopleCut = s.cut
	if s.recordsErr != nil {
		v.PeopleProblem = s.recordsErr.Error()
	}
	for _, r := range slices.Backward(s.records) {
		row := personRow{clk.exact(r.At), r.Actor, r.Action, r.Reason}
		if r.Period == "" {
			row.Action += " of every cycle"
		}
		v.People = append(v.People, row)
	}
}
