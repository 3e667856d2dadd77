// Package notify sends notifications to Slack: once for each new state of a subject, and
// once when the subject is well again.
//
// # Terms
//
// A notification is about a subject, such as a cycle or a health check, and names the state
// of the subject. The document notifications/{subject} keeps the state that was sent last.
// A caller may send the same state at every evaluation: only a change is sent.
//
// # States of a subject
//
//	(not sent) ── failing ──> sent "failing" ── overdue ──> sent "overdue"
//	                              │                             │
//	                              └────────── well ─────────────┴──> sent "resolved"
//
// "resolved" is sent only if an earlier state was sent.
//
// # Guarantees
//
//   - All notifications of one [Notifier.Notify] are one message: an outage that breaks
//     everything at once is one message, not twenty.
//   - No notification is lost: the next evaluation sends again what could not be sent. A
//     notification is sent twice only if Slack's answer is lost, or if the process dies
//     between sending and recording.
//   - If several processes send the same state at once, one of them sends it. It holds a
//     claim (create-if-absent or compare-and-set) that expires after [claimFor].
//   - No log line, error or document has the secret of the channel.
//
// # Failures
//
// Notifying never fails or delays the work that it is about: it runs after the work and
// takes at most twice [limit]. A failure is logged once, as notify_failed.
package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Severity of a notification.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Notification describes the state of a subject.
type Notification struct {
	Subject  string // such as check_duplicates; a document's id
	State    string // each new one is sent once; "" is well
	Severity Severity
	Title    string // one line
	Reason   string // further lines
	Command  string // suggested command; "" if there is none
	Page     string // of docs/how-to/runbooks, without .md; "" if there is none
	Links    []Link
	// Again is the time after which the same state is sent again; 0 means never.
	Again time.Duration
}

// Link is a page for more.
type Link struct{ Text, URL string }

// Notifier sends new states. Safe for concurrent use.
type Notifier struct {
	Store  store.Store
	Slack  Slack
	Prefix string // of the names of collections
	Of     string // the pipeline and the deployment
	Shadow bool   // the deployment publishes nothing
	NewID  func() string
	Log    *slog.Logger
}

// limit bounds the sending of a message, and the recording of it if the store hangs. A state
// that was not recorded is sent a second time.
const limit = 5 * time.Second

// collection holds one document a subject, before the prefix.
const collection = "notifications"

const (
	// claimFor is the time after which another process may send a claimed state. It is
	// longer than sending and recording together.
	claimFor = time.Minute
	// tries bounds the attempts to claim while other processes are faster.
	tries = 3
	// subjects bounds the documents of one read. The first relay after a deployment says something
	// about each cycle of a week, of which there are 16,800 in 100 transitions by the hour.
	subjects = 500
)

// Notify calls Send and logs its error. Without a channel it does nothing, and the health
// check "configuration" reports that. A nil Notifier sends nothing.
func (n *Notifier) Notify(ctx context.Context, notifications ...Notification) {
	if n == nil || n.Slack.Problem() != nil {
		return
	}
	if err := n.Send(ctx, notifications...); err != nil && !errors.Is(err, errLeft) {
		n.Log.ErrorContext(ctx, "send to Slack failed, the next evaluation retries it: "+err.Error(), "event", telemetry.NotifyFailed, "notifications", len(notifications))
	}
}

// errLeft means that another process is sending the new states, or that Slack asked to wait.
var errLeft = errors.New("not sent now: another process is sending it, or Slack asked to wait")

// Send sends all new states in one message, also if ctx is cancelled. It calls the store
// before and after the message, or once if no state is new. Of more than [subjects] each so many take
// a message of their own.
func (n *Notifier) Send(ctx context.Context, notifications ...Notification) error {
	if n == nil {
		return ErrNoChannel
	}
	if err := n.Slack.Problem(); err != nil || len(notifications) == 0 {
		return err
	}
	var left error
	for some := range slices.Chunk(latest(notifications), subjects) {
		err := n.sendSome(ctx, some)
		if err != nil && !errors.Is(err, errLeft) {
			return err
		}
		left = cmp.Or(err, left)
	}
	return left
}

