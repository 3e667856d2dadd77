package local

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/phasegate/phasegate/shared/notify"
)

// slack takes what Slack would be sent: what happens on this machine reaches no real
// channel.
type slack struct {
	url    string
	server *http.Server
}

// serveSlack starts one that hands each message on as text.
func serveSlack(say func(text string)) (*slack, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve Slack: %w", err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Text string `json:"text"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&body); err != nil || body.Text == "" {
			http.Error(w, "invalid_payload", http.StatusBadRequest)
			return
		}
		say(body.Text)
		_, _ = io.WriteString(w, "ok") // a client that has gone is all that can fail here
	})
	s := &slack{url: "http://" + l.Addr().String() + "/", server: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}}
	go func() { _ = s.server.Serve(l) }() // only Close ends it
	return s, nil
}

// channel is the one that leads here.
func (s *slack) channel() notify.Slack {
	return notify.FromEnv(func(name string) string {
		return map[string]string{"SLACK_WEBHOOK_URL": s.url}[name]
	})
}
