// Package notify tells people in Slack what they should know at once, and when it is over.
//
// # Notices
//
// A notice is about a subject (a cycle, a check) and a state that it is in. What was told is
// on record, in notices/{subject}: the same state is told once, another one again, and that
// it is over is told if, and only if, it was told that it had begun. So callers say what is,
// as often as they like; nobody has to know what is new.
//
// All notices of one [Notices.Tell] go in one message: an outage that breaks everything at
// once is one message, not twenty.
//
// # Promises
//
//   - Nothing is lost: what could not be sent stays untold, and whoever says it again, sends
//     it. Twice is possible only if an answer of Slack is lost or a process dies between
//     sending and noting it.
//   - Of several who say the same at once, one sends: a claim, create-if-absent or
//     compare-and-set, that ends by itself after [claimFor].
//   - Telling never fails what it tells of, and never holds it up: it comes after the work,
//     takes twice [Limit] at most, and what goes wrong is logged as notify_failed, once.
//   - The channel's secret is in no log, error or document.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

// Severity of a notice.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Notice says in which state a subject is.
type Notice struct {
	Subject  string // such as check_duplicates; a document's id
	State    string // what is told once; "" is well
	Severity Severity
	Title    string // one line
	Reason   string // more lines, in words
	Command  string // that helps; "" when there is none
	Page     string // of docs/runbooks, without .md; "" when there is none
	// Again is after how long the same state is told again; 0 is never.
	Again time.Duration
}

// Notices tells what is new. Safe for concurrent use.
type Notices struct {
	Store  store.Store
	Slack  Slack
	Books  string // what the names of collections begin with
	Of     string // which pipeline and deployment, for people
	Shadow bool   // it hands nothing over
	NewID  func() string
	Log    *slog.Logger
}

// Limit is how long telling may take, and as long again, where a store hangs, noting what
// was told: what is not noted is told twice.
const Limit = 5 * time.Second

// collection holds one document a subject, before the prefix.
const collection = "notices"

const (
	// claimFor is after how long somebody else may send what somebody was about to send:
	// longer than both together.
	claimFor = time.Minute
	// tries bounds how often a rival may be faster.
	tries = 3
)

// Tell is Try for those who cannot do anything about an error: it is logged. Without a
// channel it does nothing: that there is none is told by health. nil tells nothing.
func (n *Notices) Tell(ctx context.Context, notices ...Notice) {
	if n == nil || n.Slack.Problem() != nil {
		return
	}
	if err := n.Try(ctx, notices...); err != nil && !errors.Is(err, errLeft) {
		n.Log.ErrorContext(ctx, "notices were not sent, and will be when they are said again: "+err.Error(), "event", telemetry.NotifyFailed, "notices", len(notices))
	}
}

// errLeft says that nothing was sent of what is new: somebody else is about to, or Slack
// wants to have it later.
var errLeft = errors.New("not sent now: somebody else is about to send it, or Slack wants to have it later")

// Try sends what is new, in one message, whether who asks for it is still there or not. Two
// calls of the store around the message, one if nothing is new.
func (n *Notices) Try(ctx context.Context, notices ...Notice) error {
	if n == nil {
		return ErrNoChannel
	}
	if err := n.Slack.Problem(); err != nil || len(notices) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), Limit, fmt.Errorf("no answer within %s", Limit))
	defer cancel()
	return n.tell(ctx, latest(notices))
}

// latest keeps the last notice about each subject.
func latest(notices []Notice) (out []Notice) {
	for i, notice := range notices {
		later := func(o Notice) bool { return o.Subject == notice.Subject }
		if !slices.ContainsFunc(notices[i+1:], later) {
			out = append(out, notice)
		}
	}
	return out
}

func (n *Notices) ref(subject string) store.Ref {
	return store.Ref{Collection: n.Books + collection, ID: subject}
}

func (n *Notices) tell(ctx context.Context, notices []Notice) error {
	for range tries {
		due, docs, now, err := n.due(ctx, notices)
		if err != nil || len(due) == 0 { // errLeft, or nothing is new
			return err
		}
		me := n.NewID()
		var claims []store.Write
		for i, notice := range due {
			fields := []store.Field{store.F(me, "sending"), store.F(store.ServerTime, "claimed_at")}
			if docs[i].Exists {
				claims = append(claims, store.MergeIf(docs[i].Ref, docs[i].Version, fields...))
			} else {
				claims = append(claims, store.Create(n.ref(notice.Subject), append(fields, store.F("", "state"))...))
			}
		}
		versions, err := n.Store.Apply(ctx, claims...)
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
			continue // a rival tells some of it; or it was our own claim, which is then left to run out
		case err != nil:
			return fmt.Errorf("note what is about to be told: %w", err)
		}
		return n.send(ctx, due, versions, now)
	}
	return errLeft // rivals tell it
}

