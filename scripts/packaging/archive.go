package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// archive is one function, packed.
type archive struct {
	function, hash string
	data           []byte
}

func (a archive) fileName() string { return a.function + "-" + a.hash + ".zip" }

// zipped packs in one order, with one time and one mode, regardless of the files on disk.
func zipped(all files) ([]byte, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.SetMode(0o644)
		entry, err := w.CreateHeader(h)
		if err == nil {
			_, err = entry.Write(all[name])
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil { // writes the directory
		return nil, err
	}
	return buf.Bytes(), nil
}

// write puts the archive into dir, whole or not at all, and removes the function's
// earlier ones: who deploys finds exactly one.
func (a archive) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".packing-")
	if err != nil {
		return err
	}
	_, err = temp.Write(a.data)
	err = errors.Join(err, temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), filepath.Join(dir, a.fileName()))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return a.removeOlder(dir)
}

func (a archive) removeOlder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	own := regexp.MustCompile(`^` + regexp.QuoteMeta(a.function) + `-[0-9a-f]{12}\.zip$`)
	for _, e := range entries {
		if own.MatchString(e.Name()) && e.Name() != a.fileName() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// write puts the files under dir.
func (f files) write(dir string) error {
	for name, data := range f {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
