package guard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

func TestGuard_AnswersADeliveryAndItsCopies(t *testing.T) {
	for _, test := range []struct {
		name     string
		service  http.HandlerFunc
		change   func(*Config)
		want     []int // of the delivery, a copy, and another message with the same key
		received int32
	}{
		{"success", answering(200, "ok"), nil, []int{200, 204, 409}, 1},
		{"success without a body", answering(204, ""), nil, []int{204, 204, 409}, 1},
		{"failure", answering(500, "no"), nil, []int{500, 500, 409}, 2},
		{"a failure that Pub/Sub would take for done", answering(202, ""), nil, []int{503, 503, 409}, 2},
		{"a redirect is a failure", answering(302, ""), nil, []int{302, 302, 409}, 2},
		{"the answer says that the work was skipped", answering(200, `{"status":"skipped"}`),
			func(c *Config) { c.SuccessJSON = map[string][]string{"status": {"completed"}} }, []int{503, 503, 409}, 2},
		{"the answer says that the work was done", answering(200, `{"status":"completed"}`),
			func(c *Config) { c.SuccessJSON = map[string][]string{"status": {"completed"}} }, []int{200, 204, 409}, 1},
		{"the answer is no JSON", answering(200, `ok`),
			func(c *Config) { c.SuccessJSON = map[string][]string{"status": {"completed"}} }, []int{503, 503, 409}, 2},
		{"after a failure the claim expires by itself", answering(500, ""), func(c *Config) { c.Cooldown = true }, []int{500, 429, 409}, 1},
		{"the connection breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, []int{503, 429, 409}, 1},
		{"the answer breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}, nil, []int{503, 429, 409}, 1},
		{"the connection breaks, and the service is ended", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			func(c *Config) { c.Kill = func() {} }, []int{503, 503, 409}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			change := func(*Config) {}
			if test.change != nil {
				change = test.change
			}
			b := newBench(t, test.service, change)
			for i, data := range []string{"a", "a", "b"} {
				if status, body := b.post("/work?x=1", push("k", data)); status != test.want[i] {
					t.Errorf("delivery %d: %d %s, want %d", i+1, status, body, test.want[i])
				}
			}
			if n := b.received.Load(); n != test.received {
				t.Errorf("the service received %d, want %d", n, test.received)
			}
		})
	}
}

func TestGuard_RefusesACopyOfADeliveryThatIsAtWork(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	b := newBench(t, func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-end
	})
	first := make(chan int)
	go func() {
		status, _ := b.post("/work", push("k", "a"))
		first <- status
	}()
	<-begun
	resp, err := http.Post(b.url+"/work", "application/json", strings.NewReader(push("k", "a")))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the copy: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	close(end)
	if status := <-first; status != 200 || b.received.Load() != 1 {
		t.Errorf("the first: %d; the service received %d", status, b.received.Load())
	}
}

func TestGuard_FinishesTheWorkOfAClientThatHangsUp(t *testing.T) {
	begun, end, cancelled := make(chan bool), make(chan bool), make(chan error, 1)
	b := newBench(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-end
		cancelled <- r.Context().Err()
	})
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/work", strings.NewReader(push("k", "a")))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan bool)
	go func() {
		_, _ = http.DefaultClient.Do(req)
		close(gone)
	}()
	<-begun
	hangUp()
	<-gone
	close(end)
	if err := <-cancelled; err != nil {
		t.Errorf("the service's request was cancelled: %v", err)
	}
	b.guard.Stop()
	<-b.guard.Settled()
	if found, _, err := b.guard.Receipts.Show(t.Context(), receipt.Delivery{Scope: "service", Route: "/work", Key: "k"}.ID()); err != nil || found.State != receipt.Done {
		t.Errorf("the receipt is %q, %v", found.State, err)
	}
}

