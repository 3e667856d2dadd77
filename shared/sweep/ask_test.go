package sweep

import (
	"context"
	"errors"
	"testing"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestAsk_IsAnErrorUntilTheBrokerHasConfirmed(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer cycle.Published
		want   error
	}{"confirmed": {cycle.Published{ID: "m1"}, nil}, "no_id": {cycle.Published{}, cycle.ErrUnconfirmed}} {
		publish := func(context.Context, string, []wire.Outgoing) []cycle.Published {
			return []cycle.Published{c.answer}
		}
		if err := Ask(t.Context(), p, "", publish, "nba_analytics.player_game_summary", night); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
