package wire

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// expectedName returns the name of the processor in the transition. A report may use its
// class, its table, its output table or a former name. It returns "" for an unknown one.
func expectedName(reported json.RawMessage, outputTable string, t *pipeline.Transition) string {
	name, _ := asText(reported)
	class := strings.TrimSuffix(strings.TrimPrefix(name, "Async"), "Processor")
	for _, candidate := range []string{name, outputTable, snakeCase(class)} {
		candidate = t.Present(candidate)
		if t.Expects(candidate) {
			return candidate
		}
	}
	return ""
}

var (
	camelForm  = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	wordStart  = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	afterTitle = regexp.MustCompile(`([A-Z])([A-Z][a-z])`)
)

// snakeCase turns CamelCase into snake_case, "NBATeamV2" into "nba_team_v2"; "" for
// what is not CamelCase. It is ASCII's alone: Unicode has other letters whose lower
// case is an ASCII one, and a name that only looks right is another name.
func snakeCase(camel string) string {
	if !camelForm.MatchString(camel) {
		return ""
	}
	s := afterTitle.ReplaceAllString(camel, "${1}_${2}")
	return strings.ToLower(wordStart.ReplaceAllString(s, "${1}_${2}"))
}
