package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func quarantineCommand(f *flags) *cobra.Command {
	return group("quarantine", "List invalid messages, deliver them again, or discard them",
		quarantineList(f), quarantineShow(f), quarantineReplay(f), quarantineDiscard(f))
}

// quarantined reads what is waiting, newest first; with all, what was replayed or discarded too.
func quarantined(ctx context.Context, a *app.App, all bool) ([]delivery.Quarantined, error) {
	out := []delivery.Quarantined{}
	for q, err := range delivery.ListQuarantine(ctx, a) {
		if err != nil {
			return nil, unknown(err)
		}
		if all || !q.Settled() {
			out = append(out, q)
		}
	}
	slices.SortStableFunc(out, func(a, b delivery.Quarantined) int { return b.ReceivedAt.Compare(a.ReceivedAt) })
	return out, nil
}

type quarantineOptions struct {
	all bool   // of list
	id  string // of show
}

func quarantineList(f *flags) *cobra.Command {
	var o quarantineOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the messages in quarantine that were neither replayed nor discarded, newest first",
		Example: "  phasectl quarantine list",
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "include replayed and discarded messages")
	return answers(f, cmd, on(f.open, o.list))
}

func (o *quarantineOptions) list(ctx context.Context, a *app.App) (*quarantineAnswer, error) {
	qs, err := quarantined(ctx, a, o.all)
	if err != nil {
		return nil, err
	}
	r := &quarantineAnswer{Messages: qs}
	for i, q := range qs {
		r.first = append(r.first, messageOf(a.Pipeline, q).Help[0])
		r.Messages[i].Envelope, r.Messages[i].Head = "", "" // a list is of lines
	}
	return r, nil
}

type quarantineAnswer struct {
	Messages []delivery.Quarantined `json:"messages"`

	first []string // thing to do about each message
}

func (r *quarantineAnswer) text(p *page) {
	p.listing("nothing is in quarantine", "RECEIVED", "ID", "FUNCTION", "STATE")
	for i, q := range r.Messages {
		state := "waiting"
		switch {
		case !q.DiscardedAt.IsZero():
			state = "discarded"
		case !q.ReplayedAt.IsZero():
			state = "replayed"
		}
		p.row(p.at(q.ReceivedAt), quoted(q.ID), q.Function, state)
		p.detail("%s", quoted(q.Reason))
		if !q.ReplayedAt.IsZero() {
			p.detail("replayed %s by %s", p.at(q.ReplayedAt), q.ReplayedBy)
		}
		if !q.DiscardedAt.IsZero() {
			p.detail("discarded %s by %s", p.at(q.DiscardedAt), q.DiscardedBy)
		}
		if !q.Settled() {
			p.detail("fix: %s", r.first[i])
			p.detail("its data, and what else can be done: phasectl quarantine show %s", q.ID)
		}
	}
}

func quarantineShow(f *flags) *cobra.Command {
	var o quarantineOptions
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one message: its origin, the reason for the quarantine, and its data",
		Example: "  phasectl quarantine list\n  phasectl quarantine show 1234567890",
	}
	f.words(cmd, word{"ID", "1234567890", &o.id})
	return answers(f, cmd, on(f.open, o.show))
}

func (o *quarantineOptions) show(ctx context.Context, a *app.App) (*quarantineMessage, error) {
	q, err := delivery.GetQuarantined(ctx, a, o.id)
	if err != nil {
		return nil, findingsIf(err, delivery.ErrNotQuarantined)
	}
	return messageOf(a.Pipeline, q), nil
}

// quarantineMessage is one message, with what was published.
type quarantineMessage struct {
	delivery.Quarantined
	PublishTime time.Time         `json:"publish_time,omitzero"`
	Attributes  map[string]string `json:"attributes"`
	Data        string            `json:"data"`
	Help        []string          `json:"help"` // what to do, each with its command
}

func messageOf(p *pipeline.Pipeline, q delivery.Quarantined) *quarantineMessage {
	m := &quarantineMessage{Quarantined: q, Attributes: map[string]string{}, Data: q.Head, Help: []string{"it is too large to be kept here: phasectl dead-letter replay"}}
	if q.Cut {
		m.Help = []string{"only its beginning is kept, because it is larger than Pub/Sub takes: let its sender send it again"}
	}
	if e, err := envelopeOf(q); err == nil {
		m.PublishTime, m.Data = e.PublishTime, string(e.Data)
		maps.Copy(m.Attributes, e.Attributes)
		discard := "phasectl quarantine discard " + q.ID + ` --reason "…"`
		m.Help = []string{`once the cause is removed: phasectl quarantine replay ` + q.ID + ` --reason "…"`, "if it must never be handed over: " + discard}
		if q.Function == pipeline.FunctionTransition {
			m.Help = append([]string{fmt.Sprintf(`to report its completion in its place: phasectl complete %s PERIOD --reason "…", and then %s`, reporter(p, e.Data), discard)}, m.Help...)
		}
	}
	if !q.ReplayedAt.IsZero() {
		m.Help = []string{"nothing is to be done: it was replayed and accepted"}
	}
	if !q.DiscardedAt.IsZero() {
		m.Help = []string{"nothing is to be done: it was discarded; phasectl quarantine replay still hands it over"}
	}
	return m
}

