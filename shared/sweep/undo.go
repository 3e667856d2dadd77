package sweep

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// Listed is a removal for people.
type Listed struct {
	ID      string          `json:"id"`
	Table   string          `json:"table"`
	Period  pipeline.Period `json:"period"`
	State   string          `json:"state"`
	Removed int64           `json:"removed"` // rows, or that would be
	Keys    int64           `json:"keys"`
	Actor   string          `json:"actor"`
	Reason  string          `json:"reason"`
	At      time.Time       `json:"at"`    // when it was planned, UTC
	Ended   time.Time       `json:"ended"` // its last step, UTC
	Until   time.Time       `json:"until"` // the removed rows are kept
	// Archive is the table with all rows of its keys, as they were.
	Archive string `json:"archive"`
	// Undoable: it was applied, and what it removed is still there.
	Undoable bool `json:"undoable"`
}

// List returns the removals whose rows may still be there, oldest first.
func (s *Sweeper) List(ctx context.Context) ([]Listed, error) {
	out := []Listed{}
	now := s.Now()
	for r, err := range s.scan(ctx, firstID, lastID) {
		if err != nil && !errors.Is(err, errBroken) {
			return nil, err
		}
		until := r.At.Add(warehouse.ArchiveKept)
		l := Listed{ID: r.ID, Table: r.Table, Period: r.Period, State: r.State, Removed: r.Surplus, Keys: r.Keys, Actor: r.Actor, Reason: r.Reason,
			At: r.At, Ended: r.Ended, Until: until, Archive: r.Archive, Undoable: r.State == applied && now.Before(until)}
		if err != nil {
			l.State, l.Undoable, l.Reason = "unreadable", false, err.Error()
		} else if !now.Before(until) && r.ended() {
			continue
		}
		out = append(out, l)
	}
	return out, nil
}

// Removals is List for those who only look: there need be no warehouse.
func Removals(ctx context.Context, a *app.App) ([]Listed, error) {
	return (&Sweeper{Store: a.Store, Prefix: a.Config.Prefix, Now: a.Now, Log: a.Log}).List(ctx)
}

// errNotUndone says that a removal cannot be undone as things are.
var errNotUndone = errors.New("cannot be undone")

// Undone is what became of one removal.
type Undone struct {
	ID       string          `json:"id"`
	Table    string          `json:"table"`
	Period   pipeline.Period `json:"period"`
	Restored int64           `json:"restored"` // rows
	State    string          `json:"state"`    // undone; else what the removal's state is
	Problem  string          `json:"problem,omitempty"`
	Unknown  bool            `json:"unknown,omitempty"` // it could not be found out; else a problem is a refusal
	err      error
}

// Undo restores the rows of a removal, or of all removals of a sweep: exactly, or not at all. A
// removal that is undone stays so. The error joins what could not be undone; each [Undone] has its
// reason.
func (s *Sweeper) Undo(ctx context.Context, id, actor, reason string) ([]Undone, error) {
	if err := s.Refuses(); err != nil {
		return nil, err
	}
	from, to := id, id
	if !strings.Contains(id, "~") {
		from, to = id+"~", id+"~\U0010FFFF"
	}
	var records []*record
	for r, err := range s.scan(ctx, from, to) {
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoSweep, id)
	}
	earlier, err := s.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var out []Undone
	var errs []error
	for _, r := range records {
		u := s.undo(ctx, r, earlier[place{r.Table, r.Period}], actor, reason)
		out, errs = append(out, u), append(errs, u.err)
	}
	return out, errors.Join(errs...)
}

