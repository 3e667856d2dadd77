//go:build !linux

package childproc

import "syscall"

// Attributes puts the child into a group of its own, so that what it starts is ended with it.
func Attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// strays cannot be found here.
func strays(string) []int { return nil }
