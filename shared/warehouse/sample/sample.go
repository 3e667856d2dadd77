// Package sample fills a warehouse with what the NBA pipeline's tables hold: for the
// demo, and for tests that need real tables. No function links it.
package sample

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"google.golang.org/api/googleapi"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// datasets and tables of the pipeline, with the columns that anything here reads.
var (
	datasets = []string{"nba_raw", "nba_analytics"}
	tables   = []string{
		`CREATE TABLE nba_raw.v_nbac_schedule_latest (game_date DATE, game_id STRING, home_team_tricode STRING, away_team_tricode STRING,
			game_status_text STRING)`,
		`CREATE TABLE nba_analytics.player_game_summary (game_date DATE, game_id STRING, player_lookup STRING, team_abbr STRING,
			opponent_team_abbr STRING, minutes_played FLOAT64, points INT64, processed_at TIMESTAMP) PARTITION BY game_date`,
		`CREATE TABLE nba_analytics.team_defense_game_summary (game_date DATE, game_id STRING, defending_team_abbr STRING,
			opponent_team_abbr STRING, points_allowed INT64, processed_at TIMESTAMP) PARTITION BY game_date`,
		`CREATE TABLE nba_analytics.team_offense_game_summary (game_date DATE, game_id STRING, team_abbr STRING,
			opponent_team_abbr STRING, points_scored INT64, processed_at TIMESTAMP) PARTITION BY game_date
			OPTIONS (require_partition_filter = TRUE)`,
		`CREATE TABLE nba_analytics.upcoming_player_game_context (game_date DATE, game_id STRING, player_lookup STRING, team_abbr STRING,
			opponent_team_abbr STRING, processed_at TIMESTAMP) PARTITION BY game_date`,
		`CREATE TABLE nba_analytics.upcoming_team_game_context (game_date DATE, game_id STRING, team_abbr STRING,
			opponent_team_abbr STRING, processed_at TIMESTAMP) PARTITION BY game_date`,
	}

	// Tables around those: raw data of the scrapers, tables of the next phase, and the logs of
	// scrapers and processors.
	furtherDatasets = []string{"nba_precompute", "nba_predictions", "nba_orchestration", "nba_reference"}
	furtherTables   = []string{
		`CREATE TABLE nba_raw.nbac_gamebook_player_stats (game_date DATE, game_id STRING, player_lookup STRING, team_abbr STRING,
			minutes STRING, points INT64, scraped_at TIMESTAMP) PARTITION BY game_date`,
		`CREATE TABLE nba_precompute.player_composite_factors (game_date DATE, player_lookup STRING, fatigue_score FLOAT64,
			processed_at TIMESTAMP) PARTITION BY game_date`,
		`CREATE TABLE nba_precompute.player_daily_cache (cache_date DATE, player_lookup STRING, team_abbr STRING, games INT64,
			points_avg_last_10 FLOAT64, minutes_avg_last_10 FLOAT64, processed_at TIMESTAMP) PARTITION BY cache_date`,
		`CREATE TABLE nba_precompute.player_shot_zone_analysis (analysis_date DATE, player_lookup STRING, paint_rate FLOAT64,
			three_pt_rate FLOAT64, processed_at TIMESTAMP) PARTITION BY analysis_date`,
		`CREATE TABLE nba_precompute.team_defense_zone_analysis (analysis_date DATE, team_abbr STRING, paint_points_allowed FLOAT64,
			processed_at TIMESTAMP) PARTITION BY analysis_date`,
		`CREATE TABLE nba_orchestration.scraper_execution_log (scraper_name STRING, status STRING, triggered_at TIMESTAMP)`,
		`CREATE TABLE nba_reference.processor_run_history (processor_name STRING, run_id STRING, status STRING, data_date DATE, started_at TIMESTAMP,
			processed_at TIMESTAMP, phase STRING, trigger_source STRING)`,
		`CREATE TABLE nba_predictions.ml_feature_store_v2 (game_date DATE, player_lookup STRING, features ARRAY<STRING>,
			processed_at TIMESTAMP)`,
	}
)

