package main

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestTogether_KeepsTheOrderAndItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at atomic.Int64
		got := together(2, []int{4, 3, 2, 1}, func(n int) int {
			if now := at.Add(1); now > 2 {
				t.Errorf("%d at once", now)
			}
			defer at.Add(-1)
			time.Sleep(time.Duration(n) * time.Second)
			return 10 * n
		})
		if !slices.Equal(got, []int{40, 30, 20, 10}) {
			t.Errorf("%v", got)
		}
	})
}
