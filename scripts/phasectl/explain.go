package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/wire"
)

type explainOptions struct {
	*flags
	subject
	page int
}

func explainCommand(f *flags) *cobra.Command {
	o := explainOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "explain PERIOD [MODE]",
		Short: "Show why a cycle was not handed over, when it is checked next, and the suggested command",
		Long: "Show why a cycle was not handed over, when it is checked next, and the suggested commands. Without --transition this\n" +
			"is the cycle of each transition that has the mode.",
		Example: "  phasectl explain 2026-02-03 overnight\n  phasectl explain yesterday overnight --json",
	}
	o.takes(cmd, 2)
	f.needs(cmd, o.needsPeriod(f, never), o.needsPlace(f, true, never))
	f.watched(cmd)
	cmd.Flags().IntVar(&o.page, "page", 1, fmt.Sprintf("page of the runs, %d on each, the newest on the first", runsOfPage))
	return answers(f, cmd, on(f.open, o.run))
}

// runsOfPage is how many runs are shown at once.
const runsOfPage = 20

// explainAnswer is the cycle of each transition, in the order of the pipeline file.
type explainAnswer struct {
	Cycles []*explained `json:"cycles"`
}

// explained is everything that is known about one cycle.
type explained struct {
	cycle.Explanation
	Waited []waited `json:"waited_for"`
	Logs   string   `json:"logs,omitempty"` // of Phasegate about the cycle, in Cloud Logging
	Help   []string `json:"help"`           // what to do, each with its command

	transition *pipeline.Transition
	page       int
}

// waited is a processor that a cycle waits for.
type waited struct {
	Processor  string      `json:"processor"`
	Critical   bool        `json:"critical"`         // nothing is handed over without it
	Attempts   int         `json:"attempts"`         // reports of the cycle's time
	Status     wire.Status `json:"status,omitempty"` // of the last one
	At         time.Time   `json:"at,omitzero"`
	Error      string      `json:"error,omitempty"`
	ExitStatus *int        `json:"exit_status,omitempty"`
	Logs       string      `json:"logs,omitempty"` // of the processor, in Cloud Logging
}

// exitWords are how phasectl run reports the exit status of a command.
var exitWords = regexp.MustCompile(`exit status (\d+)`)

// waitedFor returns what each missing processor reported last, with the link to its log.
func waitedFor(x cycle.Explanation, a *app.App, key cycle.Key, m pipeline.Mode) []waited {
	out := []waited{}
	type place struct{ class, service string }
	of, runs := map[string]place{}, map[string][]cycle.RunStatus{}
	for phase, pr := range a.Pipeline.Processors() {
		of[pr.Name] = place{pr.Class, phase.Service}
	}
	for _, r := range x.Runs { // oldest first
		runs[r.Processor] = append(runs[r.Processor], r)
	}
	for _, name := range x.Missing {
		w, words := waited{Processor: name, Critical: m.IsCritical(name)}, []string{name, of[name].class}
		for _, r := range runs[name] {
			w.Attempts++
			w.Status, w.At, w.Error, w.ExitStatus = r.Status, r.EventTime, r.Error, nil
			if e := exitWords.FindStringSubmatch(r.Error); e != nil {
				code, _ := strconv.Atoi(e[1])
				w.ExitStatus = &code
			}
		}
		filter := fmt.Sprintf(`("%s")`, strings.Join(words, `" OR "`))
		if service := of[name].service; service != "" {
			filter = fmt.Sprintf(`resource.type="cloud_run_revision" resource.labels.service_name="%s" `, service) + filter
		}
		w.Logs = logsLink(a, filter, m.CountsFrom, key)
		out = append(out, w)
	}
	return out
}

