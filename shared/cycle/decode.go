package cycle

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// claimMessages joins the two fields: the first message, as before groups, and the others.
func claimMessages(first string, others []string) []string {
	if first == "" {
		return others
	}
	return append([]string{first}, others...)
}

func parseBatch(key Key, doc store.Doc) (mode string, b *batch, err error) {
	f := fields{doc: doc}
	b = &batch{
		ID: doc.Ref.ID, Version: doc.Version,
		N: int(f.int("n")), State: State(f.str("state")),
		Cause: f.str("cause"), Actor: f.str("actor"), Reason: f.str("reason"),
		CreatedAt: f.time("created_at"), FrozenAt: f.time("frozen_at"), PublishedAt: f.time("published_at"),
		DueAt: f.time("due_at"), NextAttempt: f.time("next_attempt"), Attempts: int(f.int("attempts")), Checked: f.str("checked"),
		Holder: f.str("holder"), ClaimedAt: f.time("claimed_at"),
		Claim: time.Duration(f.int("claim_ms")) * time.Millisecond, ClaimMessages: claimMessages(f.str("claim_message"), f.strings("claim_messages")),
		Runs: f.keys("runs"), Selected: f.bool("selected"), Force: f.bool("force"), Request: f.str("request"),
		Expects: f.strings("expects"), Messages: map[string]sent{}, Readiness: f.readiness(),
		Parts: f.strings("parts"), partVersions: map[store.Ref]store.Version{},
	}
	b.GraceSince, b.GraceUpdated = f.grace(key.Transition.Definition())
	f.messages(b.Messages)
	for i, name := range b.Expects {
		b.Expects[i] = key.Transition.Present(name)
	}
	mode = strings.TrimPrefix(strings.TrimSuffix(b.ID, "~"+strconv.Itoa(b.N)), key.stored()+"_")
	mode = modeOf(key.Transition, mode)
	if f.err == nil {
		switch b.State {
		case StateGrace, StateChecking, StateBlocked, StatePublishing, StatePublished:
		default:
			f.err = fmt.Errorf("%s: state: %q is none", doc.Ref, b.State)
		}
	}
	return mode, b, f.err
}

// grace returns when a batch's grace period began for a definition: with the first one,
// unless the quorum was seen not to hold under this definition. Two can be at work at once,
// while a deployment is under way: neither ends the other's.
func (f *fields) grace(definition string) (since time.Time, own bool) {
	v, own := field[map[string]any](f, "graces")[definition]
	if !own {
		return f.time("grace_since"), false
	}
	if v != nil {
		var ok bool
		since, ok = v.(time.Time)
		f.check(ok, "graces."+definition, v)
	}
	return since, true
}

// fields reads a document's fields. Its error names the first that is of another type than we
// write: another program changed such a document, and nothing is decided on it.
type fields struct {
	doc store.Doc
	err error
}

func field[T any](f *fields, name string) (v T) {
	raw, ok := f.doc.Data[name]
	if !ok || raw == nil {
		return v
	}
	v, ok = raw.(T)
	f.check(ok, name, raw)
	return v
}

func (f *fields) check(ok bool, name string, value any) {
	if !ok && f.err == nil {
		f.err = fmt.Errorf("%s: %s: unexpected %T", f.doc.Ref, name, value)
	}
}

func (f *fields) str(name string) string     { return field[string](f, name) }
func (f *fields) bool(name string) bool      { return field[bool](f, name) }
func (f *fields) int(name string) int64      { return field[int64](f, name) }
func (f *fields) time(name string) time.Time { return field[time.Time](f, name) }

func (f *fields) strings(name string) []string {
	var out []string
	for _, v := range field[[]any](f, name) {
		s, ok := v.(string)
		f.check(ok, name, v)
		out = append(out, s)
	}
	return out
}

func (f *fields) maps(name string) iter.Seq2[string, map[string]any] {
	return func(yield func(string, map[string]any) bool) {
		for k, v := range field[map[string]any](f, name) {
			m, ok := v.(map[string]any)
			if f.check(ok, name+"."+k, v); !yield(k, m) {
				return
			}
		}
	}
}

// seenRuns are runs that this process has parsed, by their recorded text: the next
// completion of the same period finds them again. Bounded; losing it loses nothing.
type seenRuns struct {
	mu    sync.Mutex
	runs  map[string]*wire.Completion
	bytes int // of their texts
}

// maxSeen bounds the texts that are kept, in bytes: those of the largest period and some more. With what
// was parsed from them they take two to three times as much memory.
const maxSeen = maxRecorded + 4<<20

func (s *seenRuns) parse(value string) (*wire.Completion, error) {
	s.mu.Lock()
	c := s.runs[value]
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	parsed, err := wire.ParseCompletion(value)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs == nil || s.bytes+len(value) > maxSeen {
		s.runs, s.bytes = map[string]*wire.Completion{}, 0
	}
	s.runs[value] = &parsed
	s.bytes += len(value)
	return &parsed, nil
}

func (f *fields) group(runs []policy.Run, processor string, group map[string]any, seen *seenRuns) []policy.Run {
	runs = slices.Grow(runs, len(group))
	for key, v := range group {
		value, _ := v.(string)
		c, err := seen.parse(value)
		if err != nil && f.err == nil {
			f.err = fmt.Errorf("%s: run %s of %q: %w", f.doc.Ref, key, processor, err)
		}
		runs = append(runs, policy.Run{Key: key, Completion: c})
	}
	return runs
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("a plain struct cannot fail to encode: %v", err))
	}
	return string(b)
}
