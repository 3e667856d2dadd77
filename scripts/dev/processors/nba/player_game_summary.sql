-- What was scraped of each player last, with the opponent from the schedule.
SELECT
  sheet.game_date,
  FORMAT('%s_%s_%s', FORMAT_DATE('%Y%m%d', sheet.game_date), game.away, game.home) AS game_id,
  sheet.player_lookup,
  sheet.team_abbr,
  IF(sheet.team_abbr = game.home, game.away, game.home) AS opponent_team_abbr,
  CAST(SPLIT(sheet.minutes, ':')[SAFE_OFFSET(0)] AS FLOAT64) + CAST(SPLIT(sheet.minutes, ':')[SAFE_OFFSET(1)] AS FLOAT64) / 60 AS minutes_played,
  sheet.points,
  @now AS processed_at
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY player_lookup ORDER BY scraped_at DESC) AS age
  FROM nba_raw.nbac_gamebook_player_stats
  WHERE game_date = @period
) AS sheet
JOIN (
  SELECT home_team_tricode AS home, away_team_tricode AS away
  FROM nba_raw.v_nbac_schedule_latest
  WHERE game_date = @period
) AS game ON sheet.team_abbr IN (game.home, game.away)
WHERE sheet.age = 1
