package childproc

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// Attributes puts the child into a process group, so that its children end with it.
// The kernel ends the child if this process is killed, because nothing renews its lock or claim then.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// strays are the processes with a line in their environment, in any group or session.
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
		// A process that has ended, or of another user, has no readable environment.
		environment, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && (bytes.Contains(environment, []byte("\x00"+line+"\x00")) || bytes.HasPrefix(environment, []byte(line+"\x00"))) {
			out = append(out, pid)
		}
	}
	return out
}
