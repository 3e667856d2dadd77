// Command prose checks the project's English: the words of its glossary, the length of
// sentences and the form of headings.
//
//	go run ./scripts/prose                     # what make lint runs: no new problem
//	go run ./scripts/prose docs shared/cycle   # every problem of these folders and files
//
// It reads Markdown, string literals and comments of Go files that are not tests, the status
// page, and the texts of Terraform. It prints one line for each problem and exits with 1 if
// there are more problems than scripts/prose/allowed.txt allows.
package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// allowed counts the problems that each folder or file still has. A folder that is not
// listed has none. A count may only fall.
//
//go:embed allowed.txt
var allowed string

func main() {
	roots := os.Args[1:]
	limits := map[string]int{}
	if len(roots) == 0 {
		roots, limits = []string{"README.md", "docs", "functions", "scripts", "shared", "terraform"}, limitsOf(allowed)
	}
	problems := map[string][]string{} // by folder of limits
	for _, root := range roots {
		if err := read(root, func(path string, problem string) {
			key := keyOf(limits, path)
			problems[key] = append(problems[key], problem)
		}); err != nil {
			fmt.Fprintln(os.Stderr, "prose:", err)
			os.Exit(2)
		}
	}
	report, ok := judge(limits, problems)
	fmt.Print(report)
	if !ok {
		os.Exit(1)
	}
}

// read calls add for each problem in the files of a folder.
func read(root string, add func(path, problem string)) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || path != "." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if path == filepath.Join("scripts", "prose", "rules.go") {
			return nil // it has the phrases themselves
		}
		texts, err := textsOf(path)
		for _, t := range texts {
			for _, p := range check(t) {
				add(path, fmt.Sprintf("%s:%d: %s", path, t.line, p))
			}
		}
		return err
	})
}

// limitsOf reads lines of a count and a folder or file.
func limitsOf(content string) map[string]int {
	limits := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(content))
	for lines.Scan() {
		if count, path, ok := strings.Cut(lines.Text(), " "); ok {
			limits[path], _ = strconv.Atoi(count)
		}
	}
	return limits
}

// keyOf returns the longest folder or file of limits that contains path, or "".
func keyOf(limits map[string]int, path string) string {
	for p := path; p != "."; p = filepath.Dir(p) {
		if _, ok := limits[p]; ok {
			return p
		}
	}
	return ""
}

// judge lists the problems of all folders that have more of them than their limit.
func judge(limits map[string]int, problems map[string][]string) (report string, ok bool) {
	var b strings.Builder
	ok = true
	for _, key := range slices.Sorted(maps.Keys(problems)) {
		if found := problems[key]; len(found) > limits[key] {
			ok = false
			fmt.Fprintf(&b, "%s\n%d problems", strings.Join(found, "\n"), len(found))
			if key != "" {
				fmt.Fprintf(&b, " in %s, at most %d are allowed", key, limits[key])
			}
			b.WriteString("\n")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		if n := len(problems[key]); n < limits[key] {
			fmt.Fprintf(&b, "scripts/prose/allowed.txt: %s has %d problems now: lower its count of %d\n", key, n, limits[key])
		}
	}
	return b.String(), ok
}
