package transition_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// stopped is a store whose first commit waits.
type stopped struct {
	store.Store
	once    sync.Once
	reached chan struct{}
	release chan struct{}
}

func (s *stopped) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	s.once.Do(func() {
		close(s.reached)
		<-s.release
	})
	return s.Store.Apply(ctx, ws...)
}

func stop(w *apptest.World) *stopped {
	s := &stopped{Store: w.Engine.Store, reached: make(chan struct{}), release: make(chan struct{})}
	w.Engine.Store = s
	return s
}

// post delivers a completion over HTTP; the status, or 0, follows on the channel.
func post(t *testing.T, url, id string, completion map[string]any) <-chan int {
	t.Helper()
	data, err := json.Marshal(completion)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Post(url, "application/json", bytes.NewReader(wire.Envelope{MessageID: id, PublishTime: now, Data: data}.Push()))
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	return answered
}

func TestShutdown_DrainsTheOpenGroup(t *testing.T) {
	w := apptest.New(t, now)
	s := stop(w)
	arrived := make(chan struct{}, len(five))
	h := handler(w)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		h.ServeHTTP(rw, r)
	}))
	defer server.Close()
	answers := []<-chan int{post(t, server.URL, "0", completed(five[0]))}
	<-s.reached
	for i, name := range five[1:] {
		answers = append(answers, post(t, server.URL, fmt.Sprint(i+1), completed(name)))
	}
	for range five {
		<-arrived
	}
	down := make(chan error, 1)
	go func() { down <- server.Config.Shutdown(context.Background()) }()
	close(s.release)
	for i, a := range answers {
		if code := <-a; code != 204 {
			t.Errorf("completion %d: %d", i, code)
		}
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if n := len(w.PubSub.Messages()); n != 5 {
		t.Errorf("%d of 5 triggers", n)
	}
}

// The request that began the group before has been answered by then.
func TestNotification_OfALaterGroupIsSent(t *testing.T) {
	w, slack := apptest.New(t, now), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	s := stop(w)
	server := httptest.NewServer(handler(w))
	defer server.Close()
	first := post(t, server.URL, "0", completed(five[1]))
	<-s.reached
	failed := completed(five[0])
	failed["status"], failed["execution_id"] = "failed", "broken"
	second := post(t, server.URL, "1", failed)
	close(s.release)
	if a, b := <-first, <-second; a != 204 || b != 204 {
		t.Fatal(a, b)
	}
	if got := strings.Join(slack.Take(), ""); !strings.Contains(got, "waits for player_game_summary, which failed") {
		t.Errorf("sent %q", got)
	}
}
