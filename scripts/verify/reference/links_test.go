package reference

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// page is what a Markdown file offers and refers to.
type page struct {
	anchors map[string]bool
	links   []string
	code    []string // spans and lines of blocks
}

var notOfAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// parsePage finds the links, and the anchors that GitHub gives to headings.
func parsePage(source []byte) page {
	p := page{anchors: map[string]bool{}}
	tree := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			anchor := strings.ReplaceAll(notOfAnchor.ReplaceAllString(strings.ToLower(plain(n, source)), ""), " ", "-")
			unique := anchor
			for i := 1; p.anchors[unique]; i++ {
				unique = anchor + "-" + strconv.Itoa(i)
			}
			p.anchors[unique] = true
		case *ast.Link:
			p.links = append(p.links, string(n.Destination))
		case *ast.Image:
			p.links = append(p.links, string(n.Destination))
		case *ast.CodeSpan:
			p.code = append(p.code, plain(n, source))
		case *ast.CodeBlock, *ast.FencedCodeBlock:
			for i := range n.Lines().Len() {
				line := n.Lines().At(i)
				p.code = append(p.code, strings.TrimSpace(string(line.Value(source))))
			}
		}
		return ast.WalkContinue, nil
	})
	return p
}

// plain is the text of a node without its marks.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// brokenLinks lists the links of the Markdown files below root that lead nowhere. Addresses of
// other sites are not opened.
func brokenLinks(t *testing.T, root string, files []string) (broken []string) {
	t.Helper()
	pages := map[string]page{}
	read := func(file string) page {
		if p, ok := pages[file]; ok {
			return p
		}
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		pages[file] = parsePage(source)
		return pages[file]
	}
	for _, file := range files {
		for _, link := range read(file).links {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(link, "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil || strings.HasPrefix(target, "..") {
				broken = append(broken, file+": "+link)
			} else if anchor != "" && (filepath.Ext(target) != ".md" || !read(target).anchors[anchor]) {
				broken = append(broken, file+": "+link)
			}
		}
	}
	return broken
}

const root = "../../.."

// markdown lists the project's pages, from its root.
func markdown(t *testing.T) (files []string) {
	t.Helper()
	for _, from := range []string{"*.md", "terraform/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, from))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		files[i] = strings.TrimPrefix(file, root+"/")
	}
	if len(files) < 40 {
		t.Fatalf("only %d Markdown files found", len(files))
	}
	return files
}

func TestDocs_LinksLeadSomewhere(t *testing.T) {
	files := markdown(t)
	for _, link := range brokenLinks(t, root, files) {
		t.Errorf("%s leads nowhere", link)
	}
}

func TestDocs_BrokenLinksAreFound(t *testing.T) {
	root := t.TempDir()
	write := func(file, text string) {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.md", "# A `b`, c\n\n[ok](#a-b-c) [ok](docs/b.md#same-1) [ok](docs) [ok](https://example.com/x)\n\n"+
		"| a |\n|---|\n| [gone](gone.md) |\n\n[no anchor](docs/b.md#other) ![gone](gone.png) `[code](code.md)` [above](../a.md)\n")
	write("docs/b.md", "# Same\n\n## Same\n\n[up](../a.md#nowhere)\n")
	got := strings.Join(brokenLinks(t, root, []string{"a.md", "docs/b.md"}), "\n")
	want := "a.md: gone.md\na.md: docs/b.md#other\na.md: gone.png\na.md: ../a.md\ndocs/b.md: ../a.md#nowhere"
	if got != want {
		t.Errorf("broken:\n%s\nwant:\n%s", got, want)
	}
}

var (
	// A path starts with a folder or is a file of the top level. A name with a pattern, a
	// placeholder or a part of Go's syntax is no path.
	pathForm = regexp.MustCompile(`^(?:\./)?((?:docs|functions|scripts|shared|terraform|\.ci|\.github)/[\w./-]+?)(?:/\.\.\.)?$`)
	testForm = regexp.MustCompile(`go (?:test|run \./scripts/verify/gotest).*`)
	testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
)

// Files, folders and tests that the pages name in code must exist.
func TestDocs_PathsAndTestsExist(t *testing.T) {
	paths, commands := 0, 0
	for _, file := range markdown(t) {
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range parsePage(source).code {
			before := ""
			for word := range strings.FieldsSeq(code) {
				written := before == ">" // by this command
				before = word
				m := pathForm.FindStringSubmatch(strings.Trim(word, `"',:;()`))
				if m == nil || written {
					continue
				}
				paths++
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
					t.Errorf("%s: %s does not exist", file, m[1])
				}
			}
			if command := testForm.FindString(code); command != "" {
				commands++
				if what := selectsNothing(t, command); what != "" {
					t.Errorf("%s: %s: %s", file, command, what)
				}
			}
		}
	}
	if paths < 100 || commands < 20 {
		t.Errorf("only %d paths and %d commands found", paths, commands)
	}
}

