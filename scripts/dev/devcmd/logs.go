package devcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// shortHealth writes the logs of the local environment on a terminal, where the lines of each
// evaluation of health would push the addresses away: they become one line.
type shortHealth struct {
	mu     sync.Mutex
	to     io.Writer
	checks []health.Check
}

// Write takes one record, as the logger writes it.
func (s *shortHealth) Write(record []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var line struct {
		Event    string       `json:"event"`
		By       string       `json:"by"`
		Check    string       `json:"check"`
		State    health.State `json:"state"`
		Overall  health.State `json:"overall"`
		Evidence []string     `json:"evidence"`
	}
	err := json.Unmarshal(record, &line)
	switch {
	case err == nil && line.Event == telemetry.Finding && line.By == "health":
		s.checks = append(s.checks, health.Check{ID: line.Check, State: line.State, Evidence: line.Evidence})
	case err == nil && line.Overall != "" && len(s.checks) > 0:
		checks := s.checks
		s.checks = nil
		if _, err := fmt.Fprintln(s.to, healthLine(checks)); err != nil {
			return 0, err
		}
	default:
		return s.to.Write(record)
	}
	return len(record), nil
}

// healthLine sums up the checks of one evaluation.
func healthLine(checks []health.Check) string {
	ok := 0
	var failing, unknown, elsewhere, reasons []string
	for _, c := range checks {
		switch {
		case c.State == health.OK:
			ok++
		case c.State == health.Failing:
			failing = append(failing, c.ID)
		case !c.NotOnThisMachine():
			unknown = append(unknown, c.ID)
		default:
			elsewhere = append(elsewhere, c.ID)
			reason := "no counts of dead letters"
			switch {
			case strings.HasSuffix(c.Evidence[0], health.ErrNoWarehouse.Error()):
				reason = "no BigQuery (make build/bqemu)"
			case c.ID == health.DeployedServices:
				reason = "nothing deployed"
			}
			if !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
	}
	out := fmt.Sprintf("health: %d ok", ok)
	if len(failing) > 0 {
		out += fmt.Sprintf(", %d failing: %s", len(failing), strings.Join(failing, ", "))
	}
	if len(unknown) > 0 {
		out += fmt.Sprintf(", %d unknown", len(unknown))
	}
	if len(elsewhere) > 0 {
		out += fmt.Sprintf(", %d not checked on this machine: %s", len(elsewhere), strings.Join(reasons, ", "))
	}
	return out + " (phasectl health --verbose)"
}
