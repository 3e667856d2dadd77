package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/scripts/dev/processors"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/sweep"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/wire"
)

// The story's days. Of the last one's players too few have their minutes on their sheets.
var (
	nightDay    = sample.Day{Date: "2026-02-03", Games: 10, Players: 35, Minutes: 35, Short: 2}
	todayDay    = sample.Day{Date: "2026-02-04", Games: 7, Players: 30, Minutes: 30}
	tomorrowDay = sample.Day{Date: "2026-02-05", Games: 8, Players: 35, Minutes: 25}
	lastDay     = sample.Day{Date: "2026-02-06", Games: 5}
)

// openWarehouse makes the tables, puts the games on the schedule, and has the processors
// of both phases run from now on.
func (d *demo) openWarehouse(ctx context.Context) error {
	client, err := d.env.App.Warehouse.Client(ctx)
	if err != nil {
		return err
	}
	data := sample.Data{Client: client}
	if err := errors.Join(data.Create(ctx), data.CreateFurther(ctx)); err != nil {
		return err
	}
	for _, day := range []sample.Day{nightDay, todayDay, tomorrowDay, lastDay} {
		if err := data.Schedule(ctx, day); err != nil {
			return err
		}
	}
	p := processors.New(d.env.App, data)
	publish := p.Publish
	p.Publish = func(ctx context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
		if d.mute { // as processors in backfill mode are
			none := make([]cycle.Published, len(msgs))
			for i := range none {
				none[i].ID = "not sent"
			}
			return none
		}
		for range d.copies { // as a publisher does that loses answers
			publish(ctx, topic, msgs)
		}
		return publish(ctx, topic, msgs)
	}
	d.processors = &p
	d.phase4.runs(&p)
	return nil
}

// scrape puts the sheets of some of a day's games into the raw table, if there is one.
func (d *demo) scrape(ctx context.Context, day sample.Day, first, last int) error {
	if d.processors == nil {
		return nil
	}
	d.news = append(d.news, fmt.Sprintf("raw  the sheets of %d games of %s are scraped", last-first, day.Date))
	return d.processors.Data.Scrape(ctx, day, first, last)
}

// runProcessor runs a processor of Phase 3, which reports by itself. What it made must
// be what the story tells.
func (d *demo) runProcessor(ctx context.Context, r report) error {
	d.copies = max(r.times, 1) - 1
	defer func() { d.copies = 0 }()
	out, err := d.processors.Run(ctx, r.processor, r.date, processor.Request{CorrelationID: "night-" + string(r.date)}, d.processors.Work)
	if err != nil {
		return fmt.Errorf("%s for %s: %w", r.processor, r.date, err)
	}
	if out.Status != wire.StatusSuccess || out.Written.Rows != r.count {
		return fmt.Errorf("%s for %s: %s, %d rows, and the story is about %d", r.processor, r.date, out.Status, out.Written.Rows, r.count)
	}
	return nil
}

