-- Generated, for 15 players of each team that has a row in Phase 3.
SELECT
  game_date,
  FORMAT('%s-player%d', LOWER(team_abbr), player) AS player_lookup,
  [CONCAT('opponent=', opponent_team_abbr), CONCAT('depth=', CAST(player AS STRING))] AS features,
  @now AS processed_at
FROM nba_analytics.upcoming_team_game_context, UNNEST(GENERATE_ARRAY(0, 14)) AS player
WHERE game_date = @period
