-- The last ten games of everybody who has played within 30 days.
SELECT
  @period AS cache_date,
  player_lookup,
  MAX(IF(age = 1, team_abbr, NULL)) AS team_abbr,
  COUNT(*) AS games,
  AVG(points) AS points_avg_last_10,
  AVG(minutes_played) AS minutes_avg_last_10,
  @now AS processed_at
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY player_lookup ORDER BY game_date DESC) AS age
  FROM nba_analytics.player_game_summary
  WHERE game_date BETWEEN DATE_SUB(@period, INTERVAL 30 DAY) AND @period
)
WHERE age <= 10
GROUP BY player_lookup
