package guardtest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// delivery is one request to a guard and its answer.
type delivery struct {
	id         int // the service logs it
	key        string
	messageID  string
	slot       int
	began, end time.Time // end is zero while there is no answer
	status     int       // 0: the connection broke, or the front hung up
}

// front stands in front of the guards as the platform does: the address of the pushes stays
// while instances come and go. It delivers copies, hangs up, and records every delivery.
type front struct {
	server *httptest.Server
	copies float64 // share of deliveries of which a copy goes to another instance at the same time
	hangUp float64 // share of deliveries of which the client does not wait for the answer

	mu    sync.Mutex
	urls  []string // of the guards by slot, "" while there is none
	all   []*delivery
	acked map[string]bool // by message id
	busy  []chan struct{} // by slot; closed at its next delivery
}

func newFront(t *testing.T, slots int) *front {
	f := &front{urls: make([]string, slots), acked: map[string]bool{}, busy: make([]chan struct{}, slots)}
	for i := range f.busy {
		f.busy[i] = make(chan struct{})
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

// to sends the deliveries of a slot to a guard from now on.
func (f *front) to(slot int, url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.urls[slot], f.busy[slot] = url, make(chan struct{})
}

// occupied is closed once the slot gets a delivery.
func (f *front) occupied(slot int) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy[slot]
}

// ServeHTTP takes a push of the broker. An answer 2xx of any guard acknowledges the message.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the broker has gone
	}
	var push struct {
		Message struct {
			MessageID  string
			Attributes map[string]string
		}
	}
	if err := json.Unmarshal(body, &push); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	to := rand.IntN(len(f.urls))
	slots := []int{to}
	if rand.Float64() < f.copies {
		slots = append(slots, (to+1)%len(f.urls))
	}
	hangUp := rand.Float64() < f.hangUp
	statuses := make(chan int, len(slots))
	for _, slot := range slots {
		d := &delivery{key: push.Message.Attributes["trigger_id"], messageID: push.Message.MessageID, slot: slot, began: time.Now()}
		go func() { statuses <- f.send(d, r, body, hangUp) }()
	}
	status := 0
	for range slots {
		if got := <-statuses; status == 0 || acknowledges(got) {
			status = got
		}
	}
	f.mu.Lock()
	f.acked[push.Message.MessageID] = f.acked[push.Message.MessageID] || acknowledges(status)
	f.mu.Unlock()
	if status == 0 {
		status = http.StatusBadGateway
	}
	w.WriteHeader(status)
}

func acknowledges(status int) bool { return status == http.StatusOK || status == http.StatusNoContent }

// send forwards a delivery and returns the status, 0 if there is none.
func (f *front) send(d *delivery, r *http.Request, body []byte, hangUp bool) int {
	f.mu.Lock()
	f.all = append(f.all, d)
	d.id = len(f.all)
	url := f.urls[d.slot]
	select {
	case <-f.busy[d.slot]:
	default:
		close(f.busy[d.slot])
	}
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	if hangUp {
		defer time.AfterFunc(time.Duration(rand.Int64N(int64(100*time.Millisecond))), cancel).Stop()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/work", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Delivery", strconv.Itoa(d.id))
	resp, err := transport.RoundTrip(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			d.end = time.Now() // else the guard may be at work
		}
		return 0
	}
	d.end, d.status = time.Now(), resp.StatusCode
	return d.status
}

// No connection is kept: one to a dead instance must not serve the next instance.
var transport = &http.Transport{DisableKeepAlives: true}

// unacknowledged are those of the messages that no guard has acknowledged.
func (f *front) unacknowledged(ids []string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if !f.acked[id] {
			out = append(out, id)
		}
	}
	return out
}

// of returns the deliveries of a key so far; of all for "".
func (f *front) of(key string) (out []delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.all {
		if key == "" || d.key == key {
			out = append(out, *d)
		}
	}
	return out
}
