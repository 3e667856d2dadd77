// Package childproc ends a command together with every process that it has started. On Linux
// the kernel ends the command if this process is killed.
package childproc

import "syscall"

// Family is a command with all processes that it started: its process group, and those that
// have left the group and still have the token in their environment.
type Family struct {
	PID   int
	Token string // a line of their environment
}

// Signal sends a signal to all of them. A stopped process gets it too, because SIGCONT follows. An
// error means that a process has ended.
func (f Family) Signal(sig syscall.Signal) {
	_ = syscall.Kill(-f.PID, sig)
	for _, pid := range strays(f.Token) {
		_ = syscall.Kill(pid, sig)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	_ = syscall.Kill(-f.PID, syscall.SIGCONT)
}

// Kill ends them all. One that is just being started is found in the next round.
func (f Family) Kill() {
	_ = syscall.Kill(-f.PID, syscall.SIGKILL)
	for range 10 {
		found := strays(f.Token)
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(found) == 0 {
			return
		}
	}
}
