package pipeline

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// everyKey is a definition in which every key stands, in the first element of each list.
const everyKey = `
schema: 1
name: shop
time_zone: Europe/Berlin
calendar: day
kinds: {store: stores}
phases:
  - name: two
    service: shop-two
    guard:
      scope: shop-guarded
      paths: [/process]
      success: [200, 204]
      success_json: {status: [completed]}
      ttl: 11m
      limit: 50m
      cooldown: true
      on_lost: kill
      unkeyed: refuse
      serial: {sales: [TurnoverProcessor]}
    processors:
      - name: totals
        formerly: [turnover]
        kind: store
        class: TurnoverProcessor
        table: shop.totals
        date_column: day
        key: [day, store]
        order_by: written_at
        partition: none
        filled: [amount]
        duplicates: remove
  - name: one
    processors:
      - {name: sales, kind: store, table: shop.sales, date_column: day, key: [day, store], order_by: written_at}
      - {name: returns, kind: store, table: shop.returns, date_column: day, key: [day, store], order_by: written_at}
transitions:
  - id: one_to_two
    formerly: [first_to_second]
    upstream: {phase: one, topic: shop-one-complete, replaces: [shop-one-complete-before]}
    downstream: {phase: two, topic: shop-two-trigger, triggered_by: shop, parent_processor: Shop, order: [sales, returns]}
    compatibility_collection: shop_completion
    trigger_within: 72h
    managed_since: "2026-02-01"
    hand_over: {warn: 5m, critical: 15m}
    modes:
      - name: late
        formerly: [night]
        event: after
        critical: [sales]
        optional: [returns]
        complete: all
        grace: {quorum_pct: 50, after: 30m}
        counts_from: "18:00"
        accept_earlier: [returns]
        not_before: "+1d 05:00"
        deadline: "+1d 10:00"
        at_deadline: hand_over
        second_runs: resend_if_changed
        second_runs_every: 5m
    checks:
      timeout: 30s
      max_bytes_billed: 1000000000
      datasets: [shop]
      tables: [{name: opening, sql: SELECT store FROM shop.opening WHERE day = @period}]
      expected: SELECT COUNT(*) FROM opening
      expected_by_period: SELECT day, COUNT(*) FROM shop.opening WHERE day BETWEEN @first AND @last GROUP BY day
      before_hand_over:
        - {name: rows, sql: SELECT COUNT(*) FROM opening, modes: [late], processors: [sales], warn: "< 9", block: "< 1", unknown: warn}
health:
  datasets: [shop]
  upstream: {sql: "SELECT name, day, at FROM shop.loads WHERE day BETWEEN @first AND @last", expected_by: "08:00", failing_after: "10:00"}
  runs: SELECT name, day, id, began, ended FROM shop.runs WHERE day BETWEEN @first AND @last
  digest_at: "11:00"
  unseen_days: 2
  slo_pct: 95
  maintenance: [{from: "2026-07-01", to: "2026-07-03", reason: tables move}]
schedules:
  - {name: relay, cron: "*/5 * * * *", function: reconcile, job: relay}
`

// place splits the path of a key, or of what a problem is about, for set.
func place(path string) []string {
	return strings.FieldsFunc(strings.ReplaceAll(path, "[]", "[0]"), func(r rune) bool { return strings.ContainsRune(".[]", r) })
}

// set puts what change makes of it in place of the value at a path; nil removes it.
func set(node any, path []string, change func(any) any) any {
	if len(path) == 0 {
		return change(node)
	}
	switch n := node.(type) {
	case map[string]any:
		if n[path[0]] = set(n[path[0]], path[1:], change); n[path[0]] == nil {
			delete(n, path[0])
		}
	case []any:
		i, _ := strconv.Atoi(path[0])
		if n[i] = set(n[i], path[1:], change); n[i] == nil {
			return slices.Delete(n, i, i+1)
		}
	}
	return node
}

// parsed reads a changed definition: what it comes to, but for its hash, and the problems.
func parsed(t *testing.T, definition any) (*Pipeline, []string) {
	t.Helper()
	data, err := yaml.Marshal(definition)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(data)
	if err != nil {
		return nil, strings.Split(strings.TrimPrefix(err.Error(), "pipeline definition: "), "\n")
	}
	p.Hash, p.Defaults = "", nil
	for _, tr := range p.Transitions {
		tr.definition = ""
	}
	return p, nil
}

