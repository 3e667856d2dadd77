package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

func deadLetterCommand(f *flags) *cobra.Command {
	return group("dead-letter", "List messages whose delivery failed 100 times, deliver them again, or discard them",
		deadLetterList(f), deadLetterReplay(f), deadLetterDiscard(f))
}

// deadLetter is one dead-lettered message.
type deadLetter struct {
	ID           string    `json:"id"` // on the dead-letter topic
	Subscription string    `json:"subscription"`
	Topic        string    `json:"topic"`        // that it was sent to, without prefix
	PublishTime  time.Time `json:"publish_time"` // the original one
	Attempts     string    `json:"attempts"`     // as the broker says; "" where it was never delivered
	Quarantine   string    `json:"quarantine"`   // its document, of one that was too large for it
	Data         string    `json:"data"`

	original wire.Envelope
	place    pipeline.PushSubscription
	ackID    string
}

// pullTimeout bounds one look at a subscription: the broker keeps a pull waiting while
// nothing is there.
const pullTimeout = 5 * time.Second

// maxDead bounds one call, a subscription: what is pulled is held back from others.
const maxDead = 1000

// pulled is what was read of one subscription.
type pulled struct {
	name  string
	found []deadLetter
	err   error
}

// dead pulls the messages of one subscription, up to maxDead, each once. The caller has them
// for the subscription's ack deadline, and returns those that it does not acknowledge.
func dead(ctx context.Context, a *app.App, pl pipeline.PushSubscription) pulled {
	name := a.Config.Prefix + pl.DeadLetter()
	var out []deadLetter
	seen := map[string]int{} // message id → its place in out
	for len(out) < maxDead {
		pullCtx, cancel := context.WithTimeout(ctx, pullTimeout)
		resp, err := a.Broker.Client.SubscriptionAdminClient.Pull(pullCtx, &pubsubpb.PullRequest{
			Subscription: subscriptionName(a, name), MaxMessages: int32(maxDead - len(out))})
		cancel()
		if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
			break // nothing there
		}
		if err != nil {
			return pulled{name, out, fmt.Errorf("read subscription %s: %w", name, err)}
		}
		before := len(out)
		for _, m := range resp.ReceivedMessages {
			if i, again := seen[m.Message.MessageId]; again { // its lease ran out: the new one holds
				out[i].ackID = m.AckId
				continue
			}
			seen[m.Message.MessageId] = len(out)
			e := wire.Envelope{MessageID: m.Message.MessageId, PublishTime: m.Message.PublishTime.AsTime(), Attributes: m.Message.Attributes, Data: m.Message.Data}
			original := e.Original()
			out = append(out, deadLetter{ID: e.MessageID, Subscription: name, Topic: pl.Topic, PublishTime: original.PublishTime,
				Attempts: e.Attributes[wire.DeadLetterAttempts], Quarantine: e.Attributes[wire.QuarantineDocument],
				Data: string(e.Data), original: original, place: pl, ackID: m.AckId})
		}
		if len(out) == before {
			break
		}
	}
	return pulled{name, out, nil}
}

func subscriptionName(a *app.App, name string) string {
	return "projects/" + a.Config.Project + "/subscriptions/" + name
}

// leaseSeconds is the longest ack deadline that the broker allows.
const leaseSeconds = 600

// keepFromOthers keeps a message from being handed to others while it is replayed.
func keepFromOthers(ctx context.Context, a *app.App, d deadLetter) error {
	err := a.Broker.Client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: subscriptionName(a, d.Subscription), AckIds: []string{d.ackID}, AckDeadlineSeconds: leaseSeconds})
	if err != nil {
		return fmt.Errorf("keep %s: %w", d.ID, err)
	}
	return nil
}

// giveBack lets messages be pulled again at once.
func giveBack(ctx context.Context, a *app.App, ds []deadLetter) error {
	bySubscription := map[string][]string{}
	for _, d := range ds {
		bySubscription[d.Subscription] = append(bySubscription[d.Subscription], d.ackID)
	}
	var errs []error
	for name, ids := range bySubscription {
		errs = append(errs, a.Broker.Client.SubscriptionAdminClient.ModifyAckDeadline(context.WithoutCancel(ctx), &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: subscriptionName(a, name), AckIds: ids, AckDeadlineSeconds: 0}))
	}
	return errors.Join(errs...)
}

