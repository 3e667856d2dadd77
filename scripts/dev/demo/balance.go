package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/processors"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/wire"
)

// phase4 receives triggers as today's service does: what lacks a required field is
// refused with 400. It notes every delivery, and runs the processor that is asked for,
// once there are any.
type phase4 struct {
	mu         sync.Mutex
	got        []delivery
	processors *processors.Processors
	guarded    *guarded
	stand      func(ctx context.Context, t wire.Trigger) error // for a run where none are; nil: nothing does
}

// delivery is a trigger that was answered, with what it set off.
type delivery struct {
	wire.Trigger
	processor string // "" where none are run
	outcome   processor.Outcome
}

// effect says what a delivery set off.
func (d delivery) effect() string {
	switch {
	case d.processor == "":
		return ""
	case d.outcome.Served:
		return " → " + d.processor + ": done before"
	}
	return fmt.Sprintf(" → %s: %s, %s", d.processor, d.outcome.Status, pipeline.Count(d.outcome.Written.Rows, "row", "rows"))
}

func (p *phase4) runs(ps *processors.Processors) { p.mu.Lock(); defer p.mu.Unlock(); p.processors = ps }

func (p *phase4) run(ctx context.Context, t wire.Trigger, published time.Time) (d delivery, err error) {
	p.mu.Lock()
	ps := p.processors
	p.mu.Unlock()
	d.Trigger = t
	switch {
	case ps == nil && p.stand != nil:
		err = p.stand(ctx, t)
	case ps != nil:
		d.processor, d.outcome, err = ps.Next(ctx, t, published)
	}
	return d, err
}

// consumers are what the transitions hand over to.
func (p *phase4) consumers(of *pipeline.Pipeline) map[string]http.Handler {
	out := map[string]http.Handler{}
	for _, t := range of.Transitions {
		out[t.DownstreamTopic] = http.HandlerFunc(p.serve)
	}
	return out
}

func (p *phase4) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if status := p.guarded.deliver(body); status >= http.StatusMultipleChoices {
		w.WriteHeader(status)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e, err := wire.FromRequest(r)
	var tr wire.Trigger
	if err == nil {
		tr, err = wire.DecodeTrigger(e.Data)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d, err := p.run(r.Context(), tr, e.PublishTime)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	p.mu.Lock()
	p.got = append(p.got, d)
	p.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// since returns what was received after the first n.
func (p *phase4) since(n int) []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]delivery(nil), p.got[n:]...)
}

// balance compares the expected messages with the received ones and the recorded state.
func (d *demo) balance(ctx context.Context) (Result, error) {
	r := Result{Expected: len(d.expected), Tables: d.tables(), Period: d.expected[0].period, Guarded: int(d.phase4.guarded.runs.Load())}
	if d.processors != nil {
		r.Warehouse = true
		var err error
		if _, r.DoubledRows, err = d.duplicates(ctx); err != nil {
			return r, err
		}
	}
	ids := map[string]bool{}              // trigger ids received
	byTable := map[string]string{}        // cycle, batch and table → trigger id
	received := map[expectation]int{}     // what arrived, as the story counts
	periods := map[pipeline.Period]bool{} // of the story
	for _, t := range d.phase4.since(0) {
		if t.processor != "" && !t.outcome.Served {
			r.Runs++
		}
		if ids[t.TriggerID] {
			r.Copies++
			continue
		}
		ids[t.TriggerID] = true
		place := fmt.Sprint(t.Cycle, " ", t.Batch, " ", t.SourceTable)
		if byTable[place] != "" {
			r.Doubled++
		}
		byTable[place] = t.TriggerID
		received[expectation{t.GameDate, t.Mode, t.SourceTable}]++
	}
	r.Published = len(ids)
	for _, e := range d.expected {
		periods[e.period] = true
		if received[e]--; received[e] < 0 {
			r.Lost++
		}
	}
	for p := range periods {
		for _, t := range d.env.App.Pipeline.Transitions {
			ss, err := d.env.App.Engine.Status(ctx, cycle.Key{Transition: t, Period: p})
			if err != nil {
				return r, err
			}
			for _, s := range ss {
				runs := map[string]bool{}
				for _, b := range s.Batches {
					for _, run := range b.Runs {
						if runs[run] {
							r.Doubled++
						}
						runs[run] = true
					}
				}
			}
		}
	}
	return r, nil
}
