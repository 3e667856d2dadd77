package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A command stands on a line of its own, indented or in a block, or between backticks. A
	// comment may follow it. Quotes are escaped in Terraform.
	commandForm = regexp.MustCompile("(?m)(?:^(?:    )?|`|= \")(phasectl [^`\\n]*?)(?: +#.*)?(?:$|`)")
	wordForm    = regexp.MustCompile(`"[^"]*"|[^" ]+`)
	places      = strings.NewReplacer("PERIOD", "2026-02-03", "MODE", "overnight", "--days N", "--days 7", "${var.project}", "my-project", "${s.topic}", "some-topic")
)

// Readers type the commands of pages and notifications, so each command must exist with its flags.
func TestDocs_CommandsExist(t *testing.T) {
	files := []string{"../../README.md", "../../CONTRIBUTING.md", "../../SECURITY.md", "../../terraform/README.md", "../../terraform/alerts.tf"}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" && filepath.Base(path) != "cli.md" { // cli.md is generated from the commands
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range commandForm.FindAllStringSubmatch(string(text), -1) {
			found++
			line := strings.TrimSuffix(m[1], `"`)
			if strings.Count(line, `"`)%2 == 1 {
				line = m[1]
			}
			words := wordForm.FindAllString(places.Replace(line), -1)[1:]
			cmd, rest, err := newRoot().Find(words)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if named := len(rest) == 0 && !strings.HasPrefix(m[0], "    "); !named { // in a sentence a command may only be named
				if err == nil {
					err = cmd.ValidateArgs(cmd.Flags().Args())
				}
				if err == nil {
					err = cmd.ValidateRequiredFlags()
				}
			}
			if err != nil || !cmd.HasParent() {
				t.Errorf("%s: %s: %v", file, line, err)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d commands found", found)
	}
}
