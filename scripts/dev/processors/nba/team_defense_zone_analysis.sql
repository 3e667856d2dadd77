-- Generated, for the teams that have a row in Phase 3.
SELECT
  @period AS analysis_date,
  defending_team_abbr AS team_abbr,
  points_allowed * 0.4 AS paint_points_allowed,
  @now AS processed_at
FROM nba_analytics.team_defense_game_summary
WHERE game_date = @period
