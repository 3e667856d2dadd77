// Package dedup decides which of several rows with one natural key survives.
// It is pure: rows in, rows out.
//
// A table declares the columns by which its rows are unique, and a column that orders
// rows of one key. Of the rows of a key one survives, by one total order ([Rule.Compare]):
//
//  1. the newest by the order column; NULL is older than everything
//  2. the one with the fewest NULLs
//  3. the one whose SHA-256 of its canonical text is the smallest
//
// Rows that are equal by all three are the same row. So the outcome does not depend on
// the order in which rows come, and doing it again changes nothing.
//
// # Values
//
// nil, bool, every integer and float type, json.Number, *big.Rat, string, []byte,
// time.Time, civil.Date, civil.Time, civil.DateTime; outside of the key also []any and
// map[string]any of them. A number is its value in any type: 1, 1.0 and
// json.Number("1") are one key. A text is never a number. Times count in microseconds,
// as BigQuery keeps them.
package dedup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Row is one row by column; an absent column is NULL.
type Row = map[string]any

// Rule identifies and orders the rows of one table.
type Rule struct {
	Key     []string // columns by which rows are unique
	OrderBy string   // the newest by this column survives
	Columns []string // all columns, in the table's order
}

// Result is what is left, in the order in which it came, and what went.
type Result struct {
	Rows     []Row
	Removed  int
	Examples []Example // of the keys that had several rows, the first ones
}

// Example is a key that had several rows.
type Example struct {
	Key       string // its columns and values, for people
	Rows      int
	Identical bool // the rows differ in nothing
}

// maxExamples bounds the examples about a table in which all rows are duplicates.
const maxExamples = 5

// KeyError means that a row has no usable key.
type KeyError struct {
	Row    int // from 0
	Column string
	Value  any
}

func (e *KeyError) Error() string {
	if e.Value == nil {
		return fmt.Sprintf("row %d: key column %s is NULL", e.Row, e.Column)
	}
	return fmt.Sprintf("row %d: key column %s: %T cannot be part of a key", e.Row, e.Column, e.Value)
}

// Check returns what is wrong with the rule itself.
func (r Rule) Check() error {
	var problems []error
	has := map[string]bool{}
	for _, c := range r.Columns {
		has[c] = true
	}
	if len(r.Key) == 0 {
		problems = append(problems, errors.New("no key column is declared"))
	}
	for _, c := range r.Key {
		if !has[c] {
			problems = append(problems, fmt.Errorf("key column %q is not in the table", c))
		}
	}
	if !has[r.OrderBy] {
		problems = append(problems, fmt.Errorf("order column %q is not in the table", r.OrderBy))
	}
	return errors.Join(problems...)
}

// Apply returns the surviving rows. The error joins a [*KeyError] for each row that has
// no key, up to ten: such rows are neither kept nor dropped in silence.
func (r Rule) Apply(rows []Row) (Result, error) {
	if err := r.Check(); err != nil {
		return Result{}, err
	}
	var problems []error
	survivors := make([]int, 0, len(rows)) // by place in rows, in the order of first sight of their keys
	copies := map[int]*Example{}           // by place in survivors
	seen := newKeys(len(rows))
	for i, row := range rows {
		at, again, bad := seen.add(r, row)
		if bad != nil {
			bad.Row = i
			if problems = append(problems, bad); len(problems) == 10 {
				break
			}
			continue
		}
		if !again {
			survivors = append(survivors, i)
			continue
		}
		order := r.compare(row, rows[survivors[at]])
		if e := copies[at]; e != nil {
			e.Rows++
			e.Identical = e.Identical && order == 0
		} else {
			copies[at] = &Example{Rows: 2, Identical: order == 0}
		}
		if order < 0 {
			survivors[at] = i
		}
	}
	if len(problems) > 0 {
		return Result{}, errors.Join(problems...)
	}
	return r.result(rows, survivors, copies), nil
}

func (r Rule) result(rows []Row, survivors []int, copies map[int]*Example) Result {
	out := Result{Removed: len(rows) - len(survivors), Rows: make([]Row, 0, len(survivors))}
	for at, i := range survivors {
		if e := copies[at]; e != nil && len(out.Examples) < maxExamples {
			e.Key = r.describe(rows[i])
			out.Examples = append(out.Examples, *e)
		}
	}
	kept := make([]bool, len(rows))
	for _, i := range survivors {
		kept[i] = true
	}
	for i, row := range rows {
		if kept[i] {
			out.Rows = append(out.Rows, row)
		}
	}
	return out
}

func (r Rule) describe(row Row) string {
	var b strings.Builder
	for i, c := range r.Key {
		if i > 0 {
			b.WriteString(", ")
		}
		text, _ := appendText(nil, row[c])
		fmt.Fprintf(&b, "%s=%s", c, bytes.Trim(text, `"`))
	}
	return b.String()
}

// compare orders two rows of one key: negative when a is the right one, 0 when they are
// the same row.
func (r Rule) compare(a, b Row) int {
	if c := compareValues(b[r.OrderBy], a[r.OrderBy]); c != 0 {
		return c
	}
	if c := cmp.Compare(r.nulls(a), r.nulls(b)); c != 0 {
		return c
	}
	ha, hb := r.Hash(a), r.Hash(b)
	return bytes.Compare(ha[:], hb[:])
}

func (r Rule) nulls(row Row) int {
	n := 0
	for _, c := range r.Columns {
		if row[c] == nil {
			n++
		}
	}
	return n
}
