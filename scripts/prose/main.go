// Command prose checks the project's English: the words of its glossary, the length of
// sentences and the form of headings.
//
//	go run ./scripts/prose            # the whole checkout
//	go run ./scripts/prose docs shared/cycle
//
// It reads what people read: Markdown, string literals and comments of Go files that are not
// tests, the status page, and the texts of Terraform. It prints one line a problem and exits
// with 1 if there is one.
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
		roots = []string{"README.md", "docs", "functions", "scripts", "shared", "terraform"}
	}
	problems := 0
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
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
					fmt.Printf("%s:%d: %s\n", path, t.line, p)
					problems++
				}
			}
			return err
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "prose:", err)
			os.Exit(2)
		}
	}
	if problems > 0 {
		fmt.Printf("%d problems\n", problems)
		os.Exit(1)
	}
}
