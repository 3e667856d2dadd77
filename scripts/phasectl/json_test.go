package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/lease"
)

const schemaFolder = "../../docs/reference/json"

// answersOtherwise are the commands without --json, and why.
var answersOtherwise = map[string]string{
	"run": "passes on the output of its command", "guard": "passes on the output of its command", "serve": "prints log lines", "completion": "the library's own", "help": "the library's own",
}

// answerSchemas are the schemas of what each command prints with --json, by its path.
func answerSchemas(t testing.TB) map[string]*jsonschema.Schema {
	t.Helper()
	out := map[string]*jsonschema.Schema{}
	_, f := newCommands()
	for cmd, typ := range f.types {
		path := pathOf(cmd)
		s, err := jsonschema.ForType(typ, &jsonschema.ForOptions{})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", "phasectl "+path+" --json"
		one := any(1)
		s.Properties["schema"] = &jsonschema.Schema{Const: &one}
		if s.Required = append([]string{"schema"}, slices.DeleteFunc(s.Required, func(p string) bool { return p == "schema" })...); len(s.PropertyOrder) > 0 {
			s.PropertyOrder = append([]string{"schema"}, slices.DeleteFunc(s.PropertyOrder, func(p string) bool { return p == "schema" })...)
		}
		out[path] = s
	}
	return out
}

func pathOf(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "phasectl ") }

var resolved = sync.OnceValues(func() (map[string]*jsonschema.Resolved, error) {
	out := map[string]*jsonschema.Resolved{}
	files, err := filepath.Glob(filepath.Join(schemaFiles, "*.json"))
	for _, file := range files {
		b, readErr := os.ReadFile(file)
		var s jsonschema.Schema
		if readErr == nil {
			readErr = json.Unmarshal(b, &s)
		}
		if readErr != nil {
			return nil, readErr
		}
		if out[strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".json"), "_", " ")], err = s.Resolve(nil); err != nil {
			return nil, err
		}
	}
	return out, err
})

// schemaFiles is the absolute path of schemaFolder: tests change their working directory.
var schemaFiles = func() string {
	dir, err := filepath.Abs(schemaFolder)
	if err != nil {
		panic(err)
	}
	return dir
}()

// fits checks an answer with --json against the schema of its command, in every test.
func fits(t testing.TB, args []string, stdout string) {
	t.Helper()
	if !slices.Contains(args, "--json") || strings.TrimSpace(stdout) == "" {
		return
	}
	cmd, _, err := newRoot().Find(distances(args))
	if err != nil {
		t.Fatal(err)
	}
	all, err := resolved()
	if err != nil {
		t.Fatal(err)
	}
	s := all[pathOf(cmd)]
	if s == nil {
		t.Errorf("%s has no schema in docs/reference/json", pathOf(cmd))
		return
	}
	var object any
	if err := json.Unmarshal([]byte(stdout), &object); err != nil {
		t.Errorf("%q prints no single object: %v", args, err)
		return
	}
	if err := s.Validate(object); err != nil {
		t.Errorf("%q does not fit its schema: %v\n%s", args, err, stdout)
	}
}

func TestJSON_EveryCommandHasIt(t *testing.T) {
	_, f := newCommands()
	root, _ := newCommands()
	known := map[string]bool{}
	for cmd := range f.types {
		known[pathOf(cmd)] = true
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		path := pathOf(cmd)
		_, other := answersOtherwise[path]
		if has := cmd.Flags().Lookup("json") != nil; cmd.HasParent() && !other && (has != known[path] || !has && !cmd.HasSubCommands()) {
			t.Errorf("%s: --json %v, an answer of a known type %v", path, has, known[path])
		}
		for _, below := range cmd.Commands() {
			visit(below)
		}
	}
	visit(root)
}

func TestReferenceOfJSON_HasTheSchemaOfEachCommand(t *testing.T) {
	want := map[string]string{}
	for path, s := range answerSchemas(t) {
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want[strings.ReplaceAll(path, " ", "_")+".json"] = string(b) + "\n"
	}
	if *update {
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(schemaFolder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := os.ReadDir(schemaFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		got, err := os.ReadFile(filepath.Join(schemaFolder, file.Name()))
		if text, ok := want[file.Name()]; err != nil || !ok || text != string(got) {
			t.Errorf("docs/reference/json/%s is not the schema of a command: go test ./scripts/phasectl -run Reference -update", file.Name())
		}
		delete(want, file.Name())
	}
	for name := range want {
		t.Errorf("docs/reference/json/%s is missing: go test ./scripts/phasectl -run Reference -update", name)
	}
}

// Each answer that needs no warehouse fits its schema. The tests of the other commands check theirs,
// because fits checks every answer.
func TestJSON_AnswersFitTheirSchemas(t *testing.T) {
	s := running(t)
	s.night("2026-02-03")
	s.report(completion(five[0], "YESTERDAY"))
	id := firstID(want(t, 0, nil, "quarantine", "list"))
	if _, err := s.App.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-03"}, "run-1"); err != nil {
		t.Fatal(err)
	}
	file := written(t)
	for _, line := range []string{"status 2026-02-03", "explain 2026-02-03 overnight", "hold 2026-02-04 overnight --for 1h --reason x", "release 2026-02-04 overnight --reason x", "close 2026-02-04 overnight --reason x",
		"trigger 2026-02-03 overnight --dry-run", "trigger 2026-02-03 overnight --reason x", "complete player_game_summary 2026-02-03 --dry-run", "health", "reconcile", "report", "report --shadow",
		"locks list", "locks release PlayerGameSummaryProcessor_2026-02-03 --dry-run", "locks release PlayerGameSummaryProcessor_2026-02-03 --reason x", "quarantine list", "quarantine show " + id,
		"quarantine replay " + id + " --reason x", "quarantine discard " + id + " --reason x", "dead-letter list", "dead-letter replay 1 --reason x", "dead-letter discard 1 --reason x", "sweep list", "version",
		"pipeline check " + file} {
		t.Run(line, func(t *testing.T) {
			if code, out, errs := command(t, append(strings.Fields(line), "--json")...); code > 2 || object(t, out)["schema"] != 1.0 {
				t.Errorf("%d %s%s", code, out, errs)
			}
		})
	}
	for name, typ := range map[string]reflect.Type{"status": reflect.TypeFor[statusAnswer]()} { // a schema refuses unknown fields
		all, err := resolved()
		if err != nil {
			t.Fatal(err)
		}
		if err := all[name].Validate(map[string]any{"schema": 1, "cycles": []any{}, "ahead": []any{}, "managed_since": map[string]any{}, "other": 1}); err == nil {
			t.Errorf("%s takes a field that %s has not", name, fmt.Sprint(typ))
		}
	}
}
