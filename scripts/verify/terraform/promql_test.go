package terraform

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// This is a small evaluator of the part of PromQL that the alerts' queries use. Monitoring counts a
// metric of kind DELTA exactly: increase() is the sum of the points in its window.
// https://docs.cloud.google.com/monitoring/promql

// point is a value of a time series: a count of one moment, or a gauge.
type point struct {
	at    time.Time
	value float64
}

// series are the points of one set of labels, in the order of their times.
type series struct {
	labels map[string]string
	points []point
}

// metrics are the series of each metric, by the name that PromQL gives it and by their labels.
type metrics map[string]map[string]*series

func (m metrics) add(name string, labels map[string]string, at time.Time, value float64) {
	if m[name] == nil {
		m[name] = map[string]*series{}
	}
	key := fmt.Sprint(labels)
	if m[name][key] == nil {
		m[name][key] = &series{labels: labels}
	}
	s := m[name][key]
	s.points = append(s.points, point{at, value})
}

// vector is the result of an expression at a moment, by the labels of its elements.
type vector map[string]element

type element struct {
	labels map[string]string
	value  float64
}

type expression func(metrics, time.Time) vector

// promql parses a query. It panics at syntax that it does not know.
func promql(query string) expression {
	p := &promParser{tokens: promToken.FindAllString(query, -1)}
	if rest := strings.TrimSpace(promToken.ReplaceAllString(query, "")); rest != "" {
		panic(fmt.Sprintf("%q: %q is unknown", query, rest))
	}
	e := p.or()
	if len(p.tokens) > 0 {
		panic(fmt.Sprintf("%q: what comes after the expression: %q", query, p.tokens))
	}
	return e
}