// With an Idempotency-Key, Go's transport repeats a POST on a connection that it had used
// before and that breaks.
func TestGuard_SendsARequestWithIdempotencyKeyOnce(t *testing.T) {
	n := atomic.Int32{}
	b := newBench(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
	})
	for i, want := range []int{200, 503} {
		if status, _ := b.post("/work", push(fmt.Sprint("k", i), "a"), "Idempotency-Key", "1"); status != want {
			t.Errorf("delivery %d: %d, want %d", i+1, status, want)
		}
	}
	if got := b.received.Load(); got != 2 {
		t.Errorf("the service received %d requests, want 2", got)
	}
}

func TestGuard_PassesOtherRequestsThroughWithoutTheStore(t *testing.T) {
	large := `{"message":{"data":"` + strings.Repeat("A", maxBody) + `","messageId":"m1","publishTime":"2026-02-04T11:00:00Z"}}`
	for _, test := range []struct {
		name, path, body string
		refused          int // the status with RefuseOther
	}{
		{"another path", "/manual", push("k", "a"), 200},
		{"no delivery", "/work", `{"date":"2026-02-03"}`, 400},
		{"no JSON", "/work", "hello", 400},
		{"larger than a push", "/work", large, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			echo := func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			}
			for refuse, want := range map[bool]int{false: 200, true: test.refused} {
				b := newBench(t, echo, func(c *Config) {
					c.RefuseOther = refuse
					c.Receipts.Store = nil // any call would panic
				})
				status, body := b.post(test.path, test.body)
				if status != want || want == 200 && body != test.body {
					t.Errorf("refuse %t: %d with %d bytes, want %d with %d", refuse, status, len(body), want, len(test.body))
				}
			}
		})
	}
	var got *http.Request
	b := newBench(t, func(_ http.ResponseWriter, r *http.Request) { got = r }, func(c *Config) { c.Receipts.Store = nil })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/work", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || got.Host != strings.TrimPrefix(b.url, "http://") || got.Header.Get("X-Forwarded-For") != "192.0.2.1" {
		t.Errorf("GET: %d, host %q, headers %v", resp.StatusCode, got.Host, got.Header)
	}
}

func TestGuard_ReleasesADeliveryThatWasNotSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // no service listens here
	b := newBench(t, answering(200, ""), func(c *Config) { c.Upstream = &url.URL{Scheme: "http", Host: l.Addr().String()} })
	for range 2 {
		if status, body := b.post("/work", push("k", "a")); status != 503 || !strings.Contains(body, "refused") {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestGuard_RefusesWhileItStops(t *testing.T) {
	b := newBench(t, answering(200, ""))
	b.guard.Stop()
	if status, _ := b.post("/work", push("k", "a")); status != 503 || b.received.Load() != 0 {
		t.Errorf("%d, and the service received %d", status, b.received.Load())
	}
	<-b.guard.Settled()
}

func TestGuard_LeavesTheClaimOfASidecarThatEndsAndReleasesThatOfAParent(t *testing.T) {
	for serviceEnded, want := range map[bool]string{false: receipt.Working, true: receipt.Released} {
		begun := make(chan bool)
		end := make(chan bool)
		b := newBench(t, func(http.ResponseWriter, *http.Request) {
			begun <- true
			<-end
		})
		status := make(chan int)
		go func() {
			s, _ := b.post("/work", push("k", "a"))
			status <- s
		}()
		<-begun
		b.guard.End(serviceEnded)
		if got := <-status; got != 503 {
			t.Errorf("%t: %d", serviceEnded, got)
		}
		close(end)
		found, _, err := b.guard.Receipts.Show(t.Context(), receipt.Delivery{Scope: "service", Route: "/work", Key: "k"}.ID())
		if err != nil || found.State != want {
			t.Errorf("service ended %t: the receipt is %q, want %q, %v", serviceEnded, found.State, want, err)
		}
	}
}

func TestGuard_ForwardsNothingWithoutTheStore(t *testing.T) {
	b := newBench(t, answering(200, ""), func(c *Config) { c.Receipts.Store = absent{} })
	if status, body := b.post("/work", push("k", "a")); status != 503 || b.received.Load() != 0 {
		t.Errorf("%d %s, and the service received %d", status, body, b.received.Load())
	}
}

func TestGuard_ForwardsNothingOnADamagedReceipt(t *testing.T) {
	b := newBench(t, answering(200, ""))
	ref := store.Ref{Collection: "receipts", ID: receipt.Delivery{Scope: "service", Route: "/work", Key: "k"}.ID()}
	if _, err := b.store.Apply(t.Context(), store.Create(ref, store.F("half_done", "state"))); err != nil {
		t.Fatal(err)
	}
	if status, body := b.post("/work", push("k", "a")); status != 503 || b.received.Load() != 0 || !strings.Contains(body, ref.ID) {
		t.Errorf("%d %s, and the service received %d", status, body, b.received.Load())
	}
}

// A process that was suspended finds two things at once when it wakes: the time limit is over,
// and the service has answered meanwhile.
func TestGuard_SeesAnAnswerThatCameDuringASuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New(time.Now)
		quiet := slog.New(slog.DiscardHandler)
		id := 0
		newID := func() string { id++; return fmt.Sprint("n", id) }
		g := &Guard{ended: make(chan struct{}), Config: Config{NewID: newID, Log: quiet, Limit: time.Minute, Kill: func() { t.Error("the service was ended") },
			Receipts: receipt.New(receipt.Config{Store: st, Now: time.Now, NewID: newID, TTL: time.Hour, Log: quiet})}}
		a := g.deliver(t.Context(), receipt.Delivery{Scope: "s", Route: "/", Key: "k"}, func(context.Context) answer {
			time.Sleep(time.Minute + lateFor/2)
			return answer{status: 200}
		})
		if a.status != 200 {
			t.Errorf("answer %d, %v", a.status, a.err)
		}
	})
}

