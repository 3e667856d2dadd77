package main

import "sync"

// together does something about each of a list, several at once, and returns the results in the
// order of the list.
func together[T, R any](atOnce int, list []T, do func(T) R) []R {
	out, slots := make([]R, len(list)), make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, one := range list {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i] = do(one)
		})
	}
	all.Wait()
	return out
}
