package pipeline

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Checks say what has to be true of the data in the warehouse before a hand-over.
// Every statement is GoogleSQL and yields one number; NULL says that it cannot be
// known. @period is the period's date.
type Checks struct {
	Timeout        time.Duration // of one query
	MaxBytesBilled int64         // of one query
	Datasets       []string      // that the statements read: what the functions are allowed to
	Tables         []CheckTable
	Expected       string // how many units of work the period should bring; "" when the pipeline cannot tell
	// ExpectedByPeriod is the same about the periods from @first to @last: a row with the
	// date and the number for each; one that is missing, or NULL, is not known. "" when
	// the pipeline cannot tell.
	ExpectedByPeriod string
	All              []Check
}

// CheckTable is a query that the statements below can name like a table.
type CheckTable struct{ Name, SQL string }

// Check is one statement with what its number means. A check that the definition
// states for every table stands here once for each.
type Check struct {
	Name       string // unique; with the processor and the column that it was made for
	SQL        string
	Modes      []string
	Processors []string // it is asked before hand-overs of one of them
	Warn       *Bound   // nil: none
	Block      *Bound   // nil: none
	Unknown    Unknown
}

// Unknown says what becomes of a hand-over when a check has no answer.
type Unknown string

// The meanings of an unknown answer.
const (
	UnknownBlocks Unknown = "block" // as a failed one
	UnknownWarns  Unknown = "warn"  // handed over, and said not to be verified
)

// MinutesCoverage is the name of the check whose number a trigger carries in the
// field of that name.
const MinutesCoverage = "minutes_coverage_pct"

// For returns the checks to be asked before a hand-over of these processors.
func (c *Checks) For(mode string, processors []string) []Check {
	var out []Check
	of := SetOf(processors)
	for _, check := range c.All {
		if slices.Contains(check.Modes, mode) && slices.ContainsFunc(check.Processors, func(p string) bool { return of[p] }) {
			out = append(out, check)
		}
	}
	return out
}

// Bound is one side of a threshold, written "< 80".
type Bound struct {
	Op    string // <, <=, > or >=
	Limit float64
}

// Crossed reports whether a number lies on the wrong side.
func (b *Bound) Crossed(v float64) bool {
	if b == nil {
		return false
	}
	switch b.Op {
	case "<":
		return v < b.Limit
	case "<=":
		return v <= b.Limit
	case ">":
		return v > b.Limit
	}
	return v >= b.Limit
}

func (b *Bound) String() string {
	if b == nil {
		return ""
	}
	return b.Op + " " + strconv.FormatFloat(b.Limit, 'f', -1, 64)
}

// maxQueryTime bounds a query: a batch's claim is not trusted for longer by default.
const maxQueryTime = 50 * time.Second

// checks reads a transition's readiness checks; of is the upstream phase.
func (v *validator) checks(path string, f *fileChecks, t *Transition, of []Processor) *Checks {
	if f == nil {
		return nil
	}
	c := &Checks{Timeout: v.atLeast(path+".timeout", f.Timeout, time.Second, "30s"), MaxBytesBilled: *f.MaxBytesBilled, Expected: f.Expected, ExpectedByPeriod: f.ByPeriod}
	if c.Timeout > maxQueryTime {
		v.add(path+".timeout", "%s is more than %s, for which a claim is good", c.Timeout, maxQueryTime)
	}
	if c.MaxBytesBilled < 1 {
		v.add(path+".max_bytes_billed", "must be positive, is %d", c.MaxBytesBilled)
	}
	c.Datasets = f.Datasets
	names := v.datasets(path+".datasets", f.Datasets)
	for _, p := range of {
		// Else {table} would name what the functions may not read.
		if dataset, _, _ := strings.Cut(p.Table, "."); t.Expects(p.Name) && dataset != "" && !names[dataset] {
			names[dataset] = true
			v.add(path+".datasets", "%q, that of %s, is missing", clip(dataset), p.Name)
		}
	}
	names = map[string]bool{}
	for i, ft := range f.Tables {
		path := fmt.Sprintf("%s.tables[%d]", path, i)
		v.name(path+".name", ft.Name)
		v.unique(path+".name", "table", ft.Name, names)
		v.statement(path+".sql", ft.SQL)
		c.Tables = append(c.Tables, CheckTable(ft))
	}
	if f.Expected != "" {
		v.statement(path+".expected", f.Expected)
	}
	if f.ByPeriod != "" {
		v.parameters(path+".expected_by_period", f.ByPeriod, []string{"@first", "@last"})
	}
	if len(f.BeforeHandOver) == 0 {
		v.add(path+".before_hand_over", "is empty")
	}
	names = map[string]bool{}
	for i, fc := range f.BeforeHandOver {
		path := fmt.Sprintf("%s.before_hand_over[%d]", path, i)
		v.name(path+".name", fc.Name)
		v.unique(path+".name", "check", fc.Name, names)
		c.All = append(c.All, v.check(path, fc, t, of)...)
	}
	v.checkedTables(path, c, t)
	return c
}

// What BigQuery allows and bills a query (https://cloud.google.com/bigquery/quotas,
// https://cloud.google.com/bigquery/pricing).
const (
	maxQueryTables = 1000
	leastBilled    = 10 << 20 // of each table
)

