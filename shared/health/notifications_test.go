package health

import (
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/notify"
)

func TestNotifications_FollowReport(t *testing.T) {
	before := morning.Add(-time.Hour)
	r := Report{At: morning, Checks: []Check{
		{ID: Duplicates, State: OK, Evidence: []string{"none"}, Since: before},
		{ID: HandOvers, State: Failing, Evidence: []string{"a", "b", "c", "d", "e", "f"}, Since: morning, Action: "phasectl explain x"},
		{ID: Quarantine, State: Failing, Evidence: []string{"3 wait"}, Since: before},
		{ID: Reconciliation, State: Unknown, Evidence: []string{"it is away"}, Since: before},
		{ID: LateUpstream, State: Unknown, Evidence: []string{"too slow"}, Since: morning}, // perhaps only this once
	}}
	got := map[string]notify.Notification{}
	for _, n := range r.Notifications() {
		got[n.Subject] = n
	}
	for subject, want := range map[string]notify.Notification{
		"check_duplicates":     {State: "", Severity: notify.Warning, Title: "duplicates is ok"},
		"check_hand_overs":     {State: "failing", Severity: notify.Critical, Title: "hand_overs is failing", Reason: "a\nb\nc\nd\ne", Command: "phasectl explain x", Page: "health-failing"},
		"check_quarantine":     {State: "failing", Severity: notify.Warning, Title: "quarantine is failing", Reason: "3 wait", Page: "health-failing"},
		"check_reconciliation": {State: "unknown", Severity: notify.Warning, Title: "reconciliation is unknown", Reason: "it is away", Page: "health-unknown"},
	} {
		n := got[subject]
		if n.State != want.State || n.Severity != want.Severity || n.Title != want.Title || want.State != "" && (n.Reason != want.Reason || n.Command != want.Command || n.Page != want.Page) {
			t.Errorf("%s: %+v", subject, n)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d notifications, want 4", len(got))
	}
}

// Sources that a local environment lacks cause no notification, and share one line of the digest.
func TestNotifications_LeaveOutWhatThisMachineLacks(t *testing.T) {
	before := morning.Add(-time.Hour)
	r := Report{At: morning, Checks: []Check{
		{ID: Duplicates, State: Unknown, Evidence: []string{"a.b: " + ErrNoWarehouse.Error(), "and 3 more"}, Since: before},
		{ID: DeployedServices, State: Unknown, Evidence: []string{errNotDeployed.Error()}, Since: before},
		{ID: DeadLetterMessages, State: Unknown, Evidence: []string{errNotCounted.Error()}, Since: before},
		{ID: Reconciliation, State: Unknown, Evidence: []string{ErrNoWarehouse.Error(), "it is away"}, Since: before},
	}}
	if got := r.Notifications(); len(got) != 1 || got[0].Subject != "check_reconciliation" {
		t.Errorf("%+v", got)
	}
	w, _ := checker(t)
	n, _ := r.Digest(w.Pipeline, "")
	if n.Reason != "unknown: reconciliation: no BigQuery is configured (and 1 more)\nnot checked on this machine: duplicates, deployed_services, dead_letters" {
		t.Errorf("%s", n.Reason)
	}
}

func TestNotifications_DailyDigest(t *testing.T) {
	w, c := checker(t)
	for local, due := range map[time.Time]bool{at(today, 10, 59): false, at(today, 11, 0): true, at(today, 23, 59): true} {
		w.SetNow(local)
		r := c.Run(t.Context())
		n, got := r.Digest(w.Pipeline, "")
		if got != due || due && (n.State != string(today) || n.Subject != "digest") {
			t.Errorf("at %s: %v, %+v", local, got, n)
		}
	}
	r := Report{At: at(today, 11, 5), Overall: Failing, Checks: []Check{{ID: "a", State: OK, Evidence: []string{"fine", "more"}}, {ID: "b", State: Failing, Evidence: []string{"bad", "worse"}}, {ID: "c", State: Unknown, Evidence: []string{"away"}}}}
	n, _ := r.Digest(w.Pipeline, "")
	if n.Title != "2026-02-04 failing: 1 check ok, 1 failing, 1 unknown" || n.Reason != "failing: b: bad (and 1 more)\nunknown: c: away\nok: a: fine" {
		t.Errorf("%q\n%s", n.Title, n.Reason)
	}
	if strings.Contains(n.Reason, "more\n") {
		t.Error("the digest lists further evidence of a check that is ok")
	}
}

// The digest links to the status page and to the cycles that are not handed over. Without an
// address it has no links.
func TestDigest_LinksToPageAndCycles(t *testing.T) {
	w, _ := checker(t)
	f := sound(t)
	for _, mode := range []string{"tomorrow", "same_day", "overnight", "overnight"} {
		f.addCycle(cycle.Status{Period: string(night), Mode: mode, State: "overdue", Reason: "late", Satisfied: []string{"x"}})
	}
	handOvers := judged(f)[HandOvers]
	r := Report{At: at(today, 11, 5), Overall: Failing, Checks: []Check{handOvers}}
	n, _ := r.Digest(w.Pipeline, "https://status.example.com")
	var links []string
	for _, l := range n.Links {
		links = append(links, l.Text+" "+l.URL)
	}
	if len(links) != 1+mostLinks || links[0] != "status page https://status.example.com/" || !strings.HasPrefix(links[1], string(night)) || !strings.Contains(links[1], " https://status.example.com/cycle/"+string(night)+"/") {
		t.Errorf("%q, %+v", links, handOvers)
	}
	if n, _ := r.Digest(w.Pipeline, ""); len(n.Links) != 0 {
		t.Errorf("without an address: %+v", n.Links)
	}
}
