package cycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/phasegate/phasegate/shared/store"
)

// The messages of a batch stand in its own document or, if they are too many, in parts. The batch
// names its parts once it is frozen.
//
//   - The parts are created before the freeze, under ids that no other process and no other attempt
//     uses. The freeze names exactly these, and lets them stay in its commit. Parts that no batch names
//     expire.
//   - Each part is published and confirmed by itself. The batch is published when all ids were read
//     back from all parts.
//   - The parts get their end together with the batch.
const partsCollection = "phase_trigger_parts"

// Bounds of one document of a batch.
const (
	maxInline   = 500       // messages of a batch without parts
	maxPart     = 1000      // messages of a part: one request to Pub/Sub takes as many
	maxPayloads = 700 << 10 // bytes of the payloads in one document: the rest is for ids, copies and keys
)

// message is a frozen message, under the stored name of its processor.
type message struct{ name, payload string }

func (e *Engine) partRef(id string) store.Ref {
	return store.Ref{Collection: e.Prefix + partsCollection, ID: id}
}

// partID names the k-th part of a freeze. The holder and the version belong to one attempt alone.
func partID(b *batch, k int) string {
	return b.ID + "~" + b.Holder + "~" + strconv.FormatInt(int64(b.Version), 10) + "~" + strconv.Itoa(k)
}

// divided returns the messages by document. One group stands in the batch itself.
func (e *Engine) divided(messages []message) (groups [][]message) {
	size := 0
	for _, m := range messages {
		size += len(m.payload)
	}
	if len(messages) <= e.inline && size <= maxPayloads {
		return [][]message{messages}
	}
	first, size := 0, 0
	for i, m := range messages {
		if i > first && (i-first == e.part || size+len(m.payload) > maxPayloads) {
			groups, first, size = append(groups, messages[first:i]), i, 0
		}
		size += len(m.payload)
	}
	return append(groups, messages[first:])
}

func messageFields(messages []message) map[string]any {
	fields := map[string]any{}
	for _, m := range messages {
		fields[m.name] = map[string]any{"payload": m.payload, "id": ""}
	}
	return fields
}

// place creates the parts that the messages need. It returns the fields of the batch, and the writes
// by which the parts stay: both belong into the commit of the freeze.
func (c *convergence) place(ctx context.Context, b *batch, messages []message) (fields []store.Field, stay []store.Write, err error) {
	groups := c.divided(messages)
	if len(groups) == 1 {
		return []store.Field{store.F(messageFields(groups[0]), "messages")}, nil, nil
	}
	ids := make([]any, len(groups))
	for k, group := range groups {
		ref := c.partRef(partID(b, k))
		end := store.Expires(c.Now())
		if c.Shadow {
			end = c.stays(c.Now())
		}
		_, err := c.Store.Apply(ctx, store.Create(ref, store.F(messageFields(group), "messages"), end))
		if err != nil && !errors.Is(err, store.ErrExists) { // the id is ours alone: an earlier answer was lost
			return nil, nil, fmt.Errorf("part %d of %s: %w", k, b.ID, err)
		}
		ids[k], stay = ref.ID, append(stay, store.Merge(ref, c.stays(c.Now())))
	}
	return []store.Field{store.F(ids, "parts")}, stay, nil
}

// partsOf returns the ids of the parts that are needed of some batches. The summary is made of the
// messages of a published batch that it does not have yet. People are shown those of all.
func (e *Engine) partsOf(s *snapshot, batches []store.Doc, people bool) (ids []string) {
	for _, doc := range batches {
		f := fields{doc: doc}
		if e.isBatch(doc) && (people || State(f.str("state")) == StatePublished && !s.summed(doc.Ref.ID)) {
			ids = append(ids, f.strings("parts")...)
		}
	}
	return ids
}

// isBatch tells a batch from a part.
func (e *Engine) isBatch(doc store.Doc) bool { return doc.Ref.Collection == e.batchRef("").Collection }

// readParts adds the messages of the parts that were read. One that has expired with its batch is in
// the summary.
func (b *batch) readParts(doc store.Doc, parts map[string]store.Doc) error {
	_, ends := doc.Data[store.ExpiresAt]
	for _, id := range b.Parts {
		part, asked := parts[id]
		switch {
		case !asked:
		case !part.Exists && ends && doc.Data[store.ExpiresAt] != nil:
		case !part.Exists:
			return fmt.Errorf("%s is named in %s and gone: nothing is decided without it", part.Ref, doc.Ref)
		default:
			f := fields{doc: part}
			f.messages(b.Messages)
			if f.err != nil {
				return f.err
			}
			b.partVersions[part.Ref] = part.Version
		}
	}
	return nil
}

