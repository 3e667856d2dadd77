package main

import "syscall"

// childAttributes: a group of its own, so that what the child starts is ended with it,
// and ended by the kernel if this process is killed: nobody would renew its lock.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
