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
		Use:     "explain PERIOD [MODE]",
		Short:   "Show why a cycle was not handed over, when it is checked next, and the suggested command",
		Example: "  phasectl explain 2026-02-03 overnight\n  phasectl explain yesterday overnight --json",
	}
	o.takes(cmd, 2)
	f.watched(cmd)
	cmd.Flags().IntVar(&o.page, "page", 1, fmt.Sprintf("page of the runs, %d on each, the newest on the first", runsOfPage))
	return answers(f, cmd, o.run)
}

// runsOfPage is how many runs are shown at once.
const runsOfPage = 20

// explainAnswer is everything that is known about one cycle.
type explainAnswer struct {
	cycle.Explanation
	Waited []waited `json:"waited_for"`
	Logs   string   `json:"logs,omitempty"` // of Phasegate about the cycle, in Cloud Logging
	Help   string   `json:"help"`

	transition *pipeline.Transition
	page       int
}

// waited is a processor that a cycle waits for.
type waited struct {
	Processor  string      `json:"processor"`
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
	for _, name := range x.Missing {
		w, words := waited{Processor: name}, []string{name}
		phase, of, _ := a.Pipeline.Processor(name)
		words = append(words, of.Class)
		for _, r := range x.Runs { // oldest first
			if r.Processor != name {
				continue
			}
			w.Attempts++
			w.Status, w.At, w.Error, w.ExitStatus = r.Status, r.EventTime, r.Error, nil
			if e := exitWords.FindStringSubmatch(r.Error); e != nil {
				code, _ := strconv.Atoi(e[1])
				w.ExitStatus = &code
			}
		}
		filter := fmt.Sprintf(`("%s")`, strings.Join(words, `" OR "`))
		if phase.Service != "" {
			filter = fmt.Sprintf(`resource.type="cloud_run_revision" resource.labels.service_name="%s" `, phase.Service) + filter
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

func (o *explainOptions) run(ctx context.Context) (*explainAnswer, error) {
	a, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	key, m, err := o.one(a.Pipeline, a.Now())
	if err != nil {
		return nil, err
	}
	x, err := a.Engine.Explain(ctx, key, m)
	if err != nil {
		return nil, exitError{exitUnknown, err}
	}
	if pages := max(1, (len(x.Runs)+runsOfPage-1)/runsOfPage); o.page < 1 || o.page > pages {
		return nil, usage(fmt.Errorf("--page: %d is not within 1 to %d", o.page, pages))
	}
	logs := fmt.Sprintf(`resource.type="cloud_run_revision" resource.labels.service_name=("%[1]sphasegate-transition" OR "%[1]sphasegate-reconcile") jsonPayload.transition="%[2]s" jsonPayload.period="%[3]s"`,
		a.Config.Prefix, key.Transition.ID, key.Period)
	return &explainAnswer{x, waitedFor(x, a, key, m), logsLink(a, logs, m.CountsFrom, key), help(x, key.Transition), key.Transition, o.page}, nil
}

func modeNames(t *pipeline.Transition) string {
	names := make([]string, len(t.Modes))
	for i, m := range t.Modes {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}

// help names the one thing to do about a cycle, with the command that does it.
func help(x cycle.Explanation, t *pipeline.Transition) string {
	trigger := func(rest string) string {
		return commandFor("trigger", t, x.Period, x.Mode) + rest + ` --reason "…"`
	}
	if x.State == string(cycle.StateOnHold) {
		period, mode := x.Period, x.Mode
		if x.Hold.Whole {
			period, mode = "", ""
		}
		return "the cycle is on hold until the hold ends; to release it now: " + commandFor("release", t, period, mode) + ` --reason "…"`
	}
	switch cycle.State(x.State) {
	case cycle.StatePublished:
		return "nothing; if " + t.DownstreamPhase + " did not start, check the subscriptions of topic " + t.DownstreamTopic +
			", and hand over again: " + trigger("")
	case cycle.StatePublishing:
		return "redelivery and the relay continue automatically; check that topic " + t.DownstreamTopic +
			" exists and that the function may publish: gcloud pubsub topics get-iam-policy " + t.DownstreamTopic
	case cycle.StateBlocked:
		return "repair the data named above; the relay repeats the check. To hand over without the check: " + trigger(" --force")
	case cycle.StateGrace:
		return "nothing yet; to hand over without waiting: " + trigger("")
	case cycle.StateChecking:
		return "nothing yet"
	}
	logs := "look at the logs of " + strings.Join(x.Missing, ", ") + " and run those that did not run; Phasegate handles their completions at once"
	if x.Old {
		logs = "look at the logs of " + strings.Join(x.Missing, ", ") + " and run those that did not run; the period is too old for an automatic hand-over: " + trigger("")
	}
	switch {
	case x.State == string(policy.Closed) && x.Closed != nil:
		return "nothing; to hand it over in spite of that: " + trigger("")
	case x.State == string(policy.Closed):
		return "nothing; a run with rows, or a corrected schedule, opens the cycle again"
	case x.State != string(policy.Overdue) && len(x.Failed) > 0:
		return "look at the logs of " + strings.Join(x.Failed, ", ") + " and run them again; Phasegate handles their completions at once"
	case x.State != string(policy.Overdue):
		return "nothing yet"
	case len(x.Batches) > 0 && x.Batches[len(x.Batches)-1].State == cycle.StateBlocked:
		return "repair the data named above; the relay repeats the check. To hand over without the check: " + trigger(" --force")
	case x.TooLate:
		return "it is too old for an automatic hand-over; to hand it over: " + trigger("")
	case len(x.Satisfied) == 0:
		return logs
	}
	return logs + ". To hand over the complete processors: " + trigger(" --force")
}

// tables puts the tables of a batch's messages into the definition's order; a name that it
// does not know any more comes last.
func tables(messages map[string]string, t *pipeline.Transition) []string {
	rank := func(table string) int {
		if i := slices.Index(t.Order, t.Present(table)); i >= 0 {
			return i
		}
		return len(t.Order)
	}
	return slices.SortedFunc(maps.Keys(messages), func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
}

func (x *explainAnswer) text(p *page) {
	p.line("%s is %s", x.Cycle, x.State)
	row := func(name, format string, args ...any) { p.line("  %-10s %s", name, fmt.Sprintf(format, args...)) }
	more := func(format string, args ...any) { p.line("             "+format, args...) }
	row("why", "%s", x.Reason)
	row("policy", "%s", x.Policy)
	for _, w := range x.Waited {
		attempts := fmt.Sprintf("%d attempts", w.Attempts)
		if w.Attempts == 1 {
			attempts = "1 attempt"
		}
		row("missing", "%s, %s", w.Processor, attempts)
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
	if !x.NextCheck.IsZero() {
		row("next check", "%s, by the relay; a completion is evaluated at once", p.at(x.NextCheck))
	}
	if x.Hold != nil {
		row("hold", "by %s since %s until %s: %s", quoted([]string{x.Hold.Actor}), p.at(x.Hold.Since), p.at(x.Hold.Until), quoted([]string{x.Hold.Reason}))
	}
	if x.Claim != nil {
		state := "ran out"
		if x.Claim.Live {
			state = "is good until " + p.at(x.Claim.Until)
		}
		row("claim", "taken %s for message %s, %s", p.at(x.Claim.Since), x.Claim.MessageID, state)
	}
	for _, batch := range x.Batches {
		row(fmt.Sprintf("batch %d", batch.N), "%s: %s by %s, %s", batch.State, batch.Cause, batch.Actor, batch.Reason)
		for _, table := range tables(batch.Messages, x.transition) {
			more("%s → %s", table, cmp.Or(batch.Messages[table], "not sent"))
		}
	}
	if x.Readiness != nil {
		row("readiness", "%s", x.Readiness.Outcome)
		for _, c := range x.Readiness.Checks {
			more("%s", checkLine(c))
		}
	}
	last := len(x.Runs) - (x.page-1)*runsOfPage
	first := max(0, last-runsOfPage)
	for _, r := range x.Runs[first:last] {
		verdict := "counts"
		switch {
		case r.Batch > 0:
			verdict = fmt.Sprintf("in batch %d", r.Batch)
		case r.HandedOver:
			verdict = "handed over by a batch that has expired"
		case !r.Counts:
			verdict = "does not count: " + r.Why
		}
		row("run", "%s  %s %s (%s): %s", p.at(r.EventTime), quoted([]string{r.Processor}), r.Status, quoted([]string{r.ExecutionID}), verdict)
	}
	if first > 0 {
		row("run", "%d older ones: %s --page %d", first, commandFor("explain", x.transition, x.Period, x.Mode), x.page+1)
	}
	if x.Logs != "" {
		row("logs", "%s", x.Logs)
	}
	row("fix", "%s", x.Help)
}
