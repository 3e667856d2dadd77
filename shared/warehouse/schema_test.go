package warehouse_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/dedup"
)

// A writer of rows may not set policy tags: only their owners may.
func TestWrite_StagesNamesTypesAndModesOnly(t *testing.T) {
	t.Parallel()
	b := newBooks(t, scores+", line STRUCT<rebounds INT64>, tags ARRAY<STRING>", "")
	decorate := func(fields []any) {
		for _, f := range fields {
			field := f.(map[string]any)
			field["policyTags"] = map[string]any{"names": []string{"projects/p/locations/l/taxonomies/1/policyTags/2"}}
			field["defaultValueExpression"], field["description"], field["collation"] = "NULL", "as it is told", "und:ci"
			if nested, ok := field["fields"].([]any); ok {
				nested[0].(map[string]any)["policyTags"] = field["policyTags"]
			}
		}
	}
	var staged []string
	through := b.Through(func(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
		if r.Method == http.MethodPost && strings.Contains(string(body), `"line"`) && !strings.Contains(string(body), "MERGE") {
			staged = append(staged, string(body))
		}
		rec := forward()
		var meta map[string]any
		if !strings.HasSuffix(r.URL.Path, "/tables/scores") || json.Unmarshal(rec.Body.Bytes(), &meta) != nil {
			return nil
		}
		decorate(meta["schema"].(map[string]any)["fields"].([]any))
		rec.Body.Reset()
		return json.NewEncoder(rec.Body).Encode(meta)
	})
	row := score("a", 1, first)
	row["line"], row["tags"] = map[string]any{"rebounds": 7}, []string{"x"}
	if _, err := through.Write(t.Context(), b.right(), b.target, []dedup.Row{row}); err != nil {
		t.Fatal(err)
	}
	b.want("a=1")
	if len(staged) != 2 {
		t.Fatalf("%d requests name the columns, want those that make the table and load it", len(staged))
	}
	for _, request := range staged {
		for _, extra := range []string{"policyTags", "defaultValueExpression", "description", "collation"} {
			if strings.Contains(request, extra) {
				t.Errorf("%s is sent: %s", extra, request)
			}
		}
		for _, kept := range []string{`"rebounds"`, `"REPEATED"`, `"RECORD"`} {
			if !strings.Contains(request, kept) {
				t.Errorf("%s is not sent: %s", kept, request)
			}
		}
	}
}