// teams play in pairs, from the front: the first ten games are those of the first
// twenty.
var teams = strings.Fields("LAL BOS DEN GSW PHX MIL NYK PHI MIA CHI DAL SAC HOU ORL IND CLE ATL TOR MIN OKC MEM NOP SAS UTA POR LAC BKN CHA DET WAS")

// Data is the data of one warehouse. Suffix, added to the datasets' names, keeps several
// apart in one emulator, whose projects share their datasets.
type Data struct {
	Client *bigquery.Client
	Suffix string
}

// Rename puts the suffix to the datasets' names in a text.
func (w Data) Rename(text string) string {
	return named.ReplaceAllString(text, "${0}"+w.Suffix)
}

// named finds the datasets in a statement or in a definition.
var named = regexp.MustCompile(`\b(?:` + strings.Join(slices.Concat(datasets, furtherDatasets), "|") + `)\b`)

// Create makes the tables of the schedule and of Phase 3, empty.
func (w Data) Create(ctx context.Context) error { return w.create(ctx, datasets, tables) }

// CreateFurther makes the others, empty.
func (w Data) CreateFurther(ctx context.Context) error {
	return w.create(ctx, furtherDatasets, furtherTables)
}

func (w Data) create(ctx context.Context, datasets, tables []string) error {
	for _, d := range datasets {
		if err := w.Client.Dataset(d+w.Suffix).Create(ctx, nil); err != nil {
			return fmt.Errorf("create dataset %s: %w", d+w.Suffix, err)
		}
	}
	for _, ddl := range tables {
		if err := w.Exec(ctx, ddl); err != nil {
			return err
		}
	}
	return nil
}

// Drop removes the tables that there are.
func (w Data) Drop(ctx context.Context) error {
	var errs []error
	for _, d := range slices.Concat(datasets, furtherDatasets) {
		err := w.Client.Dataset(d + w.Suffix).DeleteWithContents(ctx)
		if missing, ok := errors.AsType[*googleapi.Error](err); ok && missing.Code == http.StatusNotFound {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("drop dataset %s: %w", d+w.Suffix, err))
		}
	}
	return errors.Join(errs...)
}

// Day is what the tables hold for a date.
type Day struct {
	Date    pipeline.Period
	Days    int // how many dates in a row are alike; 0 means one
	Games   int // on the schedule, at most 15
	Players int // of each game, in player_game_summary
	Short   int // how many games, the last ones, have a player less on their sheet
	Minutes int // how many players of each game have their minutes
	Context int // players of each game in upcoming_player_game_context
}

// dates are the day's.
const dates = `, UNNEST(GENERATE_DATE_ARRAY(CAST(@first AS DATE), CAST(@last AS DATE))) AS date`

// Schedule puts a day's games on the schedule.
func (w Data) Schedule(ctx context.Context, d Day) error {
	return w.Exec(ctx, `INSERT INTO nba_raw.v_nbac_schedule_latest
		(game_date, game_id, home_team_tricode, away_team_tricode, game_status_text)
		SELECT date, FORMAT('0022500%03d', game), @teams[OFFSET(2 * game)], @teams[OFFSET(2 * game + 1)], 'Final'
		FROM UNNEST(GENERATE_ARRAY(0, @games - 1)) AS game`+dates, d.parameters()...)
}

// Scrape puts the sheets of a day's games into the raw table, those from first up to, but
// not including, last. A fifth of the players has two rows, one of them as of half-time.
func (w Data) Scrape(ctx context.Context, d Day, first, last int) error {
	return w.Exec(ctx, `INSERT INTO nba_raw.nbac_gamebook_player_stats (game_date, game_id, player_lookup, team_abbr, minutes, points, scraped_at)
		SELECT date, FORMAT('0022500%03d', game), FORMAT('player%d', game * 100 + player), @teams[OFFSET(2 * game + MOD(player, 2))],
			IF(player < @minutes, IF(half = 1, '12:00', '24:30'), NULL), IF(half = 1, 0, MOD(player, 40)),
			TIMESTAMP_ADD(TIMESTAMP(date), INTERVAL 28 - half HOUR)
		FROM UNNEST(GENERATE_ARRAY(@from, @to - 1)) AS game, UNNEST(GENERATE_ARRAY(0, @players - 1)) AS player, UNNEST([0, 1]) AS half`+dates+`
		WHERE player < @players - IF(game < @whole, 0, 1) AND (half = 0 OR MOD(player, 5) = 0)`,
		append(d.parameters(), bigquery.QueryParameter{Name: "from", Value: first}, bigquery.QueryParameter{Name: "to", Value: last})...)
}

