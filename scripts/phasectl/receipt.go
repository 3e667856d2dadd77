package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
)

func receiptCommand(f *flags) *cobra.Command {
	return group("receipt", "List the receipts of guarded services, and let a delivery work again", receiptList(f), receiptShow(f), receiptForget(f))
}

func receiptsOf(a *app.App) *receipt.Receipts {
	return receipt.New(receipt.Config{Store: a.Store, Now: a.Now, NewID: rand.Text, Prefix: a.Config.Prefix, Log: a.Log})
}

// receiptLine is a receipt as it is shown.
type receiptLine struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Scope     string    `json:"scope"`
	Route     string    `json:"route"`
	Key       string    `json:"key"`
	MessageID string    `json:"message_id"`
	Instance  string    `json:"instance"`
	Attempt   int64     `json:"attempt"`
	Status    int64     `json:"status"` // of the last answer; 0 for none
	Overlap   bool      `json:"overlap"`
	ClaimedAt time.Time `json:"claimed_at"`
	Until     time.Time `json:"until,omitzero"`
	Finished  time.Time `json:"finished_at,omitzero"`
	// Of a receipt that may need a person: lost, unknown or overlapping.
	Problem string    `json:"problem,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Why     string    `json:"why,omitempty"`
}

func receiptLineOf(r receipt.Receipt) receiptLine {
	return receiptLine{ID: r.ID, State: r.State, Scope: r.Scope, Route: r.Route, Key: r.Key, MessageID: r.MessageID, Instance: r.Instance,
		Attempt: r.Attempt, Status: r.Status, Overlap: r.Overlap, ClaimedAt: r.ClaimedAt, Until: r.Until, Finished: r.Finished}
}

type receiptListOptions struct {
	*flags
	scope, after string
	limit        int
}

func receiptList(f *flags) *cobra.Command {
	o := receiptListOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the receipts that may need a person, or all of one service",
		Long: "List the receipts that are lost, unknown or overlapping, and say how many deliveries are at work. With --scope list all\n" +
			"receipts of one service, in the order of their ids: --limit of them, and the command for the next ones.\n\n" +
			"  lost         The claim expired 15 minutes ago, and no delivery has taken it over. The message may be a dead\n" +
			"               letter of the service's own subscription, which phasectl dead-letter does not list.\n" +
			"  unknown      The guard does not know the result of the run. The service may be at work, or be done.\n" +
			"  overlapping  One run is recorded as done while a second one may be at work.",
		Example: "  phasectl receipt list\n  phasectl receipt list --scope phase4-processors",
	}
	cmd.Flags().StringVar(&o.scope, "scope", "", "all receipts of this service, as phasectl guard --scope names it")
	cmd.Flags().StringVar(&o.after, "after", "", "with --scope: those after this id")
	cmd.Flags().IntVar(&o.limit, "limit", 100, "how many receipts are read at most, 1 to 10000")
	return answers(f, cmd, o.run)
}

type receiptsAnswer struct {
	AtWork   *int          `json:"at_work,omitempty"` // deliveries; not with --scope
	Receipts []receiptLine `json:"receipts"`
	More     bool          `json:"more"`            // there are further receipts
	After    string        `json:"after,omitempty"` // with --scope: the id to continue after

	scope string
}

func (r *receiptsAnswer) text(p *page) {
	if r.AtWork != nil {
		p.line("deliveries at work: %d; receipts that may need a person: %d", *r.AtWork, len(r.Receipts))
	} else if len(r.Receipts) == 0 {
		p.line("%s has no receipts", quoted(r.scope))
	}
	p.listing("", "CLAIMED", "STATE", "SERVICE", "KEY")
	for _, l := range r.Receipts {
		state := l.State
		if l.Problem != "" {
			state = l.Problem
		}
		p.row(p.at(l.ClaimedAt), state, l.Scope+l.Route, quoted(l.Key))
		if l.Why != "" {
			p.detail("since %s: %s", p.at(l.Since), l.Why)
			p.detail("fix: phasectl receipt show %s", l.ID)
		} else {
			p.detail("%s", l.ID)
		}
	}
	switch {
	case r.After != "":
		p.line("more: phasectl receipt list --scope %s --after %s", r.scope, r.After)
	case r.More:
		p.line("more receipts are open: add --limit")
	}
}

func (o *receiptListOptions) run(ctx context.Context) (*receiptsAnswer, error) {
	switch {
	case o.limit < 1 || o.limit > 10_000:
		return nil, usage(fmt.Errorf("--limit: %d is not within 1 to 10000", o.limit))
	case o.after != "" && o.scope == "":
		return nil, usage(errors.New("--after: needs --scope"))
	case o.after != "" && !receiptID.MatchString(o.after):
		return nil, usage(fmt.Errorf("--after: %q is no id of a receipt, which phasectl receipt list --scope shows", o.after))
	}
	a, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	r := &receiptsAnswer{Receipts: []receiptLine{}, scope: o.scope}
	if o.scope == "" {
		open, err := receipt.Problems(ctx, a.Store, a.Config.Prefix, o.limit)
		r.AtWork, r.More = &open.AtWork, open.More
		for _, p := range open.Problems {
			l := receiptLineOf(p.Receipt)
			l.Problem, l.Since, l.Why = p.Kind, p.Since, p.Why
			r.Receipts = append(r.Receipts, l)
		}
		return r, unknown(err)
	}
	var damaged []error
	for found, err := range receiptsOf(a).List(ctx, o.scope, o.after) {
		if r.More = len(r.Receipts)+len(damaged) == o.limit; r.More {
			break
		}
		if r.After = found.ID; err != nil {
			damaged = append(damaged, err)
			continue
		}
		r.Receipts = append(r.Receipts, receiptLineOf(found))
	}
	if !r.More {
		r.After = ""
	}
	return r, unknown(errors.Join(damaged...))
}

// receiptID is the form of the id of a receipt.
var receiptID = regexp.MustCompile(`^[A-Za-z0-9._-]+~[0-9a-f]{64}$`)

// receiptName names a receipt by its id, or by the key of a delivery with its service and route.
type receiptName struct{ key, scope, route string }

func (n *receiptName) takes(f *flags, cmd *cobra.Command) {
	f.words(cmd, word{"KEY", "marts_to_reports_2026-02-03_daily~1/orders", &n.key})
	cmd.Flags().StringVar(&n.scope, "scope", "", "the service of a KEY, as phasectl guard --scope names it (default: that of the pipeline file, if one phase has a guard)")
	cmd.Flags().StringVar(&n.route, "route", "", "path and query on which the service receives a KEY (default: the first path of the guard, else /)")
}

func (n *receiptName) id(p *pipeline.Pipeline) (string, error) {
	if receiptID.MatchString(n.key) {
		return n.key, nil
	}
	var guards []*pipeline.Guard
	for _, ph := range p.Phases {
		if ph.Guard != nil && (n.scope == "" || n.scope == ph.Guard.Scope) {
			guards = append(guards, ph.Guard)
		}
	}
	if len(guards) == 1 {
		n.scope, n.route = guards[0].Scope, cmp.Or(n.route, guards[0].Paths[0])
	}
	if n.scope == "" {
		return "", usage(fmt.Errorf("--scope: name the service that receives %s, or give the id of a receipt", n.key))
	}
	n.route = cmp.Or(n.route, "/")
	return receipt.Delivery{Scope: n.scope, Route: n.route, Key: n.key}.ID(), nil
}

// read returns the receipt, and the server's time.
func (n *receiptName) read(ctx context.Context, a *app.App) (receipt.Receipt, time.Time, error) {
	id, err := n.id(a.Pipeline)
	if err != nil {
		return receipt.Receipt{}, time.Time{}, err
	}
	found, at, err := receiptsOf(a).Show(ctx, id)
	if errors.Is(err, receipt.ErrNoReceipt) && id != n.key {
		return found, at, findings(fmt.Errorf("%w of %s on the route %s of %s: is --route the path and query of its push endpoint?", receipt.ErrNoReceipt, n.key, n.route, n.scope))
	}
	return found, at, findingsIf(err, receipt.ErrNoReceipt)
}

func receiptShow(f *flags) *cobra.Command {
	var name receiptName
	cmd := &cobra.Command{
		Use:   "show KEY",
		Short: "Show the receipt of one delivery, and what can be done about it",
		Example: "  phasectl receipt show marts_to_reports_2026-02-03_daily~1/orders --scope reports\n" +
			"  phasectl receipt show marts_to_reports_2026-02-03_daily~1/orders --scope reports --route /process",
	}
	name.takes(f, cmd)
	return answers(f, cmd, on(f.open, name.show))
}

func (n *receiptName) show(ctx context.Context, a *app.App) (*receiptShown, error) {
	found, at, err := n.read(ctx, a)
	if err != nil {
		return nil, err
	}
	return shownOf(found, at), nil
}

// receiptShown is one receipt, with what can be done.
type receiptShown struct {
	receiptLine
	Live bool   `json:"live"`
	Help string `json:"help"`
}

func shownOf(found receipt.Receipt, at time.Time) *receiptShown {
	r := &receiptShown{receiptLine: receiptLineOf(found), Live: found.Live(at)}
	again := `phasectl receipt forget ` + found.ID + ` --reason "…"; then seek the subscription to a time before its message`
	switch {
	case r.Live:
		r.Help = "wait: it is at work"
	case found.Forgettable(at) != nil:
		r.Help = "wait: " + found.Forgettable(at).Error()
	case found.State == receipt.Done:
		r.Help = "nothing is to be done; to work it again: " + again
	case found.State == receipt.Released:
		r.Help = "nothing is to be done: the next delivery works it. If none comes, its message is a dead letter of the service's subscription: replay it there"
	default:
		r.Help = "the next delivery works it again. See whether the work was done; if no delivery comes, its message is a dead letter of the service's subscription: replay it there"
	}
	return r
}

func (r *receiptShown) text(p *page) {
	p.line("%s", r.ID)
	row := func(name, format string, args ...any) { p.line("  %-9s %s", name, fmt.Sprintf(format, args...)) }
	row("service", "%s, route %s", r.Scope, quoted(r.Route))
	row("key", "%s", quoted(r.Key))
	row("message", "%s", quoted(r.MessageID))
	state := r.State
	if r.State == receipt.Working && !r.Live {
		state += ", and its claim has expired"
	}
	if r.Overlap {
		state += ", and another run had the claim too"
	}
	row("state", "%s", state)
	row("claimed", "%s by %s, attempt %d", p.at(r.ClaimedAt), quoted(r.Instance), r.Attempt)
	if !r.Until.IsZero() {
		row("until", "%s unless it is renewed", p.at(r.Until))
	}
	if !r.Finished.IsZero() {
		row("finished", "%s", p.at(r.Finished))
	}
	if r.Status != 0 {
		row("status", "%d", r.Status)
	}
	row("fix", "%s", r.Help)
}

type receiptForgetOptions struct {
	act
	receiptName
}

func receiptForget(f *flags) *cobra.Command {
	var o receiptForgetOptions
	cmd := &cobra.Command{
		Use:   "forget KEY",
		Short: "Let the next delivery of a trigger work again",
		Long: "Let the next delivery work again, although the receipt says that the work was done; the audit record has the actor and\n" +
			"the reason. The command delivers nothing: seek the subscription to a time before the message, or replay its dead letter.\n" +
			"A new batch of phasectl trigger has new ids, and needs no forget.\n\n" +
			"It is refused while the delivery is at work, and for an hour after a second run had the claim too. If the result of\n" +
			"the last run is unknown, make sure first that the service has ended it: two runs could be at work at once.",
		Example: "  phasectl receipt forget marts_to_reports_2026-02-03_daily~1/orders --scope reports --reason \"its rows were deleted\"",
	}
	o.takes(f, cmd)
	o.acts(f, cmd)
	return answers(f, cmd, on(o.openAct, o.run))
}

// receiptForgotten is a receipt that was forgotten, or would be; as it was before.
type receiptForgotten struct {
	DryRun  bool        `json:"dry_run"`
	Receipt receiptLine `json:"receipt"`
}

func (r *receiptForgotten) text(p *page) {
	was := fmt.Sprintf("it was %s, attempt %d, claimed %s", r.Receipt.State, r.Receipt.Attempt, p.at(r.Receipt.ClaimedAt))
	if r.DryRun {
		p.line("would forget %s of %s: %s", quoted(r.Receipt.Key), r.Receipt.Scope, was)
		return
	}
	p.line("the next delivery of %s to %s works again; %s", quoted(r.Receipt.Key), r.Receipt.Scope, was)
}

func (o *receiptForgetOptions) run(ctx context.Context, a *app.App) (*receiptForgotten, error) {
	found, at, err := o.read(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := found.Forgettable(at); err != nil {
		return nil, findings(err)
	}
	r := &receiptForgotten{DryRun: o.dryRun, Receipt: receiptLineOf(found)}
	if o.dryRun {
		return r, nil
	}
	if err := o.confirm(ctx, "let the next delivery of %s to %s work again; it is %s", found.Key, found.Scope+found.Route, found.State); err != nil {
		return nil, err
	}
	err = receiptsOf(a).Forget(ctx, found.ID, actor(), o.reason)
	if _, ok := errors.AsType[*receipt.LiveError](err); ok { // claimed since the read above
		return nil, findings(err)
	}
	if err != nil {
		return nil, unknown(err)
	}
	return r, nil
}
