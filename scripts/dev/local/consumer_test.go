package local

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

// received is one push as a downstream service sees it.
type received struct {
	MessageID  string
	Attempt    int
	Attributes map[string]string
	Data       []byte
	Trigger    wire.Trigger
}

// consumer is a downstream service. It records every delivery, and separately those that
// it answers with 2xx; answer decides the status.
type consumer struct {
	mu      sync.Mutex
	all     []received // every delivery
	taken   []received // those answered with 2xx
	answer  func(nth int, r received) int
	changed chan struct{}
}

func newConsumer() *consumer { return &consumer{changed: make(chan struct{})} }

func (c *consumer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var push struct {
		Message struct {
			MessageID  string            `json:"messageId"`
			Attributes map[string]string `json:"attributes"`
			Data       []byte            `json:"data"`
		} `json:"message"`
		DeliveryAttempt int `json:"deliveryAttempt"`
	}
	if err := json.NewDecoder(req.Body).Decode(&push); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r := received{MessageID: push.Message.MessageID, Attempt: push.DeliveryAttempt,
		Attributes: push.Message.Attributes, Data: push.Message.Data}
	r.Trigger, _ = wire.DecodeTrigger(r.Data) // other topics carry other things
	w.WriteHeader(c.take(r))
}

func (c *consumer) take(r received) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, r)
	status := http.StatusNoContent
	if c.answer != nil {
		status = c.answer(len(c.all), r)
	}
	if status < 300 {
		c.taken = append(c.taken, r)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return status
}

// wait waits for n deliveries and returns them.
func (c *consumer) wait(t *testing.T, n int) []received {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		got, changed := c.all, c.changed
		c.mu.Unlock()
		if len(got) >= n {
			return got[:n:n]
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d of %d messages received", len(got), n)
		}
	}
}

func (c *consumer) deliveries() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]received(nil), c.all...)
}

func (c *consumer) accepted() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]received(nil), c.taken...)
}

// strict answers as the production service does: 400 to a message without a field that it
// reads. It shares no code with the decoder under test.
func strict(_ int, r received) int {
	var m map[string]any
	if json.Unmarshal(r.Data, &m) != nil {
		return http.StatusBadRequest
	}
	table, _ := m["source_table"].(string)
	analysis, _ := m["analysis_date"].(string)
	game, _ := m["game_date"].(string)
	_, success := m["success"].(bool)
	if table == "" || analysis == "" && game == "" || !success {
		return http.StatusBadRequest
	}
	return http.StatusOK
}
