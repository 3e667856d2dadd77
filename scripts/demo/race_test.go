//go:build race

package demo

// raced: the race detector makes the largest bill a matter of minutes.
const raced = true
