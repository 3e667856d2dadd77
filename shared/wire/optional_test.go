package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/wire"
)

func TestCount_EverySpellingIsDecoded(t *testing.T) {
	for written, want := range map[string]int64{
		`348`: 348, `348.0`: 348, `"348"`: 348, `"348.0"`: 348, `"0348"`: 348, `3.48e2`: 348, `348E0`: 348, `0`: 0, `-0`: 0,
		`9007199254740992`: 1 << 53, `9007199254740992.0`: 1 << 53,
	} {
		c, warnings := decode(t, report(`"record_count":`+written, `"records_failed":`+written))
		wantWarnings(t, warnings)
		if c.RecordCount == nil || *c.RecordCount != want || c.RecordsFailed == nil || *c.RecordsFailed != want {
			t.Errorf("%s: %v, %v, want %d", written, c.RecordCount, c.RecordsFailed, want)
		}
	}
}

func TestCount_MalformedBecomesAbsentWithWarning(t *testing.T) {
	for _, written := range []string{
		`-1`, `"-1"`, `348.5`, `"348.5"`, `348.00000000000000000001`, `1.5e0`, `-1e0`, `9007199254740993`, `9007199254740993.0`,
		`9007199254740992.5`, `"9007199254740993"`, `99999999999999999999`, `1e300`, `1e999999999`, `" 348 "`, `""`, `"+348"`,
		`"3e2"`, `"0x10"`, `"3_4"`, `"٣٤٨"`, `"many"`, `"NaN"`, `true`, `[348]`, `{}`,
	} {
		c, warnings := decode(t, report(`"record_count":`+written))
		wantWarnings(t, warnings, "record_count: "+written)
		if c.RecordCount != nil {
			t.Errorf("%s: count %d", written, *c.RecordCount)
		}
	}
}

func TestDuration_IsFiniteNumberOfSeconds(t *testing.T) {
	for written, want := range map[string]float64{`28.9`: 28.9, `0`: 0, `60`: 60, `1e3`: 1000} {
		c, warnings := decode(t, report(`"duration_seconds":`+written))
		wantWarnings(t, warnings)
		if c.Duration == nil || *c.Duration != want {
			t.Errorf("%s: %v, want %v", written, c.Duration, want)
		}
	}
	for _, written := range []string{`-0.1`, `1e999`, `"28.9"`, `"NaN"`, `true`, `[]`} {
		c, warnings := decode(t, report(`"duration_seconds":`+written))
		wantWarnings(t, warnings, "duration_seconds: "+written)
		if c.Duration != nil {
			t.Errorf("%s: %v", written, *c.Duration)
		}
	}
}

// optionalTexts are the optional strings and where they go.
var optionalTexts = map[string]func(wire.Completion) string{
	"execution_id":       func(c wire.Completion) string { return c.ExecutionID },
	"correlation_id":     func(c wire.Completion) string { return c.CorrelationID },
	"output_table":       func(c wire.Completion) string { return c.OutputTable },
	"output_dataset":     func(c wire.Completion) string { return c.OutputDataset },
	"parent_processor":   func(c wire.Completion) string { return c.Parent },
	"trigger_source":     func(c wire.Completion) string { return c.TriggerSource },
	"trigger_message_id": func(c wire.Completion) string { return c.TriggerID },
	"error_message":      func(c wire.Completion) string { return c.ErrorMessage },
	"error_type":         func(c wire.Completion) string { return c.ErrorType },
}

func TestOptional_StringsHave1024Bytes(t *testing.T) {
	for key, get := range optionalTexts {
		t.Run(key, func(t *testing.T) {
			longest := strings.Repeat("é", 512)
			c, warnings := decode(t, report(fmt.Sprintf("%q:%q", key, longest)))
			wantWarnings(t, warnings)
			if get(c) != longest {
				t.Errorf("1,024 bytes: got %d", len(get(c)))
			}
			absent, _ := decode(t, report())
			malformedValues := []string{"5", "{}", "[]", "true"}
			if key != "error_message" { // prose is clipped instead
				malformedValues = append(malformedValues, `"x`+longest+`"`)
			}
			for _, malformed := range malformedValues {
				c, warnings := decode(t, report(fmt.Sprintf("%q:%s", key, malformed)))
				wantWarnings(t, warnings, key+": "+malformed[:min(len(malformed), 100)])
				if diff := cmp.Diff(absent, c); diff != "" {
					t.Errorf("%.20s (-absent +got):\n%s", malformed, diff)
				}
			}
		})
	}
}

func TestOptional_LongErrorMessageKeepsBeginning(t *testing.T) {
	c, warnings := decode(t, report(fmt.Sprintf(`"error_message":"x%s"`, strings.Repeat("é", 5000))))
	wantWarnings(t, warnings)
	if want := "x" + strings.Repeat("é", 511); c.ErrorMessage != want {
		t.Errorf("kept %d bytes, want %d", len(c.ErrorMessage), len(want))
	}
}

