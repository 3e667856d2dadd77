-- What is to be ordered of each article, over all regions.
SELECT
  hour AS made_hour,
  sku,
  SUM(100 - units) / 1 AS value,
  @now AS computed_at
FROM ({stock})
GROUP BY hour, sku
