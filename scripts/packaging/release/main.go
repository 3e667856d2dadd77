// Command release makes the files of a release from a checkout, in build/release/VERSION:
//
//	phasectl_VERSION_OS_ARCH.tar.gz   phasectl for Linux and macOS, on amd64 and arm64
//	guard_VERSION_linux_ARCH          phasectl guard alone, a static program for containers
//	FUNCTION-HASH.zip                 the archives of the functions, as make deploy takes them
//	phasegate_VERSION.cdx.json        the modules in them, as a CycloneDX bill of materials
//	SHA256SUMS                        the checksums of all of these
//
// The same checkout and the same version of Go give the same bytes, in any folder and on any
// machine. CHANGELOG.md must have an entry of the version. The folder is there whole or not at all.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Exit statuses, those of phasectl.
const (
	exitFailed = 1
	exitUsage  = 64
)

// platform is an operating system and an architecture.
type platform struct{ os, arch string }

var platforms = []platform{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	version := flags.String("version", "", "version of the release, such as 1.2.0")
	root := flags.String("root", ".", "folder of the checkout")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	r := &release{root: *root, version: *version, platforms: platforms, progress: stderr}
	if err := r.check(); err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return exitUsage
	}
	folder, err := r.make(ctx)
	if err == nil {
		var sums []byte
		if sums, err = os.ReadFile(filepath.Join(folder, sumsFile)); err == nil {
			_, err = fmt.Fprintf(stdout, "%s in %s\n", sums, folder)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return exitFailed
	}
	return 0
}

// release is one of a checkout.
type release struct {
	root, version string
	platforms     []platform
	progress      io.Writer
}

const (
	sumsFile = "SHA256SUMS"
	// maxGuard is also in Makefile.
	maxGuard = 25_000_000
)

var versionForm = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// check refuses a version that is none, and one without an entry in CHANGELOG.md.
func (r *release) check() error {
	if !versionForm.MatchString(r.version) {
		return fmt.Errorf("VERSION: %q is no semantic version: make release VERSION=1.2.0", r.version)
	}
	changes, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if entry(string(changes), r.version) == "" {
		return fmt.Errorf("CHANGELOG.md has no entry of %s: add the heading ## %[1]s with its changes, which may be those under Unreleased", r.version)
	}
	return nil
}

// entry returns what a changelog says of a version, whose heading may have brackets and a date.
func entry(changes, version string) string {
	heading := regexp.MustCompile(`(?m)^## \[?` + regexp.QuoteMeta(version) + `\]?( .*)?$`).FindStringIndex(changes)
	if heading == nil {
		return ""
	}
	text, _, _ := strings.Cut(changes[heading[1]:], "\n## ")
	return strings.TrimSpace(text)
}

// make makes the files in a temporary folder, and moves it to its place as the last step.
func (r *release) make(ctx context.Context) (folder string, err error) {
	base := filepath.Join(r.root, "build", "release")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(base, ".making-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	files := filepath.Join(temp, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return "", err
	}
	if _, err := r.command(ctx, nil, "go", "run", "./scripts/packaging", "--version", r.version, "--out", files); err != nil {
		return "", err
	}
	hash, err := r.command(ctx, nil, "go", "run", "./scripts/packaging", "--version", r.version, "--hash")
	if err != nil {
		return "", err
	}
	var binaries, guards []string
	for _, p := range r.platforms {
		fmt.Fprintf(r.progress, "building phasectl for %s on %s\n", p.os, p.arch)
		binary := filepath.Join(temp, p.os+"_"+p.arch)
		if err := r.build(ctx, p, strings.TrimSpace(hash), "phasectl", binary); err != nil {
			return "", err
		}
		binaries = append(binaries, binary)
		if err := r.pack(filepath.Join(files, fmt.Sprintf("phasectl_%s_%s_%s.tar.gz", r.version, p.os, p.arch)), binary); err != nil {
			return "", err
		}
		if p.os != "linux" { // containers
			continue
		}
		fmt.Fprintf(r.progress, "building guard for %s on %s\n", p.os, p.arch)
		guard := filepath.Join(files, fmt.Sprintf("guard_%s_%s_%s", r.version, p.os, p.arch))
		if err := r.build(ctx, p, strings.TrimSpace(hash), "guard", guard); err != nil {
			return "", err
		}
		info, err := os.Stat(guard)
		if err != nil {
			return "", err
		}
		if info.Size() > maxGuard {
			return "", fmt.Errorf("%s has more than %d bytes, and every instance of a guarded service loads it", filepath.Base(guard), maxGuard)
		}
		guards = append(guards, guard)
	}
	bill, err := r.bill(ctx, binaries, guards)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(files, "phasegate_"+r.version+".cdx.json"), bill, 0o644); err != nil {
		return "", err
	}
	if err := sum(files); err != nil {
		return "", err
	}
	folder = filepath.Join(base, r.version)
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	return folder, os.Rename(files, folder)
}

const app = "github.com/phasegate/phasegate/shared/app"

// build makes one binary, in which nothing depends on the machine or the folder.
func (r *release) build(ctx context.Context, p platform, hash, program, to string) error {
	env := []string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS="}
	_, err := r.command(ctx, env, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X %s.Version=%s -X %[1]s.SourceHash=%[3]s", app, r.version, hash), "-o", to, "./scripts/"+program)
	return err
}

// command runs a program in the checkout, and returns what it prints.
func (r *release) command(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = r.root, append(os.Environ(), env...), r.progress
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

// sum writes the checksums of a folder's files, in the form of sha256sum --check.
func sum(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(data), e.Name()))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return os.WriteFile(filepath.Join(folder, sumsFile), []byte(strings.Join(lines, "")), 0o644)
}
