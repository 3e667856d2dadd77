package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type kind int

const (
	paragraph kind = iota
	heading
	literal
	comment
)

// A text is one paragraph, heading, table cell, string or comment.
type text struct {
	kind kind
	line int
	text string
}

// textsOf returns what people read in a file; of kinds of files it does not know, nothing.
func textsOf(path string) ([]text, error) {
	read := map[string]func(string, string) ([]text, error){
		".md": markdown, ".go": goFile, ".html": page, ".tf": terraform, ".tftpl": terraform,
	}[filepath.Ext(path)]
	if read == nil {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return read(path, string(data))
}

var (
	item = regexp.MustCompile(`^\s*([-*]|\d+\.)\s+`)
	rule = regexp.MustCompile(`^[|\s:-]+$`)
)

// markdown returns headings, paragraphs, list items and table cells; code blocks are no prose.
func markdown(_, content string) ([]text, error) {
	var texts []text
	var lines []string
	start, fenced := 0, false
	end := func() {
		if len(lines) > 0 {
			texts = append(texts, text{paragraph, start, strings.Join(lines, " ")})
		}
		lines = nil
	}
	for i, l := range strings.Split(content, "\n") {
		trimmed := strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(trimmed, "```"):
			end()
			fenced = !fenced
		case fenced || trimmed == "" || rule.MatchString(l) || strings.HasPrefix(l, "    ") && len(lines) == 0:
			end()
		case strings.HasPrefix(l, "#"):
			end()
			texts = append(texts, text{heading, i + 1, strings.TrimLeft(l, "# ")})
		case strings.HasPrefix(trimmed, "|"):
			end()
			for cell := range strings.SplitSeq(strings.ReplaceAll(trimmed, `\|`, "/"), "|") {
				if cell = strings.TrimSpace(cell); cell != "" {
					texts = append(texts, text{paragraph, i + 1, cell})
				}
			}
		default:
			if item.MatchString(l) {
				end()
			}
			if len(lines) == 0 {
				start = i + 1
			}
			lines = append(lines, strings.TrimSpace(item.ReplaceAllString(l, "")))
		}
	}
	end()
	return texts, nil
}

// statement finds strings that are SQL, a URL or another format rather than prose.
var statement = regexp.MustCompile(`(?m)^\s*(SELECT|WITH|MERGE|INSERT|CREATE|DELETE|UPDATE|BEGIN|--)\b|://`)

// goFile returns the string literals, concatenated ones as one, and the comments. The literals of a test
// are inputs and what is expected, except for the messages of its failures.
func goFile(path, content string) ([]text, error) {
	files, test := token.NewFileSet(), strings.HasSuffix(path, "_test.go")
	f, err := parser.ParseFile(files, path, content, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var texts []text
	add := func(e ast.Expr) bool {
		s, all := joined(e)
		all = all && strings.Contains(s, " ") && !statement.MatchString(s)
		if all {
			for paragraph := range strings.SplitSeq(s, "\n\n") {
				texts = append(texts, text{literal, files.Position(e.Pos()).Line, paragraph})
			}
		}
		return all
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.CallExpr:
			if test && fails(n) {
				add(n.Args[0])
			}
		case *ast.Field:
			n.Tag = nil
		case *ast.BinaryExpr, *ast.BasicLit:
			return test || !add(n.(ast.Expr))
		}
		return true
	})
	for _, c := range f.Comments {
		for paragraph := range strings.SplitSeq(prose(c.Text()), "\n\n") {
			texts = append(texts, text{comment, files.Position(c.Pos()).Line, strings.ReplaceAll(paragraph, "\n", " ")})
		}
	}
	return texts, nil
}

// fails reports whether a call is one of Error, Errorf, Fatal, Fatalf, and fail of a simulation, with a message.
func fails(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && len(call.Args) > 0 && slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf", "fail"}, method.Sel.Name)
}

// prose leaves out the lines of a comment that are an example or a diagram.
func prose(comment string) string {
	lines := strings.Split(comment, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "\t") || strings.HasPrefix(l, "  ") {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// joined returns the value of a literal or of literals joined by +; all is false where a
// part of it is no literal.
func joined(e ast.Expr) (s string, all bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		x, okX := joined(e.X)
		y, okY := joined(e.Y)
		return x + y, okX && okY
	}
	return "", false
}

var (
	element = regexp.MustCompile(`(?s)<style.*?</style>|\{\{.*?\}\}|<[^>]*>`)
	quoted  = regexp.MustCompile(`"((?:[^"\\]|\\.)* (?:[^"\\]|\\.)*)"`)
)

// page returns the text between the elements of an HTML template.
func page(_, content string) ([]text, error) {
	var texts []text
	plain := element.ReplaceAllStringFunc(content, func(s string) string { return "\x00" + strings.Repeat("\n", strings.Count(s, "\n")) })
	for i, l := range strings.Split(plain, "\n") {
		for s := range strings.SplitSeq(l, "\x00") {
			if s = strings.TrimSpace(s); strings.Contains(s, " ") {
				texts = append(texts, text{literal, i + 1, s})
			}
		}
	}
	return texts, nil
}

// terraform returns strings and the lines of heredocs and comments.
func terraform(_, content string) ([]text, error) {
	var texts []text
	heredoc := ""
	for i, l := range strings.Split(content, "\n") {
		trimmed := strings.TrimSpace(l)
		switch {
		case heredoc != "":
			if trimmed == heredoc {
				heredoc = ""
			} else if trimmed != "" {
				texts = append(texts, text{literal, i + 1, trimmed})
			}
		case strings.Contains(l, "<<-") || strings.Contains(l, "<<E"):
			heredoc = strings.TrimLeft(l[strings.Index(l, "<<"):], "<-")
		case strings.HasPrefix(trimmed, "#"):
			texts = append(texts, text{comment, i + 1, strings.TrimLeft(trimmed, "# ")})
		default:
			for _, m := range quoted.FindAllStringSubmatch(l, -1) {
				texts = append(texts, text{literal, i + 1, m[1]})
			}
		}
	}
	return texts, nil
}
