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

// delivery is a message that can never be processed, and where it came from.
type delivery struct {
	function, topic string
	envelope        wire.Envelope
	why             *wire.PermanentError
}

// quarantine keeps a message with its attributes, its original times and the reason.
// One that is too large for a document goes to the dead-letter topic as it is, and
// the document keeps its head and its hash. Idempotent: a redelivery finds the
// document, and only finishes what an earlier try left undone. It returns the id of the document.
func quarantine(ctx context.Context, a *app.App, log *slog.Logger, d delivery) (id string, err error) {
	push := d.envelope.Push()
	sum := sha256.Sum256(d.envelope.Data)
	ref := store.Ref{Collection: a.Config.StatePrefix() + quarantineCollection, ID: d.envelope.DocumentID()}
	large := len(push) > maxEnvelope
	fields := []store.Field{
		store.F(d.function, "function"),
		store.F(d.topic, "topic"),
		store.F(d.envelope.MessageID, "message_id"),
		store.F(d.envelope.Subscription, "subscription"),
		store.F(d.why.Field, "field"), store.F(d.why.Value, "value"), store.F(d.why.Error(), "reason"),
		store.F(len(d.envelope.Data), "bytes"),
		store.F(hex.EncodeToString(sum[:]), "sha256"),
		store.F(store.ServerTime, "received_at"),
		store.Stays(),
	}
	if large {
		fields = append(fields, store.F(head(d.envelope.Data), "head"), store.F("", "dead_letter_id"))
	} else {
		fields = append(fields, store.F(string(push), "envelope"))
	}
	_, err = a.Store.Apply(ctx, store.Create(ref, fields...))
	settled := false
	if errors.Is(err, store.ErrExists) {
		// Usually its own earlier delivery. Ids are unique within a topic only, so
		// another message may stand there; this one is then kept under its hash too.
		doc, other, readErr := another(ctx, a, ref, d.topic, sum)
		if readErr != nil {
			return "", readErr
		}
		settled = !other && parseQuarantined(doc).Settled()
		if other {
			ref.ID = ref.ID + "-" + hex.EncodeToString(sum[:8])
			_, err = a.Store.Apply(ctx, store.Create(ref, fields...))
		}
	}
	switch {
	case err == nil:
		notify.Note(ctx, notify.Notification{Subject: "quarantine_" + d.function, State: "waiting", Severity: notify.Warning, Again: time.Hour,
			Title:  "a message for " + d.function + " was put in quarantine: " + d.why.Error(),
			Reason: "message " + d.envelope.MessageID + " of " + d.topic + "; further invalid messages of this function are not notified for an hour", Command: "phasectl quarantine list", Page: "message-quarantined"})
		log.ErrorContext(ctx, "message quarantined: "+d.why.Error(), "event", telemetry.CompletionQuarantined,
			"message_id", d.envelope.MessageID, "field", d.why.Field, "value", d.why.Value, "document", ref.String())
	case !errors.Is(err, store.ErrExists):
		return "", fmt.Errorf("quarantine %s: %w", d.envelope.MessageID, err)
	default: // replayed under another definition, it may be refused for another reason
		fields := []store.Field{store.F(d.why.Field, "field"), store.F(d.why.Value, "value"), store.F(d.why.Error(), "reason")}
		if settled { // it may be near its end
			fields = append(fields, store.Expires(a.Now()))
		}
		_, err := a.Store.Apply(ctx, store.Merge(ref, fields...))
		if err != nil {
			return "", fmt.Errorf("quarantine %s: %w", d.envelope.MessageID, err)
		}
	}
	if large && a.Config.Shadow == "" { // a shadow publishes nothing; the active deployment keeps the whole message
		return ref.ID, deadLetter(ctx, a, log, ref, d)
	}
	return ref.ID, nil
}

// another reports whether the document holds another message than the one with that
// topic and hash.
func another(ctx context.Context, a *app.App, ref store.Ref, topic string, sum [sha256.Size]byte) (store.Doc, bool, error) {
	got, err := a.Store.Get(ctx, ref)
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
func deadLetter(ctx context.Context, a *app.App, log *slog.Logger, ref store.Ref, d delivery) error {
	got, err := a.Store.Get(ctx, ref)
	if err != nil {
		return fmt.Errorf("read %s: %w", ref, err)
	}
	if id, _ := got.Docs[0].Data["dead_letter_id"].(string); id != "" || got.Docs[0].Data["cut"] == true {
		return nil
	}
	attributes := map[string]string{}
	maps.Copy(attributes, d.envelope.Attributes)
	attributes[wire.OriginalMessageID] = d.envelope.MessageID
	attributes[wire.OriginalPublishTime] = d.envelope.PublishTime.Format(time.RFC3339Nano)
	attributes[wire.QuarantineDocument] = ref.String()
	topic := a.Config.Prefix + pipeline.DeadLetterTopic(d.topic)
	sent := a.Broker.Publish(ctx, topic, []wire.Outgoing{{Data: d.envelope.Data, Attributes: attributes}})[0]
	if errors.Is(sent.Err, app.ErrTooLarge) {
		log.ErrorContext(ctx, fmt.Sprintf("message is cut: %v; its first %d bytes are in %s, let its sender send it again", sent.Err, headBytes, ref),
			"message_id", d.envelope.MessageID, "document", ref.String(), "bytes", len(d.envelope.Data))
		if _, err := a.Store.Apply(ctx, store.Merge(ref, store.F(true, "cut"))); err != nil {
			return fmt.Errorf("record that %s is cut: %w", ref, err)
		}
		return nil
	}
	if sent.Err != nil {
		return fmt.Errorf("dead-letter %s: %w", ref, sent.Err)
	}
	_, err = a.Store.Apply(ctx, store.Merge(ref, store.F(sent.ID, "dead_letter_id")))
	if err != nil {
		return fmt.Errorf("record dead letter of %s: %w", ref, err)
	}
	return nil
}

// head returns the beginning of a message as text.
func head(data []byte) string {
	return strings.ToValidUTF8(string(data[:min(len(data), headBytes)]), "\uFFFD")
}
