package main

import (
	"errors"
	"io"
	"sync"
	"syscall"
)

// checkedOutput remembers the first write that failed, so that no command answers ok without
// its answer. A reader that has closed its pipe, such as head, has what it wants.
type checkedOutput struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (c *checkedOutput) Write(p []byte) (int, error) {
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

func (c *checkedOutput) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// underlying is what a command's output goes to: a child process inherits it.
func underlying(w io.Writer) io.Writer {
	if c, ok := w.(*checkedOutput); ok {
		return c.Writer
	}
	return w
}
