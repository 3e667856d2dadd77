package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

var record = Record{Action: "hold", Actor: "ada@host", Reason: "wrong scores", Transition: "t", Period: "2026-02-03", Mode: "overnight", Detail: "t_2026-02-03_overnight"}

func TestRecord_IsPartOfItsCommit(t *testing.T) {
	now := time.Date(2026, 2, 4, 11, 5, 0, 123000, time.UTC)
	s := memory.New(func() time.Time { return now })
	ctx := context.Background()
	taken := store.Ref{Collection: "things", ID: "x"}
	if _, err := s.Apply(ctx, store.Create(taken)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(ctx, store.Create(taken), record.Write("p_", now, "a")); !errors.Is(err, store.ErrExists) {
		t.Fatal(err)
	}
	if _, err := s.Apply(ctx, record.Write("p_", now, "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(ctx, record.Write("p_", now, "b")); !errors.Is(err, store.ErrExists) {
		t.Errorf("a commit that is tried again: %v", err)
	}
	var docs []store.Doc
	for d, err := range s.Scan(ctx, "p_audit", "!", "~") {
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, d)
	}
	want := map[string]any{"action": "hold", "actor": "ada@host", "reason": "wrong scores", "transition": "t", "period": "2026-02-03",
		"mode": "overnight", "detail": "t_2026-02-03_overnight", "expires_at": now.Add(store.Kept)}
	if len(docs) != 1 || docs[0].Ref.ID != "20260204T110500.000123Z-b" {
		t.Fatalf("%v", docs)
	}
	if at, _ := docs[0].Data["at"].(time.Time); at.Before(now.Truncate(time.Millisecond)) {
		t.Errorf("at %v", docs[0].Data["at"])
	}
	delete(docs[0].Data, "at")
	if diff := cmp.Diff(want, docs[0].Data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRecord_IDsSortByTime(t *testing.T) {
	var ids []string
	for i := range 5 {
		at := time.Date(2026, 2, 4, 11, 5, 0, i*1000, time.FixedZone("", i*3600)).Add(time.Duration(i) * time.Hour)
		ids = append(ids, record.Write("", at, string(rune('z'-i))).Ref.ID)
	}
	if !slices.IsSorted(ids) {
		t.Errorf("%v", ids)
	}
}

func TestRecord_LineNamesActorAndAction(t *testing.T) {
	var b bytes.Buffer
	record.Log(context.Background(), slog.New(slog.NewJSONHandler(&b, nil)))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["event"] != "operator_action" || line["actor"] != "ada@host" || line["reason"] != "wrong scores" || line["msg"] != "ada@host: hold: t_2026-02-03_overnight" {
		t.Errorf("%v", line)
	}
}