// checkedTables checks that one query can ask about the tables of each mode. A larger one would be
// refused at each hand-over.
func (v *validator) checkedTables(path string, c *Checks, t *Transition) {
	for _, m := range t.Modes {
		tables := map[string]bool{}
		for _, check := range c.For(m.Name, slices.Concat(m.Critical, m.Optional)) {
			if len(check.Processors) == 1 {
				tables[check.Processors[0]] = true
			}
		}
		const fix = "name fewer tables in the processors of the checks"
		switch n := len(tables); {
		case n > maxQueryTables:
			v.add(path+".before_hand_over", "asks about %d tables before a hand-over of mode %s, and one query takes %d: %s", n, m.Name, maxQueryTables, fix)
		case c.MaxBytesBilled > 0 && int64(n)*leastBilled > c.MaxBytesBilled:
			v.add(path+".max_bytes_billed", "%d is less than BigQuery bills for the %d tables of mode %s, 10 MiB each: write %d or more, or %s",
				c.MaxBytesBilled, n, m.Name, n*leastBilled, fix)
		}
	}
}

// check reads one check and states it for each table and column that it is about.
func (v *validator) check(path string, f fileCheck, t *Transition, of []Processor) []Check {
	before := len(v.problems)
	c := Check{Name: f.Name, SQL: f.SQL, Modes: f.Modes, Processors: f.Processors,
		Warn: v.bound(path+".warn", f.Warn), Block: v.bound(path+".block", f.Block),
		Unknown: Unknown(cmp.Or(f.Unknown, string(UnknownBlocks)))}
	v.oneOf(path+".unknown", string(c.Unknown), string(UnknownBlocks), string(UnknownWarns))
	if f.Warn == "" && f.Block == "" {
		v.add(path, "neither warn nor block: its answer would mean nothing")
	}
	v.distinct(path+".modes", "mode", f.Modes, func(at, name string) {
		if _, ok := t.Mode(name); !ok {
			v.add(at, "unknown mode %q%s", clip(name), DidYouMean(name, t.modeNames()))
		}
	})
	v.distinct(path+".processors", "processor", f.Processors, func(at, name string) {
		if !t.Expects(name) {
			v.add(at, "%q is expected by no mode%s", clip(name), DidYouMean(name, t.Order))
		}
	})
	if len(c.Modes) == 0 {
		c.Modes = t.modeNames()
	}
	if len(c.Processors) == 0 {
		c.Processors = t.Order
	}
	holes := v.statement(path+".sql", f.SQL, "table", "date_column", "column")
	if len(holes) == 0 {
		v.asked(path, c, t, 1, before)
		return []Check{c}
	}
	each := c.each(of, slices.Contains(holes, "column"))
	v.asked(path, c, t, len(each), before)
	for _, c := range each {
		if !v.prunes(path+".sql", c.SQL) {
			break
		}
	}
	return each
}

// each states a check for every table, or for every filled column of every table.
// Names from the definition are quoted: none can be read as anything but a name.
func (c Check) each(of []Processor, columns bool) []Check {
	var out []Check
	about := SetOf(c.Processors)
	for _, p := range of {
		if !about[p.Name] {
			continue
		}
		made := c
		made.Name, made.Processors = c.Name+"."+p.Name, []string{p.Name}
		if !columns {
			made.SQL = fill(c.SQL, p, "")
			out = append(out, made)
			continue
		}
		name := made.Name
		for _, column := range p.Filled {
			made.Name, made.SQL = name+"."+column, fill(c.SQL, p, column)
			out = append(out, made)
		}
	}
	return out
}

func fill(sql string, p Processor, column string) string {
	return strings.NewReplacer("{table}", "`"+p.Table+"`", "{date_column}", "`"+p.DateColumn+"`", "{column}", "`"+column+"`").Replace(sql)
}

// What stands in a statement and is of interest here: literals, quoted names and
// comments, which are left alone; parameters; holes to be filled; what ends one.
var sqlParts = regexp.MustCompile(`(?s)"""(?:\\.|.)*?"""|'''(?:\\.|.)*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|` + "`[^`]*`" +
	`|--[^\n]*|#[^\n]*|/\*.*?\*/|@@?\w+|\{[^{}\s]*\}|;`)

// statement checks what can be seen without the warehouse, and returns the holes.
func (v *validator) statement(path, sql string, fillable ...string) (holes []string) {
	return v.parameters(path, sql, []string{"@period"}, fillable...)
}

// parameters is statement about one that may name these parameters.
func (v *validator) parameters(path, sql string, known []string, fillable ...string) (holes []string) {
	if strings.TrimSpace(sql) == "" {
		v.add(path, "is required")
	}
	for _, part := range sqlParts.FindAllString(sql, -1) {
		switch {
		case part == ";":
			v.add(path, "holds a semicolon: it must be one query")
		case part[0] == '@' && !slices.Contains(known, part):
			v.add(path, "unknown parameter %q; there is %s", clip(part), strings.Join(known, " and "))
		case part[0] == '{':
			hole := strings.Trim(part, "{}")
			if !slices.Contains(fillable, hole) {
				v.add(path, "unknown placeholder %q", clip(part))
			}
			holes = append(holes, hole)
		}
	}
	if len(holes) == 0 { // else each statement that is made of it is checked
		v.prunes(path, sql)
	}
	return holes
}

var boundForm = regexp.MustCompile(`^(<|<=|>|>=) (-?\d{1,15}(?:\.\d{1,6})?)$`)

func (v *validator) bound(path, s string) *Bound {
	if s == "" {
		return nil
	}
	m := boundForm.FindStringSubmatch(s)
	if m == nil {
		v.add(path, `%q is no bound of the form "< 80", with <, <=, > or >=`, clip(s))
		return nil
	}
	limit, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		v.add(path, "%q: %v", clip(s), err)
	}
	return &Bound{Op: m[1], Limit: limit}
}
