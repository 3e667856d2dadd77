-- Generated: 30 players a game.
SELECT
  game_date,
  FORMAT('%s_%s_%s', FORMAT_DATE('%Y%m%d', game_date), away_team_tricode, home_team_tricode) AS game_id,
  FORMAT('%s-player%d', LOWER(home_team_tricode), player) AS player_lookup,
  IF(MOD(player, 2) = 0, home_team_tricode, away_team_tricode) AS team_abbr,
  IF(MOD(player, 2) = 0, away_team_tricode, home_team_tricode) AS opponent_team_abbr,
  @now AS processed_at
FROM nba_raw.v_nbac_schedule_latest, UNNEST(GENERATE_ARRAY(0, 29)) AS player
WHERE game_date = @period
