// Command sourcehash prints the hash of everything that a deployed function is built
// from, so that what runs can be compared with a checkout. Run it in the module's
// root; it reads files alone, in one order everywhere.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	hash, err := sourceHash(os.DirFS("."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "sourcehash:", err)
		os.Exit(1)
	}
	fmt.Println(hash)
}

// sourceHash returns 12 hex digits over the paths and contents of go.mod, go.sum and
// the files of functions/ and shared/ that are no tests.
func sourceHash(root fs.FS) (string, error) {
	sum := sha256.New()
	for _, top := range []string{"functions", "go.mod", "go.sum", "shared"} {
		err := fs.WalkDir(root, top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir(), strings.HasSuffix(path, "_test.go"):
				return nil
			}
			f, err := root.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			content := sha256.New()
			if _, err := io.Copy(content, f); err != nil {
				return err
			}
			_, err = fmt.Fprintf(sum, "%s %x\n", filepath.ToSlash(path), content.Sum(nil))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}
