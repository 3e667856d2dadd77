package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const changes = `# Changelog

## [1.2.0] - 2026-12-01

- the second one;

## 1.1.0

- the first one;

## 1.0.0

## 0.9.0
`

func TestEntry_IsThatOfTheVersion(t *testing.T) {
	for version, want := range map[string]string{"1.2.0": "- the second one;", "1.1.0": "- the first one;", "1.0.0": "", "0.9.0": "", "1.2": "", "2.0.0": "", "1.2.0-rc.1": ""} {
		if got := entry(changes, version); got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}

func TestRelease_RefusesAVersionWithoutAnEntry(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte(changes), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"": "is no semantic version: make release VERSION=1.2.0", "dev": "is no semantic version", "v1.2.0": "is no semantic version", "1.02.0": "is no semantic version",
		"2.0.0": "CHANGELOG.md has no entry of 2.0.0: add the heading ## 2.0.0", "1.0.0": "has no entry of 1.0.0",
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"--root", root, "--version", version}, &out, &errs); code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: %d %q %q", version, code, out.String(), errs.String())
		}
	}
	if _, err := os.Stat(filepath.Join(root, "build")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused release leaves files: %v", err)
	}
}

// compiles ends a test that compiles for minutes, unless make test-all runs it.
func compiles(t *testing.T) {
	t.Helper()
	if os.Getenv("BQEMU") == "" { // which scripts/dev/emulators sets
		t.Skip("needs minutes of compiling: make test-all")
	}
}

// checkout copies the files that git knows, or would add, to another folder.
func checkout(t *testing.T) string {
	t.Helper()
	const from = "../../.."
	out, err := exec.CommandContext(t.Context(), "git", "-C", from, "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name := range strings.Lines(string(out)) {
		name = filepath.FromSlash(strings.TrimSpace(name))
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755)
		}
		if err == nil && name == "CHANGELOG.md" {
			data = append(data, "\n## 1.2.0\n\n- a test;\n"...)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Two runs in two folders give the same bytes.
func TestRelease_IsTheSameEverywhere(t *testing.T) {
	compiles(t)
	if runtime.GOOS != "linux" {
		t.Skip("runs the programs for Linux")
	}
	host := platform{runtime.GOOS, runtime.GOARCH}
	var folders []string
	for range 2 {
		r := &release{root: checkout(t), version: "1.2.0", platforms: []platform{{"darwin", "arm64"}, {"linux", runtime.GOARCH}}, progress: t.Output()}
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
		for range len(folders) + 1 { // the second one also over an earlier one
			folder, err := r.make(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if folder != filepath.Join(r.root, "build", "release", "1.2.0") {
				t.Errorf("%s", folder)
			}
		}
		folders = append(folders, filepath.Join(r.root, "build", "release", "1.2.0"))
	}
	names := files(t, folders[0])
	if len(names) != 4+2+1+1+1 { // functions, binaries, guard, bill, sums
		t.Errorf("%q", names)
	}
	for _, name := range names {
		one, err := os.ReadFile(filepath.Join(folders[0], name))
		two, err2 := os.ReadFile(filepath.Join(folders[1], name))
		if err = errors.Join(err, err2); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s differs: %d and %d bytes, %v", name, len(one), len(two), err)
		}
	}
	sums, err := os.ReadFile(filepath.Join(folders[0], sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(folders[0], name))
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name); err != nil || name != sumsFile && !strings.Contains(string(sums), line) {
			t.Errorf("%s has no %q, %v", sumsFile, line, err)
		}
	}
	binary := unpack(t, filepath.Join(folders[0], fmt.Sprintf("phasectl_1.2.0_%s_%s.tar.gz", host.os, host.arch)))
	out, err := exec.CommandContext(t.Context(), binary, "version", "--json").Output()
	if err != nil || !strings.Contains(string(out), `"version":"1.2.0"`) {
		t.Errorf("%s, %v", out, err)
	}
	guard := filepath.Join(folders[0], "guard_1.2.0_linux_"+host.arch)
	program, err := elf.Open(guard)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if dynamic := program.Section(".interp"); dynamic != nil || program.Section(".symtab") != nil {
		t.Error("guard is not static, or not stripped")
	}
	size, err := os.Stat(guard)
	if err != nil || size.Size() > maxGuard || size.Mode()&0o111 == 0 {
		t.Errorf("%v, %v", size, err)
	}
	t.Logf("guard has %d bytes", size.Size())
	if out, err := exec.CommandContext(t.Context(), guard, "--help").Output(); err != nil || !strings.Contains(string(out), "guard [-- COMMAND [ARG]...]") {
		t.Errorf("%s, %v", out, err)
	}
	bill, err := os.ReadFile(filepath.Join(folders[0], "phasegate_1.2.0.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	valid(t, bill)
	info, err := buildinfo.ReadFile(binary)
	if err != nil || len(info.Deps) < 20 {
		t.Fatalf("%v, %v", info, err)
	}
	for _, d := range info.Deps {
		if !bytes.Contains(bill, []byte(`"purl": "pkg:golang/`+d.Path+`@`+d.Version+`"`)) || !bytes.Contains(bill, []byte(d.Sum)) {
			t.Errorf("the bill lacks %s %s %s", d.Path, d.Version, d.Sum)
		}
	}
	if strings.Contains(string(bill), "/tmp/") || strings.Contains(string(bill), folders[0]) {
		t.Error("the bill names a folder of this machine")
	}
}

func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// unpack writes the files of an archive to a folder, and returns the path of phasectl.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var names []string
	for all := tar.NewReader(zipped); ; {
		h, err := all.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(all)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, h.Name), data, h.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"CHANGELOG.md", "LICENSE", "README.md", "phasectl"}) {
		t.Errorf("%q", names)
	}
	return filepath.Join(folder, "phasectl")
}

// valid checks a bill against the schema of its version, which the library brings.
func valid(t *testing.T, bill []byte) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	for file, id := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schemax.json": "jsf-0.82.schema.json"} {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err == nil {
			err = c.AddResource("http://cyclonedx.org/schema/"+id, doc)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(bill, &v); err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("the bill is no valid CycloneDX: %v", err)
	}
	v.(map[string]any)["components"].([]any)[0].(map[string]any)["type"] = "thing"
	if err := schema.Validate(v); err == nil {
		t.Error("the schema takes a component of no known type")
	}
}
