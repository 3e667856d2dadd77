package cycle

import (
	"context"
	"errors"
	"testing"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestOne_TakesNoAnswerWithoutAnID(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		answer Published
		id     string
		err    error
	}{
		"confirmed": {Published{ID: "m1"}, "m1", nil},
		"refused":   {Published{Err: away}, "", away},
		"no_id":     {Published{}, "", ErrUnconfirmed},
	} {
		t.Run(name, func(t *testing.T) {
			publish := Publish(func(_ context.Context, topic string, msgs []wire.Outgoing) []Published {
				if topic != "topic" || len(msgs) != 1 || string(msgs[0].Data) != "x" {
					t.Errorf("%s: %v", topic, msgs)
				}
				return []Published{c.answer}
			})
			if id, err := publish.One(t.Context(), "topic", wire.Outgoing{Data: []byte("x")}); id != c.id || !errors.Is(err, c.err) {
				t.Errorf("%q, %v, want %q, %v", id, err, c.id, c.err)
			}
		})
	}
}
