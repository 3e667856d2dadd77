package cycle

import (
	"context"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// shadowID stands where the broker's id of a message would stand.
const shadowID = "shadow"

// unsent is the Publish of an engine in shadow: nothing leaves it.
func unsent(_ context.Context, _ string, msgs []wire.Outgoing) []Published {
	out := make([]Published, len(msgs))
	for i := range out {
		out[i].ID = shadowID
	}
	return out
}

// shadowKept is how long the documents of a shadow stay once nothing is added to
// them. No process works on them, and no relay has to find them later.
const shadowKept = 30 * 24 * time.Hour

// expiry is the field by which each document of a shadow expires. A later time replaces an
// earlier one, from any writer.
func (e *Engine) expiry(from time.Time) []store.Field {
	if !e.Shadow {
		return nil
	}
	return []store.Field{store.F(from.Add(shadowKept), store.ExpiresAt)}
}