func (n *Notifier) sendSome(ctx context.Context, notifications []Notification) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	return n.notify(ctx, notifications)
}

// latest keeps the last notification about each subject.
func latest(notifications []Notification) (out []Notification) {
	last := map[string]int{}
	for i, notification := range notifications {
		last[notification.Subject] = i
	}
	for i, notification := range notifications {
		if last[notification.Subject] == i {
			out = append(out, notification)
		}
	}
	return out
}

func (n *Notifier) ref(subject string) store.Ref {
	return store.Ref{Collection: n.Prefix + collection, ID: subject}
}

func (n *Notifier) notify(ctx context.Context, notifications []Notification) error {
	for range tries {
		due, docs, now, err := n.due(ctx, notifications)
		if err != nil || len(due) == 0 { // errLeft, or nothing is new
			return err
		}
		me := n.NewID()
		var claims []store.Write
		for i, notification := range due {
			state, _ := docs[i].Data["state"].(string)
			fields := []store.Field{store.F(me, "sending"), store.F(store.ServerTime, "claimed_at"), end(state, now)}
			if docs[i].Exists {
				claims = append(claims, store.MergeIf(docs[i].Ref, docs[i].Version, fields...))
			} else {
				claims = append(claims, store.Create(n.ref(notification.Subject), append(fields, store.F("", "state"))...))
			}
		}
		versions, err := n.Store.Apply(ctx, claims...)
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
			continue // another process claimed one of them, or the answer to our own claim was lost and the claim will expire
		case err != nil:
			return fmt.Errorf("claim the notifications: %w", err)
		}
		return n.send(ctx, due, versions, now)
	}
	return errLeft // other processes send it
}

// end is the field by which the record of a state expires. A resolved subject needs none: its next
// state is new, with the document or without it. One that was claimed and never sent is the same.
func end(state string, now time.Time) store.Field {
	if state == "" {
		return store.Expires(now)
	}
	return store.Stays()
}

// due returns the notifications to send, their documents and the server's time. It leaves
// out those that another process is sending and those that Slack wants later; if no others
// are due, the error is errLeft.
func (n *Notifier) due(ctx context.Context, notifications []Notification) (due []Notification, docs []store.Doc, now time.Time, err error) {
	var refs []store.Ref
	for _, notification := range notifications {
		refs = append(refs, n.ref(notification.Subject))
	}
	snap, err := n.Store.Get(ctx, refs...)
	if err != nil {
		return nil, nil, now, fmt.Errorf("read the notifications that were sent: %w", err)
	}
	left := false
	for i, doc := range snap.Docs {
		state, _ := doc.Data["state"].(string)
		if state == "held" { // the name of overdue in earlier versions
			state = "overdue"
		}
		sent, _ := doc.Data["sent_at"].(time.Time)
		claimed, _ := doc.Data["claimed_at"].(time.Time)
		sender, _ := doc.Data["sending"].(string)
		later, _ := doc.Data["not_before"].(time.Time)
		again := notifications[i].Again > 0 && notifications[i].State != "" && snap.ReadTime.Sub(sent) >= notifications[i].Again
		switch {
		case state == notifications[i].State && !again:
		case sender != "" && snap.ReadTime.Sub(claimed) < claimFor, snap.ReadTime.Before(later):
			left = true
		default:
			due, docs = append(due, notifications[i]), append(docs, doc)
		}
	}
	if left && len(due) == 0 {
		err = errLeft
	}
	return due, docs, snap.ReadTime, err
}

