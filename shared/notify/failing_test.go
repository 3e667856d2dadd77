package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// broken fails its nth Apply, before or after it was done, as a process that dies there or
// an answer that is lost.
type broken struct {
	store.Store
	fails int
	done  bool
	n     int
	err   error
}

func (b *broken) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	b.n++
	if b.n != b.fails {
		return b.Store.Apply(ctx, writes...)
	}
	if b.done {
		if _, err := b.Store.Apply(ctx, writes...); err != nil {
			return nil, err
		}
	}
	return nil, b.err
}

// If a process dies at any step, it has sent the notification or the next evaluation sends it.
func TestNotify_CrashLosesNoNotification(t *testing.T) {
	for _, err := range []error{errors.New("the connection broke"), store.ErrConflict} {
		for _, done := range []bool{false, true} {
			for step := 1; step <= 2; step++ {
				t.Run(fmt.Sprint(err, done, step), func(t *testing.T) {
					d := newDesk(t, answer{status: 200, body: "ok"})
					d.Store = &broken{Store: d.Store, fails: step, done: done, err: err}
					d.Notify(t.Context(), blocked)
					said := len(d.said())
					d.now = d.now.Add(claimFor)
					d.Notify(t.Context(), blocked)
					said += len(d.said())
					most := 1
					if step == 2 && !done {
						most = 2 // sent, but not recorded
					}
					if said < 1 || said > most {
						t.Errorf("sent %d times", said)
					}
					if d.Notify(t.Context(), blocked); len(d.said()) > 0 {
						t.Error("sent once more")
					}
				})
			}
		}
	}
}

// slow lets others do something before it records what was sent.
type slow struct {
	store.Store
	meanwhile func()
}

func (s *slow) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	if do := s.meanwhile; do != nil && !slices.ContainsFunc(writes[0].Fields, func(f store.Field) bool { return f.Path[0] == "claimed_at" }) {
		s.meanwhile = nil
		do()
	}
	return s.Store.Apply(ctx, writes...)
}

// A notifier that stalled between sending and recording does not overwrite the state that
// another process has sent since. Otherwise a problem that returns would not be sent.
func TestNotify_StalledNotifierDoesNotOverwriteState(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	other, alone := *d.Notifier, Notification{Subject: "alone", State: "failing", Title: "y"}
	d.Store = &slow{Store: d.Store, meanwhile: func() {
		d.now = d.now.Add(claimFor)
		other.Notify(t.Context(), blocked)
		other.Notify(t.Context(), well)
	}}
	if err := d.Send(t.Context(), blocked, alone); err != nil {
		t.Errorf("another process has sent it: %v", err)
	}
	d.said()
	if d.Notify(t.Context(), alone); len(d.said()) != 0 {
		t.Error("the notification that no other process took over is not recorded")
	}
	if d.Notify(t.Context(), blocked); len(d.said()) != 1 {
		t.Errorf("the new state blocked was not sent: %s", d.logs)
	}
}

// Notify sends also for a cancelled caller, and does nothing without a channel.
func TestNotify_EndsWithoutSlackOrCaller(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if d.Notify(gone, blocked); len(d.said()) != 1 {
		t.Errorf("the notification of a cancelled caller was not sent: %s", d.logs)
	}
	d.Slack = Slack{}
	d.Notify(t.Context(), overdue) // no channel: the health check "configuration" reports that
	(*Notifier)(nil).Notify(t.Context(), overdue)
	if len(d.said()) != 0 || d.logs.Len() > 0 {
		t.Errorf("%s", d.logs)
	}
	if doc, err := d.Store.Get(t.Context(), store.Ref{Collection: "dev-notifications", ID: "cycle_x"}); err != nil || doc.Docs[0].Data["state"] != "blocked" {
		t.Errorf("a notification that was not sent is recorded as sent: %v, %v", doc, err)
	}
}

// silent never answers, as a store or as Slack.
type silent struct{ store.Store }

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func (s silent) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	for _, w := range writes {
		if w.Op == store.OpMergeIf { // of what was sent
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	return s.Store.Apply(ctx, writes...)
}

func TestNotify_HangingSlackAndStoreTimeOut(t *testing.T) {
	client.Transport = silent{}
	t.Cleanup(func() { client.Transport = nil })
	d := newDesk(t, answer{status: 200, body: "ok"})
	d.Store = silent{d.Store}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := d.Send(t.Context(), blocked)
		if took := time.Since(began); took > 2*limit {
			t.Errorf("it took %s", took)
		}
		if err == nil || strings.Contains(err.Error(), theSecret) {
			t.Errorf("%v", err)
		}
	})
}