func TestNew_NamesAWrongField(t *testing.T) {
	good := func() Config {
		return Config{Receipts: receipt.New(receipt.Config{TTL: time.Minute}), Upstream: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Scope: "s",
			Paths: []string{"/"}, Success: []int{200}, Limit: time.Minute, Log: slog.New(slog.DiscardHandler)}
	}
	for want, change := range map[string]func(*Config){
		"":            func(*Config) {},
		"upstream":    func(c *Config) { c.Upstream = &url.URL{Scheme: "https", Host: "x"} },
		"limit":       func(c *Config) { c.Limit = 61 * time.Minute },
		"ttl":         func(c *Config) { c.Receipts.TTL = time.Second },
		"paths":       func(c *Config) { c.Paths = nil },
		"success":     func(c *Config) { c.Success = nil },
		"success 500": func(c *Config) { c.Success = []int{200, 500} },
	} {
		c := good()
		change(&c)
		if _, err := New(c); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestGuard_CallsTheStoreThreeTimesForADeliveryAndOnceForEachThirdOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &counting{Store: memory.New(time.Now)}
		quiet := slog.New(slog.DiscardHandler)
		id := 0
		newID := func() string { id++; return fmt.Sprint("n", id) }
		g := &Guard{ended: make(chan struct{}), Config: Config{NewID: newID, Log: quiet, Limit: time.Hour,
			Receipts: receipt.New(receipt.Config{Store: st, Now: time.Now, NewID: newID, TTL: 2 * time.Minute, Log: quiet})}}
		for _, test := range []struct {
			name  string
			key   string
			run   time.Duration
			calls int32
		}{
			{"a short run", "short", time.Second, 3},
			{"its copy", "short", 0, 1},
			{"a run of ten minutes with a renewal each 40 s", "long", 10*time.Minute + time.Second, 3 + 15},
		} {
			before := st.calls.Load()
			g.deliver(t.Context(), receipt.Delivery{Scope: "s", Route: "/", Key: test.key}, func(context.Context) answer {
				time.Sleep(test.run)
				return answer{status: 200}
			})
			if got := st.calls.Load() - before; got != test.calls {
				t.Errorf("%s: %d calls of the store, want %d", test.name, got, test.calls)
			}
		}
	})
}
