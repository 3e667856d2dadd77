package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// maxRows is the largest record_count that the reader of a completion takes.
const maxRows = 1 << 53

// settleWithin bounds the wait for the steps that follow a completion, such as readiness checks.
const settleWithin = 15 * time.Second

// statuses are those that a completion can have.
var statuses = []wire.Status{wire.StatusSuccess, wire.StatusPartial, wire.StatusFailed, wire.StatusNoData, wire.StatusSkipped}

// reported is a completion that an operator reports in place of a processor.
type reported struct {
	DryRun      bool            `json:"dry_run"`
	Transition  string          `json:"transition"`
	Processor   string          `json:"processor"`
	Period      pipeline.Period `json:"period"`
	Mode        string          `json:"mode"` // to which a run that ended now belongs, "" for none
	Status      wire.Status     `json:"status"`
	Rows        *int64          `json:"rows,omitempty"`
	Error       string          `json:"error,omitempty"`
	ExecutionID string          `json:"execution_id"`
	Published   bool            `json:"published"`            // false: it was reported before
	MessageID   string          `json:"message_id,omitempty"` // of the published one
	Recorded    bool            `json:"recorded"`
	State       string          `json:"state,omitempty"` // of the cycle, afterwards
	Reason      string          `json:"reason,omitempty"`

	phase pipeline.Phase
	of    pipeline.Processor
	t     *pipeline.Transition
	at    time.Time // of the run
}

type completeOptions struct {
	*flags
	act
	processor, period, status, problem string
	rows                               int64
	rowsKnown                          func() bool
	within                             time.Duration
}

func completeCommand(f *flags) *cobra.Command {
	o := completeOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "complete PROCESSOR PERIOD",
		Short: "Report a completion in place of a processor, such as one whose report was lost",
		Long: "Publish a completion to the topic that the processor itself reports to, and wait until it is recorded. The time of\n" +
			"the run is now. The audit record is written before the message is published. A completion that repeats the newest\n" +
			"report of the processor, in the same mode, is not published again.\n" +
			"To hand a cycle over again, use phasectl trigger.\n\n" +
			"Exit status: 0 recorded, now or before, 1 refused, 2 it is unknown whether the completion is recorded: run the\n" +
			"command again, which has no second effect.",
		Example: "  phasectl complete player_game_summary 2026-02-03 --rows 280 --reason \"its report was lost\"\n" +
			"  phasectl complete player_game_summary 2026-02-03 --status failed --error \"no box scores\" --reason \"it hung and was stopped\"",
	}
	f.words(cmd, word{"PROCESSOR", "player_game_summary", &o.processor}, word{"PERIOD", "yesterday", &o.period})
	o.acts(f, cmd)
	fl := cmd.Flags()
	fl.StringVar(&o.status, "status", string(wire.StatusSuccess), "outcome of the run: success, partial, failed, no_data, skipped")
	fl.Int64Var(&o.rows, "rows", 0, "number of rows that the run wrote (default: unknown)")
	fl.StringVar(&o.problem, "error", "", "error message of a run that did not succeed")
	fl.DurationVar(&o.within, "timeout", time.Minute, "how long to wait until the completion is recorded")
	o.rowsKnown = func() bool { return fl.Changed("rows") }
	return answers(f, cmd, o.run)
}

