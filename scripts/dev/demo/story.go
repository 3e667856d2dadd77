package demo

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/phasegate/phasegate/shared/pipeline"
)

const (
	players    = "player_game_summary"
	defense    = "team_defense_game_summary"
	offense    = "team_offense_game_summary"
	nextPlayer = "upcoming_player_game_context"
	nextTeam   = "upcoming_team_game_context"
)

var nbaIntro = []string{
	"You will see five processors complete a night, and the process that publishes their five triggers die at the worst moment:",
	"Pub/Sub has accepted the triggers, and their ids are not recorded. Another process resumes: no trigger is lost, none is doubled.",
	legend,
}

// play is the story.
func (d *demo) play(ctx context.Context) error {
	const night, today, tomorrow = pipeline.Period("2026-02-03"), pipeline.Period("2026-02-04"), pipeline.Period("2026-02-05")
	d.say("The night of %s, times in %s. Pub/Sub %s, functions %s", night, d.zone, d.env.PubSub, d.env.Functions["transition"])
	if d.env.App.Warehouse == nil {
		d.say("Data is not checked, because there is no warehouse. With one there are nine more scenes: make build/bqemu (some minutes)")
	} else if err := d.openWarehouse(ctx); err != nil {
		return err
	}

	d.expect(night, "overnight", players, defense, offense, nextPlayer, nextTeam)
	scenes := []func() error{
		func() error {
			return d.scene(ctx, "2026-02-03 22:40", "The games are over: the team summaries are the first to finish.", night, "overnight",
				report{processor: offense, date: night, at: "2026-02-03 22:40", count: 20},
				report{processor: defense, date: night, at: "2026-02-03 22:40", count: 20})
		},
		func() error {
			return d.scene(ctx, "2026-02-04 06:02", "A run of the players' summary fails.", night, "overnight",
				report{processor: players, date: night, at: "2026-02-04 06:02", status: "failed"})
		},
		func() error {
			if err := d.scrape(ctx, nightDay, 0, 8); err != nil {
				return err
			}
			d.crash.armed.Store(true)
			return d.scene(ctx, "2026-02-04 06:03", "The rest within one second, out of order, with noise. The process dies after it published and before it recorded the ids.", night, "overnight",
				report{processor: nextTeam, date: night, at: "2026-02-04 06:03", count: 20},
				report{processor: players, date: night, at: "2026-02-04 06:03", count: 280, times: 5},
				report{processor: nextPlayer, date: night, at: "2026-02-04 06:03", count: 300},
				report{processor: "RosterHistoryProcessor", date: night, at: "2026-02-04 06:03", count: 9},
				report{processor: players, date: "YESTERDAY", at: "2026-02-04 06:03", count: 280})
		},
		func() error {
			return d.redeliveries(ctx, "Its message is redelivered until the dead process's claim expires.", night, "overnight")
		},
		func() error {
			if err := d.scrape(ctx, nightDay, 8, nightDay.Games); err != nil {
				return err
			}
			d.expect(night, "overnight", players)
			return d.scene(ctx, "2026-02-04 07:10", "Two late games are in: the players' summary runs again, with another count.", night, "overnight",
				report{processor: players, date: night, at: "2026-02-04 07:10", count: 348})
		},
		func() error {
			d.expect(today, "same_day", nextPlayer)
			return d.scene(ctx, "2026-02-04 10:36", "The same-day cycle: its critical processor is enough.", today, "same_day",
				report{processor: nextPlayer, date: today, at: "2026-02-04 10:36", count: 210})
		},
		func() error {
			d.expect(today, "same_day", nextTeam)
			return d.scene(ctx, "2026-02-04 10:50", "The optional one is late, and handed over late.", today, "same_day",
				report{processor: nextTeam, date: today, at: "2026-02-04 10:50", count: 14})
		},
		func() error {
			return d.scene(ctx, "2026-02-04 11:20", "Odds have moved: the same processor again. The same-day policy ignores second runs.", today, "same_day",
				report{processor: nextPlayer, date: today, at: "2026-02-04 11:20", count: 209, made: 210})
		},
		func() error {
			d.expect(tomorrow, "tomorrow", nextPlayer, nextTeam)
			return d.scene(ctx, "2026-02-04 17:05", "The cycle for the next day's games.", tomorrow, "tomorrow",
				report{processor: nextTeam, date: tomorrow, at: "2026-02-04 17:04", count: 16},
				report{processor: nextPlayer, date: tomorrow, at: "2026-02-04 17:05", count: 240})
		},
		func() error {
			if err := d.scrape(ctx, todayDay, 0, todayDay.Games); err != nil {
				return err
			}
			d.expect(today, "overnight", players, offense, nextPlayer, nextTeam)
			return d.scene(ctx, "2026-02-05 06:10", "The next night: the team defense does not come. The quorum is complete, so the cycle waits for 30 minutes of grace.", today, "overnight",
				report{processor: players, date: today, at: "2026-02-05 06:09", count: 210},
				report{processor: offense, date: today, at: "2026-02-05 06:10", count: 14})
		},
		func() error {
			d.crash.armed.Store(true)
			return d.relay(ctx, "2026-02-05 06:45", "The grace period is over: the relay publishes without it and dies before it records the ids.", today, "overnight")
		},
		func() error {
			return d.redeliveries(ctx, "Its job is redelivered; the claim of the dead process is still valid.", today, "overnight")
		},
		func() error {
			return d.relay(ctx, "2026-02-05 06:50", "The next relay finishes what the crash left.", today, "overnight")
		},
		func() error {
			d.expect(today, "overnight", defense)
			return d.scene(ctx, "2026-02-05 07:30", "The team defense arrives late and is handed over late.", today, "overnight",
				report{processor: defense, date: today, at: "2026-02-05 07:30", count: 14})
		},
		func() error {
			return d.scene(ctx, "2026-02-05 10:40", "The same-day cycle without its critical processor.", tomorrow, "same_day",
				report{processor: nextTeam, date: tomorrow, at: "2026-02-05 10:40", count: 16},
				report{processor: nextPlayer, date: tomorrow, at: "2026-02-05 10:40", status: "failed"})
		},
		func() error {
			return d.relay(ctx, "2026-02-05 13:00", "At its deadline it is overdue: a notification is sent, and nothing is handed over.", tomorrow, "same_day")
		},
		func() error {
			d.expect(tomorrow, "same_day", nextPlayer, nextTeam)
			return d.scene(ctx, "2026-02-05 13:20", "The missing processor arrives, and the cycle is handed over.", tomorrow, "same_day",
				report{processor: nextPlayer, date: tomorrow, at: "2026-02-05 13:20", count: 240})
		},
	}
	if d.processors != nil {
		scenes = append(append(scenes, d.checked(ctx, tomorrow)...), append(d.incident(ctx, night), d.reconciled(ctx, night)...)...)
		scenes = append(scenes, d.watched(ctx)...)
	}
	return d.scenes(scenes)
}

