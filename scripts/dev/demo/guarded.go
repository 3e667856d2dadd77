package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/phasegate/phasegate/shared/guard"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
)

// guarded is a second service of the next phase. It knows nothing of trigger ids, and gets every
// delivery that the first one gets, through a guard.
type guarded struct {
	guard      *guard.Guard
	server     *http.Server
	deliveries atomic.Int64
	runs       atomic.Int64
}

// startGuarded starts the service until ctx ends, with the receipts of its guard in a store.
func startGuarded(ctx context.Context, s store.Store) (*guarded, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &guarded{}
	g.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { g.runs.Add(1) })}
	go func() { _ = g.server.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = g.server.Close() })
	newID := func() string { return strings.ToLower(rand.Text()) }
	log := slog.New(slog.DiscardHandler)
	g.guard, err = guard.New(guard.Config{
		Receipts: receipt.New(receipt.Config{Store: s, Now: time.Now, NewID: newID, TTL: 2 * time.Minute, Instance: "demo", Log: log}),
		Upstream: &url.URL{Scheme: "http", Host: l.Addr().String()}, Scope: "demo", Paths: []string{"/"}, Success: []int{http.StatusOK},
		Limit: time.Minute, NewID: newID, Log: log,
	})
	return g, err
}

// deliver passes a delivery on to the guard, and returns its answer.
func (g *guarded) deliver(body []byte) int {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	w := httptest.NewRecorder()
	g.guard.ServeHTTP(w, r)
	if w.Code < http.StatusMultipleChoices {
		g.deliveries.Add(1)
	}
	return w.Code
}