// messages reads the messages of a batch's document or of a part's.
func (f *fields) messages(into map[string]sent) {
	for name, m := range f.maps("messages") {
		payload, ok := m["payload"].(string)
		f.check(ok && payload != "", "messages."+name+".payload", m["payload"])
		id, ok := m["id"].(string)
		f.check(ok, "messages."+name+".id", m["id"])
		into[name] = sent{Payload: payload, ID: id}
	}
}

// publishParts publishes and confirms part by part. It returns to have the claim renewed when a third
// of it is gone.
func (c *convergence) publishParts(ctx context.Context, b *batch) error {
	begun := false
	for _, id := range b.Parts {
		if c.confirmed[id] {
			continue
		}
		if begun && c.safeRemaining(b.Holder) < c.Claim*2/3 {
			return nil
		}
		begun = true
		if err := c.publishPart(ctx, b, c.partRef(id)); err != nil {
			return err
		}
	}
	return c.publishedParts(ctx, b)
}

// publishPart sends what has no id yet, with safe remaining time of the claim, and writes down what the
// broker answers.
func (c *convergence) publishPart(ctx context.Context, b *batch, ref store.Ref) error {
	messages, version, err := c.readPart(ctx, b, ref)
	if err != nil {
		return err
	}
	if c.safeRemaining(b.Holder) <= 0 {
		return nil // the read took its time: look again whose it is now
	}
	ids := c.send(ctx, b, messages)
	// What the broker has accepted is written down even if our caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
	defer cancel()
	for {
		fields, complete := withIDs(messages, ids)
		if len(fields) > 0 {
			err = c.apply(ctx, store.MergeIf(ref, version, fields...))
		}
		if err == nil {
			c.confirmed[ref.ID] = complete
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if messages, version, err = c.readPart(ctx, b, ref); err != nil {
			return err
		}
	}
}

func (c *convergence) readPart(ctx context.Context, b *batch, ref store.Ref) (map[string]sent, store.Version, error) {
	got, err := c.Store.Get(ctx, ref)
	if err != nil {
		return nil, 0, err
	}
	f := fields{doc: got.Docs[0]}
	if !f.doc.Exists {
		return nil, 0, fmt.Errorf("%s of %s was deleted while it was published", ref, b.ID)
	}
	messages := map[string]sent{}
	f.messages(messages)
	return messages, f.doc.Version, f.err
}

// publishedParts reads the batch and all of its parts, and writes published only if every message has
// its id. If not, the next step sends the rest or, after a failure, gives the claim back.
func (c *convergence) publishedParts(ctx context.Context, b *batch) error {
	refs := []store.Ref{c.batchRef(b.ID)}
	for _, id := range b.Parts {
		refs = append(refs, c.partRef(id))
	}
	got, err := c.Store.Get(ctx, refs...)
	if err != nil {
		return err
	}
	for _, doc := range got.Docs {
		if !doc.Exists {
			return fmt.Errorf("%s was deleted while %s was published", doc.Ref, b.ID)
		}
	}
	_, now, err := parseBatch(c.key, got.Docs[0])
	if err != nil || now.State == StatePublished {
		return err
	}
	for _, doc := range got.Docs[1:] {
		messages := map[string]sent{}
		f := fields{doc: doc}
		f.messages(messages)
		if f.err != nil {
			return f.err
		}
		for _, m := range messages {
			if m.ID == "" {
				return nil
			}
		}
	}
	err = c.apply(ctx, store.MergeIf(refs[0], now.Version,
		store.F(string(StatePublished), "state"), store.F(store.ServerTime, "published_at"), store.F("", "holder")))
	if err == nil {
		c.published[b.ID] = true
		delete(c.failed, b.ID)
	}
	return err
}

// runKeys are the keys of runs as a batch has them. With parts they are numbers, which take 8 bytes each
// instead of 17: a document takes those of some 40,000 runs besides the names of all processors.
func runKeys(keys []string, parts bool) []any {
	out := make([]any, len(keys))
	for i, key := range keys {
		out[i] = key
		if n, err := strconv.ParseUint(key, 16, 64); parts && err == nil && len(key) == 16 {
			out[i] = int64(n)
		}
	}
	return out
}

// keys reads them.
func (f *fields) keys(name string) []string {
	var out []string
	for _, v := range field[[]any](f, name) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case int64:
			out = append(out, fmt.Sprintf("%016x", uint64(v)))
		default:
			f.check(false, name, v)
		}
	}
	return out
}

// ends are the writes by which a batch that is summed up expires, with its parts.
func (e *Engine) ends(b *batch, end store.Field) []store.Write {
	writes := []store.Write{store.MergeIf(e.batchRef(b.ID), b.Version, end)}
	for ref, version := range b.partVersions {
		writes = append(writes, store.MergeIf(ref, version, end))
	}
	slices.SortFunc(writes[1:], func(a, b store.Write) int { return strings.Compare(a.Ref.ID, b.Ref.ID) })
	return writes
}