// due returns those that are to be told, with their documents as they are and the server's
// time. One that somebody is about to send, or that Slack wants to have later, is not: where
// there is no other, that is errLeft.
func (n *Notices) due(ctx context.Context, notices []Notice) (due []Notice, docs []store.Doc, now time.Time, err error) {
	var refs []store.Ref
	for _, notice := range notices {
		refs = append(refs, n.ref(notice.Subject))
	}
	snap, err := n.Store.Get(ctx, refs...)
	if err != nil {
		return nil, nil, now, fmt.Errorf("read what was told: %w", err)
	}
	left := false
	for i, doc := range snap.Docs {
		told, _ := doc.Data["state"].(string)
		if told == "held" { // earlier versions called an overdue cycle so
			told = "overdue"
		}
		sent, _ := doc.Data["sent_at"].(time.Time)
		claimed, _ := doc.Data["claimed_at"].(time.Time)
		sender, _ := doc.Data["sending"].(string)
		later, _ := doc.Data["not_before"].(time.Time)
		again := notices[i].Again > 0 && notices[i].State != "" && snap.ReadTime.Sub(sent) >= notices[i].Again
		switch {
		case told == notices[i].State && !again:
		case sender != "" && snap.ReadTime.Sub(claimed) < claimFor, snap.ReadTime.Before(later):
			left = true
		default:
			due, docs = append(due, notices[i]), append(docs, doc)
		}
	}
	if left && len(due) == 0 {
		err = errLeft
	}
	return due, docs, snap.ReadTime, err
}

// send sends what was claimed at a time of the server's, and notes it on the claims.
func (n *Notices) send(ctx context.Context, due []Notice, claims []store.Version, now time.Time) error {
	err := n.Slack.Send(ctx, n.message(due))
	var writes []store.Write
	for i, notice := range due {
		fields := []store.Field{store.F("", "sending")}
		var later *LaterError
		switch {
		case err == nil:
			fields = append(fields, store.F(notice.State, "state"), store.F(notice.Title, "title"), store.F(store.ServerTime, "sent_at"))
		case errors.As(err, &later):
			fields = append(fields, store.F(now.Add(later.After), "not_before"))
		}
		writes = append(writes, store.MergeIf(n.ref(notice.Subject), claims[i], fields...))
	}
	// Time that was spent on Slack must not keep what was sent from being noted.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit)
	defer cancel()
	_, noted := n.Store.Apply(after, writes...)
	if errors.Is(noted, store.ErrConflict) { // it is noted, or some of it was taken over after its claim ran out: that is others' to note
		noted = nil
		for _, w := range writes {
			if _, one := n.Store.Apply(after, w); one != nil && !errors.Is(one, store.ErrConflict) {
				noted = errors.Join(noted, one)
			}
		}
	}
	if noted != nil {
		err = errors.Join(err, fmt.Errorf("note what was told: %w", noted))
	}
	return err
}

const (
	// most is how many notices of a message are written out.
	most = 20
	// mostReason bounds the reason of one: with [most] it stays below what Slack cuts off,
	// https://api.slack.com/methods/chat.postMessage#truncating.
	mostReason = 1200
	mostTitle  = 300
)

// runbooks is where the pages can be read.
const runbooks = "https://github.com/phasegate/phasegate/blob/main/docs/runbooks/"

// sign is what a severity looks like, for those who skim; the word stands beside it.
func (notice Notice) sign() string {
	switch {
	case notice.State == "":
		return ":white_check_mark: *resolved*"
	case notice.Severity == Critical:
		return ":red_circle: *critical*"
	case notice.Severity == Warning:
		return ":large_orange_circle: *warning*"
	}
	return ":information_source:"
}

func (n *Notices) message(due []Notice) string {
	var b strings.Builder
	shadow := ""
	if n.Shadow {
		shadow = ", in shadow"
	}
	fmt.Fprintf(&b, "*Phasegate* %s%s", escape(n.Of), shadow)
	for i, notice := range due {
		if i == most {
			fmt.Fprintf(&b, "\nand %d more: `phasectl health`", len(due)-i)
			break
		}
		// A title may repeat what others sent: it stays one line, of a length.
		title := clip(escape(strings.Join(strings.Fields(notice.Title), " ")), mostTitle)
		fmt.Fprintf(&b, "\n%s %s", notice.sign(), title)
		if notice.Reason != "" {
			b.WriteString("\n>" + clip(strings.ReplaceAll(escape(notice.Reason), "\n", "\n>"), mostReason))
		}
		var help []string
		if notice.Command != "" && notice.State != "" {
			help = append(help, "`"+strings.ReplaceAll(escape(notice.Command), "`", "'")+"`")
		}
		if notice.Page != "" && notice.State != "" {
			help = append(help, "<"+runbooks+notice.Page+".md|runbook>")
		}
		if len(help) > 0 {
			b.WriteString("\n" + strings.Join(help, "  "))
		}
	}
	return b.String()
}

// escape is Slack's: https://api.slack.com/reference/surfaces/formatting#escaping.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// clip bounds what is escaped, as it is sent, and cuts no escape in two.
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

type collectorKey struct{}

// Collect returns a context whose work can [Note] what people should know, and what it has
// noted: those who do the work never speak to Slack, and whoever answers for it tells all of
// it when it is done.
func Collect(ctx context.Context) (context.Context, func() []Notice) {
	c := &collector{}
	return context.WithValue(ctx, collectorKey{}, c), c.all
}

// Note notes a notice for whoever collects; without anybody it is gone.
func Note(ctx context.Context, notices ...Notice) {
	if c, ok := ctx.Value(collectorKey{}).(*collector); ok {
		c.add(notices)
	}
}

type collector struct {
	mu      sync.Mutex
	notices []Notice
}

func (c *collector) add(notices []Notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notices = append(c.notices, notices...)
}

func (c *collector) all() []Notice {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notices)
}
