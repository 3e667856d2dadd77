package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

// quarantineCollection holds one document for each invalid message; a prefix comes before it.
const quarantineCollection = "quarantine"

const (
	// maxEnvelope is what a quarantine document keeps whole: store.MaxDocumentBytes
	// less room for the other fields.
	maxEnvelope = 900_000
	// headBytes is what it keeps of a larger message.
	headBytes = 64 << 10
)

// quarantine keeps a message with its attributes, its original times and the reason.
// One that is too large for a document goes to the dead-letter topic as it is, and
// the document keeps its head and its hash. Idempotent: a redelivery finds the
// document, and only finishes what an earlier try left undone. It returns the id of the
// document, and for a new one a notification.
func quarantine(ctx context.Context, log *slog.Logger, function string, r Request, why *wire.PermanentError) (id string, notifications []notify.Notification, err error) {
	push := r.Push()
	sum := sha256.Sum256(r.Data)
	ref := store.Ref{Collection: r.Config.StatePrefix() + quarantineCollection, ID: r.DocumentID()}
	large := len(push) > maxEnvelope
	fields := []store.Field{
		store.F(function, "function"),
		store.F(r.Topic, "topic"),
		store.F(r.MessageID, "message_id"),
		store.F(r.Subscription, "subscription"),
		store.F(why.Field, "field"), store.F(why.Value, "value"), store.F(why.Error(), "reason"),
		store.F(len(r.Data), "bytes"),
		store.F(hex.EncodeToString(sum[:]), "sha256"),
		store.F(store.ServerTime, "received_at"),
		store.Stays(),
	}
	if large {
		fields = append(fields, store.F(head(r.Data), "head"), store.F("", "dead_letter_id"))
	} else {
		fields = append(fields, store.F(string(push), "envelope"))
	}
	_, err = r.Store.Apply(ctx, store.Create(ref, fields...))
	settled := false
	if errors.Is(err, store.ErrExists) {
		// Usually its own earlier delivery. Ids are unique within a topic only, so
		// another message may stand there; this one is then kept under its hash too.
		doc, other, readErr := another(ctx, r.Store, ref, r.Topic, sum)
		if readErr != nil {
			return "", nil, readErr
		}
		settled = !other && parseQuarantined(doc).Settled()
		if other {
			ref.ID = ref.ID + "-" + hex.EncodeToString(sum[:8])
			_, err = r.Store.Apply(ctx, store.Create(ref, fields...))
		}
	}
	switch {
	case err == nil:
		notifications = []notify.Notification{{Subject: "quarantine_" + function, State: "waiting", Severity: notify.Warning, Again: time.Hour,
			Title:  "a message for " + function + " was put in quarantine: " + why.Error(),
			Reason: "message " + r.MessageID + " of " + r.Topic + "; further invalid messages of this function are not notified for an hour", Command: "phasectl quarantine list", Page: "message-quarantined"}}
		log.ErrorContext(ctx, "message quarantined: "+why.Error(), "event", telemetry.CompletionQuarantined,
			"message_id", r.MessageID, "field", why.Field, "value", why.Value, "document", ref.String())
	case !errors.Is(err, store.ErrExists):
		return "", nil, fmt.Errorf("quarantine %s: %w", r.MessageID, err)
	default: // replayed under another definition, it may be refused for another reason
		fields := []store.Field{store.F(why.Field, "field"), store.F(why.Value, "value"), store.F(why.Error(), "reason")}
		if settled { // it may be near its end
			fields = append(fields, store.Expires(r.Now()))
		}
		_, err := r.Store.Apply(ctx, store.Merge(ref, fields...))
		if err != nil {
			return "", nil, fmt.Errorf("quarantine %s: %w", r.MessageID, err)
		}
	}
	if large && r.Config.Shadow == "" { // a shadow publishes nothing; the active deployment keeps the whole message
		return ref.ID, notifications, deadLetter(ctx, log, ref, r)
	}
	return ref.ID, notifications, nil
}

// another reports whether the document holds another message than the one with that
// topic and hash.
func another(ctx context.Context, s store.Store, ref store.Ref, topic string, sum [sha256.Size]byte) (store.Doc, bool, error) {
	got, err := s.Get(ctx, ref)
	if err != nil {
		return store.Doc{}, false, fmt.Errorf("read %s: %w", ref, err)
	}
	doc := got.Docs[0]
	return doc, doc.Exists && (doc.Data["topic"] != topic || doc.Data["sha256"] != hex.EncodeToString(sum[:])), nil
}

// deadLetter hands an oversized message on, unless an earlier try has. A crash
// between the two writes leaves a copy on the topic, never a gap.
// One that no topic takes is acknowledged all the same: a redelivery could not keep more
// of it than the document does.
func deadLetter(ctx context.Context, log *slog.Logger, ref store.Ref, r Request) error {
	got, err := r.Store.Get(ctx, ref)
	if err != nil {
		return fmt.Errorf("read %s: %w", ref, err)
	}
	if id, _ := got.Docs[0].Data["dead_letter_id"].(string); id != "" || got.Docs[0].Data["cut"] == true {
		return nil
	}
	attributes := map[string]string{}
	maps.Copy(attributes, r.Attributes)
	attributes[wire.OriginalMessageID] = r.MessageID
	attributes[wire.OriginalPublishTime] = r.PublishTime.Format(time.RFC3339Nano)
	attributes[wire.QuarantineDocument] = ref.String()
	topic := r.Config.Prefix + pipeline.DeadLetterTopic(r.Topic)
	sent := r.Broker.Publish(ctx, topic, []wire.Outgoing{{Data: r.Data, Attributes: attributes}})[0]
	if errors.Is(sent.Err, app.ErrTooLarge) {
		log.ErrorContext(ctx, fmt.Sprintf("message is cut: %v; its first %d bytes are in %s, let its sender send it again", sent.Err, headBytes, ref),
			"message_id", r.MessageID, "document", ref.String(), "bytes", len(r.Data))
		if _, err := r.Store.Apply(ctx, store.Merge(ref, store.F(true, "cut"))); err != nil {
			return fmt.Errorf("record that %s is cut: %w", ref, err)
		}
		return nil
	}
	if sent.Err != nil {
		return fmt.Errorf("dead-letter %s: %w", ref, sent.Err)
	}
	_, err = r.Store.Apply(ctx, store.Merge(ref, store.F(sent.ID, "dead_letter_id")))
	if err != nil {
		return fmt.Errorf("record dead letter of %s: %w", ref, err)
	}
	return nil
}

// head returns the beginning of a message as text.
func head(data []byte) string {
	return strings.ToValidUTF8(string(data[:min(len(data), headBytes)]), "\uFFFD")
}
