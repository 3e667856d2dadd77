package cycle

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/gate"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Status of a cycle, as shown to people and programs.
type Status struct {
	Cycle      string        `json:"cycle"`
	Transition string        `json:"transition"`
	Period     string        `json:"period"`
	Mode       string        `json:"mode"`
	State      string        `json:"state"` // waiting, held, or the newest unpublished batch's, else published
	Satisfied  []string      `json:"satisfied"`
	Missing    []string      `json:"missing"`
	Ignored    []string      `json:"ignored"`
	Reason     string        `json:"reason"`
	NextLook   time.Time     `json:"next_look,omitzero"` // UTC
	Batches    []BatchStatus `json:"batches"`
}

// BatchStatus is one hand-over of a cycle.
type BatchStatus struct {
	ID       string            `json:"id"`
	N        int               `json:"n"`
	Cause    string            `json:"cause"`
	Actor    string            `json:"actor"`
	Reason   string            `json:"reason"`
	State    State             `json:"state"`
	Runs     []string          `json:"runs"`     // processor@execution_id#key, oldest first
	Messages map[string]string `json:"messages"` // table → the broker's id, "" while unknown
}

// Status reads one period and describes its cycles, those of which nothing is known
// left out. It changes nothing.
func (e *Engine) Status(ctx context.Context, key Key) ([]Status, error) {
	s, err := e.read(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	c := &convergence{Engine: e, key: key}
	var out []Status
	for _, m := range slices.Concat(key.Transition.Modes, c.orphans(s)) {
		if st := c.status(s, m); len(st.Satisfied)+len(st.Ignored)+len(st.Batches) > 0 {
			out = append(out, st)
		}
	}
	return out, nil
}

func (c *convergence) status(s *snapshot, m pipeline.Mode) Status {
	bs := s.batches[m.Name]
	open := firstUnpublished(bs)
	h := handing{verdict: gate.Verdict{Satisfied: []string{}, Missing: []string{}, Ignored: []string{},
		Reason: "the definition has no such mode any more"}}
	_, known := c.key.Transition.Mode(m.Name) // else there is no policy to judge it by
	switch {
	case known && open != nil:
		h = c.handing(s, m, open.N, open)
	case known:
		h = c.handing(s, m, highest(bs)+1, nil)
	}
	st := Status{
		Cycle: cycleID(c.key, m.Name), Transition: c.key.Transition.ID,
		Period: string(c.key.Period), Mode: m.Name,
		State: string(h.verdict.State), Satisfied: h.verdict.Satisfied, Missing: h.verdict.Missing,
		Ignored: h.verdict.Ignored, Reason: h.verdict.Reason, NextLook: h.verdict.NextLook,
		Batches: []BatchStatus{},
	}
	switch {
	case open != nil:
		st.State = string(open.State)
		if open.State == StateBlocked {
			st.Reason, st.NextLook = open.Reason, open.NextAttempt
		}
	case len(bs) > 0:
		st.State, st.Reason, st.NextLook = string(StatePublished), bs[len(bs)-1].Reason, time.Time{}
	case h.verdict.State == gate.Ready, h.verdict.State == gate.Grace:
		// Due, and whoever looks next begins it.
		st.State, st.NextLook = string(gate.Waiting), s.now
	}
	for _, b := range bs {
		st.Batches = append(st.Batches, describe(s, b))
	}
	return st
}

func describe(s *snapshot, b *batch) BatchStatus {
	d := BatchStatus{ID: b.ID, N: b.N, Cause: b.Cause, Actor: b.Actor, Reason: b.Reason, State: b.State,
		Runs: []string{}, Messages: map[string]string{}}
	runs := slices.Clone(s.runs)
	slices.SortFunc(runs, gate.Older)
	for _, r := range runs {
		if slices.Contains(b.Runs, r.Key) {
			d.Runs = append(d.Runs, runName(r))
		}
	}
	for name, m := range b.Messages {
		d.Messages[name] = m.ID
	}
	return d
}

// runName names a run: one execution may have reported twice.
func runName(r gate.Run) string { return r.Processor + "@" + r.ExecutionID + "#" + r.Key }

// report logs one line for each cycle that this Converge has moved or that is open:
// the verdict, its sets, its reason and, for a finished hand-over, the seconds from
// the moment it was due to the broker's last id.
func (c *convergence) report(ctx context.Context, s *snapshot) {
	for _, m := range c.key.Transition.Modes {
		st := c.status(s, m)
		moved := 0
		for _, b := range s.batches[m.Name] {
			if c.published[b.ID] {
				moved++
				c.line(ctx, st, slog.LevelInfo, telemetry.BatchPublished, "batch", b.N, "cause", b.Cause,
					"messages", len(b.Messages), "seconds", b.PublishedAt.Sub(b.DueAt).Seconds())
			}
		}
		if moved > 0 || len(st.Satisfied)+len(st.Ignored) == 0 && len(st.Batches) == 0 {
			continue
		}
		switch State(st.State) {
		case StatePublished:
		case StateBlocked:
			c.line(ctx, st, slog.LevelWarn, telemetry.CycleBlocked)
		case State(gate.Held):
			c.line(ctx, st, slog.LevelWarn, telemetry.CycleHeld)
		default:
			c.line(ctx, st, slog.LevelInfo, telemetry.CycleWaiting)
		}
	}
}

func (c *convergence) line(ctx context.Context, st Status, level slog.Level, event string, more ...any) {
	args := append([]any{"event", event, "transition", st.Transition, "period", st.Period, "mode", st.Mode,
		"state", st.State, "satisfied", st.Satisfied, "missing", st.Missing, "ignored", st.Ignored,
		"definition", c.key.Transition.Definition(), "claimed_by_message", c.messageID}, more...)
	c.Log.Log(ctx, level, st.Reason, args...)
}
