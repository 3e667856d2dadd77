package pipeline

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// guarded is the minimal definition with a guard in front of its second phase.
func guarded(guard string) []byte {
	return []byte(strings.Replace(string(minimal), "  - name: two\n", "  - name: two\n    "+guard+"\n", 1))
}

func TestGuard_HasItsDefaults(t *testing.T) {
	p, err := Parse(guarded("service: phase-two\n    guard: {}"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Guard{Scope: "phase-two", Paths: []string{"/"}, Success: []int{200, 201, 202, 204}, TTL: 2 * time.Minute, Limit: time.Hour, OnLost: OnLostRun, Unkeyed: UnkeyedPass}
	if got := p.Phases[1].Guard; !reflect.DeepEqual(got, want) || p.Phases[0].Guard != nil {
		t.Errorf("%+v, want %+v", got, want)
	}
	if w := p.Warnings(); strings.Contains(strings.Join(w, "\n"), "guard") {
		t.Errorf("%q", w)
	}
}

func TestGuard_NamesWrongKeys(t *testing.T) {
	for guard, want := range map[string]string{
		`guard: {}`:                                                                   "phases[1].guard.scope: is required, because the phase has no service: write the name",
		`guard: {scope: "a/b"}`:                                                       `phases[1].guard.scope: "a/b" is no name of a service`,
		`guard: {scope: a, paths: []}`:                                                "phases[1].guard.paths: is empty: name at least one path, such as /",
		`guard: {scope: a, paths: ["a?b"]}`:                                           `phases[1].guard.paths[0]: "a?b" is no path of an address: begin it with /`,
		`guard: {scope: a, paths: [/, /]}`:                                            `phases[1].guard.paths[1]: path "/" is declared twice`,
		`guard: {scope: a, success: []}`:                                              "phases[1].guard.success: is empty",
		`guard: {scope: a, success: [500]}`:                                           "phases[1].guard.success[0]: 500: Pub/Sub would deliver the message again: use some of 102, 200",
		`guard: {scope: a, ttl: 5s}`:                                                  `phases[1].guard.ttl: "5s" is not between 30s and 1h`,
		`guard: {scope: a, limit: 2h}`:                                                `phases[1].guard.limit: "2h" is not between 1s and 1h`,
		`guard: {scope: a, limit: 1.5h}`:                                              `phases[1].guard.limit: "1.5h" is no duration of whole seconds`,
		`guard: {scope: a, on_lost: ignore}`:                                          `phases[1].guard.on_lost: "ignore" is not one of run, kill`,
		`guard: {scope: a, unkeyed: refused}`:                                         `phases[1].guard.unkeyed: "refused" is not one of pass, refuse; did you mean "refuse"?`,
		`guard: {scope: a, success_json: {status: []}}`:                               "phases[1].guard.success_json.status: is empty: every answer would be a failure",
		`guard: {scope: a, serial: {a_lettr: [BLetterProcessor]}}`:                    `phases[1].guard.serial.a_lettr: "a_lettr" is source_table of no trigger to "two": the transitions hand over a_letter; did you mean "a_letter"?`,
		`guard: {scope: a, serial: {a_letter: []}}`:                                   "phases[1].guard.serial.a_letter: is empty",
		`guard: {scope: a, serial: {a_letter: [ALetterProcessor]}}`:                   `phases[1].guard.serial.a_letter[0]: unknown class "ALetterProcessor": the phase has BLetterProcessor; did you mean "BLetterProcessor"?`,
		`guard: {scope: a, serial: {a_letter: [BLetterProcessor, BLetterProcessor]}}`: `phases[1].guard.serial.a_letter[1]: class "BLetterProcessor" is declared twice`,
		`guard: {scope: a, tll: 1m}`:                                                  `field tll not found in phases[1].guard; did you mean "ttl"?`,
	} {
		if _, err := Parse(guarded(guard)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", guard, err, want)
		}
	}
	first := strings.Replace(string(minimal), "  - name: one\n", "  - name: one\n    guard: {scope: a}\n", 1)
	if _, err := Parse([]byte(first)); err == nil || !strings.Contains(err.Error(), `phases[0].guard: no transition hands over to "one"`) {
		t.Errorf("a phase that gets no trigger: %v", err)
	}
}

func TestGuard_WarnsOfASerialProfileThatLosesWork(t *testing.T) {
	serial := "serial: {a_letter: [BLetterProcessor]}"
	for rest, want := range map[string][]string{
		"":                                      {"phases[1].guard.serial without cooldown", "phases[1].guard.success_json is missing"},
		", success_json: {status: [completed]}": {"phases[1].guard.serial without cooldown"},
		", success_json: {status: [completed]}, cooldown: true, on_lost: kill": nil,
	} {
		p, err := Parse(guarded("guard: {scope: a, " + serial + rest + "}"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range p.Warnings() {
			if strings.Contains(w, "guard") {
				got = append(got, w)
			}
		}
		if slices.Sort(got); len(got) != len(want) {
			t.Errorf("%q: %q, want %q", rest, got, want)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%q: %q, want %q", rest, got[i], want[i])
			}
		}
	}
}