// send sends the notifications that were claimed at now, the server's time, and records them.
func (n *Notifier) send(ctx context.Context, due []Notification, claims []store.Version, now time.Time) error {
	err := n.Slack.Send(ctx, n.message(due))
	var writes []store.Write
	for i, notification := range due {
		fields := []store.Field{store.F("", "sending")}
		var later *laterError
		switch {
		case err == nil:
			fields = append(fields, store.F(notification.State, "state"), store.F(notification.Title, "title"), store.F(store.ServerTime, "sent_at"), end(notification.State, now))
		case errors.As(err, &later):
			fields = append(fields, store.F(now.Add(later.After), "not_before"))
		}
		writes = append(writes, store.MergeIf(n.ref(notification.Subject), claims[i], fields...))
	}
	// The recording has its own time limit, so that a slow Slack does not prevent it.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	_, noted := n.Store.Apply(after, writes...)
	if errors.Is(noted, store.ErrConflict) { // already recorded, or a claim expired and another process took it over
		noted = nil
		for _, w := range writes {
			if _, one := n.Store.Apply(after, w); one != nil && !errors.Is(one, store.ErrConflict) {
				noted = errors.Join(noted, one)
			}
		}
	}
	if noted != nil {
		err = errors.Join(err, fmt.Errorf("record the notifications that were sent: %w", noted))
	}
	return err
}

const (
	// most bounds the notifications that one message shows.
	most = 20
	// mostReason bounds the reason of one: with [most] the message stays below Slack's limit,
	// https://api.slack.com/methods/chat.postMessage#truncating.
	mostReason = 1200
	mostTitle  = 300
)

// runbooks is the address of the runbook pages.
const runbooks = "https://github.com/phasegate/phasegate/blob/main/docs/how-to/runbooks/"

// sign shows a severity as a symbol and a word.
func (notification Notification) sign() string {
	switch {
	case notification.State == "":
		return ":white_check_mark: *resolved*"
	case notification.Severity == Critical:
		return ":red_circle: *critical*"
	case notification.Severity == Warning:
		return ":large_orange_circle: *warning*"
	}
	return ":information_source:"
}

func (n *Notifier) message(due []Notification) string {
	var b strings.Builder
	shadow := ""
	if n.Shadow {
		shadow = ", in shadow"
	}
	fmt.Fprintf(&b, "*Phasegate* %s%s", escape(n.Of), shadow)
	for i, notification := range due {
		if i == most {
			fmt.Fprintf(&b, "\nand %d more: `phasectl health`", len(due)-i)
			break
		}
		// A title may contain text from other systems: it stays one line of bounded length.
		title := clip(escape(strings.Join(strings.Fields(notification.Title), " ")), mostTitle)
		fmt.Fprintf(&b, "\n%s %s", notification.sign(), title)
		if notification.Reason != "" {
			b.WriteString("\n>" + clip(strings.ReplaceAll(escape(notification.Reason), "\n", "\n>"), mostReason))
		}
		var help []string
		if notification.Command != "" && notification.State != "" {
			help = append(help, "`"+strings.ReplaceAll(escape(notification.Command), "`", "'")+"`")
		}
		if notification.Page != "" && notification.State != "" {
			help = append(help, "<"+runbooks+notification.Page+".md|runbook>")
		}
		if notification.State != "" {
			for _, l := range notification.Links {
				help = append(help, "<"+linked.Replace(escape(l.URL))+"|"+linked.Replace(escape(l.Text))+">")
			}
		}
		if len(help) > 0 {
			b.WriteString("\n" + strings.Join(help, "  "))
		}
	}
	return b.String()
}

// linked keeps the separator of a link out of its parts.
var linked = strings.NewReplacer("|", "%7C", "\n", " ")

// escape is Slack's: https://api.slack.com/reference/surfaces/formatting#escaping.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// clip bounds escaped text, and cuts no escape sequence in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n]
	if i := strings.LastIndexByte(s, '&'); i > strings.LastIndexByte(s, ';') {
		s = s[:i]
	}
	return strings.ToValidUTF8(s, "") + "…"
}
