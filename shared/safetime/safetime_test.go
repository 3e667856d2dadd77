package safetime

import (
	"testing"
	"time"
	"unsafe"
)

func TestLeft_EndsATenthEarlyByTheStricterClock(t *testing.T) {
	began := time.Now()
	wall := began.Round(0) // has no monotonic clock
	// Of its two clocks the monotonic one, the second word of a time, shows 30 s more, or 15 s less.
	ahead := began.Add(20 * time.Second)
	behind := ahead
	(*[2]int64)(unsafe.Pointer(&ahead))[1] += int64(30 * time.Second)
	(*[2]int64)(unsafe.Pointer(&behind))[1] -= int64(15 * time.Second)
	for _, test := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"at once", began, 54 * time.Second},
		{"later", began.Add(50 * time.Second), 4 * time.Second},
		{"over", began.Add(time.Minute), -6 * time.Second},
		{"the wall clock stood still", ahead, 4 * time.Second},
		{"the monotonic clock stood still", behind, 34 * time.Second},
		// Only the wall clock is compared where one of the two has no monotonic reading.
		{"by the wall clock alone", wall.Add(50 * time.Second), 4 * time.Second},
	} {
		if got := Left(time.Minute, began, test.now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
