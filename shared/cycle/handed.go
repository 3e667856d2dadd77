package cycle

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
)

// handed is what later decisions need of a cycle's published batches, up to number N. It stands in
// the period, so that an evaluation reads open batches alone, and knows what was handed over by
// batches that have expired. One commit writes it and the end of each batch that it is the first to
// have, against the batch's version. Of two that write it, the one that read earlier is refused.
// So N never goes back.
type handed struct {
	N       int                  `json:"n"`
	Runs    []string             `json:"runs"`              // keys of the runs that they took
	Expects []string             `json:"expects,omitempty"` // of the batch that began the cycle
	Again   map[string]time.Time `json:"again"`             // processor → when it was last handed over again; zero: once
	At      time.Time            `json:"at"`                // when the first was published
	Cause   string               `json:"cause"`             // of the first
	Reason  string               `json:"reason"`            // of the newest
	By      string               `json:"by,omitempty"`      // the operator who asked for the newest; "" if none did

	// Of a transition with more than [maxProjected] processors, the text has Keys instead of Runs: base64 of
	// 8 bytes each. Of Expects, Again then names only those that were handed over again, and Without
	// those that never were.
	Keys    string   `json:"keys,omitempty"`
	Without []string `json:"without,omitempty"`
}

// short returns the summary as the text of a large transition has it: of 10,000 processors with two runs
// each 400 KB instead of 950 KB.
func (h handed) short() handed {
	var raw []byte
	for _, key := range h.Runs {
		n, err := strconv.ParseUint(key, 16, 64)
		if err != nil || len(key) != 16 {
			return h
		}
		raw = binary.BigEndian.AppendUint64(raw, n)
	}
	h.Keys, h.Runs = base64.StdEncoding.EncodeToString(raw), nil
	again, expected := map[string]time.Time{}, pipeline.SetOf(h.Expects)
	for name, at := range h.Again {
		if !at.IsZero() || !expected[name] {
			again[name] = at
		}
	}
	for _, name := range h.Expects {
		if _, handed := h.Again[name]; !handed {
			h.Without = append(h.Without, name)
		}
	}
	h.Again = again
	return h
}

// whole is the reverse of short.
func (h handed) whole() (handed, error) {
	if h.Keys == "" {
		return h, nil
	}
	raw, err := base64.StdEncoding.DecodeString(h.Keys)
	if err != nil {
		return h, err
	}
	for ; len(raw) >= 8; raw = raw[8:] {
		h.Runs = append(h.Runs, fmt.Sprintf("%016x", binary.BigEndian.Uint64(raw)))
	}
	again, without := maps.Clone(h.Again), pipeline.SetOf(h.Without)
	if again == nil {
		again = map[string]time.Time{}
	}
	for _, name := range h.Expects {
		if _, known := again[name]; !known && !without[name] {
			again[name] = time.Time{}
		}
	}
	h.Keys, h.Without, h.Again = "", nil, again
	return h, nil
}

// with returns the summary with one more published batch.
func (h handed) with(t *pipeline.Transition, b *batch) handed {
	again := map[string]time.Time{}
	maps.Copy(again, h.Again)
	for stored := range b.Messages {
		name, at := t.Present(stored), time.Time{}
		if _, before := h.Again[name]; before {
			at = b.PublishedAt
		}
		again[name] = at
	}
	if h.N == 0 {
		h.At, h.Cause = b.PublishedAt, b.Cause
	}
	if len(h.Expects) == 0 {
		h.Expects = b.Expects
	}
	taken := map[string]bool{}
	for _, key := range h.Runs {
		taken[key] = true
	}
	h.Runs = slices.Clip(h.Runs)
	for _, key := range b.Runs { // an operator's batch can have taken some before
		if !taken[key] {
			h.Runs = append(h.Runs, key)
		}
	}
	h.N, h.Again, h.Reason, h.By = b.N, again, b.Reason, ""
	if b.Selected {
		h.By = b.Actor
	}
	return h
}