// logsLink opens Cloud Logging with a filter, from the first run that counts to two days after the
// period. What an emulator hands over is in no log of Google's.
// https://cloud.google.com/logging/docs/view/logs-explorer-interface
func logsLink(a *app.App, filter string, from pipeline.Offset, key cycle.Key) string {
	if a.Config.PubSubHost != "" {
		return ""
	}
	cal := key.Transition.Calendar()
	filter += fmt.Sprintf(` timestamp>="%s" timestamp<="%s"`, cal.Instant(key.Period, from).UTC().Format(time.RFC3339), cal.End(key.Period).Add(48*time.Hour).UTC().Format(time.RFC3339))
	return "https://console.cloud.google.com/logs/query;query=" + strings.ReplaceAll(url.QueryEscape(filter), "+", "%20") + "?project=" + url.QueryEscape(a.Config.Project)
}

func (o *explainOptions) run(ctx context.Context, a *app.App) (*explainAnswer, error) {
	ts, err := o.transitionsWithMode(a.Pipeline)
	if err != nil {
		return nil, err
	}
	period, err := onePeriod(a.Pipeline.Calendar, a.Now(), o.period)
	if err != nil {
		return nil, usage(err)
	}
	r, pages := &explainAnswer{Cycles: []*explained{}}, 1
	for _, t := range ts {
		m, err := o.modeOf(t)
		if err != nil {
			continue // another transition has the mode
		}
		key := cycle.Key{Transition: t, Period: period}
		x, err := a.Engine.Explain(ctx, key, m)
		if err != nil {
			return nil, unknown(err)
		}
		x.NextCheck = checkedNext(a.Pipeline, x.Status, a.Now())
		pages = max(pages, (len(x.Runs)+runsOfPage-1)/runsOfPage)
		logs := fmt.Sprintf(`resource.type="cloud_run_revision" resource.labels.service_name=("%[1]sphasegate-transition" OR "%[1]sphasegate-reconcile") jsonPayload.transition="%[2]s" jsonPayload.period="%[3]s"`,
			a.Config.Prefix, t.ID, period)
		one := &explained{Explanation: x, Waited: waitedFor(x, a, key, m), Logs: logsLink(a, logs, m.CountsFrom, key), transition: t, page: o.page}
		one.Help = one.help()
		r.Cycles = append(r.Cycles, one)
	}
	if o.page < 1 || o.page > pages {
		return nil, usage(fmt.Errorf("--page: %d is not within 1 to %d", o.page, pages))
	}
	return r, nil
}

