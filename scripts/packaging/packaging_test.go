package main

import (
	"bytes"
	"errors"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
)

func TestPackaging_SameCheckoutGivesSameArchives(t *testing.T) {
	names := functionNames(t)
	one, two := checkout(t), checkout(t)
	err := filepath.WalkDir(two, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600) // as another umask leaves it
		if d.IsDir() {
			mode = 0o700
		}
		old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		return errors.Join(os.Chtimes(name, old, old), os.Chmod(name, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
	first, second := packIn(t, one), packIn(t, filepath.Join(two, "shared", "cycle"))
	if len(first) != len(names) {
		t.Fatalf("%d archives for the functions %v", len(first), names)
	}
	if a, b := slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(second)); !slices.Equal(a, b) {
		t.Fatalf("%v and %v", a, b)
	}
	for name := range first {
		if !bytes.Equal(first[name], second[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestArchive_HoldsOnlyWhatFunctionNeeds(t *testing.T) {
	names := functionNames(t)
	root := checkout(t)
	put(t, root, "shared/cycle/testdata/x.json", "{}")
	put(t, root, "shared/cycle/notes.txt", "not embedded")
	put(t, root, "scripts/x/main.go", "package main\n\nfunc main() {}\n")
	put(t, root, "tools.go", "//go:build tools\n\npackage tools\n")
	packed := packIn(t, root)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			all := unpacked(t, packed, name)
			checkNames(t, name, all)
			checkRequirements(t, all, read(t, root, "go.mod"))
			checkImports(t, all)
			checkRoot(t, name, all[rootName])
		})
	}
}

// checkNames checks which files the archive has.
func checkNames(t *testing.T, function string, all files) {
	t.Helper()
	var top []string
	for name := range all {
		if path.Dir(name) == "." {
			top = append(top, name)
		}
		for _, no := range []string{"_test.go", "testdata", "scripts/", "sqlite", "memory", "apptest", "storetest", "emulator", "notes.txt"} {
			if strings.Contains(name, no) {
				t.Errorf("%s is in the archive", name)
			}
		}
		if other, ok := strings.CutPrefix(name, "functions/"); ok && !strings.HasPrefix(other, function+"/") {
			t.Errorf("%s is in the archive of %s", name, function)
		}
	}
	slices.Sort(top)
	if diff := cmp.Diff([]string{"function.go", "go.mod", "go.sum"}, top); diff != "" {
		t.Errorf("files at the root (-want +got):\n%s", diff)
	}
	for _, name := range []string{"functions/" + function + "/register.go", "shared/app/production/production.go", definition} {
		if all[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

// checkRoot checks function.go: the platform searches this file for the import of the framework.
func checkRoot(t *testing.T, function string, data []byte) {
	t.Helper()
	formatted, err := format.Source(data)
	if err != nil || !bytes.Equal(formatted, data) {
		t.Errorf("the root file is not gofmt-ed: %v\n%s", err, data)
	}
	for _, want := range []string{
		`_ "github.com/GoogleCloudPlatform/functions-framework-go/functions"`,
		`_ "github.com/phasegate/phasegate/functions/` + function + `"`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the root file does not import %s", want)
		}
	}
}

func checkRequirements(t *testing.T, all files, checkoutMod []byte) {
	t.Helper()
	mod := string(all["go.mod"])
	for _, no := range []string{"\ntool ", "modernc.org", "cobra", "rapid", "go-cmp", "honnef.co"} {
		if strings.Contains(mod, no) {
			t.Errorf("go.mod holds %q", strings.TrimSpace(no))
		}
	}
	// The framework's server comes with the platform's program, in our versions.
	for _, want := range []string{"functions-framework-go ", "cloud.google.com/go/functions ", "cloud.google.com/go/firestore "} {
		if !strings.Contains(mod, want) {
			t.Errorf("go.mod does not require %s", want)
		}
	}
	own := strings.ReplaceAll(string(checkoutMod), "\n", " \n")
	for line := range strings.Lines(mod) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.HasPrefix(f[1], "v") && strings.Contains(own, f[0]+" v") && !strings.Contains(own, f[0]+" "+f[1]+" ") {
			t.Errorf("%s in another version than the checkout's", strings.TrimSpace(line))
		}
	}
}

// checkImports checks that the archive has every imported package of our module. The build
// finds missing packages of other modules.
func checkImports(t *testing.T, all files) {
	t.Helper()
	const module = "github.com/phasegate/phasegate/"
	for name, data := range all {
		if path.Ext(name) != ".go" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, data, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, i := range f.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			folder, ok := strings.CutPrefix(imported, module)
			if ok && !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(n string) bool { return path.Dir(n) == folder }) {
				t.Errorf("%s imports %s, which is not in the archive", name, imported)
			}
		}
	}
}

func TestArchive_IncludesSymlinkedSharedCode(t *testing.T) {
	names := functionNames(t)
	root, elsewhere := checkout(t), filepath.Join(t.TempDir(), "policy")
	plain := packIn(t, root)
	shared := filepath.Join(root, "shared", "policy")
	if err := errors.Join(os.Rename(shared, elsewhere), os.Symlink(elsewhere, shared)); err != nil {
		t.Skip("this system makes no symlinks: ", err)
	}
	linked := packIn(t, root)
	for _, name := range names {
		if diff := cmp.Diff(unpacked(t, plain, name), unpacked(t, linked, name)); diff != "" {
			t.Errorf("%s (-plain +linked):\n%s", name, diff)
		}
	}
}

func TestPackaging_PipelineFlagReplacesEmbeddedDefinition(t *testing.T) {
	names := functionNames(t)
	root := checkout(t)
	other := append(pipeline.Default(), "# another one\n"...)
	put(t, root, "other.yaml", string(other))
	usual, replaced := packIn(t, root), packIn(t, root, "--pipeline", "other.yaml")
	for _, name := range names {
		if got := unpacked(t, usual, name)[definition]; !bytes.Equal(got, pipeline.Default()) {
			t.Errorf("%s: without --pipeline the definition is not the checkout's", name)
		}
		if got := unpacked(t, replaced, name)[definition]; !bytes.Equal(got, other) {
			t.Errorf("%s: the definition is not the given one", name)
		}
	}
	for name := range usual {
		if replaced[name] != nil {
			t.Errorf("%s has one name for two definitions", name)
		}
	}
}

func TestPackaging_InvalidPipelineWritesNothing(t *testing.T) {
	root := checkout(t)
	t.Chdir(root)
	put(t, root, "bad.yaml", "schema: 1\nname: x\nsurprise: 1\n")
	for file, want := range map[string]string{"bad.yaml": "surprise", "missing.yaml": "missing.yaml"} {
		out := filepath.Join(t.TempDir(), "out")
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"--out", out, "--pipeline", file}, &stdout, &stderr)
		if text := stderr.String(); code != exitFailed || !strings.Contains(text, "--pipeline") || !strings.Contains(text, file) || !strings.Contains(text, want) {
			t.Errorf("%s: exit %d, %s", file, code, text)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: archives were written", file)
		}
	}
}

