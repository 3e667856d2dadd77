package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// childAttributes: a group of its own, so that what the child starts is ended with it,
// and ended by the kernel if this process is killed: nobody would renew its lock.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// strays are the processes with a line in their environment, whatever group or session
// they have put themselves into.
func strays(line string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that has ended, or is somebody else's, has nothing to read.
		environment, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && (bytes.Contains(environment, []byte("\x00"+line+"\x00")) || bytes.HasPrefix(environment, []byte(line+"\x00"))) {
			out = append(out, pid)
		}
	}
	return out
}