// report is one completion as a processor sends it.
type report struct {
	processor string // by the pipeline's name, or another that it does not know
	date      pipeline.Period
	at        string
	status    string // "" means success
	count     int
	made      int // rows, where the processor really runs and makes another number
	times     int // how often it is published; 0 means once
}

func (r report) label() string {
	s := fmt.Sprintf("%s for %s: %s", r.processor, r.date, r.outcome())
	if r.times > 1 {
		s += fmt.Sprintf(", published %d times", r.times)
	}
	return s
}

func (r report) outcome() string {
	if r.status == "" {
		return "success, " + pipeline.Count(r.count, "row", "rows")
	}
	return r.status
}

// rows are those that the processor makes.
func (r report) rows() int {
	if r.made > 0 {
		return r.made
	}
	return r.count
}

// known reports whether it is about a processor and a period that a pipeline has.
func (r report) known(p *pipeline.Pipeline) bool {
	_, _, ours := p.Processor(r.processor)
	_, err := p.Calendar.Parse(string(r.date))
	return ours && err == nil
}

// waits returns the transition that waits for it.
func (r report) waits(d *demo) *pipeline.Transition {
	if t := d.env.App.Pipeline.ReportsTo(r.processor); t != nil {
		return t
	}
	return d.transition
}

// encode writes the message as today's processors do.
func (r report) encode(d *demo) ([]byte, error) {
	status := r.status
	if status == "" {
		status = "success"
	}
	name := r.processor
	if _, p, ok := d.env.App.Pipeline.Processor(name); ok {
		name = p.Class
	}
	data, err := json.Marshal(map[string]any{
		"processor_name": name, "phase": r.waits(d).UpstreamPhase, "game_date": r.date, "status": status,
		"execution_id": fmt.Sprintf("run-%s-%s", r.processor, r.at), "correlation_id": "night-" + string(r.date),
		"record_count": r.count, "records_failed": 0, "duration_seconds": 28.9,
		"timestamp": d.at(r.at).Format("2006-01-02T15:04:05.000000-07:00"), "trigger_source": "pubsub",
		"metadata": map[string]any{"is_incremental": false, "entities_changed": []string{}},
	})
	if err != nil {
		return nil, fmt.Errorf("completion of %s: %w", r.processor, err)
	}
	return data, nil
}
