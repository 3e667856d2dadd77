//go:build race

package lease

// histories is how many TestHistoriesAreLinearizable plays.
const histories = 200
