package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

const (
	// bigQueryStart is generous: it takes a fraction of a second.
	bigQueryStart = 30 * time.Second
	// bigQueryEnd is what it gets to end once its standard input is closed.
	bigQueryEnd = 5 * time.Second
)

// bigQuery is the emulator as a process of its own. It ends when its standard input is
// closed, and so with this process too, however that ends.
type bigQuery struct {
	Addr string // host:port

	cmd   *exec.Cmd
	input io.Closer
}

// startBigQuery starts the program that `make build/bqemu` builds and returns when it
// answers; port 0 picks a free one.
func startBigQuery(ctx context.Context, program string, port int) (*bigQuery, error) {
	b := &bigQuery{cmd: exec.Command(program, "--port", strconv.Itoa(port))}
	b.cmd.Stderr = os.Stderr
	input, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	b.input = input
	output, err := b.cmd.StdoutPipe() // closed by close alone, so that its line is read even if the process has ended
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start BigQuery: %w", err)
	}
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(output).ReadString('\n') // all that a process prints before it ends
		first <- line
	}()
	limit := time.NewTimer(bigQueryStart)
	defer limit.Stop()
	select {
	case line := <-first:
		var ready struct{ Event, Address string }
		if json.Unmarshal([]byte(line), &ready) == nil && ready.Event == "ready" {
			b.Addr = ready.Address
			return b, nil
		}
		return nil, fmt.Errorf("start BigQuery: %s says %q: %w", program, line, b.close())
	case <-limit.C:
		return nil, fmt.Errorf("start BigQuery: %s is not ready after %s: %w", program, bigQueryStart, b.close())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), b.close())
	}
}

// close ends the process and waits for it.
func (b *bigQuery) close() error {
	_ = b.input.Close() // it may have ended by itself
	kill := time.AfterFunc(bigQueryEnd, func() { _ = b.cmd.Process.Kill() })
	defer kill.Stop()
	if err := b.cmd.Wait(); err != nil {
		return fmt.Errorf("BigQuery ended: %w", err)
	}
	return nil
}
