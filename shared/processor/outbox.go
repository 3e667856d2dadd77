package processor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// collection holds, by lock, what runs have done: processor_runs/{class}_{period}.
const collection = "processor_runs"

// Limits of a history. Requests are redelivered within days, and runs are a few a day.
const (
	keptServed    = 300
	keptSuccesses = 20
)

// history is the record of the runs of a processor and a period. It is written whole by
// compare-and-set.
type history struct {
	Served    []served   `json:"served,omitempty"`    // oldest first
	Successes []success  `json:"successes,omitempty"` // oldest first
	Outbox    []outgoing `json:"outbox,omitempty"`    // completions without the broker's id
}

type served struct {
	TriggerID string `json:"trigger_id"`
	Execution string `json:"execution_id"`
}

type success struct {
	Execution string    `json:"execution_id"`
	Began     time.Time `json:"began"` // when it had the lock, by the server's clock
	Mode      string    `json:"mode,omitempty"`
	Entities  []string  `json:"entities"`                // null: all
	More      bool      `json:"more_entities,omitempty"` // there are entities that Entities does not list
}

// bounded keeps as many entities as a report can name. It never returns a null list, which
// would mean all entities.
func (s success) bounded() success {
	if s.Entities == nil {
		return s
	}
	kept := make([]string, 0, min(len(s.Entities), wire.MaxEntities))
	for _, e := range s.Entities {
		if wire.IsEntity(e) && len(kept) < wire.MaxEntities {
			kept = append(kept, e)
		}
	}
	s.More = s.More || len(kept) < len(s.Entities)
	s.Entities = kept
	return s
}

type outgoing struct {
	Execution string `json:"execution_id"`
	Topic     string `json:"topic"`
	Payload   string `json:"payload"`
}

// maxHistory bounds the stored text, in bytes: the document has other fields.
const maxHistory = store.MaxDocumentBytes - 64<<10

// text is the JSON that is stored, with the oldest entries dropped until it fits. The newest
// success, the newest request and all unconfirmed completions stay.
func (b *history) text() (string, error) {
	b.Served = b.Served[max(0, len(b.Served)-keptServed):]
	b.Successes = b.Successes[max(0, len(b.Successes)-keptSuccesses):]
	for i, s := range b.Successes { // an earlier version may have stored more
		b.Successes[i] = s.bounded()
	}
	for {
		text, err := json.Marshal(b)
		switch {
		case err != nil:
			return "", err
		case len(text) > maxHistory && len(b.Successes) > 1:
			b.Successes = b.Successes[(len(b.Successes)+1)/2:]
		case len(text) > maxHistory && len(b.Served) > 1:
			b.Served = b.Served[(len(b.Served)+1)/2:]
		default:
			return string(text), nil
		}
	}
}

func (n *run) ref() store.Ref {
	return store.Ref{Collection: n.Prefix + collection, ID: n.key.String()}
}

func (n *run) read(ctx context.Context) (history, store.Doc, error) {
	snap, err := n.Store.Get(ctx, n.ref())
	if err != nil {
		return history{}, store.Doc{}, fmt.Errorf("read %s: %w", n.ref(), err)
	}
	var b history
	doc := snap.Docs[0]
	if doc.Exists {
		text, _ := doc.Data["history"].(string)
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			return history{}, doc, fmt.Errorf("%s: history: %w", n.ref(), err)
		}
	}
	return b, doc, nil
}

// change writes the history as edit changes it, together with other fields of the same
// document, until no rival's change is in between. edit reports whether there is
// anything to write.
func (n *run) change(ctx context.Context, edit func(*history) bool) error {
	for range 10 {
		b, doc, err := n.read(ctx)
		if err != nil {
			return err
		}
		if !edit(&b) {
			return nil
		}
		text, err := b.text()
		if err != nil {
			return err
		}
		end := store.Expires(n.Now())
		if len(b.Outbox) > 0 {
			end = store.Stays()
		}
		fields := []store.Field{store.F(text, "history"), store.F(store.ServerTime, "changed_at"), end}
		if _, err = n.Store.Apply(ctx, store.IfUnchanged(doc, fields...)); err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("write %s: %w", n.ref(), err)
		}
	}
	return fmt.Errorf("write %s: no end of conflicts", n.ref())
}

// before looks whether a request is done: served, or, while another run has the lock,
// covered by one that has ended. Unconfirmed completions are published
// first: they can be the reason for its redelivery.
func (n *run) before(ctx context.Context, held bool) (Outcome, bool, error) {
	b, _, err := n.read(ctx)
	if err != nil {
		return Outcome{}, false, err
	}
	var out Outcome
	done := false
	for _, s := range b.Served {
		if n.Request.TriggerID != "" && s.TriggerID == n.Request.TriggerID {
			out, done = Outcome{Execution: s.Execution, Served: true}, true
		}
	}
	for _, s := range b.Successes {
		if held && !done && covers(s, n.Request) {
			out, done = Outcome{Execution: s.Execution, Covered: true}, true
		}
	}
	if len(b.Outbox) > 0 {
		if err := n.publish(ctx, b.Outbox); err != nil {
			return Outcome{}, false, err
		}
	}
	return out, done, nil
}