func (o *completeOptions) run(ctx context.Context) (*reported, error) {
	c := &reported{DryRun: o.dryRun, Status: wire.Status(o.status), Error: o.problem}
	if o.rowsKnown() {
		c.Rows = &o.rows
	}
	if err := c.check(); err != nil {
		return nil, usage(err)
	}
	a, err := o.openAct(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if err := c.resolve(a, o.processor, o.period); err != nil {
		return nil, err
	}
	c.Mode = c.t.ModeAt(c.Period, c.at)
	if !o.dryRun {
		if err := o.confirm(ctx, "report %s for %s to %s", c.said(), c.Period, c.t.UpstreamTopic); err != nil {
			return nil, err
		}
		if err := c.report(ctx, a, o.reason, o.within); err != nil {
			return nil, err
		}
	}
	if err := c.see(ctx, a); err != nil {
		return c, err
	}
	if !c.Recorded && !c.DryRun {
		return c, unknown(fmt.Errorf("message %s is published, and not recorded within %v: see phasectl smoke and phasectl quarantine list", c.MessageID, o.within))
	}
	return c, nil
}

// check checks the flags.
func (c *reported) check() error {
	switch {
	case !slices.Contains(statuses, c.Status):
		return fmt.Errorf("--status: %q is not one of success, partial, failed, no_data, skipped", c.Status)
	case c.Rows != nil && (*c.Rows < 0 || *c.Rows > maxRows):
		return fmt.Errorf("--rows: %d is not within 0 to %d", *c.Rows, int64(maxRows))
	case c.Error != "" && c.Status == wire.StatusSuccess:
		return errors.New("--error: a run with --status success has no error: leave --error out, or add --status failed")
	}
	return nil
}

// resolve reads the processor and the period, and refuses environments from which a completion
// would reach others.
func (c *reported) resolve(a *app.App, processor, period string) error {
	var ok bool
	if c.phase, c.of, ok = a.Pipeline.Processor(processor); !ok {
		return usage(fmt.Errorf("PROCESSOR: %s", unknownProcessor(a.Pipeline, processor)))
	}
	if c.t = a.Pipeline.ReportsTo(c.of.Name); c.t == nil {
		return usage(fmt.Errorf("PROCESSOR: no transition expects completions of %s, a processor of %s", c.of.Name, c.phase.Name))
	}
	c.Processor, c.Transition, c.at = c.of.Name, c.t.ID, a.Now()
	var err error
	if c.Period, err = onePeriod(a.Pipeline.Calendar, a.Now(), period); err != nil {
		return usage(err)
	}
	cal := a.Pipeline.Calendar
	if last := cal.Add(cal.At(a.Now()), c.t.Lead()+1); c.Period > last {
		return usage(fmt.Errorf("PERIOD: %s is in the future: %s expects completions of periods up to %s now", c.Period, c.t.ID, last))
	}
	switch {
	case a.Config.Shadow != "":
		return findings(fmt.Errorf("refused: this environment is a shadow (PHASEGATE_SHADOW=true), and the orchestrator that hands over reads topic %s too: "+
			"report to that orchestrator", c.t.UpstreamTopic))
	case a.Config.ReadOnly:
		return findings(errors.New("refused: this environment only reads the tables (PHASEGATE_TABLES=read): " +
			"run the command in the environment that writes them, or set PHASEGATE_TABLES=write if this one does"))
	}
	return nil
}

// unknownProcessor says that the pipeline has no such processor, and which one was most likely
// meant, or which there are.
func unknownProcessor(p *pipeline.Pipeline, name string) string {
	var known, classes []string
	for _, pr := range p.Processors() {
		known, classes = append(known, pr.Name), append(classes, pr.Class)
	}
	for _, t := range p.Transitions {
		if meant := wire.DidYouMean(name, t); meant != "" {
			return fmt.Sprintf("the pipeline has no processor %q: did you mean %s?", name, meant)
		}
	}
	if meant, _ := pipeline.Nearest(name, append(slices.Clone(known), classes...)); meant != "" {
		return fmt.Sprintf("the pipeline has no processor %q: did you mean %s?", name, meant)
	}
	return fmt.Sprintf("the pipeline has no processor %q: it has %s, and their classes", name, policy.Listed(known))
}

// report publishes the completion unless it repeats the newest report, and waits until it is
// recorded. A process that dies after the audit record leaves a trace, and the next call
// publishes. One that dies after publishing is repeated under the same execution id, or not at
// all: the id follows from the completion and the newest report before it.
func (c *reported) report(ctx context.Context, a *app.App, reason string, within time.Duration) error {
	at, newest, err := c.newest(ctx, a)
	if err != nil {
		return unknown(err)
	}
	c.at = at
	c.Mode = c.t.ModeAt(c.Period, at)
	if newest.Completion != nil && c.repeats(newest) {
		c.ExecutionID, c.Recorded = newest.ExecutionID, true
		return nil
	}
	c.ExecutionID = c.execution(newest.Key)
	data, err := c.message(at)
	if err != nil {
		return err
	}
	record := audit.Record{Action: "complete", Actor: actor(), Reason: reason, Transition: c.t.ID, Period: string(c.Period), Mode: c.Mode,
		Detail: fmt.Sprintf("to be published to %s: %s for %s as execution %s", c.t.UpstreamTopic, c.said(), c.Period, c.ExecutionID)}
	_, err = a.Store.Apply(ctx, record.Write(a.Config.StatePrefix(), a.Now(), rand.Text()))
	if err != nil && !errors.Is(err, store.ErrExists) { // the record's id is ours alone: an earlier try's answer was lost
		return unknown(fmt.Errorf("nothing was published, because the audit record could not be written: %w", err))
	}
	record.Log(ctx, a.Log)
	publishing, cancel := context.WithTimeout(ctx, reportFor)
	defer cancel()
	sent := a.Broker.Publish(publishing, a.Config.Prefix+c.t.UpstreamTopic, []wire.Outgoing{{Data: data}})[0]
	if sent.Err != nil {
		return unknown(fmt.Errorf("it is unknown whether the completion was published; run the command again: %w", sent.Err))
	}
	c.Published, c.MessageID = true, sent.ID
	err = awaitFor(ctx, within, func(ctx context.Context) (bool, error) {
		_, now, err := c.newest(ctx, a)
		c.Recorded = err == nil && now.Completion != nil && (now.ExecutionID == c.ExecutionID || now.EventTime.After(at))
		return c.Recorded, err
	})
	if err != nil && !errors.Is(err, errWaited) {
		return unknown(fmt.Errorf("message %s is published; it is unknown whether it is recorded: %w", c.MessageID, err))
	}
	return nil
}

// newest returns the newest report of the processor, and the server's time: the clock of this
// machine may be wrong, and the time of a run decides its mode.
func (c *reported) newest(ctx context.Context, a *app.App) (time.Time, policy.Run, error) {
	states, err := a.Engine.PeriodStates(ctx, c.t, c.Period, c.Period)
	if err == nil {
		err = states[0].Problem
	}
	if err != nil {
		return time.Time{}, policy.Run{}, err
	}
	newest, _ := states[0].Newest(c.of.Name)
	return states[0].At, newest, nil
}

// repeats reports whether the newest report says what this one would say.
func (c *reported) repeats(newest policy.Run) bool {
	rows := c.Rows == nil || newest.RecordCount != nil && *newest.RecordCount == *c.Rows
	return newest.Status == c.Status && rows && (c.Error == "" || newest.ErrorMessage == c.Error) && c.t.ModeAt(c.Period, newest.EventTime) == c.Mode
}

// execution derives the execution id: two calls at once, or a call after one that died, report
// one execution.
func (c *reported) execution(after string) string {
	key, err := json.Marshal([]any{c.t.StoredID(), c.Period, c.t.Stored(c.of.Name), c.Mode, c.Status, c.Rows, c.Error, after})
	if err != nil {
		panic(fmt.Sprintf("strings and a number always have a JSON: %v", err))
	}
	sum := sha256.Sum256(key)
	return "phasectl-" + hex.EncodeToString(sum[:8])
}

// message is the completion as a processor sends it.
func (c *reported) message(at time.Time) ([]byte, error) {
	dataset, table, _ := strings.Cut(c.of.Table, ".")
	r := wire.Report{ProcessorName: c.of.Name, Phase: c.phase.Name, ExecutionID: c.ExecutionID, CorrelationID: c.ExecutionID,
		GameDate: c.Period, OutputTable: table, OutputDataset: dataset, Status: c.Status, Timestamp: wire.Timestamp(at),
		RecordCount: c.Rows, TriggerSource: "phasectl complete", ErrorMessage: c.Error}
	if c.Error != "" {
		r.ErrorType = "operator"
	}
	return r.Encode()
}

// said is the completion in words.
func (c *reported) said() string {
	s := c.of.Name + " " + string(c.Status)
	if c.Rows != nil {
		s += ", " + pipeline.Count(*c.Rows, "row", "rows")
	}
	if c.Error != "" {
		s += ", " + c.Error
	}
	return s
}

// see reads where the cycle is.
func (c *reported) see(ctx context.Context, a *app.App) error {
	st, err := c.settled(ctx, a)
	if err != nil {
		return unknown(err)
	}
	c.State, c.Reason = st.State, st.Reason
	return nil
}

func (c *reported) text(p *page) {
	switch {
	case c.DryRun:
		p.line("would report %s for %s to %s", c.said(), c.Period, c.t.UpstreamTopic)
		if c.Mode == "" {
			c.noMode(p)
		}
		return
	case !c.Published:
		p.line("%s for %s is recorded already, as execution %s: nothing was published", c.said(), c.Period, c.ExecutionID)
	case c.Recorded:
		p.line("%s for %s is recorded, as execution %s", c.said(), c.Period, c.ExecutionID)
	}
	if c.State == "" {
		c.noMode(p)
		return
	}
	p.line("  %s is %s: %s", c.t.Called(c.Period, c.Mode), c.State, c.Reason)
}

// noMode says when runs count for the modes that name the processor, and which period was probably
// meant.
func (c *reported) noMode(p *page) {
	p.line("  a run that ends now belongs to no mode of %s", c.t.ID)
	cal := c.t.Calendar()
	for _, m := range c.t.Modes {
		if !m.Names(c.Processor) {
			continue
		}
		from := cal.Instant(c.Period, m.CountsFrom)
		within := ""
		if m.Event != pipeline.After { // whose first time is after the period
			within = fmt.Sprintf("%s the %s, ", m.Event, periodWord(cal))
		}
		p.line("  %s counts runs that end %sat or after %s (%s)", m.Name, within, offsetWords(cal, m.CountsFrom), cal.Local(from))
	}
	if meant := policy.Meant(c.t, c.Processor, c.Period, c.at); meant != "" {
		words := string(meant)
		if days := cal.Daily(); !cal.Hourly() && meant == days.Add(days.At(c.at), -1) {
			words = "yesterday, " + words
		}
		p.line("  did you mean %s? phasectl complete %s %s --reason \"…\"", words, c.Processor, meant)
	}
}

// settled returns the state of the cycle once no step is under way that this completion has begun,
// or as it is after some seconds.
func (c *reported) settled(ctx context.Context, a *app.App) (st cycle.Status, err error) {
	err = awaitFor(ctx, settleWithin, func(ctx context.Context) (bool, error) {
		statuses, err := a.Engine.Status(ctx, cycle.Key{Transition: c.t, Period: c.Period})
		if err != nil {
			return false, err
		}
		for _, s := range statuses {
			if s.Mode == c.Mode {
				st = s
			}
		}
		switch cycle.State(st.State) {
		case cycle.StateChecking, cycle.StatePublishing, cycle.StateGrace:
			return len(st.Missing) > 0, nil
		case cycle.State(policy.Waiting): // if it is due, its batch is about to be created, or its grace period to begin
			return st.NextCheck.IsZero() || st.NextCheck.Sub(c.at) > time.Minute, nil
		}
		return true, nil
	})
	if errors.Is(err, errWaited) {
		err = nil
	}
	return st, err
}
