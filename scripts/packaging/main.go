// Command packaging makes the archives of the functions, one for each folder of
// functions/, named after the hash of its source:
//
//	build/functions/transition-0123456789ab.zip
//
// The platform builds the package at an archive's root and never sees the checkout.
// So an archive holds only what the function needs: its package, the imported packages
// of shared/ without their tests, a pruned go.mod, go.sum, and one generated root file.
// That file imports the function, which registers itself. It also writes the hash into
// the binary, because the platform's build takes no linker flags.
//
// The same checkout gives the same archives on every machine, byte for byte. After a
// failure the earlier archives are still there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/phasegate/phasegate/shared/app"
)

// Exit statuses, those of phasectl.
const (
	exitFailed = 1
	exitUsage  = 64
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pipelineFile := flags.String("pipeline", "", "definition that replaces the embedded nba.yaml")
	out := flags.String("out", "", "folder of the archives (default build/functions of the checkout)")
	version := flags.String("version", app.Version, "version that the functions report")
	hashOnly := flags.Bool("hash", false, "print the source hash and write nothing")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "packaging: unknown argument %q\n", flags.Arg(0))
		return exitUsage
	}
	if err := pack(ctx, *pipelineFile, *out, *version, *hashOnly, stdout); err != nil {
		fmt.Fprintln(stderr, "packaging:", err)
		return exitFailed
	}
	return 0
}

func pack(ctx context.Context, pipelineFile, out, version string, hashOnly bool, stdout io.Writer) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	src, err := readSource(ctx, root, pipelineFile, version)
	if err != nil {
		return err
	}
	if hashOnly {
		_, err := fmt.Fprintln(stdout, src.hash())
		return err
	}
	archives, err := src.archives(ctx)
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "build", "functions")
	}
	for _, a := range archives {
		if err := a.write(out); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "%s  %d bytes  %s\n", a.fileName(), len(a.data), a.hash); err != nil {
			return err
		}
	}
	return nil
}
