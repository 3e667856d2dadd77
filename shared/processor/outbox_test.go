package processor

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

func TestHistory_ExpiresOnlyWithAnEmptyOutbox(t *testing.T) {
	now := start
	clock := func() time.Time { return now }
	n := &run{Runner: New(Config{Store: memory.New(clock), Now: clock}), key: lease.Key{Class: "PlayerGameSummaryProcessor", Period: night}}
	for _, c := range []struct {
		step    string
		outbox  []outgoing
		expires bool
	}{
		{"no completion is expected", nil, true},
		{"a completion is recorded", []outgoing{{Execution: "e1"}}, false},
		{"another one", []outgoing{{Execution: "e1"}, {Execution: "e2"}}, false},
		{"the broker has one", []outgoing{{Execution: "e2"}}, false},
		{"the broker has both", nil, true},
		{"a later run", []outgoing{{Execution: "e3"}}, false},
		{"the broker has it", nil, true},
	} {
		now = now.Add(time.Hour)
		if err := n.change(t.Context(), func(b *history) bool { b.Outbox = c.outbox; return true }); err != nil {
			t.Fatal(err)
		}
		_, doc, err := n.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := any(nil)
		if c.expires {
			want = now.Add(store.Kept)
		}
		if got, there := doc.Data[store.ExpiresAt]; got != want || !there {
			t.Errorf("%s: expires_at is %v (written: %t), want %v", c.step, got, there, want)
		}
	}
}
