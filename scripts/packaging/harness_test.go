package main

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// checkout copies go.mod, go.sum, functions and shared of this checkout into a folder of its own.
func checkout(t *testing.T) string {
	t.Helper()
	here, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "functions", "shared"} {
		err := filepath.WalkDir(filepath.Join(here, name), func(from string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(here, from)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			return files{filepath.ToSlash(rel): data}.write(root)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// put writes a file of a checkout.
func put(t *testing.T, root, name, content string) {
	t.Helper()
	if err := (files{name: []byte(content)}).write(root); err != nil {
		t.Fatal(err)
	}
}

// packIn runs the command in dir and returns the archives of its out folder.
func packIn(t *testing.T, dir string, args ...string) files {
	t.Helper()
	t.Chdir(dir)
	out := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append([]string{"--out", out}, args...), &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	packed := files{}
	for _, name := range folder(t, out) {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		packed[name] = data
		if !strings.Contains(stdout.String(), name+"  "+strconv.Itoa(len(data))+" bytes") {
			t.Errorf("%s and its size are not in the output:\n%s", name, &stdout)
		}
	}
	return packed
}

func folder(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// functionNames are the folders of functions/.
func functionNames(t *testing.T) []string { return folder(t, "../../functions") }

// unpack reads an archive.
func unpack(t *testing.T, data []byte) files {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	all := files{}
	for _, f := range r.File {
		if !filepath.IsLocal(f.Name) || all[f.Name] != nil || f.Mode() != 0o644 || f.Modified.Year() != 1980 {
			t.Errorf("entry %q twice, outside of the root, of mode %v or of today: %v", f.Name, f.Mode(), f.Modified)
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if all[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// archiveOf returns a function's archive and the hash in its name.
func archiveOf(t *testing.T, packed files, function string) (data []byte, hash string) {
	t.Helper()
	own := regexp.MustCompile(`^` + function + `-([0-9a-f]{12})\.zip$`)
	for name, data := range packed {
		if m := own.FindStringSubmatch(name); m != nil {
			return data, m[1]
		}
	}
	t.Fatalf("no archive of %s in %v", function, slices.Sorted(maps.Keys(packed)))
	return nil, ""
}

// unpacked returns the files of a function's archive.
func unpacked(t *testing.T, packed files, function string) files {
	t.Helper()
	data, _ := archiveOf(t, packed, function)
	return unpack(t, data)
}

func read(t *testing.T, root, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
