package main

import (
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
