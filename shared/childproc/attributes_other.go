//go:build !linux

package childproc

import "syscall"

// Attributes puts the child into its own process group, so that its children end with it.
func Attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// strays cannot be found here.
func strays(string) []int { return nil }

// ReapOrphans does nothing here: containers run Linux.
func ReapOrphans(int) {}
