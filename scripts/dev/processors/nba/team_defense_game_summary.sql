-- Generated: two rows a game.
SELECT
  game_date,
  FORMAT('%s_%s_%s', FORMAT_DATE('%Y%m%d', game_date), away_team_tricode, home_team_tricode) AS game_id,
  IF(side = 0, home_team_tricode, away_team_tricode) AS defending_team_abbr,
  IF(side = 0, away_team_tricode, home_team_tricode) AS opponent_team_abbr,
  95 + MOD(ABS(FARM_FINGERPRINT(CONCAT(home_team_tricode, CAST(game_date AS STRING)))) + side, 40) AS points_allowed,
  @now AS processed_at
FROM nba_raw.v_nbac_schedule_latest, UNNEST([0, 1]) AS side
WHERE game_date = @period
