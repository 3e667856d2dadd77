package safetime

import (
	"testing"
	"time"
)

func TestLeft_EndsATenthEarlyByTheStricterClock(t *testing.T) {
	began := time.Now()
	wall := began.Round(0) // has no monotonic clock
	for _, test := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"at once", began, 54 * time.Second},
		{"later", began.Add(50 * time.Second), 4 * time.Second},
		{"over", began.Add(time.Minute), -6 * time.Second},
		// Only the wall clock is compared where one of the two has no monotonic reading.
		{"by the wall clock alone", wall.Add(50 * time.Second), 4 * time.Second},
	} {
		if got := Left(time.Minute, began, test.now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
