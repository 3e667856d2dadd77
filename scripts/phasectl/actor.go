package main

import (
	"os"
	"os/user"
)

// actor names the user of the command, for batches and audit records.
func actor() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	if name == "" {
		name = "unknown"
	}
	return name + "@" + host
}
