package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/wire"
)

func quarantineCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "List invalid messages, deliver them again, or discard them",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(quarantineList(f), quarantineShow(f), quarantineReplay(f), quarantineDiscard(f))
	return cmd
}

// quarantined reads what is waiting, newest first; with all, what was replayed or discarded too.
func quarantined(ctx context.Context, a *app.App, all bool) ([]delivery.Quarantined, error) {
	out := []delivery.Quarantined{}
	for q, err := range delivery.ListQuarantine(ctx, a) {
		if err != nil {
			return nil, exitError{exitUnknown, err}
		}
		if all || !q.Settled() {
			q.Envelope, q.Head = "", "" // a list is of lines
			out = append(out, q)
		}
	}
	slices.SortStableFunc(out, func(a, b delivery.Quarantined) int { return b.ReceivedAt.Compare(a.ReceivedAt) })
	return out, nil
}

func quarantineList(f *flags) *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the messages in quarantine that were neither replayed nor discarded, newest first",
		Example: "  phasectl quarantine list",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			qs, err := quarantined(cmd.Context(), a, all)
			if err != nil {
				return err
			}
			if asJSON {
				return printLine(cmd.OutOrStdout(), map[string]any{"schema": 1, "messages": qs})
			}
			if len(qs) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is in quarantine")
				return err
			}
			for _, q := range qs {
				replayed := ""
				if !q.ReplayedAt.IsZero() {
					replayed = "  (replayed " + localTime(a, q.ReplayedAt) + " by " + q.ReplayedBy + ")"
				}
				if !q.DiscardedAt.IsZero() {
					replayed += "  (discarded " + localTime(a, q.DiscardedAt) + " by " + q.DiscardedBy + ")"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s  %s%s\n", localTime(a, q.ReceivedAt), quoted([]string{q.ID}), q.Function, quoted([]string{q.Reason}), replayed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "include replayed and discarded messages")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func localTime(a *app.App, t time.Time) string {
	return t.In(a.Pipeline.Calendar.Zone()).Format("2006-01-02 15:04:05 MST")
}

func quarantineShow(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show one message: its origin, the reason for the quarantine, and its data",
		Example: "  phasectl quarantine list\n  phasectl quarantine show 1234567890",
		Args:    exactly(1, "ID", "1234567890, which phasectl quarantine list shows"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			a, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			q, err := delivery.GetQuarantined(cmd.Context(), a, ids[0])
			if errors.Is(err, delivery.ErrNotQuarantined) {
				return exitError{exitFindings, err}
			}
			if err != nil {
				return exitError{exitUnknown, err}
			}
			return printQuarantined(cmd.OutOrStdout(), a, q)
		},
	}
}

