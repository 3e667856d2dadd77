//go:build !linux

package main

import "syscall"

// childAttributes: a group of its own, so that what the child starts is ended with it.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
