//go:build race

package lease

// histories is how many TestHistory_IsLinearizable plays.
const histories = 200
