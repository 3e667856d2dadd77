package statuspage

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/app"
)

// cycles is cycles.json.
type cycles struct {
	Schema int         `json:"schema"`
	At     time.Time   `json:"at"` // of the read, UTC
	Days   int         `json:"days"`
	Cycles []cycleJSON `json:"cycles"`
}

type cycleJSON struct {
	Transition string   `json:"transition"`
	Period     string   `json:"period"`
	Mode       string   `json:"mode"`
	State      string   `json:"state"`     // of the engine; unknown where the period cannot be read
	Qualifier  string   `json:"qualifier"` // late, without_all, made_up, or ""
	Complete   int      `json:"complete"`  // processors
	Missing    []string `json:"missing"`   // 500 at most
	MissingAll int      `json:"missing_count"`
	Reason     string   `json:"reason"`
	// Since is from when on the cycle has been overdue, blocked or on hold, or its hand-over has been due.
	Since       time.Time `json:"since,omitzero"`
	PublishedAt time.Time `json:"published_at,omitzero"` // of the first hand-over
	HandOvers   int       `json:"hand_overs"`            // that are published
	Command     string    `json:"command,omitempty"`     // suggested, where an operator has to act
}

// mostMissing is how many processors a cycle names: a window has hundreds of cycles.
const mostMissing = 500

// Cycles answers what the overview shows, for programs. It fails if a transition cannot be read.
func (p *Page) Cycles(ctx context.Context, a *app.App, r *http.Request, w http.ResponseWriter) error {
	q, err := parseQuery(a, r.URL.Query())
	if err != nil {
		return err
	}
	s, err := p.read(ctx, a, q.Days)
	if err != nil {
		return err
	}
	out := cycles{Schema: 1, At: s.at.UTC(), Days: s.days, Cycles: []cycleJSON{}}
	for _, t := range s.transitions {
		if t.err != nil {
			return fmt.Errorf("%s: %w", t.ID, t.err)
		}
		for _, c := range t.cycles {
			if q.matches(c) {
				out.Cycles = append(out.Cycles, newCycleJSON(c))
			}
		}
	}
	answerJSON(w, out)
	return nil
}

func newCycleJSON(c *shown) cycleJSON {
	out := cycleJSON{Transition: c.of.ID, Period: string(c.period), Mode: c.mode.Name, State: c.State, Qualifier: c.qualifier(),
		Complete: len(c.Satisfied), Missing: append([]string{}, c.Missing[:min(len(c.Missing), mostMissing)]...), MissingAll: len(c.Missing), Reason: c.Reason}
	if c.kind == kindUnknown {
		out.State = string(kindUnknown)
	}
	if lookOf(c.kind).loud {
		out.Since, out.Command = c.since().UTC(), c.command()
	}
	for _, b := range c.Batches {
		if b.PublishedAt.IsZero() {
			continue
		}
		if out.HandOvers++; out.HandOvers == 1 {
			out.PublishedAt = b.PublishedAt.UTC()
		}
	}
	return out
}
