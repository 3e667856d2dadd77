package notify

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/memory"
)

// desk is a notifier with its Slack, its clock and a store that can fail.
type desk struct {
	*Notifier
	slack *slackServer
	logs  *bytes.Buffer
	now   time.Time
}

func newDesk(t *testing.T, answers ...answer) *desk {
	d := &desk{slack: newSlack(t, answers...), logs: &bytes.Buffer{}, now: time.Date(2026, 2, 4, 15, 0, 0, 0, time.UTC)}
	ids := 0
	d.Notifier = &Notifier{Store: memory.New(func() time.Time { return d.now }), Slack: d.slack.byWebhook(), Prefix: "dev-", Of: "nba in p",
		NewID: func() string { ids++; return fmt.Sprint("id", ids) }, Log: slog.New(slog.NewJSONHandler(d.logs, nil))}
	return d
}

// said are the messages that Slack was sent since the last call.
func (d *desk) said() (out []string) {
	for _, body := range d.slack.got {
		out = append(out, body["text"].(string))
	}
	d.slack.got = nil
	return out
}

var (
	blocked = Notification{Subject: "cycle_x", State: "blocked", Severity: Warning, Title: "x is blocked", Reason: "rows <1>\n& few", Command: "phasectl explain x", Page: "cycle-blocked"}
	overdue = Notification{Subject: "cycle_x", State: "overdue", Severity: Critical, Title: "x is overdue"}
	well    = Notification{Subject: "cycle_x", Title: "x is handed over"}
)

func TestNotify_RepeatedNotificationsAreSuppressed(t *testing.T) {
	again := Notification{Subject: "q", State: "waiting", Severity: Warning, Title: "one more", Again: time.Hour}
	for name, tc := range map[string]struct {
		told   []Notification
		passes time.Duration // before the last one
		want   bool          // the last one is sent
	}{
		"the first":                 {[]Notification{blocked}, 0, true},
		"the same":                  {[]Notification{blocked, blocked}, 0, false},
		"the same, a year later":    {[]Notification{blocked, blocked}, 365 * 24 * time.Hour, false},
		"another state":             {[]Notification{blocked, overdue}, 0, true},
		"that it is over":           {[]Notification{blocked, well}, 0, true},
		"over what was never told":  {[]Notification{well}, 0, false},
		"over, twice":               {[]Notification{blocked, well, well}, 0, false},
		"once more after it was":    {[]Notification{blocked, well, blocked}, 0, true},
		"within the window":         {[]Notification{again, again}, time.Hour - time.Millisecond, false},
		"after the window":          {[]Notification{again, again}, time.Hour, true},
		"another subject":           {[]Notification{blocked, again}, 0, true},
		"nothing is told as a list": {nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, answer{status: 200, body: "ok"})
			for i, n := range tc.told {
				d.said()
				if i == len(tc.told)-1 {
					d.now = d.now.Add(tc.passes)
				}
				d.Notify(t.Context(), n)
			}
			d.Notify(t.Context())
			if got := d.said(); len(got) > 1 || (len(got) == 1) != tc.want || d.logs.Len() > 0 {
				t.Errorf("%q, logs %s", got, d.logs)
			}
		})
	}
}

func TestMessage_NamesProblemAndFix(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	info := Notification{Subject: "digest", State: "2026-02-04", Severity: Info, Title: "a <good> `night`"}
	d.Notify(t.Context(), overdue, blocked, info) // the later one about a subject is what is
	want := "*Phasegate* nba in p\n" +
		":large_orange_circle: *warning* x is blocked\n>rows &lt;1&gt;\n>&amp; few\n`phasectl explain x`  <https://github.com/phasegate/phasegate/blob/main/docs/how-to/runbooks/cycle-blocked.md|runbook>\n" +
		":information_source: a &lt;good&gt; `night`"
	if got := d.said(); len(got) != 1 || got[0] != want {
		t.Errorf("%q", got)
	}
	d.Shadow = true
	d.Notify(t.Context(), well)
	if got := d.said(); len(got) != 1 || got[0] != "*Phasegate* nba in p, in shadow\n:white_check_mark: *resolved* x is handed over" {
		t.Errorf("%q", got)
	}
}

// A title with text of other programs is one line of a bounded length.
func TestMessage_TitleIsOneLine(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	d.Notify(t.Context(), Notification{Subject: "q", State: "waiting", Severity: Warning, Title: "bad: x\n:red_circle: *critical* forged <!channel> " + strings.Repeat("y", 5000)})
	got := d.said()
	if len(got) != 1 || strings.Count(got[0], "\n") != 1 || !strings.Contains(got[0], "bad: x :red_circle: *critical* forged &lt;!channel&gt; y") || len(got[0]) > 500 {
		t.Errorf("%q", got)
	}
}

