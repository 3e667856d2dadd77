package guard

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// bench is a guard in front of a service.
type bench struct {
	t        *testing.T
	guard    *Guard
	store    *memory.Store
	url      string
	received atomic.Int32 // by the service
}

func newBench(t *testing.T, service http.HandlerFunc, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, store: memory.New(time.Now)}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.received.Add(1)
		service(w, r)
	}))
	t.Cleanup(up.Close)
	address, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	id := atomic.Int32{}
	newID := func() string { return fmt.Sprint("nonce", id.Add(1)) }
	c := Config{
		Receipts: receipt.New(receipt.Config{Store: b.store, Now: time.Now, NewID: newID, TTL: time.Minute, Instance: "i1", Log: slog.New(slog.DiscardHandler)}),
		Upstream: address, Scope: "service", Paths: []string{"/work"}, Success: []int{200, 204}, Limit: time.Minute, NewID: newID, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	if b.guard, err = New(c); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(b.guard)
	t.Cleanup(front.Close)
	b.url = front.URL
	return b
}

func push(key, data string) string {
	return fmt.Sprintf(`{"message":{"attributes":{"trigger_id":%q},"data":%q,"messageId":"m-%s","publishTime":"2026-02-04T11:00:00Z"},"subscription":"projects/p/subscriptions/s"}`,
		key, base64.StdEncoding.EncodeToString([]byte(data)), key)
}

func (b *bench) post(path, body string, headers ...string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// absent is a store that does not answer.
type absent struct{ store.Store }

func (absent) Get(context.Context, ...store.Ref) (store.Snapshot, error) {
	return store.Snapshot{}, errors.New("away")
}

// counting counts the calls of a store.
type counting struct {
	store.Store
	calls atomic.Int32
}

func (c *counting) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	c.calls.Add(1)
	return c.Store.Get(ctx, refs...)
}

func (c *counting) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	c.calls.Add(1)
	return c.Store.Apply(ctx, writes...)
}
