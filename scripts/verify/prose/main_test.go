package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCheck_FindsWhatReadersStumbleOver(t *testing.T) {
	long := strings.Repeat("word ", 31) + "end."
	for name, tc := range map[string]struct {
		kind kind
		text string
		want []string // part of each problem
	}{
		"plain":                {paragraph, "The relay publishes the batch.", nil},
		"old_word":             {paragraph, "Whoever holds the claim goes on.", []string{"Whoever", "subject is a clause"}},
		"old_phrase":           {literal, "the message comes again", []string{"is redelivered"}},
		"in_code":              {paragraph, "The field `books` is JSON, and `nobody` a name.", nil},
		"long_sentence":        {paragraph, long, []string{"a sentence of 32 words"}},
		"two_sentences":        {paragraph, strings.Repeat("word ", 20) + "end. " + strings.Repeat("word ", 20) + "end.", nil},
		"clause_as_subject":    {paragraph, "What cannot be read is unknown.", []string{"subject is a clause"}},
		"question":             {paragraph, "What happens if the answer is lost? It is read back.", nil},
		"heading_is_a_clause":  {heading, "What it does not show", []string{"is a clause"}},
		"heading_with_a_verb":  {heading, "A batch is frozen", []string{"is a clause"}},
		"heading_is_a_noun":    {heading, "Limits of the simulation", nil},
		"heading_is_a_task":    {heading, "Remove duplicate rows", nil},
		"heading_with_a_that":  {heading, "Sweeps that can be undone", nil},
		"abbreviation_no_stop": {paragraph, "Use a store, e.g. SQLite, for that.", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := check(text{tc.kind, 1, tc.text})
			if len(got) != len(tc.want) {
				t.Fatalf("%q, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestTexts_AreReadFromEachKindOfFile(t *testing.T) {
	for name, tc := range map[string]struct {
		read    func(string, string) ([]text, error)
		content string
		want    []string
	}{
		"markdown": {markdown, "# A title\n\nOne line,\nand another.\n\n- an item\n\n| a cell | two |\n|---|---|\n\n```\ncode is no prose\n```\n    indented code\n",
			[]string{"A title", "One line, and another.", "an item", "a cell", "two"}},
		"go": {goFile, "// Package x has a comment.\n//\n//\tan example\npackage x\n\nimport \"fmt\"\n\nvar a = \"two words\" + \" and more\"\nvar sql = \"SELECT a FROM b\"\nvar s = fmt.Sprint(\"one\")\n",
			[]string{"two words and more", "Package x has a comment."}},
		"page": {page, "<style>a b</style><p title=\"x\">Two words {{.X}}</p>\n<b>more words</b>", []string{"Two words", "more words"}},
		"terraform": {terraform, "# a comment here\nname = \"two words\"\ntext = <<-EOT\n  a line here\n  EOT\n",
			[]string{"a comment here", "two words", "a line here"}},
	} {
		t.Run(name, func(t *testing.T) {
			texts, err := tc.read("x", tc.content)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, x := range texts {
				if strings.TrimSpace(x.text) != "" {
					got = append(got, strings.TrimSpace(x.text))
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// The rules refuse bad text in each kind of file that people read.
func TestRead_FindsBadText(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a.md":   "# What it is\n\nThis comes again.\n",
		"b.go":   "package b\n\nvar x = \"nobody is told\"\n",
		"c.html": "<p>What is on record</p>\n",
		"d.tf":   "description = \"Whoever looks\"\n",
		"e_test.go": `package e

// It comes again.
func TestE(t *testing.T) {
	if in := "nobody, as input"; in == "" {
		t.Error("nobody was called")
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]int{}
	if err := read(dir, func(path, _ string) { found[filepath.Base(path)]++ }); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"a.md": 2, "b.go": 2, "c.html": 2, "d.tf": 2, "e_test.go": 2}; !maps.Equal(found, want) {
		t.Errorf("%v problems, want %v", found, want)
	}
}

// Emulators have no network and no quotas: a reader must not take their figures for Google Cloud's.
func TestFigures_OfEmulatorsSaySo(t *testing.T) {
	for file, header := range map[string]string{"../../../README.md": "## Cost", "../../../docs/explanation/performance.md": "# Performance and cost"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, figures, found := strings.Cut(string(b), header+"\n")
		figures, _, _ = strings.Cut(figures, "\n## Tests\n")
		if introduction, _, _ := strings.Cut(figures, "| "); !found || !strings.Contains(introduction, "of Google Cloud") {
			t.Errorf("%s does not begin with where its figures are from: %q", file, introduction)
		}
		const command = "go run ./scripts/dev/emulators"
		for _, section := range strings.Split(figures, "\n## ") {
			top, rows, _ := strings.Cut(section, "\n|---")
			for _, row := range strings.Split(rows, "\n") {
				if all := top + row; strings.HasPrefix(row, "| ") && strings.Contains(all, command) && !strings.Contains(strings.ReplaceAll(all, command, ""), "emulator") {
					t.Errorf("%s: no emulator is named: %s", file, row)
				}
			}
		}
	}
}
