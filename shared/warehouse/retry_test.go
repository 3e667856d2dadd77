package warehouse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// between is a proxy between a warehouse and the emulator, at which statements go wrong.
type between struct {
	mu     sync.Mutex
	fails  int    // so many merges fail as if a rival's were faster
	lost   int    // so many answers to a merge are lost
	reason string // of the failure
	merges int
}

func (p *between) count(body string) (fail, lose bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.Contains(body, "MERGE") {
		return false, false
	}
	p.merges++
	switch {
	case p.fails > 0:
		p.fails--
		return true, false
	case p.lost > 0:
		p.lost--
		return false, true
	}
	return false, false
}

func (p *between) serve(t *testing.T, in *warehousetest.World) *warehouse.Warehouse {
	host := in.Host
	if host == "" {
		t.Skip("what stands between needs the emulator")
	}
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	target, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		// Answer with the reason that BigQuery gives, in place of the emulator's jobInternalError.
		if bytes.Contains(body, []byte("Could not serialize access")) || bytes.Contains(body, []byte("Division by nothing")) {
			body = bytes.ReplaceAll(body, []byte("jobInternalError"), []byte(p.reason))
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Length", fmt.Sprint(len(body)))
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fail, lose := p.count(string(body))
		if fail {
			message := "Could not serialize access to table scores due to concurrent update"
			if p.reason == "invalid" {
				message = "Division by nothing"
			}
			text := string(body)
			begin, end := strings.Index(text, "MERGE"), strings.Index(text, `","useLegacySql"`)
			if end < begin {
				end = begin + strings.Index(text[begin:], `"`)
			}
			body = []byte(text[:begin] + "SELECT ERROR('" + message + "')" + text[end:])
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Host = target.Host
		if lose {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	w := warehouse.New(in.Project, server.URL)
	t.Cleanup(func() { w.Close() })
	return w
}

func TestWrite_RetriesWithNewTokenAfterConflict(t *testing.T) {
	b := newBooks(t, scores, "")
	p := &between{fails: 1, reason: "invalidQuery"}
	w := p.serve(t, b.World)
	right, next := b.right(), b.right()
	asked := 0
	right.Next = func(context.Context) (string, error) { asked++; return next.JobID, nil }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := w.Write(ctx, right, b.target, rowsOf(score("a", 10, first)))
	if err != nil || asked != 1 || got.JobID != next.JobID {
		t.Fatalf("%+v after %d tokens: %v", got, asked, err)
	}
	b.want("a=10")
	// The first token is used, and its job has ended: nothing comes of it any more.
	if err := b.fence(right); err != nil {
		t.Error(err)
	}
	b.want("a=10")
}

// A permanent error is not retried.
func TestWrite_PermanentErrorIsNotRetried(t *testing.T) {
	b := newBooks(t, scores, "")
	p := &between{fails: 1, reason: "invalid"}
	right := b.right()
	right.Next = func(context.Context) (string, error) { t.Error("tried again"); return "", errors.New("no") }
	_, err := p.serve(t, b.World).Write(t.Context(), right, b.target, rowsOf(score("a", 10, first)))
	if err == nil || !strings.Contains(err.Error(), "Division by nothing") || p.merges != 1 {
		t.Errorf("%d merges: %v", p.merges, err)
	}
}

// The lock was lost in the meantime: there is no next token, and nothing is written.
func TestWrite_LostLockPreventsRetry(t *testing.T) {
	b := newBooks(t, scores, "")
	p := &between{fails: 1, reason: "invalidQuery"}
	right := b.right()
	lost := errors.New("lock lost")
	right.Next = func(context.Context) (string, error) { return "", lost }
	if _, err := p.serve(t, b.World).Write(t.Context(), right, b.target, rowsOf(score("a", 10, first))); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	b.want("")
}

func TestWrite_LostResponseIsRecovered(t *testing.T) {
	b := newBooks(t, scores, "")
	p := &between{lost: 1}
	right := b.right()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := p.serve(t, b.World).Write(ctx, right, b.target, rowsOf(score("a", 10, first)))
	if err != nil || got.JobID != right.JobID {
		t.Fatalf("%+v, %v", got, err)
	}
	b.want("a=10")
}
