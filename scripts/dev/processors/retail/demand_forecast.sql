-- What each shop will take in the next hour: generated from this one.
SELECT
  hour AS made_hour,
  store_id,
  amount * 1.1 AS value,
  @now AS computed_at
FROM ({totals})
