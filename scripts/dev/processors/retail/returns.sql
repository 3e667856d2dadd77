-- What came back in a region within the hour, by shop and article.
SELECT
  reading_hour AS returned_hour,
  store_id,
  sku,
  SUM(value) AS units,
  @now AS loaded_at
FROM retail_raw.readings
WHERE kind = 'returns' AND region = '{region}' AND reading_hour = @period
GROUP BY reading_hour, store_id, sku
