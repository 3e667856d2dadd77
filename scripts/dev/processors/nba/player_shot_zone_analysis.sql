-- Generated, for the players of the teams that have a row in Phase 3.
SELECT
  @period AS analysis_date,
  FORMAT('%s-player%d', LOWER(team_abbr), player) AS player_lookup,
  MOD(ABS(FARM_FINGERPRINT(team_abbr)) + player, 60) / 100 AS paint_rate,
  MOD(ABS(FARM_FINGERPRINT(team_abbr)) + 7 * player, 40) / 100 AS three_pt_rate,
  @now AS processed_at
FROM nba_analytics.team_offense_game_summary, UNNEST(GENERATE_ARRAY(0, 14)) AS player
WHERE game_date = @period
