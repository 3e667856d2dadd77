package wire_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// published is when the messages of these tests were published.
var published = time.Date(2026, 2, 4, 11, 3, 13, 456_789_123, time.UTC)

// nba returns the default pipeline's transition.
func nba(t testing.TB) *pipeline.Transition {
	t.Helper()
	return parse(t, string(pipeline.Default()))
}

func parse(t testing.TB, definition string) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	return p.Transitions[0]
}

// delivered returns a delivery with that data.
func delivered(data string) wire.Envelope {
	return wire.Envelope{MessageID: "987", PublishTime: published, Data: []byte(data)}
}

// report returns a completion's JSON with the required fields and further ones, which
// replace them.
func report(extra ...string) string {
	fields := append([]string{
		`"processor_name":"player_game_summary"`, `"game_date":"2026-02-03"`, `"status":"success"`,
	}, extra...) // of two equal keys the last counts
	return "{" + strings.Join(fields, ",") + "}"
}

func decode(t *testing.T, data string) (wire.Completion, []wire.Warning) {
	t.Helper()
	c, warnings, err := wire.DecodeCompletion(delivered(data), nba(t))
	if err != nil {
		t.Fatalf("%.300s: %v", data, err)
	}
	return c, warnings
}

// wantPermanent checks that an error is permanent, names the field and has all parts
// in its text.
func wantPermanent(t *testing.T, err error, field string, parts ...string) {
	t.Helper()
	var p *wire.PermanentError
	if !errors.As(err, &p) {
		t.Fatalf("error %v is no PermanentError", err)
	}
	if p.Field != field {
		t.Errorf("error %q names field %q, want %q", err, p.Field, field)
	}
	for _, part := range append(parts, field) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
	if len(p.Value) > 200 {
		t.Errorf("value of %d bytes is not clipped", len(p.Value))
	}
}

// wantWarnings compares warnings written as "field: part of the value".
func wantWarnings(t *testing.T, got []wire.Warning, want ...string) {
	t.Helper()
	var have []string
	for i, w := range got {
		value := w.Value
		if i < len(want) {
			if _, part, ok := strings.Cut(want[i], ": "); ok && strings.Contains(value, part) {
				value = part
			}
		}
		have = append(have, w.Field+": "+value)
		if w.Problem == "" || len(w.Value) > 200 {
			t.Errorf("warning %+v has no problem or a long value", w)
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// golden compares with a file in testdata, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(testdata(t, name)), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPermanentError_NamesFieldAndValue(t *testing.T) {
	err := fmt.Errorf("decode: %w", &wire.PermanentError{Field: "status", Value: `"done"`, Problem: "is unknown"})
	if got, want := err.Error(), `decode: status: is unknown ("done")`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStatus_OnlySuccessAndPartialCount(t *testing.T) {
	counts := map[wire.Status]bool{
		wire.StatusSuccess: true, wire.StatusPartial: true,
		wire.StatusFailed: false, wire.StatusNoData: false, wire.StatusSkipped: false, "": false,
	}
	for status, want := range counts {
		if status.Counts() != want {
			t.Errorf("%q counts: %v, want %v", status, !want, want)
		}
	}
}
