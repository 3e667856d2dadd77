package warehouse

import (
	"context"
	"fmt"
)

// JobID names the one job by which something is written under a lock's token.
func JobID(lock, nonce string) string { return "phasegate-" + lock + "-" + nonce }

// Location returns where a table, dataset.table, is: jobs about it run there. An
// [ErrTarget] when there is no such table.
func (w *Warehouse) Location(ctx context.Context, table string) (string, error) {
	meta, err := w.metadata(ctx, table)
	if err != nil {
		return "", err
	}
	return meta.Location, nil
}

// Fence makes sure that nothing is written under a job id any more: it takes the id with
// a job that does nothing, or, where that was used, waits for that job's end. After nil
// nothing can happen under it. Idempotent. location is that of the table.
func (w *Warehouse) Fence(ctx context.Context, id, location string) error {
	job, mine, err := w.begin(ctx, exclusive{id: id, location: location, sql: "SELECT 1", purpose: forFence})
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if mine {
		return nil // it does nothing, so its end is not waited for
	}
	if _, err := ended(ctx, job); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}