// A make command in a page has targets and variables of the Makefile.
func TestDocs_MakeCommandsExist(t *testing.T) {
	makefile, found := read(t, "Makefile"), 0
	for _, file := range markdown(t) {
		for _, code := range parsePage([]byte(read(t, file))).code {
			command, isMake := strings.CutPrefix(strings.TrimPrefix(code, "$ "), "make ")
			if !isMake {
				continue
			}
			found++
			command, _, _ = strings.Cut(command, "#")
			command, _, _ = strings.Cut(command, "&&")
			for word := range strings.FieldsSeq(command) {
				name, _, variable := strings.Cut(word, "=")
				switch {
				case variable && !strings.Contains(makefile, "$("+name+")") && !strings.Contains(makefile, "\n"+name+" ?= "):
					t.Errorf("%s: %s: the Makefile reads no %s", file, code, name)
				case !variable && word != "..." && word != `\` && !strings.HasPrefix(word, "-") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(word)+`:`).MatchString(makefile):
					t.Errorf("%s: %s: the Makefile has no target %s", file, code, word)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d commands found", found)
	}
}

// selectsNothing says which pattern of a go test command matches no test of its packages.
func selectsNothing(t *testing.T, command string) string {
	t.Helper()
	patterns, names := map[string]string{}, []string{}
	words := strings.Fields(command)
	for i, word := range words {
		switch {
		case (word == "-run" || word == "-bench" || word == "-fuzz") && i+1 < len(words):
			patterns[word] = strings.Trim(words[i+1], `'"`)
		case strings.HasPrefix(word, "./"):
			folder, all := strings.CutSuffix(word, "/...")
			var files []string
			err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() && !all && filepath.Clean(path) != filepath.Join(root, folder) {
					return filepath.SkipDir
				}
				if strings.HasSuffix(path, "_test.go") {
					files = append(files, path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				source, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range testName.FindAllStringSubmatch(string(source), -1) {
					names = append(names, m[1])
				}
			}
		}
	}
	for option, pattern := range patterns {
		if pattern == "^$" || pattern == "." || strings.ToUpper(pattern) == pattern {
			continue // none, all, or a placeholder
		}
		top, _, _ := strings.Cut(pattern, "/")
		form, err := regexp.Compile(top)
		if err != nil {
			return err.Error()
		}
		if !slices.ContainsFunc(names, form.MatchString) {
			return option + " " + pattern + " matches none of " + strconv.Itoa(len(names)) + " tests"
		}
	}
	return ""
}

// docs/README.md is the index: a page without a link there is hard to find. Pages of alerts and
// decisions have indexes of their own.
func TestDocs_IndexNamesEveryPage(t *testing.T) {
	index := parsePage([]byte(read(t, "docs/README.md")))
	for _, file := range markdown(t) {
		page, in := strings.CutPrefix(file, "docs/")
		if !in || page == "README.md" || strings.HasPrefix(page, "how-to/runbooks/") || strings.HasPrefix(page, "explanation/decisions/") {
			continue
		}
		if !slices.Contains(index.links, page) {
			t.Errorf("docs/README.md does not link to %s", page)
		}
	}
}

var (
	participantForm = regexp.MustCompile(`^participant (\w+) as \S`)
	messageForm     = regexp.MustCompile(`^(\w+)-?->>(\w+): \S`)
	noteForm        = regexp.MustCompile(`^Note over (\w+): \S`)
	nodeForm        = regexp.MustCompile(`^[\w/]+(\[\("[^"]+"\)\]|\(\["[^"]+"\]\)|\["[^"]+"\]|\(\[[^"\]]+\]\))?$`)
	arrowForm       = regexp.MustCompile(` (-- [^"]+? -->|<?-->|&) `)
)

// badDiagram returns a line of a Mermaid diagram that is not of the forms that our diagrams use. A mistake
// in one line leaves a page of GitHub without the whole diagram.
func badDiagram(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	known := map[string]bool{}
	for _, line := range lines[1:] {
		line = strings.TrimSpace(line)
		switch lines[0] {
		case "flowchart LR", "flowchart TB":
			for _, node := range strings.Split(arrowForm.ReplaceAllString(line, "\n"), "\n") {
				if !nodeForm.MatchString(node) {
					return line
				}
			}
		case "sequenceDiagram":
			if m := participantForm.FindStringSubmatch(line); m != nil {
				known[m[1]] = true
			} else if m := messageForm.FindStringSubmatch(line); m != nil {
				if !known[m[1]] || !known[m[2]] {
					return line
				}
			} else if m := noteForm.FindStringSubmatch(line); m == nil || !known[m[1]] {
				return line
			}
		case "stateDiagram-v2":
			if !transitionForm.MatchString("  " + line) {
				return line
			}
		default:
			return lines[0]
		}
	}
	return ""
}

func TestDocs_DiagramsAreMermaid(t *testing.T) {
	found := 0
	for _, file := range markdown(t) {
		for _, part := range strings.Split(read(t, file), "\n```mermaid\n")[1:] {
			found++
			text, _, _ := strings.Cut(part, "\n```")
			if line := badDiagram(text); line != "" {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d diagrams found", found)
	}
	for _, bad := range []string{"flowchart TB\n  A[\"x\" --> B", "flowchart TB\n  A -> B", "sequenceDiagram\n  participant A as x\n  A->>B: y", "stateDiagram-v2\n  a -> b", "graph\n  a --> b"} {
		if badDiagram(bad) == "" {
			t.Errorf("accepted as a diagram: %s", bad)
		}
	}
}
