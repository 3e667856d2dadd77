package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md")

const cliIntro = `# phasectl

Each command with its flags, as ` + "`phasectl COMMAND --help`" + ` prints them. This page is generated:
` + "`go test ./scripts/phasectl -run Reference -update`" + `.

`

// reference is the page of every command, in the order of their names.
func reference(t *testing.T) string {
	t.Helper()
	var page bytes.Buffer
	page.WriteString(cliIntro)
	root := newRoot()
	root.DisableAutoGenTag = true
	root.InitDefaultHelpCmd()
	anchor := func(file string) string {
		return "#" + strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "_", "-")
	}
	var write func(cmd *cobra.Command)
	write = func(cmd *cobra.Command) {
		if err := doc.GenMarkdownCustom(cmd, &page, anchor); err != nil {
			t.Fatal(err)
		}
		for _, below := range cmd.Commands() {
			if below.IsAvailableCommand() && below.Name() != "help" && below.Name() != "completion" {
				write(below)
			}
		}
	}
	write(root)
	return page.String()
}

func TestReferenceOfCommands_IsWhatTheCommandsSay(t *testing.T) {
	const path = "../../docs/reference/cli.md"
	want := reference(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the commands say (%v): go test ./scripts/phasectl -run Reference -update", path, err)
	}
}