// allDead pulls from every dead letter at once, or from one topic's: an empty one keeps a
// pull waiting.
func allDead(ctx context.Context, a *app.App, topic string) ([]deadLetter, error) {
	ps := a.Pipeline.PushSubscriptions()
	if topic != "" {
		pl, err := placeOf(a.Pipeline, topic)
		if err != nil {
			return nil, usage(fmt.Errorf("--topic: %w", err))
		}
		ps = []pipeline.PushSubscription{pl}
	}
	out, err := []deadLetter{}, error(nil)
	for _, p := range together(len(ps), ps, func(pl pipeline.PushSubscription) pulled { return dead(ctx, a, pl) }) {
		out, err = append(out, p.found...), errors.Join(err, p.err)
	}
	if err != nil {
		return nil, unknown(errors.Join(err, giveBack(ctx, a, out)))
	}
	return out, nil
}

// countDead returns how many lie in all dead letters, up to maxDead in each.
func countDead(ctx context.Context, a *app.App) (n int, err error) {
	each, err := countEach(ctx, a)
	for _, m := range each {
		n += int(m)
	}
	return n, err
}

// countEach counts the messages of each dead-letter subscription, by its name.
func countEach(ctx context.Context, a *app.App) (each map[string]int64, err error) {
	places := a.Pipeline.PushSubscriptions()
	counted := together(len(places), places, func(pl pipeline.PushSubscription) pulled {
		p := dead(ctx, a, pl)
		p.err = errors.Join(p.err, giveBack(ctx, a, p.found))
		return p
	})
	each = map[string]int64{}
	for _, p := range counted {
		each[p.name], err = int64(len(p.found)), errors.Join(err, p.err)
	}
	return each, err
}

func topicFlag(cmd *cobra.Command, topic *string) {
	cmd.Flags().StringVar(topic, "topic", "", "the dead letter of this topic only (default: of every topic that feeds a function)")
}

type deadLetterOptions struct {
	topic string
}

func deadLetterList(f *flags) *cobra.Command {
	var o deadLetterOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List dead-lettered messages, up to 1000 of each subscription",
		Example: "  phasectl dead-letter list\n  phasectl dead-letter list --topic nba-phase3-analytics-complete",
	}
	topicFlag(cmd, &o.topic)
	return answers(f, cmd, on(f.open, o.list))
}

func (o *deadLetterOptions) list(ctx context.Context, a *app.App) (*deadLetters, error) {
	ds, err := allDead(ctx, a, o.topic)
	if err != nil {
		return nil, err
	}
	if err := giveBack(ctx, a, ds); err != nil {
		return nil, unknown(err)
	}
	return &deadLetters{ds}, nil
}

type deadLetters struct {
	Messages []deadLetter `json:"messages"`
}

func (r *deadLetters) text(p *page) {
	p.listing("no dead-lettered messages", "PUBLISHED", "ID", "TOPIC", "FAILURE")
	for _, d := range r.Messages {
		after := "after " + d.Attempts + " attempts"
		if d.Attempts == "" {
			after = "too large for quarantine"
		}
		p.row(p.at(d.PublishTime), d.ID, d.Topic, after)
		p.detail("%s", quoted(pipeline.Clip(d.Data, 100)))
	}
}

func deadLetterReplay(f *flags) *cobra.Command {
	o := messagesOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "replay ID... | --all",
		Short: "Deliver dead-lettered messages to their function again",
		Long: "Deliver dead letters, with their original times, to the handler that failed, in this process. A message that is\n" +
			"accepted or put in quarantine is removed. One that fails again, or is too large for quarantine, stays.",
		Example: "  phasectl dead-letter replay --all --reason \"BigQuery is back\"",
	}
	o.chosen(cmd, "everything, up to 1000 messages a subscription")
	topicFlag(cmd, &o.topic)
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.eachDead("accepted", "deliver again", replayOne)))
}

func deadLetterDiscard(f *flags) *cobra.Command {
	o := messagesOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "discard ID...",
		Short: "Remove dead-lettered messages without delivering them",
		Long: "Write an audit record with the message's data, then acknowledge it: the broker deletes it. Discarding it again after\n" +
			"an error carries on. Its document in quarantine, if it has one, is marked as discarded.",
		Example: "  phasectl dead-letter discard 4711 --reason \"the period is closed\"",
	}
	o.chosen(cmd, "")
	topicFlag(cmd, &o.topic)
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.eachDead("discarded", "discard", discardOne)))
}

