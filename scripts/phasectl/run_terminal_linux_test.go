package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns a terminal, and what is written on it.
func openTerminal(t *testing.T) (screen *os.File, shown *output) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var number, unlocked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlocked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	if screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	shown = newOutput()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(shown, keyboard) // ends with an error when the screen is closed
	}()
	t.Cleanup(func() { screen.Close(); <-read })
	return screen, shown
}

// On a terminal, run prints the report that it published and the command that shows its cycle.
func TestRun_NamesTheReportAndItsCycleOnATerminal(t *testing.T) {
	running(t)
	for script, outcome := range map[string]string{"true": "success", "exit 4": "failed"} {
		t.Run(outcome, func(t *testing.T) {
			screen, shown := openTerminal(t)
			code := run(t.Context(), []string{"run", "2026-02-03", "--processor", "PlayerGameSummaryProcessor", "--publish", "--", "sh", "-c", script}, io.Discard, screen)
			shown.until(t, outcome+" of player_game_summary for 2026-02-03 is reported; its cycle: phasectl status 2026-02-03\r\n", nil)
			if (code == 0) != (script == "true") {
				t.Errorf("exit status %d", code)
			}
		})
	}
}
