package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Cloud Logging counts what it adds to a line, so lines well below its 256 KB are cut too.
func TestLimited_CutsLinesAboveTwoHundredKilobytes(t *testing.T) {
	for size, cut := range map[int]bool{100: false, 200 << 10: false, 200<<10 + 1: true, 250_000: true} {
		line := []byte(`{"message":"` + strings.Repeat("m", size-len(`{"message":""}`)-1) + `"}` + "\n")
		var b bytes.Buffer
		n, err := limited{&b}.Write(line)
		if err != nil || n != len(line) { // a writer that has taken less has failed
			t.Errorf("%d bytes: %d written, error %v", size, n, err)
		}
		if got := !bytes.Equal(b.Bytes(), line); got != cut {
			t.Errorf("%d bytes: cut %v, %d bytes written", size, got, b.Len())
		}
		if b.Bytes()[b.Len()-1] != '\n' || !json.Valid(b.Bytes()) {
			t.Errorf("%d bytes: %q", size, b.Bytes()[max(0, b.Len()-50):])
		}
	}
}

// A line is cut no further than it has to be.
func TestLimited_CutsMildlyFirst(t *testing.T) {
	line, err := json.Marshal(map[string]any{"message": strings.Repeat("m", 300_000), "evidence": slices.Repeat([]string{"an item"}, 90)})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := (limited{&b}).Write(line); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Message  string
		Evidence []string
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got.Evidence) != 90 || !strings.HasPrefix(got.Message, strings.Repeat("m", 8<<10)+"… (291,808 bytes more)") {
		t.Errorf("%d items, %.50q…%q: %v", len(got.Evidence), got.Message, got.Message[max(0, len(got.Message)-50):], err)
	}
}

func TestCut_ShortensAndSaysByHowMuch(t *testing.T) {
	many := func(n int) (out []any) {
		for i := range n {
			out = append(out, fmt.Sprint(i))
		}
		return out
	}
	for name, tc := range map[string]struct{ v, want any }{
		"short":              {"12345", "12345"},
		"long":               {"1234567", "12345… (2 bytes more)"},
		"within a character": {"1234é67", "1234… (3 bytes more)"},
		"number":             {json.Number("123456789"), json.Number("123456789")},
		"a list that fits":   {many(2), []any{"0", "1"}},
		"one item too many":  {many(3), []any{"0", "1", "and 1 more"}},
		"a long list":        {many(5002), []any{"0", "1", "and 5,000 more"}},
		"long items":         {[]any{"1234567"}, []any{"12345… (2 bytes more)"}},
		"a list in a map":    {map[string]any{"a": many(3)}, map[string]any{"a": []any{"0", "1", "and 1 more"}}},
		"a long name":        {map[string]any{"1234éx": "x"}, map[string]any{"1234": "x"}},
	} {
		if diff := cmp.Diff(tc.want, cut(tc.v, 5, 2)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Alerts read some fields: they stay however many others a line has, and the first others by
// name.
func TestCut_KeepsTheFieldsThatAlertsRead(t *testing.T) {
	read := []string{"time", "severity", "message", "event", "shadow_event", "logging.googleapis.com/trace", "by", "check", "state", "type", "transition", "period", "mode", "job"}
	line := map[string]any{}
	for i := range 500 {
		line[fmt.Sprintf("a%03d", i)] = "x"
	}
	want := map[string]any{"left_out": "500 fields"}
	for _, name := range read {
		line[name], want[name] = "v", "v"
	}
	if diff := cmp.Diff(want, cut(line, 100, 5)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want["left_out"] = "494 fields"
	for i := range 6 {
		want[fmt.Sprintf("a%03d", i)] = "x"
	}
	if diff := cmp.Diff(want, cut(line, 100, len(read)+6)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	delete(line, "job")
	if got := cut(line, 100, 600).(map[string]any); len(got) != len(line) || got["left_out"] != nil {
		t.Errorf("of a line that fits %d fields are left", len(got))
	}
}

func TestCount_HasCommas(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func FuzzCut_IsUTF8(f *testing.F) {
	f.Add("é<", 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if got := cut(s, max(1, n%20), 2).(string); utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
	})
}
