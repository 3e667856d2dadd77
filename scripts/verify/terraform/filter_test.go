package terraform

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// entry is a log entry as Cloud Logging keeps it, with the fields that our filters use.
type entry struct {
	at       time.Time // when it was logged, in a replay
	Resource struct {
		Type   string            `json:"type"`
		Labels map[string]string `json:"labels"`
	} `json:"resource"`
	LogName     string         `json:"logName"`
	Severity    string         `json:"severity"`
	JSONPayload map[string]any `json:"jsonPayload"`
	HTTPRequest map[string]any `json:"httpRequest,omitempty"` // of the platform's log of requests
}

// field returns the value at a filter's path, nil if there is none.
func (e entry) field(path string) any {
	first, rest, _ := strings.Cut(path, ".")
	given := func(v string) any {
		if v == "" {
			return nil
		}
		return v
	}
	switch first {
	case "resource":
		if label, ok := strings.CutPrefix(rest, "labels."); ok {
			return given(e.Resource.Labels[label])
		}
		return given(e.Resource.Type)
	case "logName":
		return given(e.LogName)
	case "severity":
		return given(e.Severity)
	case "jsonPayload":
		return inside(e.JSONPayload, rest)
	}
	return inside(e.HTTPRequest, rest)
}

// inside returns the value at a path in a map, nil if there is none.
func inside(m map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return m[name]
	}
	below, _ := m[name].(map[string]any)
	return inside(below, rest)
}

// filter is a log filter: comparisons that must all hold.
type filter []comparison

type comparison struct {
	path, op, value string
	any             []string // alternatives to value: one of them has to be equal
}

// The filters use this part of https://cloud.google.com/logging/docs/view/logging-query-language.
// A comparison is a path, one of = != >= : and a value. The value is a quoted text, a number or a
// severity; after a colon also a star; after = also quoted texts in parentheses with OR.
var comparisonForm = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)(>=|!=|=|:)("(?:[^"\\]|\\.)*"|[0-9]+(?:\.[0-9]+)?|[A-Z]+|\*)$`)

var anyForm = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_.]*)=\(("[^"\\]*"(?: OR "[^"\\]*")*)\)$`)

var severities = []string{"DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}

// parseFilter refuses every other filter, because the tests could not evaluate it on recorded
// entries.
func parseFilter(s string) (filter, error) {
	var f filter
	for _, term := range strings.Split(s, " AND ") {
		if m := anyForm.FindStringSubmatch(term); m != nil {
			c := comparison{path: m[1], op: "="}
			for _, quoted := range strings.Split(m[2], " OR ") {
				c.any = append(c.any, strings.Trim(quoted, `"`))
			}
			f = append(f, c)
			continue
		}
		m := comparisonForm.FindStringSubmatch(term)
		if m == nil {
			return nil, fmt.Errorf("%q is no comparison by =, !=, >= or :", term)
		}
		c := comparison{path: m[1], op: m[2], value: m[3]}
		if c.op == "!=" && c.path != "logName" { // every entry has logName; a missing field never counts as unequal
			return nil, fmt.Errorf("%q: != stands after logName alone", term)
		}
		bare := c.value != "*" && c.value[0] >= 'A' && c.value[0] <= 'Z'
		switch {
		case c.value == "*" && c.op != ":":
			return nil, fmt.Errorf("%q: a star stands after : alone", term)
		case bare && (c.path != "severity" || !slices.Contains(severities, c.value)):
			return nil, fmt.Errorf("%q: %s is no severity", term, c.value)
		}
		f = append(f, c)
	}
	return f, nil
}

func (f filter) matches(e entry) bool {
	for _, c := range f {
		if !c.holds(e) {
			return false
		}
	}
	return len(f) > 0
}

