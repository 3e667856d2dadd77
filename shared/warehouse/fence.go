package warehouse

import (
	"context"
	"fmt"
)

// JobID names the one job by which something is written under a lock's token.
func JobID(lock, nonce string) string { return "phasegate-" + lock + "-" + nonce }

// Fence makes sure that nothing is written into a table, dataset.table, under tokens of a lock any
// more. It takes each token's job id with a job that does nothing. Where an id was used, it waits for
// that job's end. Only after nil is it sure that nothing happens under them; without such a table it
// is not ([ErrTarget]). Idempotent; without tokens it makes no call.
func (w *Warehouse) Fence(ctx context.Context, table, lock string, nonces ...string) error {
	if len(nonces) == 0 {
		return nil
	}
	meta, err := w.metadata(ctx, table) // an id is used once in a location: that of the writes
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return w.FenceIn(ctx, meta.Location, lock, nonces...)
}

// FenceIn is Fence where the location of the table is known, from [Warehouse.CheckTarget].
func (w *Warehouse) FenceIn(ctx context.Context, location, lock string, nonces ...string) error {
	for _, nonce := range nonces {
		job, mine, err := w.begin(ctx, exclusive{id: JobID(lock, nonce), location: location, sql: "SELECT 1", purpose: forFence})
		if err == nil && !mine { // ours does nothing, so its end is not waited for
			_, err = ended(ctx, job)
		}
		if err != nil {
			return fmt.Errorf("fence: %w", err)
		}
	}
	return nil
}
