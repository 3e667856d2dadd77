package e2e

import "syscall"

// The kernel ends the processes with the test binary, which does not clean up after a panic or a timeout.
func init() { attributes = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
