package demo

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// phase4 receives triggers as today's service does: what lacks a required field is
// refused with 400. It notes every delivery.
type phase4 struct {
	mu  sync.Mutex
	got []message.Trigger
}

func (p *phase4) consumers(t *pipeline.Transition) map[string]http.Handler {
	return map[string]http.Handler{t.DownstreamTopic: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, err := message.FromRequest(r)
		var tr message.Trigger
		if err == nil {
			tr, err = message.DecodeTrigger(e.Data)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		p.got = append(p.got, tr)
		p.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})}
}

// since returns what was received after the first n.
func (p *phase4) since(n int) []message.Trigger {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]message.Trigger(nil), p.got[n:]...)
}

// balance compares what was expected with what was received and what the books say.
func (d *demo) balance(ctx context.Context) (Result, error) {
	r := Result{Expected: len(d.expected)}
	ids := map[string]bool{}              // trigger ids received
	byTable := map[string]string{}        // cycle, batch and table → trigger id
	received := map[expectation]int{}     // what arrived, as the story counts
	periods := map[pipeline.Period]bool{} // of the story
	for _, t := range d.phase4.since(0) {
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
		ss, err := d.env.App.Engine.Status(ctx, cycle.Key{Transition: d.transition, Period: p})
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
	return r, nil
}
