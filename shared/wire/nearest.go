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
		if found, d := pipeline.Nearest(name, t.Order); found != "" && d < least {
			best, least = found, d
		}
	}
	return best
}
