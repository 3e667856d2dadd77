package wire

import (
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// DidYouMean returns the processor that the transition expects whose name is most like one
// that it does not expect, "" when none is like it.
func DidYouMean(reported string, t *pipeline.Transition) string {
	class := strings.TrimSuffix(strings.TrimPrefix(reported, "Async"), "Processor")
	names := []string{strings.ToLower(reported)}
	if snake := snakeCase(class); snake != "" {
		names = append(names, snake)
	}
	best, least := "", len(reported)+1
	for _, name := range names {
		if found, d := Nearest(name, t.Order); found != "" && d < least {
			best, least = found, d
		}
	}
	return best
}

// Nearest returns the candidate with the fewest typing errors to a word, the first of
// several, and how many: two at most, and one in a short word. "" when none is like it.
func Nearest(word string, candidates []string) (nearest string, errors int) {
	most := 2
	if len(word) < 6 {
		most = 1
	}
	errors = most + 1
	for _, c := range candidates {
		if d := distance(word, c, errors); d < errors {
			nearest, errors = c, d
		}
	}
	return nearest, errors
}

// distance counts the typing errors between two words: a letter too many, one missing, one
// that is another, two that are swapped. It is limit where there are as many or more.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			other := 1
			if a[i-1] == b[j-1] {
				other = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+other)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return min(last[len(b)], limit)
}
