package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/mattn/go-isatty"
)

// CheckedOutput remembers the first write that failed, so that no command answers ok without
// its answer. A reader that has closed its pipe, such as head, has what it wants.
type CheckedOutput struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (c *CheckedOutput) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil {
			c.err = err
		}
	}
	return n, err
}

// Failed returns the error of the first write that failed.
func (c *CheckedOutput) Failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Underlying is what a command's output goes to: a child process inherits it.
func Underlying(w io.Writer) io.Writer {
	if c, ok := w.(*CheckedOutput); ok {
		return c.Writer
	}
	return w
}

// Colourful reports whether w is a terminal whose user has not asked for plain
// text (https://no-color.org).
func Colourful(w io.Writer) bool {
	f, ok := Underlying(w).(*os.File)
	return ok && Terminal(f) && os.Getenv("NO_COLOR") == ""
}

// Terminal reports whether a person reads or types there.
func Terminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }

// PrintLine writes v as one line of JSON.
func PrintLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}

// Quote quotes a value for a POSIX shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
