package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// page is the text of an answer. Everything that is written on it is shown without control
// characters. The rows of a table are aligned; the details of a row stand on lines of their own.
type page struct {
	zone     *time.Location
	coloured bool

	b    strings.Builder
	rows []pageRow // of the table that is being written, its head first
	omit bool      // a table without rows is left out
	none string    // the line in its place
}

type pageRow struct {
	cells   []string
	details []string
}

// line writes a line of its own, and ends a table.
func (p *page) line(format string, args ...any) {
	p.endTable()
	p.b.WriteString(plain(fmt.Sprintf(format, args...)) + "\n")
}

// title is a line after an empty one.
func (p *page) title(format string, args ...any) {
	p.endTable()
	p.b.WriteString("\n")
	p.line(format, args...)
}

// table begins a table.
func (p *page) table(head ...string) {
	p.endTable()
	p.rows = []pageRow{{cells: head}}
}

// listing begins a table that is left out if it has no rows; the line none stands in its place.
func (p *page) listing(none string, head ...string) {
	p.table(head...)
	p.omit, p.none = true, none
}

// row adds a row to the table.
func (p *page) row(cells ...string) {
	for i, c := range cells {
		cells[i] = plain(c)
	}
	p.rows = append(p.rows, pageRow{cells: cells})
}

// detail adds a line below the last row.
func (p *page) detail(format string, args ...any) {
	r := &p.rows[len(p.rows)-1]
	r.details = append(r.details, plain(fmt.Sprintf(format, args...)))
}

func (p *page) at(t time.Time) string { return localTime(p.zone, t) }

func (p *page) endTable() {
	rows, omit := p.rows, p.omit
	p.rows, p.omit = nil, false
	if omit && len(rows) == 1 { // its head
		if p.none != "" {
			p.line("%s", p.none)
		}
		return
	}
	var widths []int
	for _, r := range rows {
		for i, c := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, r := range rows {
		var line strings.Builder
		for i, c := range r.cells {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2)
			if i == len(r.cells)-1 {
				gap = ""
			}
			line.WriteString(p.paint(c, n == 0) + gap)
		}
		p.b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		for _, d := range r.details {
			p.b.WriteString("    " + d + "\n")
		}
	}
}

// colours of words that say how a thing is: red, yellow and green.
var colours = map[string]string{
	"failing": "31", "overdue": "31", "critical": "31", "leaked": "31", "bad": "31", "fail": "31", "refused": "31",
	"unknown": "33", "blocked": "33", "on_hold": "33", "warning": "33", "expired": "33", "warn": "33", "open": "33",
	"ok": "32", publishedWithoutAll: "33", "published": "32", "pass": "32", "fixed": "32", "accepted": "32", "discarded": "32",
}

func (p *page) paint(word string, head bool) string {
	colour := colours[word]
	if head {
		colour = "1"
	}
	if !p.coloured || colour == "" {
		return word
	}
	return "\x1b[" + colour + "m" + word + "\x1b[0m"
}

// writeTo writes the page.
func (p *page) writeTo(w io.Writer) error {
	p.endTable()
	_, err := io.WriteString(w, p.b.String())
	return err
}

// heading names what an answer is about: project, pipeline and environment.
func heading(c app.Config, p *pipeline.Pipeline) string {
	where := "Google Cloud"
	if c.Local || c.PubSubHost != "" || c.BigQueryHost != "" {
		where = "this machine"
	}
	if c.Prefix != "" {
		where += ", prefix " + c.Prefix
	}
	if c.Shadow != "" {
		where += ", shadow"
	}
	return fmt.Sprintf("project %s, pipeline %s, environment %s", c.Project, p.Name, where)
}

// localTime is an instant on the pipeline's clock; an unknown one is a dash.
func localTime(zone *time.Location, t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.In(zone).Format("2006-01-02 15:04:05 MST")
}

// quoted shows names as reported without letting them write to the terminal.
func quoted(names ...string) string {
	out := slices.Clone(names)
	for i, n := range out {
		if q := fmt.Sprintf("%q", n); q != `"`+n+`"` {
			out[i] = q
		}
	}
	return strings.Join(out, ", ")
}

// plain shows text that others may have written without letting it steer the terminal, in
// one line: errors that were joined are several.
func plain(s string) string {
	s = strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
