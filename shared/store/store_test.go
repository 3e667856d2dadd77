package store_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

func TestSize_MatchesFirestore(t *testing.T) {
	ref := store.Ref{Collection: "tasks", ID: "my_task_id"} // 6 + 11 + 16
	for _, c := range []struct {
		name string
		data map[string]any
		want int
	}{
		{"empty", nil, 33 + 32},
		{"documented_example", map[string]any{
			"type": "Personal", "done": false, "priority": int64(1), "description": "Learn Cloud Firestore",
		}, 33 + 32 + 14 + 6 + 17 + 34},
		{"scalars", map[string]any{"a": nil, "b": 1.5, "c": time.Time{}, "d": "ä"}, 33 + 32 + 4*2 + 1 + 8 + 8 + 3},
		{"array", map[string]any{"a": []any{"x", int64(1), true}}, 33 + 32 + 2 + 2 + 8 + 1},
		{"empty_array", map[string]any{"a": []any{}}, 33 + 32 + 2},
		{"map_counts_as_a_document", map[string]any{"a": map[string]any{"b": "x"}}, 33 + 32 + 2 + 32 + 2 + 2},
	} {
		if got := store.Size(ref, c.data); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}

func TestCheckApply_LimitsDocumentSize(t *testing.T) {
	ref := store.Ref{Collection: "c", ID: "d"}
	fits := func(a, b int) error {
		_, err := store.CheckApply([]store.Write{
			store.Create(ref, store.F(strings.Repeat("x", a), "a"), store.F(strings.Repeat("x", b), "b")),
		})
		return err
	}
	rest := store.MaxDocumentBytes - store.Size(ref, map[string]any{"a": strings.Repeat("x", 500_000), "b": ""})
	if err := fits(500_000, rest); err != nil {
		t.Error(err)
	}
	if err := fits(500_000, rest+1); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestCheckApply_DoesNotModifyArguments(t *testing.T) {
	local := time.Date(2026, 2, 3, 4, 5, 6, 789, time.FixedZone("", 3600))
	value := map[string]any{"n": 1, "at": local}
	writes := []store.Write{store.Merge(store.Ref{Collection: "c", ID: "d"}, store.F(value, "b"), store.F(1, "a"))}
	checked, err := store.CheckApply(writes)
	if err != nil {
		t.Fatal(err)
	}
	if value["n"] != 1 || value["at"] != local || writes[0].Fields[0].Path[0] != "b" {
		t.Errorf("changed to %v", writes)
	}
	normal := checked[0].Fields[0].Value.(map[string]any)
	if normal["n"] != int64(1) || normal["at"] != time.Date(2026, 2, 3, 3, 5, 6, 0, time.UTC) {
		t.Errorf("normalised to %v", normal)
	}
}

func TestResolve_DoesNotModifyDocument(t *testing.T) {
	inner := map[string]any{"n": int64(1), "list": []any{"x"}}
	doc := store.Doc{Ref: store.Ref{Collection: "c", ID: "d"}, Exists: true, Version: 5, Data: map[string]any{"m": inner}}
	w := store.Merge(doc.Ref, store.F(int64(2), "m", "n"), store.F(store.Union("y"), "m", "list"), store.F(math.NaN(), "new"))
	after, err := store.Resolve(doc, w, 9)
	if err != nil || after.Version != 9 || len(after.Data) != 2 {
		t.Fatalf("Resolve = %+v, %v", after, err)
	}
	if len(doc.Data) != 1 || inner["n"] != int64(1) || len(inner["list"].([]any)) != 1 || doc.Version != 5 {
		t.Errorf("changed to %+v", doc)
	}
	again, err := store.Resolve(after, w, 11)
	if err != nil || again.Version != 9 {
		t.Errorf("Resolve without effect = %+v, %v", again, err)
	}
}