// reporter is the processor that a completion names, if the pipeline has it.
func reporter(p *pipeline.Pipeline, completion []byte) string {
	var c struct {
		ProcessorName string `json:"processor_name"`
	}
	if err := json.Unmarshal(completion, &c); err == nil {
		if _, of, known := p.Processor(c.ProcessorName); known {
			return of.Name
		}
	}
	return "PROCESSOR"
}

func (m *quarantineMessage) text(p *page) {
	p.line("%s", quoted(m.ID))
	row := func(name, value string) {
		if value != "" {
			p.line("  %-10s %s", name, value)
		}
	}
	row("reason", quoted(m.Reason))
	row("received", p.at(m.ReceivedAt))
	row("function", m.Function)
	row("topic", m.Topic)
	if !m.PublishTime.IsZero() {
		row("published", p.at(m.PublishTime))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
		row("attribute", quoted(name+"="+m.Attributes[name]))
	}
	row("data", quoted(m.Data))
	if !m.ReplayedAt.IsZero() {
		row("replayed", p.at(m.ReplayedAt)+" by "+m.ReplayedBy)
	}
	if !m.DiscardedAt.IsZero() {
		row("discarded", p.at(m.DiscardedAt)+" by "+m.DiscardedBy)
	}
	row("fix", m.Help[0])
	for _, h := range m.Help[1:] {
		row("", h)
	}
}

// envelopeOf returns the delivery that was kept.
func envelopeOf(q delivery.Quarantined) (wire.Envelope, error) {
	if q.Envelope == "" {
		return wire.Envelope{}, errors.New("too large to be kept in quarantine: phasectl dead-letter replay")
	}
	r, err := http.NewRequest(http.MethodPost, "/", strings.NewReader(q.Envelope))
	if err != nil {
		return wire.Envelope{}, err
	}
	return wire.FromRequest(r)
}

func quarantineReplay(f *flags) *cobra.Command {
	o := messagesOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "replay ID... | --all",
		Short: "Deliver messages from quarantine to their function again, unchanged",
		Long: "Deliver the original message, with its times and ids, to the handler that refused it, in this process and with\n" +
			"the pipeline file of this command. A message that is accepted is marked; one that is refused again stays.",
		Example: "  phasectl quarantine replay 4711 --reason \"the definition knows the date now\"",
	}
	o.chosen(cmd, "all messages that were not replayed yet")
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.replayQuarantined))
}

func (o *messagesOptions) replayQuarantined(ctx context.Context, a *app.App) (*tally, error) {
	if o.all {
		qs, err := quarantined(ctx, a, false)
		if err != nil {
			return nil, err
		}
		for _, q := range slices.Backward(qs) { // as they came
			o.ids = append(o.ids, q.ID)
		}
	}
	return o.each(ctx, "accepted", "deliver again", func(id string) error { return replayQuarantined(ctx, a, id, o.reason) })
}

func quarantineDiscard(f *flags) *cobra.Command {
	o := messagesOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "discard ID...",
		Short: "Discard messages in quarantine without delivering them",
		Long: "Mark messages as discarded, so that health no longer counts them. Their documents stay, with the actor and the\n" +
			"reason. Discarding a message that is already replayed or discarded changes nothing.",
		Example: "  phasectl quarantine discard 4711 --reason \"a test message\"",
	}
	o.chosen(cmd, "")
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.discardQuarantined))
}

func (o *messagesOptions) discardQuarantined(ctx context.Context, a *app.App) (*tally, error) {
	return o.each(ctx, "discarded", "discard", func(id string) error {
		done, err := delivery.MarkDiscarded(ctx, a, id, audit.Record{Action: "quarantine_discard", Actor: actor(), Reason: o.reason,
			Detail: fmt.Sprintf("message %s was discarded: %s", id, o.reason)}, rand.Text())
		if err == nil && !done {
			return errBefore
		}
		return err
	})
}

func replayQuarantined(ctx context.Context, a *app.App, id, reason string) error {
	q, err := delivery.GetQuarantined(ctx, a, id)
	if err != nil {
		return err
	}
	e, err := envelopeOf(q)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefusedAgain, err)
	}
	pl, err := placeOf(a.Pipeline, q.Topic)
	if err != nil {
		return err
	}
	err = handOver(ctx, a, pl, e)
	if errors.Is(err, errRefusedAgain) {
		if q, readErr := delivery.GetQuarantined(ctx, a, id); readErr == nil {
			err = fmt.Errorf("%w: %s", err, q.Reason)
		}
	}
	if err != nil {
		return err
	}
	return delivery.MarkReplayed(ctx, a, id, audit.Record{Action: "quarantine_replay", Actor: actor(), Reason: reason,
		Detail: fmt.Sprintf("message %s of %s was handed to %s again and taken: %s", e.MessageID, q.Topic, q.Function, reason)}, rand.Text())
}
