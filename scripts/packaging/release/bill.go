package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// framework is what the generated root of a function's archive imports.
const framework = "github.com/GoogleCloudPlatform/functions-framework-go/"

// module is one that is linked.
type module struct{ path, version string }

// purl is the name of a module for tools: https://github.com/package-url/purl-spec.
func (m module) purl() string { return "pkg:golang/" + m.path + "@" + m.version }

// linked returns the modules that binaries name.
func linked(binaries []string) (map[module]bool, error) {
	out := map[module]bool{}
	for _, binary := range binaries {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		out[module{"std", strings.TrimPrefix(info.GoVersion, "go")}] = true
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			out[module{d.Path, d.Version}] = true
		}
	}
	return out, nil
}

// bill lists the modules of phasectl and guard, as their binaries name them, and those of the
// functions, as the go command does: their binaries are built by the platform.
func (r *release) bill(ctx context.Context, binaries, guards []string) ([]byte, error) {
	sums, err := r.sums()
	if err != nil {
		return nil, err
	}
	phasectl, err := linked(binaries)
	if err != nil {
		return nil, err
	}
	guard, err := linked(guards)
	if err != nil {
		return nil, err
	}
	functions, err := r.functions(ctx)
	if err != nil {
		return nil, err
	}
	for m := range phasectl {
		if m.path == "std" {
			functions[m] = true
		}
	}
	name := func(part string) string { return "pkg:golang/github.com/phasegate/phasegate@" + r.version + part }
	whole := cyclonedx.Component{BOMRef: name(""), Type: cyclonedx.ComponentTypeApplication, Name: "phasegate", Version: r.version, PackageURL: name("")}
	parts := []cyclonedx.Component{
		{BOMRef: name("#functions"), Type: cyclonedx.ComponentTypeApplication, Name: "functions", Version: r.version, PackageURL: name("#functions")},
		{BOMRef: name("#scripts/guard"), Type: cyclonedx.ComponentTypeApplication, Name: "guard", Version: r.version, PackageURL: name("#scripts/guard")},
		{BOMRef: name("#scripts/phasectl"), Type: cyclonedx.ComponentTypeApplication, Name: "phasectl", Version: r.version, PackageURL: name("#scripts/phasectl")},
	}
	all := maps.Clone(phasectl)
	maps.Copy(all, guard)
	maps.Copy(all, functions)
	components := slices.Clone(parts)
	for _, m := range sorted(all) {
		c := cyclonedx.Component{BOMRef: m.purl(), Type: cyclonedx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: m.purl()}
		if h1 := sums[m]; h1 != "" {
			c.Properties = &[]cyclonedx.Property{{Name: "go.sum", Value: h1}}
		} else if m.path != "std" {
			return nil, fmt.Errorf("go.sum has no %s %s", m.path, m.version)
		}
		components = append(components, c)
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &whole}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{
		{Ref: whole.BOMRef, Dependencies: &[]string{parts[0].BOMRef, parts[1].BOMRef, parts[2].BOMRef}},
		{Ref: parts[0].BOMRef, Dependencies: purls(functions)},
		{Ref: parts[1].BOMRef, Dependencies: purls(guard)},
		{Ref: parts[2].BOMRef, Dependencies: purls(phasectl)},
	}
	var out bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	if err := encoder.EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

// functions are the modules of what the platform builds.
func (r *release) functions(ctx context.Context) (map[module]bool, error) {
	const format = "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}"
	out, err := r.command(ctx, []string{"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"}, "go", "list", "-deps", "-f", format,
		"./functions/...", framework+"functions", framework+"funcframework")
	if err != nil {
		return nil, err
	}
	modules := map[module]bool{}
	for line := range strings.Lines(out) {
		if path, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			modules[module{path, version}] = true
		}
	}
	return modules, nil
}

// sums are the hashes of the modules' files in go.sum.
func (r *release) sums() (map[module]string, error) {
	data, err := os.ReadFile(filepath.Join(r.root, "go.sum"))
	if err != nil {
		return nil, err
	}
	out := map[module]string{}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) == 3 {
			out[module{words[0], words[1]}] = words[2]
		}
	}
	return out, nil
}

func sorted(modules map[module]bool) []module {
	return slices.SortedFunc(maps.Keys(modules), func(a, b module) int { return strings.Compare(a.purl(), b.purl()) })
}

func purls(modules map[module]bool) *[]string {
	var out []string
	for _, m := range sorted(modules) {
		out = append(out, m.purl())
	}
	return &out
}
