package delivery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/store"
)

// Quarantined is one message that was set aside, as a person looks at it.
type Quarantined struct {
	ID           string    `json:"id"` // of its document
	MessageID    string    `json:"message_id"`
	Function     string    `json:"function"`
	Topic        string    `json:"topic"` // without prefix
	ReceivedAt   time.Time `json:"received_at"`
	Reason       string    `json:"reason"`
	Bytes        int64     `json:"bytes"` // of the message's data
	Envelope     string    `json:"-"`     // the delivery, ready to be handed over again; "" where it was too large to keep
	Head         string    `json:"-"`     // the beginning of the data of such a one
	DeadLetterID string    `json:"dead_letter_id,omitempty"`
	Cut          bool      `json:"cut,omitempty"`        // Head is all that is left of it: no topic takes it
	ReplayedAt   time.Time `json:"replayed_at,omitzero"` // when it was handed over again and taken
	ReplayedBy   string    `json:"replayed_by,omitempty"`
	DiscardedAt  time.Time `json:"discarded_at,omitzero"` // when a person decided that it shall never be handed over
	DiscardedBy  string    `json:"discarded_by,omitempty"`
}

// Settled reports whether nothing is left to do about it.
func (q Quarantined) Settled() bool { return !q.ReplayedAt.IsZero() || !q.DiscardedAt.IsZero() }

// ErrNotQuarantined says that no such message was set aside.
var ErrNotQuarantined = errors.New("not in quarantine")

// ListQuarantine yields everything that was ever set aside, in the order of ids.
func ListQuarantine(ctx context.Context, a *app.App) iter.Seq2[Quarantined, error] {
	return func(yield func(Quarantined, error) bool) {
		for doc, err := range a.Store.Scan(ctx, a.Config.StatePrefix()+quarantineCollection, "!", "~") {
			if err != nil {
				yield(Quarantined{}, fmt.Errorf("read quarantine: %w", err))
				return
			}
			if !yield(parseQuarantined(doc), nil) {
				return
			}
		}
	}
}

// GetQuarantined returns one message, or [ErrNotQuarantined].
func GetQuarantined(ctx context.Context, a *app.App, id string) (Quarantined, error) {
	ref := store.Ref{Collection: a.Config.StatePrefix() + quarantineCollection, ID: id}
	got, err := a.Store.Get(ctx, ref)
	if err != nil {
		return Quarantined{}, fmt.Errorf("read quarantine: %w", err)
	}
	if !got.Docs[0].Exists {
		return Quarantined{}, fmt.Errorf("%s: %w", id, ErrNotQuarantined)
	}
	return parseQuarantined(got.Docs[0]), nil
}

// MarkReplayed notes that a message was handed over again and taken, with the audit
// record in the same commit. The document stays: it says what was wrong.
func MarkReplayed(ctx context.Context, a *app.App, id string, r audit.Record, recordID string) error {
	ref := store.Ref{Collection: a.Config.StatePrefix() + quarantineCollection, ID: id}
	_, err := a.Store.Apply(ctx, r.Write(a.Config.StatePrefix(), a.Now(), recordID),
		store.Merge(ref, store.F(store.ServerTime, "replayed_at"), store.F(r.Actor, "replayed_by"), store.Expires(a.Now())))
	if err != nil && !errors.Is(err, store.ErrExists) { // the record is there: an earlier try's answer was lost
		return fmt.Errorf("record the replay of %s: %w", id, err)
	}
	r.Log(ctx, a.Log)
	return nil
}

// MarkDiscarded notes that a message shall never be handed over, with the audit record in the
// same commit. The document stays. One that is settled already is left as it is: false.
func MarkDiscarded(ctx context.Context, a *app.App, id string, r audit.Record, recordID string) (done bool, err error) {
	ref := store.Ref{Collection: a.Config.StatePrefix() + quarantineCollection, ID: id}
	at := a.Now()
	for range 10 { // a replay, or the message itself, may come in between
		got, err := a.Store.Get(ctx, ref)
		if err != nil {
			return false, fmt.Errorf("read quarantine: %w", err)
		}
		doc := got.Docs[0]
		switch {
		case !doc.Exists:
			return false, fmt.Errorf("%s: %w", id, ErrNotQuarantined)
		case parseQuarantined(doc).Settled():
			return doc.Data["discard"] == recordID, nil // ours, whose answer was lost, or another's
		}
		_, err = a.Store.Apply(ctx, r.Write(a.Config.StatePrefix(), at, recordID), store.MergeIf(ref, doc.Version,
			store.F(store.ServerTime, "discarded_at"), store.F(r.Actor, "discarded_by"), store.F(recordID, "discard"), store.Expires(a.Now())))
		if err == nil {
			r.Log(ctx, a.Log)
			return true, nil
		}
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) {
			return false, fmt.Errorf("discard %s: %w", id, err)
		}
	}
	return false, fmt.Errorf("discard %s: the document keeps changing; run the command again", id)
}

// parseQuarantined returns all readable fields: a damaged field is empty.
func parseQuarantined(doc store.Doc) Quarantined {
	text := func(name string) string { s, _ := doc.Data[name].(string); return s }
	at := func(name string) time.Time { t, _ := doc.Data[name].(time.Time); return t }
	bytes, _ := doc.Data["bytes"].(int64)
	return Quarantined{ID: doc.Ref.ID, MessageID: text("message_id"), Function: text("function"), Topic: text("topic"),
		ReceivedAt: at("received_at"), Reason: text("reason"), Bytes: bytes, Envelope: text("envelope"), Head: text("head"),
		DeadLetterID: text("dead_letter_id"), Cut: doc.Data["cut"] == true, ReplayedAt: at("replayed_at"), ReplayedBy: text("replayed_by"),
		DiscardedAt: at("discarded_at"), DiscardedBy: text("discarded_by")}
}