func printQuarantined(w io.Writer, a *app.App, q delivery.Quarantined) error {
	var b strings.Builder
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", name, value)
		}
	}
	fmt.Fprintf(&b, "%s\n", quoted([]string{q.ID}))
	row("reason", quoted([]string{q.Reason}))
	row("received", localTime(a, q.ReceivedAt))
	row("function", q.Function)
	row("topic", q.Topic)
	data, help := q.Head, "it is too large to be kept here: phasectl dead-letter replay"
	if q.Cut {
		help = "only its beginning is kept, because it is larger than Pub/Sub takes: let its sender send it again"
	}
	if e, err := envelopeOf(q); err == nil {
		row("published", localTime(a, e.PublishTime))
		for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
			row("attribute", quoted([]string{name + "=" + e.Attributes[name]}))
		}
		data, help = string(e.Data), `phasectl quarantine replay `+q.ID+` --reason "…", once the cause is removed`
	}
	row("data", quoted([]string{data}))
	if !q.ReplayedAt.IsZero() {
		row("replayed", localTime(a, q.ReplayedAt)+" by "+q.ReplayedBy)
		help = "nothing is to be done: it was replayed and taken"
	}
	if !q.DiscardedAt.IsZero() {
		row("discarded", localTime(a, q.DiscardedAt)+" by "+q.DiscardedBy)
		help = "nothing is to be done: it was discarded; phasectl quarantine replay still hands it over"
	}
	row("help", help)
	_, err := io.WriteString(w, b.String())
	return err
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
	var all bool
	var reason string
	cmd := &cobra.Command{
		Use:   "replay ID... | --all",
		Short: "Deliver messages from quarantine to their function again, unchanged",
		Long: "Deliver the original message, with its times and ids, to the handler that refused it, in this process and with\n" +
			"the pipeline file of this command. A message that is accepted is marked; one that is refused again stays.",
		Example: "  phasectl quarantine replay 4711 --reason \"the definition knows the date now\"",
		RunE: func(cmd *cobra.Command, ids []string) error {
			a, err := f.openToReplay(cmd, ids, all, reason)
			if err != nil {
				return err
			}
			defer a.Close()
			if all {
				qs, err := quarantined(cmd.Context(), a, false)
				if err != nil {
					return err
				}
				for _, q := range slices.Backward(qs) { // as they came
					ids = append(ids, q.ID)
				}
			}
			var t tally
			for _, id := range ids {
				t.add(cmd.OutOrStdout(), id, replayQuarantined(cmd.Context(), a, id, reason))
			}
			return t.end(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all messages that were not replayed yet")
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	return cmd
}

func quarantineDiscard(f *flags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "discard ID...",
		Short: "Discard messages in quarantine without delivering them",
		Long: "Mark messages as discarded, so that health no longer counts them. Their documents stay, with the actor and the\n" +
			"reason. Discarding a message that is already replayed or discarded changes nothing.",
		Example: "  phasectl quarantine discard 4711 --reason \"a test message\"",
		Args:    some("ID", "4711, which phasectl quarantine list shows"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			a, err := f.openToAct(cmd.Context())
			if err != nil {
				return err
			}
			defer a.Close()
			t := tally{verb: "discarded"}
			for _, id := range ids {
				done, err := delivery.MarkDiscarded(cmd.Context(), a, id, audit.Record{Action: "quarantine_discard", Actor: actor(), Reason: reason,
					Detail: fmt.Sprintf("message %s was discarded: %s", id, reason)}, rand.Text())
				if err == nil && !done {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: replayed or discarded before\n", quoted([]string{id}))
					if err != nil {
						return err
					}
					continue
				}
				t.add(cmd.OutOrStdout(), id, err)
			}
			return t.problem()
		},
	}
	reasonFlag(cmd, &reason)
	f.differsFlag(cmd)
	return cmd
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

// plain shows text that others may have written without letting it steer the terminal, in
// one line: errors that were joined are several.
func plain(s string) string {
	s = strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// tally counts what became of replayed messages.
type tally struct {
	verb                  string // "" is taken
	done, refused, failed int
}

func (t *tally) word() string {
	if t.verb == "" {
		return "taken"
	}
	return t.verb
}

func (t *tally) add(w io.Writer, id string, err error) {
	switch {
	case err == nil:
		t.done++
		fmt.Fprintf(w, "%s: %s\n", quoted([]string{id}), t.word())
	case errors.Is(err, errRefusedAgain), errors.Is(err, delivery.ErrNotQuarantined):
		t.refused++
		fmt.Fprintf(w, "%s: %s\n", quoted([]string{id}), plain(err.Error()))
	default:
		t.failed++
		fmt.Fprintf(w, "%s: %s\n", quoted([]string{id}), plain(err.Error()))
	}
}

func (t *tally) end(w io.Writer) error {
	if *t == (tally{}) {
		_, err := fmt.Fprintln(w, "nothing waits to be replayed")
		return err
	}
	return t.problem()
}

// problem is the error of what was not done; nil where all is.
func (t *tally) problem() error {
	switch {
	case t.failed > 0:
		return exitError{exitUnknown, fmt.Errorf("%d %s, %d refused, %d failed; nothing is lost, try again", t.done, t.word(), t.refused, t.failed)}
	case t.refused > 0:
		return exitError{exitFindings, fmt.Errorf("%d %s, %d refused", t.done, t.word(), t.refused)}
	}
	return nil
}