func TestNotify_StormIsOneMessageOfBoundedSize(t *testing.T) {
	for _, reason := range []string{"é", "x&<", "\n"} { // escaping and quoting make it longer
		d := newDesk(t, answer{status: 200, body: "ok"})
		var storm []Notification
		for i := range 300 {
			storm = append(storm, Notification{Subject: fmt.Sprint("check_", i), State: "failing", Severity: Critical, Title: strings.Repeat("&", 5000), Reason: strings.Repeat(reason, 5000)})
		}
		d.Notify(t.Context(), storm...)
		got := d.said()
		// https://api.slack.com/methods/chat.postMessage#truncating: more than 40,000 characters are cut off.
		if len(got) != 1 || len(got[0]) > 40_000 || !strings.HasSuffix(got[0], "\nand 280 more: `phasectl health`") {
			t.Fatalf("%q: %d messages, %d bytes", reason, len(got), len(got[0]))
		}
		if whole := regexp.MustCompile(`&(amp|lt|gt);`).ReplaceAllString(got[0], ""); strings.Contains(whole, "&") {
			t.Errorf("%q: an escape is cut in two", reason)
		}
		d.Notify(t.Context(), storm...)
		if again := d.said(); len(again) != 0 {
			t.Errorf("sent again: %d", len(again))
		}
	}
}

// A failed send is logged without the secret, and the next evaluation retries it.
func TestNotify_FailedSendIsRetriedByNextEvaluation(t *testing.T) {
	for name, tc := range map[string]struct {
		first  answer
		reason string
		after  time.Duration
	}{
		"refused":     {answer{status: 400, body: "invalid_payload"}, "400 invalid_payload", 0},
		"left alone":  {answer{status: 429, retryAfter: "90"}, "Slack accepts no message for 1m30s", 90 * time.Second},
		"no such web": {answer{status: 404, body: "no_service " + theSecret}, "404 without a reason", 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, tc.first, answer{status: 200, body: "ok"})
			d.Notify(t.Context(), blocked)
			if got := d.logs.String(); !strings.Contains(got, `"event":"notify_failed"`) || !strings.Contains(got, tc.reason) || strings.Contains(got, theSecret) || strings.Count(got, "\n") != 1 {
				t.Errorf("%s", got)
			}
			if tc.after > 0 {
				d.now = d.now.Add(tc.after - time.Second)
				if d.Notify(t.Context(), blocked); len(d.slack.got) != 1 {
					t.Errorf("sent before the time that Slack asked for")
				}
				d.now = d.now.Add(time.Second)
			}
			if d.Notify(t.Context(), blocked); len(d.slack.got) != 2 {
				t.Errorf("%d tries", len(d.slack.got))
			}
			if d.Notify(t.Context(), blocked); len(d.slack.got) != 2 {
				t.Errorf("sent twice")
			}
		})
	}
}

// Send returns an error while Slack asks to wait.
func TestSend_DeferredNotificationIsError(t *testing.T) {
	d := newDesk(t, answer{status: 429, retryAfter: "90"}, answer{status: 200, body: "ok"})
	if err := d.Send(t.Context(), blocked); err == nil {
		t.Error("left alone: no error")
	}
	d.now = d.now.Add(30 * time.Second)
	if err := d.Send(t.Context(), blocked); err == nil || len(d.slack.got) != 1 {
		t.Errorf("within the time that Slack wants: %v", err)
	}
	d.now = d.now.Add(time.Minute)
	if err := d.Send(t.Context(), blocked); err != nil || len(d.slack.got) != 2 {
		t.Errorf("after it: %v", err)
	}
	// The answer to its claim is lost, and the driver meets its own write.
	d.Store = &broken{Store: d.Store, fails: 1, done: true, err: store.ErrConflict}
	if err := d.Send(t.Context(), overdue); err == nil || len(d.slack.got) != 2 {
		t.Errorf("claimed, and not sent: %v", err)
	}
	if d.Notify(t.Context(), overdue); len(d.slack.got) != 2 || d.logs.Len() > 0 {
		t.Errorf("a rival's business is logged: %s", d.logs)
	}
}