// checkedNext is when the relay evaluates a cycle next: by its first run at or after the time that
// changes anything. A cycle that is due waits for the next run. Zero: only a report changes anything.
func checkedNext(p *pipeline.Pipeline, st cycle.Status, now time.Time) (next time.Time) {
	at := st.NextCheck
	if st.Due || !at.IsZero() && at.Before(now) {
		at = now
	}
	if at.IsZero() {
		return at
	}
	for _, s := range p.Schedules {
		if s.Job != wire.JobRelay {
			continue
		}
		if due := p.NextDue(s, at.Add(-time.Nanosecond)); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

func modeNames(t *pipeline.Transition) string {
	names := make([]string, len(t.Modes))
	for i, m := range t.Modes {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}

// mostChecks is how many readiness checks the text has; of more, those that do not pass.
const mostChecks = 200

// mostFixes bounds for how many processors that reported something else a command is suggested.
const mostFixes = 5

// fixes say what to do about the processors that a cycle waits for.
func (x *explained) fixes() (out []string) {
	run := func(name string) string {
		return fmt.Sprintf("phasectl run %s --processor %s --publish -- COMMAND", x.Period, name)
	}
	var silent []string
	bad := 0
	for _, w := range x.Waited {
		if w.Attempts == 0 {
			silent = append(silent, w.Processor)
			continue
		}
		if bad++; bad <= mostFixes {
			out = append(out, fmt.Sprintf("%s reported %s: repair the cause and run it again, in its own way or by %s", w.Processor, w.Status, run(w.Processor)))
		}
	}
	if bad > mostFixes {
		out = append(out, fmt.Sprintf("and %d more, in the same way", bad-mostFixes))
	}
	switch len(silent) {
	case 0:
	case 1:
		out = append(out, fmt.Sprintf("%s has not reported. If its rows are in its table: phasectl reconcile %s --fix, or phasectl complete %s %s --reason \"…\". If it did not run: %s",
			silent[0], x.Period, silent[0], x.Period, run(silent[0])))
	default:
		out = append(out, fmt.Sprintf("%s have not reported. Those whose rows are in their tables: phasectl reconcile %s --fix. Each of those that did not run: %s",
			policy.Listed(silent), x.Period, run("NAME")))
	}
	return out
}

// help says what to do about a cycle, each thing with the command that does it.
func (x *explained) help() []string {
	t := x.transition
	trigger := func(rest string) string {
		return commandFor("trigger", t, x.Period, x.Mode) + rest + ` --reason "…"`
	}
	missing, failed := x.fixes(), []string(nil)
	if len(x.Failed) > 0 {
		failed = missing
	}
	switch {
	case x.State == string(cycle.StateOnHold):
		period, mode := x.Period, x.Mode
		if x.Hold.Whole {
			period, mode = "", ""
		}
		return []string{"the cycle is on hold until the hold ends; to release it now: " + commandFor("release", t, period, mode) + ` --reason "…"`}
	case x.State == string(cycle.StatePublished):
		return append(failed, "nothing; if "+t.DownstreamPhase+" did not start, check the subscriptions of topic "+t.DownstreamTopic+
			", and hand over again: "+trigger(""))
	case x.State == string(cycle.StatePublishing):
		return []string{"redelivery and the relay continue automatically; check that topic " + t.DownstreamTopic +
			" exists and that the function may publish: gcloud pubsub topics get-iam-policy " + t.DownstreamTopic}
	case x.State == string(cycle.StateBlocked), x.State == string(policy.Overdue) && len(x.Batches) > 0 && x.Batches[len(x.Batches)-1].State == cycle.StateBlocked:
		return []string{"repair the data named above; the relay repeats the check. To hand over without the check: " + trigger(" --force")}
	case x.State == string(cycle.StateGrace):
		return append(failed, "nothing yet; to hand over without waiting: "+trigger(""))
	case x.State == string(cycle.StateChecking):
		return []string{"nothing yet"}
	case x.State == string(policy.Closed) && x.Closed != nil:
		return []string{"nothing; to hand it over in spite of that: " + trigger("")}
	case x.State == string(policy.Closed):
		return []string{"nothing; a run with rows, or a corrected schedule, opens the cycle again"}
	case x.State != string(policy.Overdue) && len(failed) > 0:
		return failed
	case x.State != string(policy.Overdue):
		return []string{"nothing yet"}
	case x.TooLate:
		return []string{"it is too old for an automatic hand-over; to hand it over: " + trigger("")}
	case x.Old:
		missing = append(missing, "the period is too old for an automatic hand-over; once they have completed: "+trigger(""))
	}
	if len(x.Satisfied) > 0 {
		missing = append(missing, "to hand over the complete processors without them: "+trigger(" --force"))
	}
	return missing
}

// tables puts the tables of a batch's messages into the definition's order; a name that it
// does not know any more comes last.
func tables(messages map[string]string, t *pipeline.Transition) []string {
	return slices.SortedFunc(maps.Keys(messages), func(a, b string) int {
		return cmp.Or(t.Place(t.Present(a))-t.Place(t.Present(b)), strings.Compare(a, b))
	})
}

func (r *explainAnswer) text(p *page) {
	for i, x := range r.Cycles {
		if i > 0 {
			p.title("%s is %s", x.Cycle, x.State)
		} else {
			p.line("%s is %s", x.Cycle, x.State)
		}
		x.text(p)
	}
}

// causeWords are the cause of a batch, and for one without all processors how many were complete.
func causeWords(cause string) string {
	if m := majority.FindStringSubmatch(cause); m != nil {
		return fmt.Sprintf("%s (%s %% were complete, every critical one among them)", cause, m[1])
	}
	return cause
}

var majority = regexp.MustCompile(`^critical_plus_majority_(\d+)pct$`)

func (x *explained) text(p *page) {
	row := func(name, format string, args ...any) { p.line("  %-10s %s", name, fmt.Sprintf(format, args...)) }
	more := func(format string, args ...any) { p.line("             "+format, args...) }
	row("why", "%s", x.Reason)
	row("policy", "%s", x.Policy)
	missing := x.Waited
	if len(missing) > policy.MostNames { // those that reported come first
		reported := func(w waited) bool { return w.Attempts > 0 }
		silent := slices.DeleteFunc(slices.Clone(missing), reported)
		missing = slices.Concat(slices.DeleteFunc(slices.Clone(missing), func(w waited) bool { return !reported(w) }), silent)[:policy.MostNames]
	}
	for _, w := range missing {
		rank := "optional"
		if w.Critical {
			rank = "critical"
		}
		row("missing", "%s (%s), %s", w.Processor, rank, pipeline.Count(w.Attempts, "attempt", "attempts"))
		if w.Attempts > 0 {
			more("the last one ended %s: %s", p.at(w.At), w.Status)
		}
		if w.Error != "" {
			more("error: %s", w.Error)
		}
		if w.ExitStatus != nil {
			more("exit status: %d", *w.ExitStatus)
		}
		if w.Logs != "" {
			more("logs: %s", w.Logs)
		}
	}
	if n := len(x.Waited) - len(missing); n > 0 {
		row("missing", "and %d more; all of them: --json", n)
	}
	if !x.NextCheck.IsZero() {
		row("next check", "%s, by the relay; a completion is evaluated at once", p.at(x.NextCheck))
	}
	if x.Hold != nil {
		row("hold", "by %s since %s until %s: %s", quoted(x.Hold.Actor), p.at(x.Hold.Since), p.at(x.Hold.Until), quoted(x.Hold.Reason))
	}
	if x.Claim != nil {
		state := "ran out"
		if x.Claim.Live {
			state = "is good until " + p.at(x.Claim.Until)
		}
		row("claim", "taken %s for message %s, %s", p.at(x.Claim.Since), x.Claim.MessageID, state)
	}
	for _, batch := range x.Batches {
		row(fmt.Sprintf("batch %d", batch.N), "%s: %s, %s", batch.State, strings.TrimSpace(causeWords(batch.Cause)+" by "+batch.Actor), batch.Reason)
		for i, table := range tables(batch.Messages, x.transition) {
			if i == policy.MostNames {
				more("and %d more; all of them: --json", len(batch.Messages)-i)
				break
			}
			more("%s → %s", table, cmp.Or(batch.Messages[table], "not sent"))
		}
	}
	if x.Readiness != nil {
		row("readiness", "%s", x.Readiness.Outcome)
		checks := x.Readiness.Checks
		if len(checks) > mostChecks {
			checks = slices.DeleteFunc(slices.Clone(checks), func(c policy.CheckResult) bool { return c.State == string(cycle.Passed) })
			checks = checks[:min(len(checks), mostChecks)]
		}
		for _, c := range checks {
			more("%s", checkLine(c))
		}
		if n := len(x.Readiness.Checks) - len(checks); n > 0 {
			more("and %d more, those that pass last; all of them: --json", n)
		}
	}
	last := len(x.Runs) - (x.page-1)*runsOfPage
	first := max(0, last-runsOfPage)
	for _, r := range x.Runs[first:max(first, last)] {
		verdict := "counts"
		switch {
		case r.Batch > 0:
			verdict = fmt.Sprintf("in batch %d", r.Batch)
		case r.HandedOver:
			verdict = "handed over by a batch that has expired"
		case !r.Counts:
			verdict = "does not count: " + r.Why
		}
		row("run", "%s  %s %s (%s): %s", p.at(r.EventTime), quoted(r.Processor), r.Status, quoted(r.ExecutionID), verdict)
	}
	if first > 0 {
		row("run", "%s: %s --page %d", pipeline.Count(first, "older one", "older ones"), commandFor("explain", x.transition, x.Period, x.Mode), x.page+1)
	}
	if x.Logs != "" {
		row("logs", "%s", x.Logs)
	}
	row("fix", "%s", x.Help[0])
	for _, h := range x.Help[1:] {
		more("%s", h)
	}
}
