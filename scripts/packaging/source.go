package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// definition is the pipeline that shared/pipeline embeds.
const definition = "shared/pipeline/nba.yaml"

// files are contents by slash-separated path from the root.
type files map[string][]byte

// source is what a checkout's functions are built from.
type source struct {
	module    string
	version   string
	mod, sum  []byte           // go.mod and go.sum as the checkout has them
	functions map[string]files // by name: the function's packages and those it imports
}

// listed is a package as `go list -json` describes it.
type listed struct {
	ImportPath, Dir     string
	GoFiles, EmbedFiles []string
	Deps                []string
	Module              *struct {
		Path string
		Main bool
	}
}

// readSource reads the checkout at root. pipelineFile, unless empty, replaces the
// embedded definition.
func readSource(ctx context.Context, root, pipelineFile, version string) (*source, error) {
	replacement, err := readPipeline(pipelineFile)
	if err != nil {
		return nil, err
	}
	s := &source{version: version, functions: map[string]files{}}
	for name, content := range map[string]*[]byte{"go.mod": &s.mod, "go.sum": &s.sum} {
		if *content, err = os.ReadFile(filepath.Join(root, name)); err != nil {
			return nil, err
		}
	}
	packages, err := list(ctx, root)
	if err != nil {
		return nil, err
	}
	for importPath, p := range packages {
		s.module = p.Module.Path
		name, ok := strings.CutPrefix(importPath, s.module+"/functions/")
		if !ok || strings.Contains(name, "/") {
			continue
		}
		if s.functions[name], err = contents(packages, append(p.Deps, importPath)); err != nil {
			return nil, err
		}
		if replacement != nil {
			s.functions[name][definition] = replacement
		}
	}
	if len(s.functions) == 0 {
		return nil, errors.New("functions/ holds no package")
	}
	return s, nil
}

// readPipeline returns nil for "": the embedded definition stays.
func readPipeline(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--pipeline: %w", err)
	}
	if _, err := pipeline.Parse(data); err != nil {
		return nil, fmt.Errorf("--pipeline %s: %w", file, err)
	}
	return data, nil
}

// list returns the module's own packages that functions are built from. The go
// command decides what belongs to a package: embedded files do, tests do not.
func list(ctx context.Context, root string) (map[string]listed, error) {
	out, err := goCommand(ctx, root, "list", "-mod=readonly", "-deps",
		"-json=ImportPath,Dir,GoFiles,EmbedFiles,Deps,Module", "./functions/...")
	if err != nil {
		return nil, err
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		case p.Module != nil && p.Module.Main:
			packages[p.ImportPath] = p
		}
	}
}

// contents reads the files of those packages that are the module's own.
func contents(packages map[string]listed, importPaths []string) (files, error) {
	found := files{}
	for _, importPath := range importPaths {
		p, ok := packages[importPath]
		if !ok {
			continue // of another module
		}
		for _, name := range slices.Concat(p.GoFiles, p.EmbedFiles) {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			dir := strings.TrimPrefix(strings.TrimPrefix(importPath, p.Module.Path), "/")
			found[path.Join(dir, filepath.ToSlash(name))] = data
		}
	}
	return found, nil
}

// hash returns 12 hex digits over all inputs of this checkout's archives. All functions
// share one hash, so that deployed functions can be compared with each other and with a
// checkout. The root files take part without the hash.
func (s *source) hash() string {
	all := files{"go.mod": s.mod, "go.sum": s.sum}
	for name, own := range s.functions {
		maps.Copy(all, own)
		all["root of "+name] = s.rootFile(name, "")
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(sum, "%q %x\n", name, sha256.Sum256(all[name])) // a hash takes every write
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}
