package processors

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/store/memory"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
	"github.com/phasegate/phasegate/shared/wire"
)

// world is a warehouse with all tables, two nights of games and their sheets.
type world struct {
	*warehousetest.World
	Processors

	mu        sync.Mutex
	completed []string // topics of completions
}

func newWorld(t *testing.T) *world {
	t.Helper()
	before := sample.Day{Date: "2026-02-02", Games: 4, Players: 35, Minutes: 35}
	night := sample.Day{Date: "2026-02-03", Games: 10, Players: 35, Minutes: 35, Short: 2}
	w := &world{World: warehousetest.NBA(t)}
	data := w.Sample()
	if err := data.CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, day := range []sample.Day{before, night} {
		if err := errors.Join(data.Schedule(t.Context(), day), data.Scrape(t.Context(), day, 0, day.Games)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := pipeline.Parse([]byte(w.Definition()))
	if err != nil {
		t.Fatal(err)
	}
	log, err := telemetry.New(io.Discard, "info")
	if err != nil {
		t.Fatal(err)
	}
	mem := memory.New(time.Now)
	locks := lease.New(lease.Config{Store: mem, Now: time.Now, NewID: rand.Text, Lease: lease.Max, Instance: "m", Log: log})
	w.Processors = Processors{processor.New(processor.Config{Pipeline: p, Store: mem, Locks: locks, Warehouse: w.Warehouse, Publish: w.publish,
		Now: time.Now, NewID: rand.Text, Staging: w.Staging(), TimeLimit: timeLimit, Log: log}), data}
	return w
}

func (w *world) publish(_ context.Context, topic string, msgs []wire.Outgoing) []cycle.Published {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]cycle.Published, len(msgs))
	for i := range msgs {
		w.completed = append(w.completed, topic)
		out[i].ID = fmt.Sprint(len(w.completed))
	}
	return out
}

// F25: the lock was added to a class that no processor used. The test runs each processor
// of the pipeline twice at once. The first run works; the second gets a HeldError, and
// its retry writes the same rows.
func TestF25_EveryProcessorOfThePipelineRunTwiceAtOnceWritesOnce(t *testing.T) {
	w := newWorld(t)
	rows := map[string]int64{"player_game_summary": 348, "team_defense_game_summary": 20, "team_offense_game_summary": 20,
		"upcoming_player_game_context": 300, "upcoming_team_game_context": 20, "player_composite_factors": 300, "player_daily_cache": 348,
		"player_shot_zone_analysis": 300, "team_defense_zone_analysis": 20, "ml_feature_store_v2": 300}
	reports := 0
	for _, phase := range w.Pipeline.Phases {
		for _, pr := range phase.Processors {
			working, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := w.Run(t.Context(), pr.Name, "2026-02-03", processor.Request{TriggerID: "first"}, func(ctx context.Context, run processor.Run) (processor.Output, error) {
					close(working)
					<-goOn
					return w.Work(ctx, run)
				})
				ended <- err
			}()
			select {
			case <-working:
			case err := <-ended:
				t.Fatalf("%s: %v", pr.Name, err)
			}
			again := processor.Request{TriggerID: "second"}
			_, err := w.Run(t.Context(), pr.Name, "2026-02-03", again, func(context.Context, processor.Run) (processor.Output, error) {
				t.Errorf("%s: both at work", pr.Name)
				return processor.Output{}, nil
			})
			if held := (*lease.HeldError)(nil); !errors.As(err, &held) {
				t.Errorf("%s: the second: %v", pr.Name, err)
			}
			close(goOn)
			if err := <-ended; err != nil {
				t.Fatalf("%s: %v", pr.Name, err)
			}
			if _, err := w.Run(t.Context(), pr.Name, "2026-02-03", again, w.Work); err != nil {
				t.Fatalf("%s: %v", pr.Name, err)
			}
			if w.Pipeline.ReportsTo(pr.Name) != nil {
				reports += 2
			}
			keys := strings.Join(pr.Key, ", ")
			got := w.Ask(fmt.Sprintf("SELECT IFNULL(SUM(n), 0), IFNULL(SUM(n - 1), 0) FROM (SELECT COUNT(*) AS n FROM %s WHERE %s = DATE '2026-02-03' GROUP BY %s)", pr.Table, pr.DateColumn, keys))
			if got[0] != rows[pr.Name] || got[1] != int64(0) {
				t.Errorf("%s: %v rows, %v duplicates, want %d and none", pr.Name, got[0], got[1], rows[pr.Name])
			}
		}
	}
	if reports == 0 || len(w.completed) != reports {
		t.Errorf("%d completions published, want %d", len(w.completed), reports)
	}
}

// The players' summary uses the latest scraped rows, and the cache covers more than one night.
func TestProcessors_BuildRowsFromScrapedData(t *testing.T) {
	w := newWorld(t)
	for period, players := range map[pipeline.Period]int{"2026-02-02": 140, "2026-02-03": 348} {
		out, err := w.Run(t.Context(), "player_game_summary", period, processor.Request{}, w.Work)
		if err != nil || out.Written.Rows != players {
			t.Errorf("%s: %+v, %v, want %d rows", period, out, err, players)
		}
	}
	// No row has the minutes of half-time, and each has an opponent from the schedule.
	got := w.Ask(`SELECT COUNTIF(minutes_played != 24.5), SUM(points), COUNTIF(opponent_team_abbr IS NULL OR opponent_team_abbr = team_abbr)
		FROM nba_analytics.player_game_summary WHERE game_date = DATE '2026-02-02'`)
	if fmt.Sprint(got...) != fmt.Sprint(int64(0), int64(4*35*34/2), int64(0)) {
		t.Errorf("minutes of half-time, points, without an opponent: %v", got)
	}
	name, out, err := w.Next(t.Context(), wire.Trigger{SourceTable: "player_game_summary", GameDate: "2026-02-03", TriggerID: "t", Mode: "overnight"}, time.Now())
	if err != nil || name != "player_daily_cache" || out.Written.Rows != 348 {
		t.Errorf("%s: %+v, %v", name, out, err)
	}
	if got := w.Ask("SELECT COUNTIF(games = 2), COUNTIF(games = 1) FROM nba_precompute.player_daily_cache WHERE cache_date = DATE '2026-02-03'"); fmt.Sprint(got...) != fmt.Sprint(int64(140), int64(208)) {
		t.Errorf("players with two games and with one: %v", got)
	}
	if _, again, err := w.Next(t.Context(), wire.Trigger{SourceTable: "player_game_summary", GameDate: "2026-02-03", TriggerID: "t"}, time.Now()); err != nil || !again.Served {
		t.Errorf("the same trigger again: %+v, %v", again, err)
	}
	if _, _, err := w.Next(t.Context(), wire.Trigger{SourceTable: "box_scores"}, time.Now()); err == nil {
		t.Error("a trigger of a table without a next processor is accepted")
	}
}