func TestHash_ChangesWithArchiveContent(t *testing.T) {
	root := checkout(t)
	hash := func(args ...string) string {
		t.Helper()
		t.Chdir(root)
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"--hash"}, args...), &stdout, &stderr); code != 0 {
			t.Fatalf("exit %d: %s", code, &stderr)
		}
		return strings.TrimSpace(stdout.String())
	}
	first := hash()
	for name := range packIn(t, root) { // of every function
		if !strings.HasSuffix(name, "-"+first+".zip") {
			t.Errorf("%s; --hash says %s", name, first)
		}
	}
	put(t, root, "shared/policy/extra_test.go", "package policy\n")
	put(t, root, "shared/store/sqlite/extra.go", "package sqlite\n")
	if got := hash("--version", app.Version); got != first {
		t.Errorf("files that are in no archive change the hash")
	}
	seen := map[string]string{first: "the checkout"}
	for _, change := range []struct{ name, content string }{
		{"shared/policy/extra.go", "package policy\n"},
		{"shared/policy/extra.go", "package policy // otherwise\n"},
		{"functions/transition/extra.go", "package transition\n"},
		{"functions/reconcile/extra.go", "package reconcile\n"},
		{definition, "schema: 1\n"},
		{"go.sum", string(read(t, root, "go.sum")) + "\n"},
	} {
		put(t, root, change.name, change.content)
		got := hash()
		if before, ok := seen[got]; ok {
			t.Errorf("a change of %s gives the same hash as %s", change.name, before)
		}
		seen[got] = change.name
	}
	if got := hash("--version", "v1.2.3"); seen[got] != "" {
		t.Errorf("another version gives the same hash as %s", seen[got])
	}
}

func TestArchive_ReplacesOlderArchivesOfFunction(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sweep-aaaaaaaaaaaa.zip", "sweep-late-aaaaaaaaaaaa.zip", "other-aaaaaaaaaaaa.zip", "sweep-notes.zip"} {
		put(t, dir, name, "old")
	}
	for range 2 { // the second write replaces the first one
		if err := (archive{"sweep", "bbbbbbbbbbbb", []byte("new")}).write(dir); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"other-aaaaaaaaaaaa.zip", "sweep-bbbbbbbbbbbb.zip", "sweep-late-aaaaaaaaaaaa.zip", "sweep-notes.zip"}
	if diff := cmp.Diff(want, folder(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := read(t, dir, "sweep-bbbbbbbbbbbb.zip"); string(got) != "new" {
		t.Errorf("holds %q", got)
	}
}

func TestPackaging_WrongUsageIsRefused(t *testing.T) {
	for _, args := range [][]string{{"--speed"}, {"transition"}} {
		if code := run(t.Context(), args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}
