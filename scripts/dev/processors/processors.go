// Package processors are those of the pipelines that the local environment runs: the ten of
// the NBA pipeline, and the forty of the retail one. Each is one query, whose rows go
// through the runner. Of the NBA's player_game_summary is really made of what was scraped
// and player_daily_cache of Phase 3; of the retail one's all but the forecasts are made of
// what was read. The others generate their figures.
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
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/processor"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
	"github.com/phasegate/phasegate/shared/wire"
)

//go:embed nba retail
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
	sql, err := p.query(run.Processor.Name)
	if err != nil {
		return processor.Output{}, processor.Permanent(fmt.Errorf("%s has no query: %w", run.Processor.Name, err))
	}
	cal := p.Pipeline.Calendar
	var period any = cal.Start(run.Period)
	if !cal.Hourly() {
		period = civil.DateOf(cal.Start(run.Period).In(cal.Zone()))
	}
	q := p.Data.Client.Query(p.Data.Rename(sql))
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

// query returns what a processor asks.
func (p Processors) query(name string) (string, error) {
	if p.Pipeline.Name == "retail" {
		return retailQuery(name)
	}
	sql, err := queries.ReadFile("nba/" + name + ".sql")
	return string(sql), err
}

// next names the processor that a table of the previous phase starts, by pipeline; "": none.
var next = map[string]map[string]string{"retail": retailNext(), "nba": {
	"player_game_summary":          "player_daily_cache",
	"team_defense_game_summary":    "team_defense_zone_analysis",
	"team_offense_game_summary":    "player_shot_zone_analysis",
	"upcoming_player_game_context": "player_composite_factors",
	"upcoming_team_game_context":   "ml_feature_store_v2",
}}

// Sets returns the processor of a pipeline's next phase that a table starts; "" when none
// is. An error says that the table is unknown.
func Sets(p *pipeline.Pipeline, table string) (string, error) {
	name, ok := next[p.Name][table]
	if !ok {
		return "", fmt.Errorf("source_table %q starts no processor", table)
	}
	return name, nil
}

// Next runs what a trigger asks for, and returns the processor's name, "" when there is
// nothing to run. An error means that the trigger must be redelivered.
func (p Processors) Next(ctx context.Context, t wire.Trigger, published time.Time) (string, processor.Outcome, error) {
	name, err := Sets(p.Pipeline, t.SourceTable)
	if err != nil || name == "" {
		return "", processor.Outcome{}, err
	}
	out, err := p.Run(ctx, name, t.GameDate, processor.Request{TriggerID: t.TriggerID, Published: published, Mode: t.Mode,
		CorrelationID: t.CorrelationID, Parent: t.SourceTable}, p.Work)
	return name, out, err
}
