package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// Outcome of the readiness checks.
type Outcome string

// The outcomes. NotChecked passes, and says in the message that nothing was verified.
const (
	NotChecked Outcome = "not_checked"
	Passed     Outcome = "pass"
	Failed     Outcome = "fail"
	Unknown    Outcome = "unknown"
)

// Readiness is what is known about the data behind a hand-over.
type Readiness struct {
	Outcome         Outcome       `json:"outcome"`
	Reasons         []string      `json:"reasons,omitempty"` // what is not as it should be, warnings included
	MinutesCoverage *float64      `json:"minutes_coverage_pct,omitempty"`
	Checks          []CheckResult `json:"checks,omitempty"`
}

// CheckResult is the answer of one check with its bounds.
type CheckResult struct {
	Name    string   `json:"name"`
	State   string   `json:"state"` // pass, warn, fail, unknown
	Value   *float64 `json:"value,omitempty"`
	Warn    string   `json:"warn,omitempty"`    // bound beyond which it warns
	Block   string   `json:"block,omitempty"`   // bound beyond which it blocks
	Problem string   `json:"problem,omitempty"` // of unknown
}

// warned is the one state of a check that is no outcome.
const warned = "warn"

// Measurement is what the warehouse answered to a check: a finite number, or why
// there is none.
type Measurement struct {
	Value   float64
	Problem string // "" when Value is known
}

// Verified reports whether every check was answered and none blocks.
func (r Readiness) Verified() bool {
	return r.Outcome == Passed && len(r.Unknown()) == 0
}

// Unknown returns the checks without an answer.
func (r Readiness) Unknown() []CheckResult {
	var out []CheckResult
	for _, c := range r.Checks {
		if c.State == string(Unknown) {
			out = append(out, c)
		}
	}
	return out
}

// Assess holds measurements, one a check, against the checks' bounds. One that blocks
// makes the whole fail; else one without an answer, unless its check tolerates that,
// makes it unknown. No checks at all is not a pass.
func Assess(checks []pipeline.Check, measured []Measurement) Readiness {
	r := Readiness{Outcome: Passed}
	if len(checks) == 0 {
		return Readiness{Outcome: NotChecked}
	}
	unknown := false
	var problems []string
	without := map[string][]string{} // problem → checks
	for i, c := range checks {
		m := Measurement{Problem: "was not asked"}
		if i < len(measured) {
			m = measured[i]
		}
		if m.Problem == "" && (math.IsNaN(m.Value) || math.IsInf(m.Value, 0)) {
			m.Problem = "is no finite number"
		}
		result := CheckResult{Name: c.Name, State: string(Passed), Warn: c.Warn.String(), Block: c.Block.String()}
		if m.Problem == "" {
			result.Value = &m.Value
		}
		switch {
		case m.Problem != "":
			result.State, result.Problem = string(Unknown), m.Problem
			unknown = unknown || c.Unknown != pipeline.UnknownWarns
			if without[m.Problem] == nil {
				problems = append(problems, m.Problem)
			}
			without[m.Problem] = append(without[m.Problem], c.Name)
		case c.Block.Crossed(m.Value):
			result.State, r.Outcome = string(Failed), Failed
			r.Reasons = append(r.Reasons, fmt.Sprintf("%s is %s, blocks when %s", c.Name, number(m.Value), c.Block))
		case c.Warn.Crossed(m.Value):
			result.State = warned
			r.Reasons = append(r.Reasons, fmt.Sprintf("%s is %s, warns when %s", c.Name, number(m.Value), c.Warn))
		}
		if c.Name == pipeline.MinutesCoverage && m.Problem == "" {
			tenths := math.Round(m.Value*10) / 10
			r.MinutesCoverage = &tenths
		}
		r.Checks = append(r.Checks, result)
	}
	for _, p := range problems {
		r.Reasons = append(r.Reasons, few(without[p])+" unknown: "+p)
	}
	if unknown && r.Outcome == Passed {
		r.Outcome = Unknown
	}
	return r
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return join(names)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func number(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }
