package childproc

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// ReapOrphans waits for processes that have ended and whose own parent ended before them, if
// this process is PID 1: they are its children then, and stay zombies otherwise. The command
// itself is left to its own Wait. It returns at once.
func ReapOrphans(command int) {
	if os.Getpid() != 1 {
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			for _, pid := range zombies() {
				if pid != command {
					_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may be gone
				}
			}
		}
	}()
}

// zombies are the children of this process that have ended.
func zombies() (out []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	parent := []byte(fmt.Sprintf("\nPPid:\t%d\n", os.Getpid()))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status") // one that is gone has none
		if err == nil && bytes.Contains(status, []byte("\nState:\tZ")) && bytes.Contains(status, parent) {
			out = append(out, pid)
		}
	}
	return out
}
