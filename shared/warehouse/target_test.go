package warehouse_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// described is the warehouse with edited metadata of the table scores, for what the emulator
// does not know. statements are the MERGEs that it got.
func (b *books) described(edit func(meta map[string]any)) (w *warehouse.Warehouse, statements *[]string) {
	statements = new([]string)
	w = b.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		var job struct {
			Configuration struct{ Query struct{ Query string } }
		}
		if err := json.Unmarshal(body, &job); err == nil && strings.HasPrefix(job.Configuration.Query.Query, "MERGE") {
			*statements = append(*statements, job.Configuration.Query.Query)
		}
		rec := forward()
		var meta map[string]any
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tables/scores") && json.Unmarshal(rec.Body.Bytes(), &meta) == nil {
			edit(meta)
			rec.Body.Reset()
			return json.NewEncoder(rec.Body).Encode(meta)
		}
		return nil
	})
	return w, statements
}

// column is one of the described table.
func column(meta map[string]any, name string) map[string]any {
	for _, f := range meta["schema"].(map[string]any)["fields"].([]any) {
		if f := f.(map[string]any); f["name"] == name {
			return f
		}
	}
	return nil
}

// The emulator has no defaults: a column that a statement leaves out is NULL.
func TestWrite_LeavesColumnsWithADefaultToTheTable(t *testing.T) {
	b := newBooks(t, scores, "")
	w, statements := b.described(func(meta map[string]any) {
		column(meta, "points")["defaultValueExpression"] = "7"
		column(meta, "processed_at")["defaultValueExpression"] = "CURRENT_TIMESTAMP()"
		column(meta, "processed_at")["mode"] = "REQUIRED"
	})
	got, err := w.Write(t.Context(), b.right(), b.target, rowsOf(
		dedup.Row{"game_date": string(night), "player_lookup": "a", "points": 5},
		dedup.Row{"game_date": string(night), "player_lookup": "b"},
		dedup.Row{"game_date": string(night), "player_lookup": "c", "points": nil, "processed_at": first},
		dedup.Row{"game_date": string(night), "player_lookup": "d", "points": 6, "processed_at": first}))
	if err != nil || got.Rows != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	b.want("a=5 b=<nil> c=<nil> d=6")
	for _, want := range []string{
		"WHEN NOT MATCHED BY TARGET AND s.phasegate_left_out = '01' THEN INSERT (`game_date`, `player_lookup`, `points`) VALUES (s.`game_date`, s.`player_lookup`, s.`points`)",
		"WHEN NOT MATCHED BY TARGET AND s.phasegate_left_out = '11' THEN INSERT (`game_date`, `player_lookup`) VALUES",
		"WHEN NOT MATCHED BY TARGET AND s.phasegate_left_out = '00' THEN INSERT (`game_date`, `player_lookup`, `points`, `processed_at`) VALUES",
	} {
		if len(*statements) != 1 || !strings.Contains((*statements)[0], want) {
			t.Errorf("%q, without %s", *statements, want)
		}
	}
	_, err = w.Write(t.Context(), b.right(), b.target, rowsOf(dedup.Row{"game_date": string(night), "player_lookup": "a", "processed_at": nil}))
	if err == nil || !strings.Contains(err.Error(), "row 0: processed_at: is required, and NULL") {
		t.Errorf("a NULL that a row names: %v", err)
	}
	// Rows that differ only in what they leave out are different rows.
	if got, err = w.Write(t.Context(), b.right(), b.target, rowsOf(dedup.Row{"game_date": string(night), "player_lookup": "a", "points": nil, "processed_at": first},
		dedup.Row{"game_date": string(night), "player_lookup": "a", "processed_at": first})); err != nil || got.Rows != 1 || got.Examples[0].Identical {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCheckTarget_NamesWhatNoWriteCanFill(t *testing.T) {
	b := newBooks(t, scores, "")
	add := func(name, typ string) func(map[string]any) {
		return func(meta map[string]any) {
			schema := meta["schema"].(map[string]any)
			schema["fields"] = append(schema["fields"].([]any), map[string]any{"name": name, "type": typ})
		}
	}
	retype := func(typ, mode string) func(map[string]any) {
		return func(meta map[string]any) {
			column(meta, "player_lookup")["type"], column(meta, "player_lookup")["mode"] = typ, mode
		}
	}
	for name, c := range map[string]struct {
		edit func(map[string]any)
		want string
	}{
		"sound":    {func(map[string]any) {}, ""},
		"interval": {add("rest", "INTERVAL"), "column rest is of type INTERVAL, whose values cannot be written"},
		"range":    {add("stay", "RANGE"), "column stay is of type RANGE"},
		"unheard":  {add("sound", "SOUND"), "column sound is of type SOUND"},
		"in_a_record": {func(meta map[string]any) {
			add("line", "RECORD")(meta)
			column(meta, "line")["fields"] = []any{map[string]any{"name": "rest", "type": "INTERVAL"}}
		}, "column line.rest is of type INTERVAL"},
		"geography_key": {retype("GEOGRAPHY", "NULLABLE"), "key column player_lookup is of type GEOGRAPHY"},
		"list_key":      {retype("STRING", "REPEATED"), "key column player_lookup is of type ARRAY<STRING>"},
		"our_name":      {add("Phasegate_Left_Out", "STRING"), "a column must not be called phasegate_left_out: rename it"},
		"another_filter": {func(meta map[string]any) {
			meta["requirePartitionFilter"] = true
			meta["timePartitioning"] = map[string]any{"type": "DAY", "field": "processed_at"}
		}, "requires a filter by processed_at, which is not its date column game_date"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := b.described(c.edit)
			_, err := w.CheckTarget(t.Context(), b.target)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			_, writeErr := w.Write(t.Context(), b.right(), b.target, rowsOf(score("a", 1, first)))
			refusals := []error{err, writeErr}
			if strings.Contains(c.want, "key column") { // then a sweep cannot tell the rows apart either
				_, surveyErr := w.Survey(t.Context(), b.target)
				refusals = append(refusals, surveyErr)
			}
			for _, err := range refusals {
				if !errors.Is(err, warehouse.ErrTarget) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), b.target.Processor.Table) {
					t.Errorf("%v, want %s", err, c.want)
				}
			}
		})
	}
}
