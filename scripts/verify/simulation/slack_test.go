//go:build unix && !race

package simulation

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/notify"
)

// Slack receives messages without a network. The context of a request has the process that sends it.

type placeKey struct{}

type place struct {
	w *world
	p *process
}

func placeOf(ctx context.Context) place { at, _ := ctx.Value(placeKey{}).(place); return at }

type slackAPI struct{}

func (slackAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	at := placeOf(r.Context())
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	err = at.w.do(r.Context(), at.p, true, "notify", func() error {
		at.w.mu.Lock()
		defer at.w.mu.Unlock()
		if strings.Contains(string(text), "put in quarantine") {
			at.w.notified = append(at.w.notified, time.Now())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok")), Request: r}, nil
}

func init() { http.DefaultTransport = slackAPI{} }

var channel = notify.FromEnv(func(name string) string {
	return map[string]string{"SLACK_WEBHOOK_URL": "https://slack.invalid/hook"}[name]
})

// quarantineNotified: a notification about invalid messages is sent, at most once an hour.
func (w *world) quarantineNotified() {
	invalid := false
	for _, m := range w.messages {
		invalid = invalid || m.invalid
	}
	if invalid && len(w.notified) == 0 && w.happened == 0 {
		w.fail("a message is in quarantine, and no notification was sent")
	}
	for i := 1; i < len(w.notified); i++ {
		if apart := w.notified[i].Sub(w.notified[i-1]); apart < time.Hour && w.happened == 0 {
			w.fail("messages in quarantine are notified twice, %s apart", apart)
		}
	}
}
