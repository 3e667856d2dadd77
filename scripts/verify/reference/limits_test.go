package reference

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var lineOfCode = regexp.MustCompile("\\| `([^`]+ = [^`]+)` in \\[[\\w.]+\\]\\(\\.\\./\\.\\./([\\w/.]+)\\) \\|\n")

// The code has each limit as the page quotes it.
func TestReferenceOfLimits_QuotesTheCode(t *testing.T) {
	const page = "docs/reference/limits.md"
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	limits := lineOfCode.FindAllStringSubmatch(string(text), -1)
	for _, m := range limits {
		source, err := os.ReadFile(filepath.Join(root, m[2]))
		if err != nil {
			t.Errorf("%s: %v", page, err)
			continue
		}
		found := false
		for line := range strings.Lines(string(source)) {
			code := strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimPrefix(line, "const "), "var ")), " ")
			found = found || code == m[1] || strings.HasPrefix(code, m[1]+" //")
		}
		if !found {
			t.Errorf("%s: %s has no line `%s`", page, m[2], m[1])
		}
	}
	if rows := strings.Count(string(text), "\n| ") - strings.Count(string(text), "\n|---"); rows < 20 || len(limits) < rows-8 {
		t.Errorf("%d lines of code for %d rows", len(limits), rows)
	}
}
