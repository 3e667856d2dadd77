// Command prose checks the project's English: the words of its glossary, the length of
// sentences and the form of headings.
//
//	go run ./scripts/verify/prose                     # the whole checkout, as make lint does
//	go run ./scripts/verify/prose docs shared/cycle   # these folders and files
//
// It reads Markdown, string literals and comments of Go files that are not tests, the status
// page, and the texts of Terraform. It prints one line for each problem, and then exits with 1.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	roots := os.Args[1:]
	if len(roots) == 0 {
		roots = []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "functions", "scripts", "shared", "terraform"}
	}
	problems := 0
	for _, root := range roots {
		if err := read(root, func(_, problem string) { fmt.Println(problem); problems++ }); err != nil {
			fmt.Fprintln(os.Stderr, "prose:", err)
			os.Exit(2)
		}
	}
	if problems > 0 {
		fmt.Println("problems:", problems)
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
		if path == filepath.Join("scripts", "verify", "prose", "rules.go") {
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
