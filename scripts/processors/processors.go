// Package processors are the ten processors of the NBA pipeline as the local environment
// runs them: each is one query, whose rows go through the runner. player_game_summary is
// really made of what was scraped and player_daily_cache of Phase 3; the others generate
// their figures.
package processors

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/message"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

//go:embed *.sql
var queries embed.FS

// timeLimit of a query.
const timeLimit = 2 * time.Minute

// Processors runs them.
type Processors struct {
	*processor.Runner
	Data sample.Data
}

// New returns the processors of an environment, whose warehouse has the tables.
func New(a *app.App, data sample.Data) Processors {
	return Processors{processor.New(processor.Config{Pipeline: a.Pipeline, Store: a.Store, Locks: a.Locks, Warehouse: a.Warehouse,
		Publish: a.Broker.Publish, Now: a.Now, NewID: rand.Text, Prefix: a.Config.Prefix, Staging: a.Config.Staging(), TimeLimit: timeLimit, Log: a.Log}), data}
}

// Work makes a processor's rows of a period.
func (p Processors) Work(ctx context.Context, run processor.Run) (processor.Output, error) {
	sql, err := queries.ReadFile(run.Processor.Name + ".sql")
	if err != nil {
		return processor.Output{}, processor.Permanent(fmt.Errorf("%s has no query: %w", run.Processor.Name, err))
	}
	period, err := civil.ParseDate(string(run.Period))
	if err != nil {
		return processor.Output{}, processor.Permanent(err)
	}
	q := p.Data.Client.Query(p.Data.Rename(string(sql)))
	q.Parameters = []bigquery.QueryParameter{{Name: "period", Value: period}, {Name: "now", Value: p.Now()}}
	it, err := q.Read(ctx)
	if err != nil {
		return processor.Output{}, fmt.Errorf("%s.sql: %w", run.Processor.Name, err)
	}
	var out processor.Output
	for {
		var cells map[string]bigquery.Value
		err := it.Next(&cells)
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err != nil {
			return processor.Output{}, fmt.Errorf("%s.sql: %w", run.Processor.Name, err)
		}
		row := make(map[string]any, len(cells))
		for column, v := range cells {
			row[column] = v
		}
		out.Rows = append(out.Rows, row)
	}
}

// next names the processor of Phase 4 that a table of Phase 3 sets off.
var next = map[string]string{
	"player_game_summary":          "player_daily_cache",
	"team_defense_game_summary":    "team_defense_zone_analysis",
	"team_offense_game_summary":    "player_shot_zone_analysis",
	"upcoming_player_game_context": "player_composite_factors",
	"upcoming_team_game_context":   "ml_feature_store_v2",
}

// Next runs what a trigger of Phase 4 asks for, and returns the processor's name. An
// error means that the trigger must come again.
func (p Processors) Next(ctx context.Context, t message.Trigger, published time.Time) (string, processor.Outcome, error) {
	name := next[t.SourceTable]
	if name == "" {
		return "", processor.Outcome{}, fmt.Errorf("source_table %q sets nothing off", t.SourceTable)
	}
	out, err := p.Run(ctx, name, t.GameDate, processor.Request{TriggerID: t.TriggerID, Published: published, Mode: t.Mode,
		CorrelationID: t.CorrelationID, Parent: t.SourceTable}, p.Work)
	return name, out, err
}