// Fill puts a day's complete run of every processor into the tables: two rows a game into
// those of teams. Their game_id is not the schedule's.
func (w Data) Fill(ctx context.Context, d Day) error {
	const side = ` FROM UNNEST(GENERATE_ARRAY(0, @games - 1)) AS game, UNNEST([0, 1]) AS side` + dates
	const player = ` FROM UNNEST(GENERATE_ARRAY(0, @games - 1)) AS game, UNNEST(GENERATE_ARRAY(0, %s - 1)) AS player` + dates
	id := `FORMAT('%s_%s_%s', FORMAT_DATE('%Y%m%d', date), @teams[OFFSET(2 * game + 1)], @teams[OFFSET(2 * game)])`
	team := func(who string) string {
		return fmt.Sprintf(`@teams[OFFSET(2 * game + MOD(%s, 2))], @teams[OFFSET(2 * game + 1 - MOD(%[1]s, 2))]`, who)
	}
	for _, sql := range []string{
		`INSERT INTO nba_analytics.player_game_summary (game_date, game_id, player_lookup, team_abbr, opponent_team_abbr,
			minutes_played, points, processed_at)
			SELECT date, ` + id + `, FORMAT('player%d', game * 100 + player), ` + team("player") + `,
			IF(player < @minutes, 24.5, NULL), MOD(player, 40), CURRENT_TIMESTAMP()` + fmt.Sprintf(player, "@players"),
		`INSERT INTO nba_analytics.team_defense_game_summary (game_date, game_id, defending_team_abbr, opponent_team_abbr,
			points_allowed, processed_at) SELECT date, ` + id + `, ` + team("side") + `, 110, CURRENT_TIMESTAMP()` + side,
		`INSERT INTO nba_analytics.team_offense_game_summary (game_date, game_id, team_abbr, opponent_team_abbr,
			points_scored, processed_at) SELECT date, ` + id + `, ` + team("side") + `, 110, CURRENT_TIMESTAMP()` + side,
		`INSERT INTO nba_analytics.upcoming_player_game_context (game_date, game_id, player_lookup, team_abbr, opponent_team_abbr,
			processed_at) SELECT date, ` + id + `, FORMAT('player%d', game * 100 + player), ` + team("player") + `,
			CURRENT_TIMESTAMP()` + fmt.Sprintf(player, "@contexts"),
		`INSERT INTO nba_analytics.upcoming_team_game_context (game_date, game_id, team_abbr, opponent_team_abbr, processed_at)
			SELECT date, ` + id + `, ` + team("side") + `, CURRENT_TIMESTAMP()` + side,
	} {
		if err := w.Exec(ctx, sql, d.parameters()...); err != nil {
			return err
		}
	}
	return nil
}

func (d Day) parameters() []bigquery.QueryParameter {
	date, err := civil.ParseDate(string(d.Date))
	if err != nil {
		panic(fmt.Sprintf("a sample's date: %v", err))
	}
	return []bigquery.QueryParameter{{Name: "first", Value: date}, {Name: "last", Value: date.AddDays(max(d.Days, 1) - 1)}, {Name: "teams", Value: teams}, {Name: "games", Value: d.Games},
		{Name: "players", Value: d.Players}, {Name: "minutes", Value: d.Minutes}, {Name: "contexts", Value: d.Context}, {Name: "whole", Value: d.Games - d.Short}}
}

// Exec runs one statement, which names the datasets without the suffix, to its end.
// Only the parameters that it names are passed: the emulator refuses others.
func (w Data) Exec(ctx context.Context, sql string, parameters ...bigquery.QueryParameter) error {
	q := w.Client.Query(w.Rename(sql))
	for _, p := range parameters {
		if strings.Contains(sql, "@"+p.Name) {
			q.Parameters = append(q.Parameters, p)
		}
	}
	if _, err := q.Read(ctx); err != nil { // in one call, where a job takes three
		return fmt.Errorf("%.60s…: %w", sql, err)
	}
	return nil
}
