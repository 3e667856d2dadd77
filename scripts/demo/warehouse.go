package demo

import (
	"context"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

// fill puts into the warehouse what the story's processors write, days before they say
// so. Of the last night's players too few have their minutes.
func (d *demo) fill(ctx context.Context, night, today, tomorrow pipeline.Period) error {
	client, err := d.env.App.Warehouse.Client(ctx)
	if err != nil {
		return err
	}
	d.data = &sample.Data{Client: client}
	if err := d.data.Create(ctx); err != nil {
		return err
	}
	for _, day := range []sample.Day{
		{Date: night, Games: 10, Players: 35, Minutes: 35, Context: 31},
		{Date: today, Games: 7, Players: 30, Minutes: 30, Context: 30},
		{Date: tomorrow, Games: 8, Players: 35, Minutes: 25, Context: 30},
	} {
		if err := d.data.Schedule(ctx, day); err != nil {
			return err
		}
		if err := d.data.Fill(ctx, day); err != nil {
			return err
		}
	}
	return nil
}

// checked are the scenes about data that is not ready.
func (d *demo) checked(ctx context.Context, date pipeline.Period) []func() error {
	return []func() error{
		func() error {
			return d.scene(ctx, "2026-02-06 06:05", "All of the night is complete, but too few of its players have their minutes: blocked.", date, "overnight",
				report{processor: "TeamOffenseGameSummaryProcessor", date: date, at: "2026-02-06 06:03", count: 16},
				report{processor: "TeamDefenseGameSummaryProcessor", date: date, at: "2026-02-06 06:03", count: 16},
				report{processor: "PlayerGameSummaryProcessor", date: date, at: "2026-02-06 06:04", count: 280})
		},
		func() error {
			d.say("   fix  the minutes are loaded into the table; nothing is reported")
			if err := d.data.Exec(ctx, "UPDATE nba_analytics.player_game_summary SET minutes_played = 12.5 WHERE game_date = '"+
				string(date)+"' AND minutes_played IS NULL"); err != nil {
				return err
			}
			d.expect(date, "overnight", players, defense, offense, nextPlayer, nextTeam)
			return d.relay(ctx, "2026-02-06 06:15", "The relay asks again, and hands over.", date, "overnight")
		},
	}
}
