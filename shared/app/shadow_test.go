package app_test

import (
	"errors"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/notify"
	"github.com/phasegate/phasegate/shared/notify/notifytest"
)

func TestShadowed_SendsNoNotification(t *testing.T) {
	w, slack := apptest.New(t, time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)), notifytest.New(t)
	w.Notifier.Slack = slack.Channel
	n := notify.Notification{Subject: "quarantine_transition", State: "waiting", Severity: notify.Warning, Title: "one waits"}
	shadow := w.Shadowed()
	shadow.Notifier.Notify(t.Context(), n)
	if err := shadow.Notifier.Send(t.Context(), n); !errors.Is(err, notify.ErrNoChannel) {
		t.Errorf("the shadow tried: %v", err)
	}
	if got := slack.Take(); len(got) != 0 {
		t.Errorf("the shadow notified: %q", got)
	}
	w.Notifier.Notify(t.Context(), n)
	if got := slack.Take(); len(got) != 1 {
		t.Errorf("the application notified %d times, want 1", len(got))
	}
}