// duplicates counts, in the story's days, rows of each table that have the key of
// another, over all processors.
func (d *demo) duplicates(ctx context.Context) (rows, doubled int64, err error) {
	var counts []string
	for _, p := range d.env.App.Pipeline.Processors() {
		counts = append(counts, fmt.Sprintf("SELECT COUNT(*) AS copies FROM %s WHERE %s BETWEEN DATE '%s' AND DATE '%s' GROUP BY %s",
			p.Table, p.DateColumn, nightDay.Date, lastDay.Date, strings.Join(p.Key, ", ")))
	}
	it, err := d.processors.Data.Client.Query("SELECT SUM(copies), SUM(copies - 1) FROM (" + strings.Join(counts, " UNION ALL ") + ")").Read(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("count duplicates: %w", err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		return 0, 0, fmt.Errorf("count duplicates: %w", err)
	}
	rows, _ = row[0].(int64)
	doubled, _ = row[1].(int64)
	return rows, doubled, nil
}

// tables counts the pipeline's.
func (d *demo) tables() (n int) {
	for _, phase := range d.env.App.Pipeline.Phases {
		n += len(phase.Processors)
	}
	return n
}

// count prints how many rows there are, and how many of them too many.
func (d *demo) count(ctx context.Context) error {
	rows, doubled, err := d.duplicates(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s in %s, %s", pipeline.Count(rows, "row", "rows"), pipeline.Count(d.tables(), "table", "tables"), pipeline.Count(doubled, "duplicate", "duplicates"))
	if doubled > 0 {
		text = d.red(text)
	}
	d.say("   =    %s", text)
	return nil
}

// incident is what two runs of one processor, 18 seconds apart, leave behind without the
// runner, how a sweep mends it, and what they leave with the runner.
func (d *demo) incident(ctx context.Context, night pipeline.Period) []func() error {
	return []func() error{
		func() error {
			d.begin("2026-02-06 07:00", "The incident as it was: two runs of the players' summary, 18 seconds apart, that ask for no lock. Each appends what it has.")
			for _, sql := range []string{
				"CREATE TABLE nba_raw.appended AS SELECT * FROM nba_analytics.player_game_summary WHERE game_date = '" + string(night) + "'",
				"DELETE FROM nba_analytics.player_game_summary WHERE game_date = '" + string(night) + "'",
				"INSERT INTO nba_analytics.player_game_summary SELECT * FROM nba_raw.appended",
				"INSERT INTO nba_analytics.player_game_summary SELECT * FROM nba_raw.appended ORDER BY player_lookup LIMIT 72",
			} {
				if err := d.processors.Data.Exec(ctx, sql); err != nil {
					return err
				}
			}
			return d.count(ctx)
		},
		func() error { return d.swept(ctx, night) },
		func() error {
			d.begin("2026-02-06 07:10", "The same two runs, through the runner.")
			working, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := d.processors.Run(ctx, players, night, processor.Request{}, func(ctx context.Context, run processor.Run) (processor.Output, error) {
					close(working)
					<-goOn
					return d.processors.Work(ctx, run)
				})
				ended <- err
			}()
			select {
			case <-working:
			case err := <-ended:
				return fmt.Errorf("the first run ended before its work: %w", err)
			}
			d.env.Clock.AdvanceTo(d.at("2026-02-06 07:10:18"))
			second := processor.Request{Published: d.env.Clock.Now()}
			_, err := d.processors.Run(ctx, players, night, second, d.processors.Work)
			close(goOn)
			held := (*lease.HeldError)(nil)
			if failed := <-ended; failed != nil || !errors.As(err, &held) {
				return fmt.Errorf("the first run: %w; the second, which should have met its lock: %w", failed, err)
			}
			d.say("   lock the second: %v", err)
			d.env.Clock.AdvanceTo(d.at("2026-02-06 07:11:18"))
			if _, err := d.processors.Run(ctx, players, night, second, d.processors.Work); err != nil {
				return fmt.Errorf("the retry of the second run: %w", err)
			}
			d.say("   run  a minute later it is retried, and runs")
			if err := d.env.Settle(ctx); err != nil {
				return err
			}
			d.showReceived()
			return d.count(ctx)
		},
	}
}

// swept is a sweep that finds the duplicates and removes them, that is undone, and that is
// done again.
func (d *demo) swept(ctx context.Context, night pipeline.Period) error {
	d.begin("2026-02-06 07:05", "A sweep removes the duplicates; the surviving row of each key stays. Then it is undone, and done again.")
	s, err := sweep.New(d.env.App)
	if err != nil {
		return err
	}
	o := sweep.Order{Table: players, From: night, To: night, Actor: "demo", Reason: "the incident", Fix: func(pipeline.Processor) bool { return true }}
	for _, undo := range []bool{true, false} {
		r, err := s.Run(ctx, o)
		if err != nil {
			return err
		}
		if len(r.Tables) != 1 || r.Tables[0].State != sweep.Removed {
			return fmt.Errorf("the sweep: %+v", r.Tables[0])
		}
		p := r.Tables[0]
		d.say("   fix  %s: %d of %s too many, %d removed", p.Table, p.Duplicates, pipeline.Count(p.Rows, "row", "rows"), p.Removed)
		if err := d.count(ctx); err != nil {
			return err
		}
		if !undo {
			return nil
		}
		if _, err := s.Undo(ctx, r.SweepID, o.Actor, "to see"); err != nil {
			return err
		}
		d.say("   undo %s", p.ID)
		if err := d.count(ctx); err != nil {
			return err
		}
		d.env.Clock.AdvanceTo(d.at("2026-02-06 07:06"))
	}
	return nil
}

// checked are the scenes about data that is not ready.
func (d *demo) checked(ctx context.Context, date pipeline.Period) []func() error {
	return []func() error{
		func() error {
			if err := d.scrape(ctx, tomorrowDay, 0, tomorrowDay.Games); err != nil {
				return err
			}
			return d.scene(ctx, "2026-02-06 06:05", "All of the night is complete, but too few of its players have their minutes: blocked.", date, "overnight",
				report{processor: offense, date: date, at: "2026-02-06 06:03", count: 16},
				report{processor: defense, date: date, at: "2026-02-06 06:03", count: 16},
				report{processor: players, date: date, at: "2026-02-06 06:04", count: 280})
		},
		func() error {
			d.say("   fix  the minutes are loaded into the table; nothing is reported")
			if err := d.processors.Data.Exec(ctx, "UPDATE nba_analytics.player_game_summary SET minutes_played = 12.5 WHERE game_date = '"+
				string(date)+"' AND minutes_played IS NULL"); err != nil {
				return err
			}
			d.expect(date, "overnight", players, defense, offense, nextPlayer, nextTeam)
			return d.relay(ctx, "2026-02-06 06:15", "The relay asks again, and hands over.", date, "overnight")
		},
	}
}

// reconciled is what the nightly job does about a run that did not report, and about a
// document that was changed by hand.
func (d *demo) reconciled(ctx context.Context, night pipeline.Period) []func() error {
	t := d.transition
	look := func() error {
		r := reconcile.New(d.env.App)
		from, to := t.Window(d.env.Clock.Now(), 4)
		report, err := r.Run(ctx, t, from, to, "")
		if err != nil {
			return err
		}
		for _, f := range report.Findings {
			d.say("   !    %s %s %s", f.Type, f.Period, strings.TrimSpace(f.Mode+" "+f.Table))
		}
		for _, u := range report.Unknown {
			d.say("   ?    %s", u)
		}
		d.say("   =    %s, tracking accuracy %s", pipeline.Count(len(report.Findings), "finding", "findings"), report.AccuracyText())
		return nil
	}
	return []func() error{
		func() error {
			d.begin("2026-02-06 10:05", "A processor runs in backfill mode, which reports nothing. An operator has \"corrected\" a count by hand.")
			d.mute = true
			r := report{processor: nextPlayer, date: lastDay.Date, count: 150}
			err := d.runProcessor(ctx, r)
			d.mute = false
			if err != nil {
				return err
			}
			byHand := store.Merge(store.Ref{Collection: t.CompatibilityCollection, ID: string(night)}, store.F(1, "_completed_count"))
			if _, err := d.env.App.Store.Apply(ctx, byHand); err != nil {
				return err
			}
			d.say("   run  %s, without a report", r.label())
			d.env.Clock.AdvanceTo(d.at("2026-02-06 10:40"))
			return look()
		},
		func() error {
			d.expect(lastDay.Date, "same_day", nextPlayer)
			if err := d.job(ctx, wire.JobNightly, "2026-02-06 10:45", "The nightly job records the run, hands the cycle over, and corrects the count.", lastDay.Date, "same_day"); err != nil {
				return err
			}
			return look()
		},
	}
}
