package pipeline

import (
	"fmt"
	"strings"
	"testing"
)

// An anchor can contain itself in a place that the decoder skips, such as a field of another
// type. The walk over the numbers would follow it without end.
func TestParse_RefusesAnchorsThatContainThemselves(t *testing.T) {
	for name, definition := range map[string]string{
		"list for a text":  "schema: 1\nname: &a [*a]\n",
		"list for a map":   "schema: 1\nhealth: &a [*a]\n",
		"merged":           "schema: 1\nhealth: &a {<<: *a}\n",
		"merged in a list": "schema: 1\nhealth: &a {<<: [*a]}\n",
		"through another":  "schema: 1\nhealth: &a [&b [*a, *b]]\n",
		"unknown field":    "schema: 1\nother: &a [*a]\n",
		"whole":            "&a [*a]\n",
	} {
		_, err := Parse([]byte(definition))
		if err == nil || !strings.Contains(err.Error(), "contains itself: remove the alias *") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Thirty lines can stand for a thousand million values.
func TestParse_RefusesAliasesThatMultiply(t *testing.T) {
	bomb := "&a0 [0]"
	for i := range 30 {
		bomb = fmt.Sprintf("&a%d [%s, *a%d, *a%d]", i+1, bomb, i, i)
	}
	for name, field := range map[string]string{"text": "name", "section": "health", "list": "transitions", "unknown": "other"} {
		_, err := Parse([]byte("schema: 1\n" + field + ": " + bomb + "\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2: aliases make more than 1000000 values of this") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParse_TakesAnchors(t *testing.T) {
	definition, _ := change(t, "key: [game_date, player_lookup]", "key: &key [game_date, player_lookup]",
		"key: [game_date, player_lookup]", "key: *key", "key: [game_date, player_lookup]", "key: *key")
	if _, err := Parse([]byte(definition)); err != nil {
		t.Error(err)
	}
}
