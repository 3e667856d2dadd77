// Package notifytest is a Slack for tests: a local server that takes every message and
// keeps it.
package notifytest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/notify"
)

// Server takes messages by webhook.
type Server struct {
	Channel notify.Slack

	mu       sync.Mutex
	messages []string
}

// New starts one; it ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Text string `json:"text"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Text == "" {
			t.Errorf("Slack was sent %q: %v", body.Text, err)
		}
		s.mu.Lock()
		s.messages = append(s.messages, body.Text)
		s.mu.Unlock()
		_, _ = io.WriteString(w, "ok") // a client that has gone is all that can fail here
	}))
	t.Cleanup(h.Close)
	s.Channel = notify.FromEnv(func(name string) string {
		return map[string]string{"SLACK_WEBHOOK_URL": h.URL}[name]
	})
	return s
}

// Take returns the messages since the last call, in order.
func (s *Server) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.messages
	s.messages = nil
	return out
}