// publish sends completions and takes those that the broker has accepted from the
// outbox.
func (n *run) publish(ctx context.Context, completions []outgoing) error {
	var errs []error
	accepted := map[string]bool{}
	for _, c := range completions {
		if _, err := n.Publish.One(ctx, n.Prefix+c.Topic, wire.Outgoing{Data: []byte(c.Payload)}); err != nil {
			errs = append(errs, fmt.Errorf("publish the completion of %s: %w", c.Execution, err))
			continue
		}
		accepted[c.Execution] = true
	}
	if len(accepted) > 0 {
		errs = append(errs, n.change(ctx, func(b *history) bool {
			before := len(b.Outbox)
			b.Outbox = slices.DeleteFunc(b.Outbox, func(c outgoing) bool { return accepted[c.Execution] })
			return len(b.Outbox) < before
		}))
	}
	return errors.Join(errs...)
}

// finish records a completion and publishes it. Once it is recorded, the request is served.
func (n *run) finish(ctx context.Context, made Output, w warehouse.Written) (Outcome, error) {
	status := wire.StatusSuccess
	switch {
	case w.Rows == 0:
		status = wire.StatusNoData
	case made.Partial:
		status = wire.StatusPartial
	}
	out := Outcome{Status: status, Execution: n.Execution, Written: w}
	payload, err := n.report(status, made, w, "", nil)
	if err != nil {
		return out, err
	}
	// What is done already is written down even if the caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishing)
	defer cancel()
	err = n.change(ctx, func(b *history) bool {
		if slices.ContainsFunc(b.Successes, func(s success) bool { return s.Execution == n.Execution }) {
			return false // the answer of an earlier try was lost
		}
		if n.Request.TriggerID != "" {
			b.Served = append(b.Served, served{n.Request.TriggerID, n.Execution})
		}
		b.Successes = append(b.Successes, success{Execution: n.Execution, Began: n.held.Token().At.Time(), Mode: n.Request.Mode, Entities: made.Entities})
		if n.reportsTo != nil {
			b.Outbox = append(b.Outbox, outgoing{n.Execution, n.reportsTo.UpstreamTopic, string(payload)})
		}
		return true
	})
	if errors.Is(err, store.ErrTooLarge) {
		// The rows are written. A second run of the request is safe, a lost completion is not.
		n.Log.ErrorContext(ctx, "the run is not recorded, so the same request can run again: "+err.Error(), "processor", n.Processor.Name,
			"period", string(n.Period), "execution_id", n.Execution)
		err = nil
	}
	if err != nil || n.reportsTo == nil {
		return out, err
	}
	return out, n.publish(ctx, []outgoing{{n.Execution, n.reportsTo.UpstreamTopic, string(payload)}})
}

// failed tells about a failure. It is an answer only when trying again cannot help.
func (n *run) failed(ctx context.Context, category Category, why error) (Outcome, error) {
	n.Log.ErrorContext(ctx, fmt.Sprintf("%s failed for %s: %v", n.Processor.Name, n.Period, why), "processor", n.Processor.Name, "period", string(n.Period),
		"execution_id", n.Execution, "category", string(category))
	out := Outcome{Status: wire.StatusFailed, Execution: n.Execution, Category: category}
	invalid := errors.As(why, new(*permanent))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishing)
	defer cancel()
	if n.reportsTo != nil {
		payload, err := n.report(wire.StatusFailed, Output{}, warehouse.Written{}, category, why)
		if err == nil {
			_, err = n.Publish.One(ctx, n.Prefix+n.reportsTo.UpstreamTopic, wire.Outgoing{Data: payload})
		}
		if err != nil && invalid {
			return out, errors.Join(why, err) // otherwise the failure would be lost
		}
	}
	if invalid {
		return out, nil
	}
	return out, why
}

func (n *run) report(status wire.Status, made Output, w warehouse.Written, category Category, why error) ([]byte, error) {
	dataset, table, _ := strings.Cut(n.Processor.Table, ".")
	now := n.Now()
	rows, bad := int64(w.Rows), int64(made.Failed)
	r := wire.Report{ProcessorName: n.Processor.Name, Phase: n.phase.Name, ExecutionID: n.Execution, CorrelationID: n.Request.CorrelationID,
		GameDate: n.Period, OutputTable: table, OutputDataset: dataset, Status: status, Timestamp: wire.Timestamp(now), DurationSeconds: now.Sub(n.began).Seconds(),
		RecordCount: &rows, RecordsFailed: &bad, TriggerSource: "phasegate", TriggerMessageID: n.Request.TriggerID, ParentProcessor: n.Request.Parent,
		Metadata: wire.Changed(made.Entities)}
	if why != nil {
		text := why.Error()
		if len(text) > 2000 {
			text = strings.ToValidUTF8(text[:2000], "")
		}
		r.ErrorType, r.ErrorMessage, r.RecordCount = string(category), text, nil
	}
	if r.CorrelationID == "" {
		r.CorrelationID = n.Execution
	}
	return r.Encode()
}