func (s *Sweeper) undo(ctx context.Context, r *record, earlier []string, actor, reason string) Undone {
	out := Undone{ID: r.ID, Table: r.Table, Period: r.Period}
	if writers := s.writers(r.Table); len(writers) == 0 {
		out.err = fmt.Errorf("%w: %s: no processor of the pipeline writes %s", errNotUndone, r.ID, r.Table)
	} else {
		out.err = s.locked(ctx, r.Table, r.Period, "undo-"+r.ID+"-"+s.NewID()[:8], func(ctx context.Context, held *lease.Lease) error {
			if err := s.resume(ctx, earlier); err != nil {
				return err
			}
			return s.undoLocked(ctx, r, held, writers[0], actor, reason, &out)
		})
	}
	out.State = r.State
	if out.err != nil {
		out.Problem, out.Unknown = out.err.Error(), !errors.Is(out.err, errNotUndone)
	}
	return out
}

func (s *Sweeper) undoLocked(ctx context.Context, r *record, held *lease.Lease, p pipeline.Processor, actor, reason string, out *Undone) error {
	now, err := s.record(ctx, r.ID)
	if err != nil {
		return err
	}
	*r = *now
	switch r.State {
	case undone:
		return nil
	case applied:
	default:
		return fmt.Errorf("%w: %s is %s: it removed nothing, or its outcome is unknown", errNotUndone, r.ID, r.State)
	}
	if until := r.At.Add(warehouse.ArchiveKept); !s.Now().Before(until) {
		return fmt.Errorf("%w: %s: the removed rows were kept until %s", errNotUndone, r.ID, until.Format(time.RFC3339))
	}
	if err := s.Warehouse.Restorable(ctx, r.removal(s.Pipeline.Calendar, p)); errors.Is(err, warehouse.ErrTarget) {
		return fmt.Errorf("%w: %s: %w", errNotUndone, r.ID, err)
	} else if err != nil {
		return err
	}
	act := audit.Record{Action: "sweep_undo", Actor: actor, Reason: reason, Period: string(r.Period), Detail: fmt.Sprintf("puts %s back into %s: %s", pipeline.Count(r.Surplus, "row", "rows"), r.Table, r.ID)}
	if err := s.step(ctx, r, undoing, act.Write(s.Prefix, s.Now(), s.NewID())); err != nil {
		return err
	}
	act.Log(ctx, s.Log)
	refused := s.restore(ctx, r, held, p)
	if refused != nil && !errors.Is(refused, errNotUndone) {
		return refused // the rows will tell
	}
	next := undone
	if refused != nil {
		next = applied
	}
	if err := s.step(ctx, r, next); err != nil {
		return errors.Join(refused, err)
	}
	if refused == nil {
		out.Restored = r.Surplus
		s.logUndone(ctx, r, actor)
	}
	return refused
}

// restore puts the rows back, and makes sure that they are there.
func (s *Sweeper) restore(ctx context.Context, r *record, held *lease.Lease, p pipeline.Processor) error {
	w := r.removal(s.Pipeline.Calendar, p)
	err := s.Warehouse.Restore(ctx, warehouse.Under(held), w)
	switch {
	case errors.Is(err, warehouse.ErrChanged):
		return fmt.Errorf("%w: %s: the rows of %s for %s, or those in %s, were rewritten since", errNotUndone, r.ID, r.Table, r.Period, r.Archive)
	case errors.Is(err, warehouse.ErrTarget):
		return fmt.Errorf("%w: %s: %w", errNotUndone, r.ID, err)
	case err != nil:
		return err
	}
	now, err := s.Warehouse.Standing(ctx, w)
	if err == nil && now == r.After {
		return fmt.Errorf("%w: %s: no rows came back from %s", errNotUndone, r.ID, r.Archive)
	}
	return err
}

func (s *Sweeper) logUndone(ctx context.Context, r *record, actor string) {
	s.Log.WarnContext(ctx, fmt.Sprintf("sweep %s undone: %s back in %s of %s", r.ID, pipeline.Count(r.Surplus, "row is", "rows are"), r.Table, r.Period), "event", telemetry.SweepUndone,
		"sweep", r.ID, "table", r.Table, "period", string(r.Period), "restored", r.Surplus, "actor", actor)
}
