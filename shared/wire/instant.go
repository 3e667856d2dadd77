package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// instantForm is RFC 3339, and what Python's isoformat writes for a time without zone.
var instantForm = regexp.MustCompile(
	`^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?$`)

// parseInstant reads a time as processors write it, in microseconds (the rest is cut
// off) and UTC; without offset it is UTC already.
func parseInstant(s string) (time.Time, bool) {
	m := instantForm.FindStringSubmatch(s)
	if m == nil {
		return time.Time{}, false
	}
	offset := m[3]
	if offset == "" || offset == "z" {
		offset = "Z"
	}
	t, err := time.Parse(time.RFC3339Nano, m[1]+"T"+m[2]+offset)
	return t.UTC().Truncate(time.Microsecond), err == nil
}

// pythonLayout is how Python's isoformat writes a time with zone.
const pythonLayout = "2006-01-02T15:04:05.000000-07:00"

// MarshalJSON writes the instant in UTC with six digits, the rest cut off.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	u := time.Time(t).UTC()
	if y := u.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("timestamp: the year %d has not four digits", y)
	}
	return []byte(u.Format(`"` + pythonLayout + `"`)), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and any other RFC 3339 time with or
// without offset (none is UTC).
func (t *Timestamp) UnmarshalJSON(raw []byte) error {
	s, _ := asText(json.RawMessage(raw))
	u, ok := parseInstant(s)
	if !ok {
		return fmt.Errorf("%s is no RFC 3339 time", clipBytes(raw))
	}
	*t = Timestamp(u)
	return nil
}
