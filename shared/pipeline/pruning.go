package pipeline

import (
	"regexp"
	"slices"
	"strings"
)

// BigQuery leaves partitions unread only if a condition compares the partition column itself with a
// constant expression. A function around the column, or a join, reads the whole table.
// https://cloud.google.com/bigquery/docs/querying-partitioned-tables
//
// The check sees names and operators only. It does not resolve aliases, so a condition on a column
// of the same name in another table satisfies it. It does not follow OR, views or arithmetic.

// sqlTokens are what a statement consists of, without spaces. A comment is one token.
var sqlTokens = regexp.MustCompile(`(?s)"""(?:\\.|.)*?"""|'''(?:\\.|.)*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|` + "`[^`]*`" +
	`|--[^\n]*|#[^\n]*|/\*.*?\*/|@@?\w+|\w+|<=|>=|<>|!=|\S`)

type sqlText []string

func tokensOf(sql string) (out sqlText) {
	for _, t := range sqlTokens.FindAllString(sql, -1) {
		if !strings.HasPrefix(t, "--") && !strings.HasPrefix(t, "#") && !strings.HasPrefix(t, "/*") {
			out = append(out, t)
		}
	}
	return out
}

// at returns a token in upper case, "" beyond the end.
func (s sqlText) at(i int) string {
	if i < 0 || i >= len(s) {
		return ""
	}
	return strings.ToUpper(s[i])
}

var sqlName = regexp.MustCompile("^(?:[A-Za-z_]\\w*|`[^`]*`)$")

// path reads the name that begins at i, such as t.`day`, and returns its parts and its end.
func (s sqlText) path(i int) (parts []string, end int) {
	for ; sqlName.MatchString(s.at(i)); i++ {
		parts = append(parts, strings.Split(strings.Trim(s[i], "`"), ".")...)
		if s.at(i+1) != "." {
			return parts, i + 1
		}
		i++
	}
	return parts, i
}

var (
	comparisons = []string{"=", "<", "<=", ">", ">=", "BETWEEN", "IN"}
	mirrored    = []string{"=", "<", "<=", ">", ">="}
	// What stands before a condition, and what ends one.
	openers = []string{"WHERE", "AND", "ON", "("}
	enders  = []string{"", "AND", "OR", ")", "GROUP", "ORDER", "LIMIT", "QUALIFY", "HAVING", "UNION", "WINDOW", "LEFT", "RIGHT", "INNER", "CROSS", "FULL", "JOIN", ","}
)

// constant reports whether the side of a comparison that begins at i names a parameter or a
// literal, and no query; parameters: only a parameter will do.
func (s sqlText) constant(i int, parameters bool) bool {
	found := false
	for depth := 0; depth > 0 || !slices.Contains(enders, s.at(i)); i++ {
		switch t := s.at(i); {
		case t == "", t == "SELECT":
			return false
		case t == "(":
			depth++
		case t == ")":
			depth--
		case t[0] == '@', !parameters && (t[0] == '\'' || t[0] == '"' || strings.HasPrefix(t, "CURRENT_")):
			found = true
		}
	}
	return found
}

// value is constant about the token before a comparison that stands at i.
func (s sqlText) value(i int) bool {
	t := s.at(i - 1)
	return t != "" && (t[0] == '@' || t[0] == '\'' || t[0] == '"' || t == ")")
}

// filters reports whether what stands at i is part of a condition by which rows are chosen, and of
// no function in it.
func (s sqlText) filters(i int) bool {
	depth := 0
	for i--; i >= 0; i-- {
		switch t := s.at(i); {
		case t == ")":
			depth++
		case t == "(" && depth > 0:
			depth--
		case depth > 0:
		case t == "(":
			if f := s.at(i - 1); sqlName.MatchString(f) && !slices.Contains([]string{"WHERE", "AND", "ON", "OR", "NOT"}, f) {
				return false
			}
		case t == "WHERE", t == "ON":
			return true
		case t == "SELECT", t == "HAVING", t == "QUALIFY", t == "BY":
			return false
		}
	}
	return false
}

// bounded returns the columns, in lower case, that a condition compares with a constant.
func (s sqlText) bounded() map[string]bool {
	out := map[string]bool{}
	for i := range s {
		if s.at(i-1) == "." {
			continue
		}
		parts, end := s.path(i)
		if len(parts) == 0 {
			continue
		}
		compared := slices.Contains(openers, s.at(i-1)) && slices.Contains(comparisons, s.at(end)) && s.constant(end+1, false) ||
			slices.Contains(mirrored, s.at(i-1)) && slices.Contains(enders, s.at(end)) && s.value(i-1)
		if compared && s.filters(i) {
			out[strings.ToLower(parts[len(parts)-1])] = true
		}
	}
	return out
}

// wrapped returns the columns that a condition passes to a function whose result it compares with a
// parameter, each with the function.
func (s sqlText) wrapped() (out [][2]string) {
	for i := range s {
		if s.at(i+1) != "(" || !sqlName.MatchString(s[i]) {
			continue
		}
		column := i + 2
		for s.at(column+1) == "(" { // DATE(TIMESTAMP(day))
			column += 2
		}
		parts, _ := s.path(column)
		end, depth := i+2, 1
		for ; depth > 0 && end < len(s); end++ {
			switch s[end] {
			case "(":
				depth++
			case ")":
				depth--
			}
		}
		compared := slices.Contains(comparisons, s.at(end)) && s.constant(end+1, true) ||
			slices.Contains(mirrored, s.at(i-1)) && strings.HasPrefix(s.at(i-2), "@")
		if len(parts) > 0 && compared && s.filters(i) {
			out = append(out, [2]string{s[i], parts[len(parts)-1]})
		}
	}
	return out
}

// reads reports whether a statement names a table behind FROM or JOIN.
func (s sqlText) reads(table string) bool {
	for i := range s {
		if t := s.at(i); t != "FROM" && t != "JOIN" {
			continue
		}
		if parts, _ := s.path(i + 1); strings.HasSuffix("."+strings.Join(parts, "."), "."+table) {
			return true
		}
	}
	return false
}

// prunes refuses a statement that reads all partitions of a table, as far as names and operators
// show it. It reports whether the statement is fine.
func (v *validator) prunes(path, sql string) bool {
	s := tokensOf(sql)
	bounded, before := s.bounded(), len(v.problems)
	for _, p := range v.tables {
		if p.Partition != PartitionNone && s.reads(p.Table) && !bounded[strings.ToLower(p.DateColumn)] {
			v.add(path, "reads %s without a condition on its partition column %s itself, so BigQuery reads the whole table: compare the bare column with a constant, such as %[2]s = @period", p.Table, p.DateColumn)
		}
	}
	for _, w := range s.wrapped() {
		if !bounded[strings.ToLower(w[1])] {
			v.add(path, "a condition wraps %s in %s, so BigQuery reads the whole table if %[1]s is its partition column. Add a wider range of the bare column, "+
				"such as %[1]s >= TIMESTAMP_SUB(TIMESTAMP(@first), INTERVAL 1 DAY) AND %[1]s < TIMESTAMP_ADD(TIMESTAMP(@last), INTERVAL 2 DAY)", w[1], w[0])
		}
	}
	return len(v.problems) == before
}
