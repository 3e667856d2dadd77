package wire_test

import (
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// Published at 11:03:13 UTC, which is 06:03:13 in New York and 12:03:13 in Berlin.
func TestDecodeCompletion_MarksATimestampThatLooksLikeLocalTime(t *testing.T) {
	for name, tc := range map[string]struct {
		timestamp string
		zone      string // "" is the pipeline's own, America/New_York
		local     bool
	}{
		"local, a moment ago":           {"2026-02-04T06:03:12.5", "", true},
		"local, with a space":           {"2026-02-04 06:03:12", "", true},
		"local, 15 minutes ago":         {"2026-02-04T05:48:14", "", true},
		"local, more than that ago":     {"2026-02-04T05:48:13", "", false},
		"local, of a clock that is off": {"2026-02-04T06:18:13", "", true},
		"UTC, a moment ago":             {"2026-02-04T11:03:12", "", false},
		"UTC, five hours ago":           {"2026-02-04T06:03:12Z", "", false},
		"with the offset":               {"2026-02-04T06:03:12-05:00", "", false},
		"absent":                        {"", "", false},
		"local east of UTC":             {"2026-02-04T12:03:12", "Europe/Berlin", true},
		"UTC east of UTC":               {"2026-02-04T11:03:12", "Europe/Berlin", false},
		"local is UTC":                  {"2026-02-04T11:03:12", "Europe/London", false},
	} {
		tr := nba(t)
		if tc.zone != "" {
			tr = inZone(t, tc.zone)
		}
		c, _, err := wire.DecodeCompletion(delivered(report(`"timestamp":"`+tc.timestamp+`"`)), tr)
		if err != nil || c.LocalTime != tc.local {
			t.Errorf("%s: local time %t, want %t: %v", name, c.LocalTime, tc.local, err)
		}
	}
}

// A report that is sent again is published at another time; it is the same run.
func TestRecord_TheSameReportHasOneKeyWhetherItsTimeLooksLocalOrNot(t *testing.T) {
	data := report(`"timestamp":"2026-02-04T06:03:12"`, `"execution_id":"run-1"`)
	first, _ := decode(t, data)
	later := delivered(data)
	later.PublishTime = later.PublishTime.Add(2 * 3600e9)
	second, _, err := wire.DecodeCompletion(later, nba(t))
	if err != nil || !first.LocalTime || second.LocalTime {
		t.Fatalf("local time %t and %t: %v", first.LocalTime, second.LocalTime, err)
	}
	a, value := first.Record()
	if b, _ := second.Record(); a != b {
		t.Errorf("keys %s and %s", a, b)
	}
	if back, err := wire.ParseCompletion(value); err != nil || !back.LocalTime {
		t.Errorf("%+v: %v", back, err)
	}
}

// inZone returns the transition of the default pipeline in another zone.
func inZone(t *testing.T, zone string) *pipeline.Transition {
	t.Helper()
	definition := strings.Replace(string(pipeline.Default()), "time_zone: America/New_York", "time_zone: "+zone, 1)
	return parse(t, definition)
}
