package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// LastTaken returns when any of these locks was taken last, by the server's clock, UTC: by
// us, for processors in other languages leave nothing behind. Zero when none was. One call.
func (l *Locks) LastTaken(ctx context.Context, keys []Key) (last time.Time, err error) {
	var refs []store.Ref
	for _, k := range keys {
		refs = append(refs, l.tokensRef(k.String()))
	}
	if len(refs) == 0 {
		return last, nil
	}
	snap, err := l.Store.Get(ctx, refs...)
	if err != nil {
		return last, fmt.Errorf("read the tokens: %w", err)
	}
	for _, doc := range snap.Docs {
		// Settling its tokens changes the document too, within the run that has taken them.
		if at := doc.Version.Time(); doc.Exists && at.After(last) {
			last = at
		}
	}
	return last, nil
}
