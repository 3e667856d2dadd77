// Package guard stands in front of an HTTP service that receives Pub/Sub push deliveries and
// knows nothing of copies. It works each delivery once: a copy of a delivery that was done is
// answered without work, and a copy of one that is at work is refused.
//
// # Answers
//
//	204  done before
//	429  at work elsewhere, or the lock of a processor is held: retry
//	409  another message with other data has the same key
//	503  unknown, or this instance stops: retry
//	     else the answer of the service, once the receipt has the result. A status by which
//	     Pub/Sub would take a failure for done becomes 503
//
// # Guarantees
//
//   - Two guards never forward one delivery while both rely on their claims.
//   - An answer by which Pub/Sub acknowledges means that the work was done.
//   - Once faults end, every delivery is done if the service succeeds before Pub/Sub dead-letters it.
//   - Without a fault there is one run of a delivery, and one more for each failure.
//
// # Limits
//
// A copy works again if the guard's process dies after the service's last effect and before
// the receipt says so. It also works again after a claim that could not be renewed for its whole
// time, and after a result that stays unknown for longer than that. If a service reports a failure
// after its effect, the effect comes twice. Work that goes on after the answer is not seen.
//
// Pub/Sub redelivers after 600 s at most, and counts each 429 as an attempt. A run of an hour uses
// 11 attempts with a back-off of 10 to 600 s, and 60 without one. So the subscription needs a
// retry policy, and at least 20 attempts: a message that is dead-lettered during a run is not
// retried if that run fails.
//
// # Keys
//
// The key is the attribute trigger_id, else subscription and message id. Everything but a
// POST of a Pub/Sub delivery on the guarded paths passes through, without a call of the store.
package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/receipt"
)

// Config is what a Guard stands on. All fields are required but Serial, Locks, SuccessJSON and Kill.
type Config struct {
	Receipts *receipt.Receipts
	Upstream *url.URL // the service; http
	Scope    string   // names the service in receipts
	Paths    []string // the paths that are guarded; "/" is one
	// Success are the statuses that mean that the work was done. SuccessJSON narrows that: for
	// each field of the answer's JSON object the values that mean so.
	Success     []int
	SuccessJSON map[string][]string
	Limit       time.Duration // of a run
	Cooldown    bool          // after a failure the claim is left to expire
	RefuseOther bool          // POSTs on guarded paths that are no readable delivery get 400
	// Serial returns the locks of the processors that a delivery sets off, sorted; Locks takes
	// them. Their names must not be those that the service takes itself.
	Serial func(data []byte) ([]lease.Key, error)
	Locks  *lease.Locks
	NewID  func() string // unique and unguessable
	// Kill ends the service if the claim is lost or the result is unknown, and returns once it
	// has ended. Without it the service works on.
	Kill func()
	Log  *slog.Logger
}

// Guard is an http.Handler.
type Guard struct {
	Config
	pass      *httputil.ReverseProxy
	transport http.RoundTripper
	decoding  sync.Mutex // one body at a time: that takes some times its size

	mu       sync.Mutex
	stopping bool
	running  sync.WaitGroup // guarded requests

	ended        chan struct{} // closed when results are no longer waited for
	endOnce      sync.Once
	serviceEnded atomic.Bool // the service's process has ended: nothing of it is at work
}

// New returns a guard. An error names a wrong field.
func New(c Config) (*Guard, error) {
	switch {
	case c.Upstream == nil || c.Upstream.Scheme != "http" || c.Upstream.Host == "":
		return nil, fmt.Errorf("upstream %q: is no address such as http://127.0.0.1:8081", c.Upstream)
	case c.Limit <= 0 || c.Limit > receipt.MaxRun:
		return nil, fmt.Errorf("limit %s: is not between 0 and %s, the longest request of Cloud Run", c.Limit, receipt.MaxRun)
	case c.Receipts.TTL < receipt.MinTTL:
		return nil, fmt.Errorf("ttl %s: is below %s", c.Receipts.TTL, receipt.MinTTL)
	case len(c.Paths) == 0:
		return nil, errors.New("paths: at least one is required, such as /")
	case len(c.Success) == 0:
		return nil, errors.New("success: at least one status is required, such as 200")
	}
	for _, status := range c.Success {
		if !slices.Contains(acknowledged, status) {
			return nil, fmt.Errorf("success %d: Pub/Sub would deliver the message again: use some of %v", status, acknowledged)
		}
	}
	g := &Guard{Config: c, ended: make(chan struct{}), transport: newTransport()}
	g.pass = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(c.Upstream)
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		},
		Transport:     g.transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}
	return g, nil
}

// newTransport returns a transport that sends each request at most once: one that reuses
// connections repeats a POST with an Idempotency-Key whose connection broke.
func newTransport() http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true, DisableCompression: true}
}

// Stop refuses new deliveries with 503.
func (g *Guard) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopping = true
}

// Settled returns a channel that is closed once no guarded request is at work. Call Stop first.
func (g *Guard) Settled() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		g.running.Wait()
		close(done)
	}()
	return done
}

// End stops waiting for the results of all requests. serviceEnded says that the service's process has
// ended, so that their deliveries can be worked again at once.
func (g *Guard) End(serviceEnded bool) {
	if serviceEnded {
		g.serviceEnded.Store(true)
	}
	g.Stop()
	g.endOnce.Do(func() { close(g.ended) })
}

// begin counts a guarded request, unless the guard stops.
func (g *Guard) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return false
	}
	g.running.Add(1)
	return true
}