// readHanded reads the summaries that a document of the period has. Of two the one that
// says more is right.
func (s *snapshot) readHanded(doc store.Doc) error {
	t := s.key.Transition
	f := &fields{doc: doc}
	for stored, v := range field[map[string]any](f, "handed") {
		mode := modeOf(t, stored)
		text, ok := v.(string)
		f.check(ok, "handed."+stored, v)
		var h handed
		if err := json.Unmarshal([]byte(text), &h); err != nil && f.err == nil {
			f.err = fmt.Errorf("%s: handed.%s: %w", doc.Ref, stored, err)
		}
		h, err := h.whole()
		if err != nil && f.err == nil {
			f.err = fmt.Errorf("%s: handed.%s.keys: %w", doc.Ref, stored, err)
		}
		if h.N > s.handed[mode].N {
			s.handed[mode] = h.by(t.Present)
		}
	}
	return f.err
}

// by returns the summary with other names of its processors.
func (h handed) by(name func(processor string) string) handed {
	again := map[string]time.Time{}
	for old, at := range h.Again {
		again[name(old)] = at
	}
	expects := slices.Clone(h.Expects)
	for i, old := range expects {
		expects[i] = name(old)
	}
	h.Again, h.Expects = again, expects
	return h
}

// summed reports whether a summary has everything about a batch.
func (s *snapshot) summed(id string) bool {
	mode, n, ok := cutBatchID(s.key, id)
	return ok && n <= s.handed[mode].N
}

// cutBatchID returns the mode and the number in the id of a batch.
func cutBatchID(key Key, id string) (mode string, n int, ok bool) {
	rest, ok := strings.CutPrefix(id, key.stored()+"_")
	i := strings.LastIndexByte(rest, '~')
	if !ok || i < 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(rest[i+1:])
	return modeOf(key.Transition, rest[:i]), n, err == nil
}

// handedBy returns everything that is known of the published batches of a mode: the
// summary, and what has been published since.
func (s *snapshot) handedBy(mode string) handed {
	h := s.handed[mode]
	for _, b := range s.batches[mode] {
		if b.N <= h.N {
			continue
		}
		if b.State != StatePublished || h.N > 0 && b.N != h.N+1 {
			break // what a person asked for can stand behind one that is still open
		}
		h = h.with(s.key.Transition, b)
	}
	return h
}

// again returns when each processor was last handed over again, by any name of the mode.
func (s *snapshot) again(mode string) map[string]time.Time {
	all := maps.Clone(s.handedBy(mode).Again)
	for name, at := range s.former[mode].Again {
		if all == nil {
			all = map[string]time.Time{}
		}
		if at.After(all[name]) || all[name].IsZero() {
			all[name] = at
		}
	}
	return all
}

// sums returns the summaries that the period does not have yet, as its fields, and the batches
// that they are the first to have.
func (s *snapshot) sums() (fields []store.Field, batches []*batch) {
	t := s.key.Transition
	for mode, bs := range s.batches {
		h := s.handedBy(mode)
		if h.N <= s.handed[mode].N {
			continue
		}
		if h = h.by(t.Stored); s.key.countsOnly() {
			h = h.short()
		}
		fields = append(fields, store.F(encode(h), "handed", strings.TrimSuffix(t.StoredMode(mode), "~")))
		for _, b := range bs {
			if b.N > s.handed[mode].N && b.N <= h.N {
				batches = append(batches, b)
			}
		}
	}
	slices.SortFunc(fields, func(a, b store.Field) int { return strings.Compare(a.Path[1], b.Path[1]) })
	slices.SortFunc(batches, func(a, b *batch) int { return strings.Compare(a.ID, b.ID) })
	return fields, batches
}

// highest returns the number of a cycle's newest batch, 0 when there is none.
func (s *snapshot) highest(mode string) int {
	n := s.handed[mode].N
	if bs := s.batches[mode]; len(bs) > 0 {
		n = max(n, bs[len(bs)-1].N)
	}
	return n
}