// names returns a JSON array of n names, from the i-th.
func names(i, n int) string {
	list := make([]string, n)
	for k := range list {
		list[k] = fmt.Sprintf(`"e%d"`, i+k)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func TestEntities_ListsAreDecoded(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, tc := range map[string]struct {
		metadata    string
		incremental bool
		entities    []string
		truncated   bool
		warnings    []string
	}{
		"incremental":               {`{"is_incremental":true,"entities_changed":["b","a"]}`, true, []string{"b", "a"}, false, nil},
		"not_incremental":           {`{"is_incremental":false,"entities_changed":["b"]}`, false, []string{"b"}, false, nil},
		"duplicates":                {`{"is_incremental":true,"entities_changed":["b","a","b","a","c"]}`, true, []string{"b", "a", "c"}, false, nil},
		"empty_list":                {`{"is_incremental":true,"entities_changed":[]}`, true, nil, false, nil},
		"incremental_without_list":  {`{"is_incremental":true}`, true, nil, true, nil},
		"incremental_null_list":     {`{"is_incremental":true,"entities_changed":null}`, true, nil, true, nil},
		"no_flag_no_list":           {`{}`, false, nil, false, nil},
		"flag_of_a_wrong_type":      {`{"is_incremental":"true","entities_changed":["a"]}`, false, []string{"a"}, false, []string{`metadata.is_incremental: "true"`}},
		"flag_one":                  {`{"is_incremental":1}`, false, nil, false, []string{`metadata.is_incremental: 1`}},
		"list_a_string":             {`{"is_incremental":true,"entities_changed":"a"}`, true, nil, true, []string{`metadata.entities_changed: "a"`}},
		"list_an_object":            {`{"entities_changed":{"players":["a"]}}`, false, nil, true, []string{`metadata.entities_changed: {"players"`}},
		"item_a_number":             {`{"is_incremental":true,"entities_changed":["a",5,"b",6]}`, true, []string{"a", "b"}, true, []string{"metadata.entities_changed[1]: 5"}},
		"item_null":                 {`{"is_incremental":true,"entities_changed":[null]}`, true, nil, true, []string{"metadata.entities_changed[0]: null"}},
		"item_empty":                {`{"is_incremental":true,"entities_changed":[""]}`, true, nil, true, []string{`metadata.entities_changed[0]: ""`}},
		"item_of_256_bytes":         {`{"is_incremental":true,"entities_changed":["` + long + `"]}`, true, []string{long}, false, nil},
		"item_of_257_bytes":         {`{"is_incremental":true,"entities_changed":["y` + long + `"]}`, true, nil, true, []string{`metadata.entities_changed[0]: "yxx`}},
		"metadata_a_string":         {`"is_incremental"`, false, nil, false, []string{`metadata: "is_incremental"`}},
		"metadata_an_array":         {`[true]`, false, nil, false, []string{`metadata: [true]`}},
		"the_rest_is_ignored":       {`{"entities_changed_count":"x","entities_total":-1,"other":{}}`, false, nil, false, nil},
		"more_malformed_than_names": {`{"entities_changed":[` + strings.Repeat("1,", 5000) + `2]}`, false, nil, true, []string{"metadata.entities_changed[0]: 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, warnings := decode(t, report(`"metadata":`+tc.metadata))
			wantWarnings(t, warnings, tc.warnings...)
			if c.Incremental != tc.incremental || c.Truncated != tc.truncated || !slices.Equal(c.Entities, tc.entities) {
				t.Errorf("incremental %v, truncated %v, entities %.60q; want %v, %v, %.60q",
					c.Incremental, c.Truncated, c.Entities, tc.incremental, tc.truncated, tc.entities)
			}
		})
	}
}

func TestEntities_LongListsAreCutAndMarked(t *testing.T) {
	full := names(0, wire.MaxEntities)
	again := strings.TrimSuffix(full, "]") + "," + strings.TrimPrefix(full, "[")
	for _, tc := range []struct {
		list      string
		truncated bool
	}{{full, false}, {again, false}, {names(0, wire.MaxEntities+1), true}, {names(0, 10_000), true}} {
		c, warnings := decode(t, report(`"metadata":{"is_incremental":true,"entities_changed":`+tc.list+`}`))
		if tc.truncated {
			wantWarnings(t, warnings, `metadata.entities_changed: ["e0","e1"`)
		} else {
			wantWarnings(t, warnings)
		}
		if len(c.Entities) != wire.MaxEntities || c.Entities[0] != "e0" || c.Entities[199] != "e199" || c.Truncated != tc.truncated {
			t.Errorf("list of %d bytes: %d entities, truncated %v", len(tc.list), len(c.Entities), c.Truncated)
		}
	}
}
