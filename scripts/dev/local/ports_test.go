package local

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app"
)

// An environment whose ports are in use leaves no goroutines behind; TestMain checks that.
func TestStart_PortInUseIsError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	for _, o := range []Options{{PubSubPort: taken}, {FunctionsPort: taken}} {
		o.Config = app.Config{Project: "test", LogLevel: "info"}
		o.Stores, o.Clock, o.Logs, o.Errors = openStore(t, "sqlite"), NewClock(at("2026-02-03 12:00")), io.Discard, t.Logf
		if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%v, want that the address is in use", err)
		}
	}
}