func TestRecord_ExpiresOnlyOnceResolved(t *testing.T) {
	down := answer{status: 400, body: "invalid_payload"}
	d := newDesk(t, answer{status: 200, body: "ok"})
	for _, c := range []struct {
		step    string
		n       Notification
		answer  answer
		expires bool
	}{
		{"the first send fails", blocked, down, true}, // nothing is recorded as sent
		{"sent", blocked, answer{status: 200, body: "ok"}, false},
		{"another state", overdue, answer{status: 200, body: "ok"}, false},
		{"the send of its end fails", well, down, false},
		{"resolved", well, answer{status: 200, body: "ok"}, true},
		{"open again, and the send fails", blocked, down, true},
		{"open again", blocked, answer{status: 200, body: "ok"}, false},
		{"resolved again", well, answer{status: 200, body: "ok"}, true},
	} {
		d.now = d.now.Add(24 * time.Hour)
		d.slack.got, d.slack.answers = nil, []answer{c.answer}
		d.Notify(t.Context(), c.n)
		snap, err := d.Store.Get(t.Context(), d.ref(c.n.Subject))
		if err != nil || len(d.slack.got) == 0 {
			t.Fatalf("%s: %d sends, %v", c.step, len(d.slack.got), err)
		}
		want := any(nil)
		if c.expires {
			want = d.now.Add(store.Kept)
		}
		if got, there := snap.Docs[0].Data[store.ExpiresAt]; got != want || !there {
			t.Errorf("%s: expires_at is %v (written: %t), want %v", c.step, got, there, want)
		}
	}
}

func TestNotify_ConcurrentCallersSendOnce(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	var mu sync.Mutex
	next := d.NewID
	d.NewID = func() string { mu.Lock(); defer mu.Unlock(); return next() }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { d.Notify(t.Context(), blocked, Notification{Subject: "other", State: "failing", Title: "y"}) })
	}
	wg.Wait()
	if got := d.said(); len(got) != 1 || !strings.Contains(got[0], "x is blocked") || !strings.Contains(got[0], " y") {
		t.Errorf("%q, logs %s", got, d.logs)
	}
}

// Versions before called an overdue cycle held: people who were notified then are not again.
func TestNotifier_ReadsStateOfEarlierVersions(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	if _, err := d.Store.Apply(t.Context(), store.Create(d.ref("cycle_x"), store.F("held", "state"), store.F(d.now, "sent_at"))); err != nil {
		t.Fatal(err)
	}
	d.Notify(t.Context(), overdue)
	if got := d.said(); len(got) != 0 {
		t.Errorf("notified again: %q", got)
	}
	d.Notify(t.Context(), well)
	if got := d.said(); len(got) != 1 {
		t.Errorf("that it is resolved: %q", got)
	}
}

func TestMessage_HasLinksWhileAStateIsNotWell(t *testing.T) {
	n := &Notifier{Of: "nba in p"}
	link := Link{Text: "2026-02-03 <x>|", URL: "https://status.example.com/cycle/2026-02-03/overnight?transition=a&x=|"}
	got := n.message([]Notification{{Subject: "a", State: "failing", Severity: Warning, Title: "t", Links: []Link{link}}})
	if want := "<https://status.example.com/cycle/2026-02-03/overnight?transition=a&amp;x=%7C|2026-02-03 &lt;x&gt;%7C>"; !strings.Contains(got, "\n"+want) {
		t.Errorf("%q", got)
	}
	if got := n.message([]Notification{{Subject: "a", Title: "t", Links: []Link{link}}}); strings.Contains(got, "https://") {
		t.Errorf("resolved: %q", got)
	}
}

// mostRead is a store that notes the most documents of one read.
type mostRead struct {
	store.Store
	most, reads int
}

func (s *mostRead) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	s.most, s.reads = max(s.most, len(refs)), s.reads+1
	return s.Store.Get(ctx, refs...)
}

func TestSend_ReadsThousandsOfSubjectsInParts(t *testing.T) {
	d := newDesk(t, answer{status: 200, body: "ok"})
	s := &mostRead{Store: d.Store}
	d.Store = s
	var all []Notification
	for i := range 2*subjects + 1 {
		all = append(all, Notification{Subject: fmt.Sprint("cycle_", i), Title: "is handed over"})
	}
	all[2*subjects].State, all[2*subjects].Title = "overdue", "the last is overdue"
	if err := d.Send(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	if said := d.said(); len(said) != 1 || !strings.Contains(said[0], "the last is overdue") {
		t.Errorf("%q", said)
	}
	if s.most > subjects || s.reads != 3 {
		t.Errorf("%d reads of at most %d documents", s.reads, s.most)
	}
}