var (
	saidDefault = regexp.MustCompile(`Default: (.*)`)
	oneWord     = regexp.MustCompile(`^[a-z0-9_:]+$`)
	ofSome      = regexp.MustCompile(`is not one of (.*)$`)
	ofNumbers   = regexp.MustCompile(`^must be (\d.*), is -1$`)
)

// The reference lists the keys of the types and describes them by their comments. This test
// compares it with the parser. A new key needs a place in everyKey.
func TestReference_MatchesParser(t *testing.T) {
	fresh := func() (definition any) {
		if err := yaml.Unmarshal([]byte(everyKey), &definition); err != nil {
			t.Fatal(err)
		}
		return definition
	}
	to := func(value any) func(any) any { return func(any) any { return value } }
	if _, problems := parsed(t, fresh()); problems != nil {
		t.Fatal(problems)
	}
	types := described(t)
	for _, line := range keys(t, types, "", types["file"]) {
		key, said := strings.Split(line, "`")[1], strings.TrimSuffix(line, " |\n")
		path := place(key)
		kind := strings.TrimSpace(strings.Split(line, "|")[2])

		// A listed key is accepted: everyKey is valid and has it. In a section no other key is.
		stands := false
		other := set(fresh(), path, func(was any) any {
			stands = was != nil
			node := was
			if list, ok := was.([]any); ok && len(list) > 0 {
				node = list[0]
			}
			if section, ok := node.(map[string]any); ok && key != "kinds" {
				section["no_such_key"] = 1
			}
			return was
		})
		if !stands {
			t.Errorf("%s does not stand in everyKey", key)
			continue
		}
		if _, problems := parsed(t, other); (kind == "section" || kind == "list") && !strings.Contains(fmt.Sprint(problems), "no_such_key") {
			t.Errorf("%s accepts a key that the reference does not list", key)
		}

		// A key is required if it has no default, and only then. Keys that are valid only
		// together with it are removed, too.
		without := set(fresh(), path, to(nil))
		_, problems := parsed(t, without)
		for _, problem := range slices.Backward(problems) {
			where, _, _ := strings.Cut(problem, ": ")
			without = set(without, place(where), to(nil))
		}
		absent, problems := parsed(t, without)
		words := saidDefault.FindStringSubmatch(said)
		if (problems == nil) != (words != nil) {
			t.Errorf("without %s: %q, and the reference says %q", key, problems, said)
		}

		// A default that can be written has the same result as no key.
		if words != nil && !slices.Contains([]string{"none", "nothing", "all"}, words[1]) && oneWord.MatchString(words[1]) && (kind == "text" || kind == "number") {
			var value any = words[1]
			if n, err := strconv.Atoi(words[1]); err == nil {
				value = n
			}
			if p, problems := parsed(t, set(without, path, to(value))); !reflect.DeepEqual(p, absent) {
				t.Errorf("%s: %v is not what comes of a file without it: %q", key, value, problems)
			}
		}

		// The reference names the values that the parser names when it refuses one.
		wrong := map[string]any{"text": "@x!", "number": -1}[kind]
		if wrong == nil {
			continue
		}
		_, problems = parsed(t, set(fresh(), path, to(wrong)))
		for _, problem := range problems {
			where, what, _ := strings.Cut(problem, ": ")
			if !slices.Equal(place(where), path) {
				continue
			}
			if m := ofNumbers.FindStringSubmatch(what); m != nil && !strings.Contains(said, m[1]) {
				t.Errorf("%s must be %s, and the reference says %q", key, m[1], said)
			}
			if m := ofSome.FindStringSubmatch(what); m != nil {
				for _, one := range strings.Split(m[1], ", ") {
					if !strings.Contains(said, "`"+one+"`") {
						t.Errorf("%s may be %s, and the reference says %q", key, one, said)
					}
				}
			}
		}
	}
	if _, problems := parsed(t, set(fresh(), []string{"no_such_key"}, to(1))); problems == nil {
		t.Error("the file accepts a key that the reference does not list")
	}
}