var promToken = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[A-Za-z_:][A-Za-z0-9_:]*|[0-9.]+[a-z]*|=~|!=|[=<>(){}\[\],/]`)

type promParser struct{ tokens []string }

func (p *promParser) take() string {
	if len(p.tokens) == 0 {
		panic("the query ends too early")
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *promParser) is(t string) bool {
	if len(p.tokens) > 0 && p.tokens[0] == t {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *promParser) want(t string) {
	if got := p.take(); got != t {
		panic(fmt.Sprintf("%q instead of %q", got, t))
	}
}

func (p *promParser) or() expression {
	left := p.and()
	for p.is("or") {
		l, r := left, p.and()
		left = func(m metrics, at time.Time) vector {
			out := maps.Clone(r(m, at))
			maps.Copy(out, l(m, at))
			return out
		}
	}
	return left
}

func (p *promParser) and() expression {
	left := p.comparison()
	for p.is("and") {
		l, r := left, p.comparison()
		left = func(m metrics, at time.Time) vector {
			out, both := vector{}, r(m, at)
			for key, e := range l(m, at) {
				if _, ok := both[key]; ok {
					out[key] = e
				}
			}
			return out
		}
	}
	return left
}

func (p *promParser) comparison() expression {
	left := p.quotient()
	for _, op := range []string{">", "<"} {
		if p.is(op) {
			l, limit := left, p.number()
			return func(m metrics, at time.Time) vector {
				out := l(m, at)
				maps.DeleteFunc(out, func(_ string, e element) bool {
					return op == ">" && e.value <= limit || op == "<" && e.value >= limit || math.IsNaN(e.value)
				})
				return out
			}
		}
	}
	return left
}

func (p *promParser) number() float64 {
	n, err := strconv.ParseFloat(p.take(), 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (p *promParser) quotient() expression {
	left := p.operand()
	for p.is("/") {
		l, r := left, p.operand()
		left = func(m metrics, at time.Time) vector {
			out, by := vector{}, r(m, at)
			for key, e := range l(m, at) {
				if d, ok := by[key]; ok {
					out[key] = element{e.labels, e.value / d.value}
				}
			}
			return out
		}
	}
	return left
}

func (p *promParser) operand() expression {
	switch t := p.take(); t {
	case "(":
		e := p.or()
		p.want(")")
		return e
	case "vector":
		p.want("(")
		n := p.number()
		p.want(")")
		return func(metrics, time.Time) vector {
			return vector{fmt.Sprint(map[string]string{}): {map[string]string{}, n}}
		}
	case "sum", "max":
		return p.aggregate(t)
	case "increase":
		p.want("(")
		name, matches := p.selector(p.take())
		p.want("[")
		window, err := time.ParseDuration(p.take())
		if err != nil {
			panic(err)
		}
		p.want("]")
		p.want(")")
		return each(name, matches, func(points []point, at time.Time) (sum float64, ok bool) {
			for _, x := range after(points, at.Add(-window)) {
				if !x.at.After(at) {
					sum, ok = sum+x.value, true
				}
			}
			return sum, ok
		})
	default:
		name, matches := p.selector(t)
		return each(name, matches, func(points []point, at time.Time) (last float64, ok bool) {
			for _, x := range after(points, at.Add(-5*time.Minute)) {
				if !x.at.After(at) {
					last, ok = x.value, true
				}
			}
			return last, ok
		})
	}
}

// after returns the points after a moment.
func after(points []point, at time.Time) []point {
	return points[sort.Search(len(points), func(i int) bool { return points[i].at.After(at) }):]
}

// each gives a value to every series of a metric that matches.
func each(name string, matches func(map[string]string) bool, value func([]point, time.Time) (float64, bool)) expression {
	return func(m metrics, at time.Time) vector {
		out := vector{}
		for key, s := range m[name] {
			if v, ok := value(s.points, at); ok && matches(s.labels) {
				out[key] = element{s.labels, v}
			}
		}
		return out
	}
}

func (p *promParser) selector(name string) (string, func(map[string]string) bool) {
	var all []func(map[string]string) bool
	p.want("{")
	for !p.is("}") {
		label, op := p.take(), p.take()
		value, err := strconv.Unquote(p.take())
		if err != nil {
			panic(err)
		}
		form := regexp.MustCompile("^(?:" + value + ")$")
		all = append(all, func(labels map[string]string) bool {
			switch got := labels[label]; op {
			case "=":
				return got == value
			case "!=":
				return got != value
			case "=~":
				return form.MatchString(got)
			}
			panic("operator " + op)
		})
		p.is(",")
	}
	return name, func(labels map[string]string) bool {
		return !slices.ContainsFunc(all, func(match func(map[string]string) bool) bool { return !match(labels) })
	}
}

func (p *promParser) aggregate(kind string) expression {
	var by []string
	if p.is("by") {
		p.want("(")
		for !p.is(")") {
			by = append(by, p.take())
			p.is(",")
		}
	}
	p.want("(")
	of := p.or()
	p.want(")")
	return func(m metrics, at time.Time) vector {
		out := vector{}
		for _, e := range of(m, at) {
			labels := map[string]string{}
			for _, l := range by {
				labels[l] = e.labels[l]
			}
			key := fmt.Sprint(labels)
			switch have, ok := out[key]; {
			case !ok:
				out[key] = element{labels, e.value}
			case kind == "sum":
				out[key] = element{labels, have.value + e.value}
			default:
				out[key] = element{labels, max(have.value, e.value)}
			}
		}
		return out
	}
}

func TestPromQL_EvaluatorKnowsTheAlertsQueries(t *testing.T) {
	start := time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)
	m := metrics{}
	for minute := range 20 {
		at := start.Add(time.Duration(minute) * time.Minute)
		m.add("requests", map[string]string{"service": "a", "class": "2xx"}, at, 3)
		if minute >= 10 {
			m.add("requests", map[string]string{"service": "a", "class": "5xx"}, at, 1)
		}
		m.add("age", map[string]string{"service": "b"}, at, float64(minute))
	}
	for query, want := range map[string]map[int]bool{ // minute: has a result
		`sum by (service) (increase(requests{class="5xx"}[600s])) > 5`:                                                                   {9: false, 15: true, 29: false},
		`sum by (service) (increase(requests{class="5xx"}[600s])) / sum by (service) (increase(requests{class=~"2xx|5xx"}[600s])) > 0.2`: {11: false, 19: true, 25: true, 31: false},
		`sum(increase(requests{class!="5xx"}[120s])) > 7 and sum(increase(requests{class="5xx"}[60s])) > 0`:                              {5: false, 15: false},
		`(sum(increase(requests{service="c"}[60s])) or vector(0)) < 0.5`:                                                                 {0: true, 15: true},
		`(sum(increase(requests{class="2xx"}[60s])) or vector(0)) < 0.5`:                                                                 {0: false, 19: false, 20: true},
		`max by (service) (age{service="b"}) > 8 or max by (service) (age{service="b"}) > 15`:                                            {8: false, 9: true, 23: true, 24: false},
		`sum by (service) (increase(requests{class="2xx"}[60s])) > 2 and sum by (service) (increase(requests{class="5xx"}[60s])) > 0`:    {5: false, 12: true},
	} {
		e := promql(query)
		for minute, has := range want {
			if got := e(m, start.Add(time.Duration(minute)*time.Minute)); (len(got) > 0) != has {
				t.Errorf("%s: at minute %d: %v", query, minute, got)
			}
		}
	}
	for _, query := range []string{`rate(requests{}[60s])`, `a{} * 2`, `sum by (x) (increase(a{}[60s]))) > 0`, `increase(a{b<"c"}[60s])`, `a{} > `} {
		func() {
			defer func() { _ = recover() }()
			promql(query)(metrics{"a": {"": {labels: map[string]string{}, points: []point{{start, 1}}}}}, start)
			t.Errorf("%s is accepted", query)
		}()
	}
	p := planned(t, nil)
	for _, policy := range p.some("google_monitoring_alert_policy") {
		for _, c := range conditions(policy) {
			if q := text(c, "condition_prometheus_query_language", "0", "query"); q != "" {
				promql(q)
			}
		}
	}
}
