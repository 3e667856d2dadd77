package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// Wherever the limit falls, it falls between two escapes.
func TestMessage_CutsNoEscapeInTwo(t *testing.T) {
	whole := regexp.MustCompile(`&(amp|lt|gt);`)
	n := &Notifier{Of: "p"}
	for before := range 6 {
		text := strings.Repeat("x", before) + strings.Repeat("&", 5000)
		for name, notification := range map[string]Notification{"title": {State: "s", Title: text}, "reason": {State: "s", Title: "t", Reason: text}} {
			got := n.message([]Notification{notification})
			if rest := whole.ReplaceAllString(got, ""); strings.Contains(rest, "&") || !strings.Contains(got, "…") {
				t.Errorf("%s after %d characters: ends with %q", name, before, got[max(0, len(got)-20):])
			}
		}
	}
}

// slowSlack takes a message after a while.
type slowSlack struct {
	takes time.Duration
	sent  *int
}

func (s slowSlack) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.takes):
		*s.sent++
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("ok")), Header: http.Header{}, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// slowStore takes a while to note what was sent.
type slowStore struct {
	store.Store
	takes time.Duration
}

func (s slowStore) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	for _, w := range writes {
		for _, f := range w.Fields {
			if f.Path[0] != "sent_at" {
				continue
			}
			select {
			case <-time.After(s.takes):
			case <-ctx.Done():
				return nil, fmt.Errorf("the store: %w", ctx.Err())
			}
		}
	}
	return s.Store.Apply(ctx, writes...)
}

// Slack and the store are slow, and each keeps its limit. A notification that is sent and not
// recorded would be sent twice.
func TestTry_NotesWhatWasSentHoweverLongSlackTook(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	t.Cleanup(func() { client.Transport = nil })
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		client.Transport = slowSlack{attempt - time.Millisecond, &sent}
		d.Store = slowStore{d.Store, limit - time.Second}
		for range 2 {
			if err := d.Send(t.Context(), blocked); err != nil && !errors.Is(err, errLeft) {
				t.Errorf("%v", err)
			}
			d.now = d.now.Add(claimFor)
		}
		if sent != 1 {
			t.Errorf("sent %d times, want 1", sent)
		}
	})
}
