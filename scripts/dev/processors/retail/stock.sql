-- What was counted in a region at the end of the hour, by article.
SELECT
  reading_hour AS counted_hour,
  sku,
  SUM(value) AS units,
  @now AS loaded_at
FROM retail_raw.readings
WHERE kind = 'stock' AND region = '{region}' AND reading_hour = @period
GROUP BY reading_hour, sku
