package main

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

// States of a check, and of all of them together.
const (
	checkOK      = "ok"
	checkFailing = "failing"
	checkUnknown = "unknown"
)

// check is one thing that was tried.
type check struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Evidence string `json:"evidence"`
	Action   string `json:"action,omitempty"`
}

// failed is a check that did not succeed: failing when what is asked for is not there,
// unknown when that could not be determined.
func failed(id string, err error, action string) check {
	state := checkUnknown
	if status.Code(err) == codes.NotFound {
		state = checkFailing
	}
	return check{ID: id, State: state, Evidence: err.Error(), Action: action}
}

const again = "see that this identity may read the state and reach Google, and run the command again"

const redeploy = "make deploy puts topics, subscriptions and rights back as they should be"

// checklist is what was tried, and what it comes to together: one failing makes it failing, with or
// without unknown ones.
type checklist struct {
	Schema  int      `json:"schema"`
	Overall string   `json:"overall"`
	Checks  []check  `json:"checks"`
	Ignored []string `json:"ignored,omitempty"` // without meaning

	words string
}

// checklistOf has the words for each case. The error is the exit status.
func checklistOf(checks []check, ok, failing, unknown string) (*checklist, error) {
	r, code := &checklist{Schema: 1, Overall: checkOK, Checks: checks, words: ok}, 0
	for _, c := range checks {
		switch {
		case c.State == checkFailing:
			r.Overall, r.words, code = checkFailing, failing, cli.ExitFindings
		case c.State == checkUnknown && r.Overall == checkOK:
			r.Overall, r.words, code = checkUnknown, unknown, cli.ExitUnknown
		}
	}
	if code != 0 {
		return r, cli.WithCode(code, errors.New(r.words))
	}
	return r, nil
}

func (r *checklist) text(p *page) {
	p.table("STATE", "CHECK")
	for _, c := range r.Checks {
		p.row(c.State, c.ID)
		p.detail("%s", c.Evidence)
		if c.Action != "" {
			p.detail("fix: %s", c.Action)
		}
	}
	for _, what := range r.Ignored {
		p.line("ignored  %s", what)
	}
	p.line("%s: %s", r.Overall, r.words)
}
