package warehouse_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// A sweep and the processors fence each other's tokens after a crash. They have identities of
// their own, and an identity sees the jobs of another only with the right bigquery.jobs.get.
func TestFence_NamesTheRightToSeeAnothersJob(t *testing.T) {
	b := newBooks(t, scores, "")
	p := b.Platform()
	processor, sweep := p.As("processor"), p.As("sweep")
	used := b.right()
	if _, err := processor.Write(atMost(t), used, b.target, rowsOf(score("a", 10, first))); err != nil {
		t.Fatal(err)
	}
	err := sweep.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(used))
	for _, want := range []string{"job " + used.JobID + " belongs to another identity: grant this one bigquery.jobs.get on project " + b.Project, "Error 403: Access Denied: Job "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without the right: %v, want %q", err, want)
		}
	}
	p.Granted["sweep"] = true
	if err := sweep.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(used)); err != nil {
		t.Errorf("with the right: %v", err)
	}

	taken := b.right()
	if err := sweep.Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(taken)); err != nil {
		t.Fatal(err)
	}
	_, err = processor.Write(atMost(t), taken, b.target, rowsOf(score("a", 11, first)))
	if err == nil || errors.Is(err, warehouse.ErrFenced) || !strings.Contains(err.Error(), "grant this one bigquery.jobs.get") {
		t.Errorf("without the right it is not known who has taken the id: %v", err)
	}
	p.Granted["processor"] = true
	if _, err = processor.Write(atMost(t), taken, b.target, rowsOf(score("a", 11, first))); !errors.Is(err, warehouse.ErrFenced) {
		t.Errorf("with the right: %v", err)
	}
	b.want("a=10")
}

func TestFence_WaitsForTheRunningJobOfAnotherIdentity(t *testing.T) {
	b := newBooks(t, scores, "")
	p := b.Platform()
	arrived := make(chan bool, 1)
	p.Held, p.Arrived, p.Granted["sweep"] = make(chan struct{}), func(queued bool) { arrived <- queued }, true
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	p.Fails = func(_ int, r *http.Request) error {
		if user, _, _ := r.BasicAuth(); user == "sweep" && strings.Contains(r.URL.Path, "/queries/") {
			once()
		}
		return nil
	}
	used := b.only()
	written, fenced := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := p.As("processor").Write(atMost(t), used, b.target, rowsOf(score("a", 10, first)))
		written <- err
	}()
	<-arrived
	go func() { fenced <- p.As("sweep").Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(used)) }()
	select {
	case err := <-fenced:
		t.Errorf("fenced while the job still runs: %v", err)
	case <-asked:
	}
	close(p.Held)
	if err := errors.Join(<-fenced, <-written); err != nil {
		t.Error(err)
	}
	b.want("a=10")
}

// Any request may be answered 408 or 429 without a reason. The library retries neither.
func TestWrite_HappensAlthoughARequestIsThrottled(t *testing.T) {
	b := newBooks(t, scores, "")
	whole := b.Platform()
	n := 0
	whole.Fails = func(i int, _ *http.Request) error { n = i + 1; return nil }
	if _, err := whole.As("processor").Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first))); err != nil || n < 7 {
		t.Fatalf("%d requests, %v", n, err)
	}
	for _, status := range []int{http.StatusRequestTimeout, http.StatusTooManyRequests} {
		for at := range n {
			t.Run(fmt.Sprintf("%d_%d", status, at), func(t *testing.T) {
				t.Parallel()
				p := b.Platform()
				path := ""
				p.Fails = func(i int, r *http.Request) error {
					if i != at {
						return nil
					}
					path = r.Method + " " + r.URL.Path
					return warehousetest.Throttled(status)
				}
				got, err := p.As("processor").Write(atMost(t), b.only(), b.target, rowsOf(score("a", 10, first)))
				if err != nil || got.Doubled != 0 || got.Problem != "" {
					t.Errorf("%s: %+v, %v", path, got, err)
				}
			})
		}
	}
}

// An earlier token's id may have to be taken while BigQuery throttles.
func TestFence_HoldsAlthoughARequestIsThrottled(t *testing.T) {
	b := newBooks(t, scores, "")
	used := b.right()
	p := b.Platform()
	if _, err := p.As("sweep").Write(atMost(t), used, b.target, rowsOf(score("a", 10, first))); err != nil {
		t.Fatal(err)
	}
	throttled := map[string]bool{}
	p.Fails = func(_ int, r *http.Request) error { // each kind of request once
		key := r.Method + " " + r.URL.Path
		if throttled[key] {
			return nil
		}
		throttled[key] = true
		return warehousetest.Throttled(http.StatusTooManyRequests)
	}
	if err := p.As("sweep").Fence(atMost(t), b.target.Processor.Table, lockOf, nonce(used)); err != nil || len(throttled) < 4 {
		t.Errorf("%d requests throttled, %v", len(throttled), err)
	}
}
