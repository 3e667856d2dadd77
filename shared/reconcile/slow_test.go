package reconcile

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// The three queries share the time that health gives.
func TestRun_SlowQueryDoesNotTakeTheTimeOfTheOthers(t *testing.T) {
	s := newScene(t)
	s.good(night)
	upstream := s.tr.Order[0]
	var others sync.WaitGroup
	others.Add(2)
	answered := make(chan struct{})
	go func() { others.Wait(); close(answered) }()
	contents, expected := s.rec.Contents, s.rec.Expected
	s.rec.Contents = func(ctx context.Context, ps []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents {
		out := contents(ctx, ps, from, to)
		if ps[0].Name != upstream && ps[0].Name != "player_game_summary" {
			if ctx.Err() == nil {
				others.Done()
			}
			return out
		}
		select {
		case <-answered:
		case <-ctx.Done():
		}
		for table := range out {
			out[table] = warehouse.Contents{Problem: "no answer within 25s"}
		}
		return out
	}
	s.rec.Expected = func(ctx context.Context, tr *pipeline.Transition, from, to pipeline.Period) (map[pipeline.Period]int64, error) {
		if ctx.Err() == nil {
			others.Done()
		}
		return expected(ctx, tr, from, to)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.rec.Run(ctx, s.tr, night, night, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answered:
	default:
		t.Error("the first query took the time of the others")
	}
}

// A panic outside the caller's goroutine would end the process.
func TestRun_QueryThatPanicsIsAnError(t *testing.T) {
	for name, change := range map[string]func(*Reconciler){
		"contents": func(r *Reconciler) {
			r.Contents = func(context.Context, []pipeline.Processor, pipeline.Period, pipeline.Period) map[string]warehouse.Contents {
				panic("a row without columns")
			}
		},
		"expected": func(r *Reconciler) {
			r.Expected = func(context.Context, *pipeline.Transition, pipeline.Period, pipeline.Period) (map[pipeline.Period]int64, error) {
				panic("a row without columns")
			}
		},
	} {
		s := newScene(t)
		s.good(night)
		change(s.rec)
		if _, err := s.rec.Run(t.Context(), s.tr, night, night, ""); err == nil || !strings.Contains(err.Error(), "panic: a row without columns") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