// maxDiscarded bounds how much of a discarded message its audit record keeps.
const maxDiscarded = 64 << 10

// discardOne writes the record, and only then acknowledges: a crash in between leaves the
// message, and discarding it again finds the record.
func discardOne(ctx context.Context, a *app.App, d deadLetter, reason string) error {
	if err := keepFromOthers(ctx, a, d); err != nil {
		return err
	}
	record := audit.Record{Action: "dead_letter_discard", Actor: actor(), Reason: reason,
		Detail: fmt.Sprintf("dead letter %s of %s was discarded: %s; its data: %s", d.ID, d.Topic, reason, strings.ToValidUTF8(pipeline.Clip(d.Data, maxDiscarded), "\uFFFD"))}
	err := error(delivery.ErrNotQuarantined)
	if _, id, ok := strings.Cut(d.Quarantine, "/"); ok {
		if _, err = delivery.MarkDiscarded(ctx, a, id, record, rand.Text()); err != nil && !errors.Is(err, delivery.ErrNotQuarantined) {
			return err
		}
	}
	if err != nil { // the id is the message's: a second try finds the record of the first
		_, err = a.Store.Apply(ctx, record.Write(a.Config.StatePrefix(), d.PublishTime, "discard-"+d.ID))
	}
	switch {
	case err == nil:
		record.Detail = fmt.Sprintf("dead letter %s of %s was discarded: %s", d.ID, d.Topic, reason)
		record.Log(ctx, a.Log)
	case !errors.Is(err, store.ErrExists):
		return fmt.Errorf("record that %s is discarded: %w", d.ID, err)
	}
	return acknowledge(ctx, a, d, "recorded")
}

// eachDead does something about the named ones, about all without names, and gives back those
// about which it was not done.
func (o *messagesOptions) eachDead(verb, would string, do func(context.Context, *app.App, deadLetter, string) error) func(context.Context, *app.App) (*tally, error) {
	return func(ctx context.Context, a *app.App) (*tally, error) {
		ds, err := allDead(ctx, a, o.topic)
		if err != nil {
			return nil, err
		}
		stay := map[string]deadLetter{}
		for _, d := range ds {
			if stay[d.ID] = d; o.all {
				o.ids = append(o.ids, d.ID)
			}
		}
		t, err := o.each(ctx, verb, would, func(id string) error {
			d, found := stay[id]
			if !found {
				return fmt.Errorf("%w: no such message among the dead letters", errRefusedAgain)
			}
			err := do(ctx, a, d, o.reason)
			if err == nil {
				delete(stay, id)
			}
			return err
		})
		if failed := giveBack(ctx, a, slices.Collect(maps.Values(stay))); failed != nil {
			err = unknown(errors.Join(err, failed))
		}
		return t, err
	}
}

// replayOne hands over one dead letter, notes that, and only then acknowledges it: a
// crash in between brings it again, to a handler that has seen it.
func replayOne(ctx context.Context, a *app.App, d deadLetter, reason string) error {
	if err := keepFromOthers(ctx, a, d); err != nil {
		return err
	}
	err := handOver(ctx, a, d.place, d.original)
	outcome := "accepted"
	switch {
	case errors.Is(err, errRefusedAgain) && d.Quarantine == "":
		outcome = "set aside in quarantine"
	case err != nil: // also one that is too large for quarantine: here alone it is whole
		return err
	}
	record := audit.Record{Action: "dead_letter_replay", Actor: actor(), Reason: reason,
		Detail: fmt.Sprintf("dead letter %s of %s was handed to %s again and %s: %s", d.ID, d.Topic, d.place.Function, outcome, reason)}
	if _, id, ok := strings.Cut(d.Quarantine, "/"); ok {
		err = delivery.MarkReplayed(ctx, a, id, record, rand.Text())
	} else {
		_, err = a.Store.Apply(ctx, record.Write(a.Config.StatePrefix(), a.Now(), rand.Text()))
		record.Log(ctx, a.Log)
	}
	if err != nil {
		return err
	}
	return acknowledge(ctx, a, d, outcome)
}

// acknowledge removes a message of which an outcome is recorded.
func acknowledge(ctx context.Context, a *app.App, d deadLetter, outcome string) error {
	err := a.Broker.Client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{
		Subscription: subscriptionName(a, d.Subscription), AckIds: []string{d.ackID}})
	if err != nil {
		return fmt.Errorf("%s, but not acknowledged: %w", outcome, err)
	}
	return nil
}