// holds evaluates a comparison. With a missing field it is false.
func (c comparison) holds(e entry) bool {
	v := e.field(c.path)
	if v == nil {
		return false
	}
	if c.any != nil {
		return slices.ContainsFunc(c.any, func(value string) bool { return strings.EqualFold(fmt.Sprint(v), value) })
	}
	if c.value == "*" {
		return true
	}
	value := c.value
	if unquoted, err := strconv.Unquote(value); err == nil {
		value = unquoted
	}
	if c.path == "severity" {
		got, want := slices.Index(severities, fmt.Sprint(v)), slices.Index(severities, value)
		return got >= 0 && (c.op == "=" && got == want || c.op == ">=" && got >= want)
	}
	if n, isNumber := v.(float64); isNumber {
		want, err := strconv.ParseFloat(value, 64)
		return err == nil && (c.op == ">=" && n >= want || c.op != ">=" && n == want)
	}
	got := strings.ToLower(fmt.Sprint(v)) // Cloud Logging compares texts without regard to case
	value = strings.ToLower(value)
	switch c.op {
	case "=":
		return got == value
	case "!=":
		return got != value
	case ":":
		return strings.Contains(got, value)
	}
	return got >= value
}

func TestFilterEvaluator_MatchesCloudLogging(t *testing.T) {
	var e entry
	if err := json.Unmarshal([]byte(`{"resource":{"type":"cloud_run_revision","labels":{"service_name":"phasegate-transition"}},
		"logName":"projects/p/logs/run.googleapis.com%2Fstdout","severity":"ERROR","jsonPayload":{"event":"batch_published","seconds":300.5,"function":"transition"}}`), &e); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`severity>=ERROR`:    true,
		`severity>=WARNING`:  true,
		`severity>=CRITICAL`: false,
		`severity=ERROR`:     true,
		`severity=INFO`:      false,
		`resource.type="cloud_run_revision" AND resource.labels.service_name="phasegate-transition"`:      true,
		`resource.labels.service_name=("phasegate-health" OR "phasegate-transition") AND severity>=ERROR`: true,
		`resource.labels.service_name=("phasegate-health")`:                                               false,
		`resource.type="cloud_function" AND severity>=ERROR`:                                              false,
		`resource.labels.service_name="phasegate"`:                                                        false,
		`resource.labels.service_name:"phasegate"`:                                                        true,
		`logName="projects/p/logs/run.googleapis.com%2Fstdout"`:                                           true,
		`logName!="projects/p/logs/run.googleapis.com%2Frequests" AND severity>=ERROR`:                    true,
		`logName!="projects/p/logs/run.googleapis.com%2Fstdout"`:                                          false,
		`jsonPayload.seconds>=300`:                                                                        true,
		`jsonPayload.seconds>=300.5`:                                                                      true,
		`jsonPayload.seconds>=301`:                                                                        false,
		`jsonPayload.absent>=0`:                                                                           false,
		`jsonPayload.event:*`:                                                                             true,
		`jsonPayload.absent:*`:                                                                            false,
		`jsonPayload.event="BATCH_PUBLISHED"`:                                                             true,
		`jsonPayload.event="batch_published" AND jsonPayload.seconds>=900`:                                false,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if f.matches(e) != want {
			t.Errorf("%s: matches %v, want %v", text, !want, want)
		}
	}
}

func TestFilterEvaluator_RefusesOtherOperators(t *testing.T) {
	for _, text := range []string{
		``, `error`, `severity>ERROR`, `severity!="INFO"`, `jsonPayload.seconds!=3`, `severity<=INFO`, `NOT severity=ERROR`, `severity>=ERROR OR severity=INFO`,
		`(severity>=ERROR)`, `jsonPayload.event=~"batch.*"`, `severity>=LOUD`, `jsonPayload.event=batch_published`, `jsonPayload.event=*`,
		`severity>=ERROR AND `, `jsonPayload.seconds>=3e5`, `severity>=ERROR and severity=INFO`, `jsonPayload.event="a" "b"`,
		`jsonPayload.event=("a" AND "b")`, `jsonPayload.event=("a" OR b)`, `jsonPayload.event>=("a" OR "b")`, `("a" OR "b")`,
	} {
		if f, err := parseFilter(text); err == nil {
			t.Errorf("%q is accepted as %v", text, f)
		}
	}
}
