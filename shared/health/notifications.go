package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// urgent are the checks of what does not wait for the morning.
var urgent = []string{HandOvers, NextPhase, Heartbeats}

// Notifications returns a notification for each check, which is new or resolved. An unknown
// check is left out until it is unknown at two evaluations in a row: one late answer is no
// news.
func (r Report) Notifications() (out []notify.Notification) {
	for _, c := range r.Checks {
		n := notify.Notification{Subject: "check_" + c.ID, State: string(c.State), Severity: notify.Warning, Command: c.Action, Page: "health-failing",
			Title: c.ID + " is " + string(c.State), Reason: strings.Join(c.Evidence[:min(len(c.Evidence), mostShown)], "\n")}
		switch c.State {
		case OK:
			n.State = ""
		case Unknown:
			n.Page = "health-unknown"
			if c.Since.Equal(r.At) || c.NotOnThisMachine() {
				continue
			}
		case Failing:
			if slices.Contains(urgent, c.ID) {
				n.Severity = notify.Critical
			}
		}
		out = append(out, n)
	}
	return out
}

// sourcesElsewhere are what a local environment lacks, as evidence says it.
var sourcesElsewhere = []string{ErrNoWarehouse.Error(), errNotDeployed.Error(), errNotCounted.Error()}

// NotOnThisMachine reports whether a check is unknown only because the environment is local: it has
// no BigQuery, no deployment or no counts. Nothing is wrong then, and no notification is sent.
func (c Check) NotOnThisMachine() bool {
	return c.State == Unknown && !slices.ContainsFunc(c.Evidence, func(line string) bool {
		return !strings.HasPrefix(line, "and ") && !slices.ContainsFunc(sourcesElsewhere, func(s string) bool { return strings.HasSuffix(line, s) })
	})
}

// Digest returns the notification that is sent once a day, from a local time on. It links to the
// status page and to the cycles that are not handed over, if the address of the page is known.
func (r Report) Digest(p *pipeline.Pipeline, page string) (n notify.Notification, due bool) {
	cal := p.Calendar.Daily()
	today := cal.At(r.At)
	if r.At.Before(cal.Instant(today, p.Health.DigestAt)) {
		return n, false
	}
	var lines []string
	var links []notify.Link
	if page != "" {
		links = append(links, notify.Link{Text: "status page", URL: page + "/"})
	}
	var elsewhere []string
	for _, s := range []State{Failing, Unknown, OK} {
		for _, c := range r.Checks {
			if c.State != s {
				continue
			}
			if c.NotOnThisMachine() {
				elsewhere = append(elsewhere, c.ID)
				continue
			}
			line := fmt.Sprintf("%s: %s: %s", c.State, c.ID, c.Evidence[0])
			if more := len(c.Evidence) - 1; more > 0 && s != OK {
				line += fmt.Sprintf(" (and %d more)", more)
			}
			lines = append(lines, line)
			for _, cycle := range c.Cycles {
				if page != "" {
					links = append(links, notify.Link{Text: cycle.Name, URL: page + "/" + cycle.Path})
				}
			}
		}
	}
	if len(elsewhere) > 0 {
		lines = append(lines, "not checked on this machine: "+strings.Join(elsewhere, ", "))
	}
	return notify.Notification{Subject: "digest", State: string(today), Severity: notify.Info, Command: "phasectl health --verbose",
		Title:  fmt.Sprintf("%s %s: %s ok, %d failing, %d unknown", r.At.In(p.Calendar.Zone()).Format(time.DateOnly), r.Overall, pipeline.Count(r.Count(OK), "check", "checks"), r.Count(Failing), r.Count(Unknown)),
		Reason: strings.Join(lines, "\n"), Links: links}, true
}

// configuration checks the Slack channels, and that this pipeline file is deployed.
func configuration(f *facts) Check {
	v := verdict{action: "set slack_channel and slack_token, and run make deploy", whenUnknown: "phasectl smoke"}
	if f.statusErr != nil {
		v.notKnown("%v", f.statusErr)
		return v.check()
	}
	same, said := false, false
	for _, name := range sorted(f.functions) {
		s := f.functions[name]
		switch {
		case f.waits(name):
			v.ok("%s has had nothing to do yet", name)
		case s.channel == "":
			v.notKnown("%s has not reported its Slack channel yet", name)
		case !s.hasChannel:
			v.failing("%s has no Slack channel: %s", name, s.channel)
		default:
			v.ok("%s tells %s", name, s.channel)
		}
		same, said = same || s.definition == f.pipeline.Hash, said || s.definition != ""
	}
	if said && !same {
		v.notKnown("this check uses pipeline file %s, and no function runs it", f.pipeline.Hash)
	}
	return v.check()
}
