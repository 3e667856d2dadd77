package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// messagesOptions are of the commands that do something about messages, one by one or all.
type messagesOptions struct {
	*flags
	act
	ids   []string
	all   bool
	topic string // of dead letters
}

// chosen gives a command ids and, if it can be about all messages, --all in their place.
func (o *messagesOptions) chosen(cmd *cobra.Command, all string) {
	name, examples := "ID", []string{"4711"}
	if all != "" {
		cmd.Flags().BoolVar(&o.all, "all", false, all)
		name, examples = "ID or --all", append(examples, "--all")
	}
	o.needs(cmd, lacks(name, func() bool { return !o.all && len(o.ids) == 0 }, examples...))
	cmd.Args = func(_ *cobra.Command, ids []string) error {
		if o.ids = ids; o.all && len(ids) > 0 {
			return usage(errors.New("wants either ids or --all"))
		}
		return nil
	}
}

// errBefore: nothing is left to do about a message.
var errBefore = errors.New("replayed or discarded before")

// each says what would be done about the messages, asks, and does it. An interrupt ends it between
// two messages.
func (o *messagesOptions) each(ctx context.Context, verb, would string, do func(id string) error) (*tally, error) {
	t := &tally{DryRun: o.dryRun, verb: verb, Messages: []settled{}}
	for i, id := range o.ids {
		if o.dryRun {
			t.Messages = append(t.Messages, settled{ID: id, Outcome: "would " + would})
			continue
		}
		if i == 0 {
			if err := o.confirm(ctx, "%s %s: %s", would, pipeline.Count(len(o.ids), "message", "messages"), quoted(o.ids...)); err != nil {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			left := fmt.Errorf("%w; %d of %s tried", errStopped, i, pipeline.Count(len(o.ids), "message was", "messages were"))
			if err := t.problem(); err != nil {
				return t, unknown(errors.Join(err, left))
			}
			return t, findings(left)
		}
		o.progress("%d of %d: %s", i+1, len(o.ids), id)
		t.add(id, do(id))
	}
	return t, t.problem()
}

// settled is what became of a message.
type settled struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
}

// tally counts what became of messages.
type tally struct {
	DryRun   bool      `json:"dry_run"`
	Messages []settled `json:"messages"`
	Done     int       `json:"done"`
	Refused  int       `json:"refused"`
	Failed   int       `json:"failed"`

	verb string
}

func (t *tally) text(p *page) {
	if len(t.Messages) == 0 {
		p.line("no message waits")
	}
	for _, m := range t.Messages {
		p.line("%s: %s", quoted(m.ID), m.Outcome)
	}
}

func (t *tally) add(id string, err error) {
	outcome := t.verb
	switch {
	case err == nil:
		t.Done++
	case errors.Is(err, errBefore):
		outcome = err.Error()
	case errors.Is(err, errRefusedAgain), errors.Is(err, delivery.ErrNotQuarantined):
		t.Refused++
		outcome = err.Error()
	default:
		t.Failed++
		outcome = err.Error()
	}
	t.Messages = append(t.Messages, settled{id, outcome})
}

// problem is the error of what was not done; nil where all is.
func (t *tally) problem() error {
	switch {
	case t.Failed > 0:
		return unknown(fmt.Errorf("%d %s, %d refused, %d failed; nothing is lost, try again", t.Done, t.verb, t.Refused, t.Failed))
	case t.Refused > 0:
		return findings(fmt.Errorf("%d %s, %d refused", t.Done, t.verb, t.Refused))
	}
	return nil
}
