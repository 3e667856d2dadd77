-- How many tills a shop should open: generated.
SELECT
  hour AS made_hour,
  store_id,
  1 + amount / 500 AS value,
  @now AS computed_at
FROM ({totals})
