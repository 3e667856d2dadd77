package e2e

import "syscall"

// A test binary that panics or runs into its time limit cleans nothing up.
func init() { attributes = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
