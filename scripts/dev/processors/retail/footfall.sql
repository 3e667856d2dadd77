-- Who came into the shops of a region within the hour.
SELECT
  reading_hour AS seen_hour,
  store_id,
  SUM(value) AS visitors,
  @now AS loaded_at
FROM retail_raw.readings
WHERE kind = 'footfall' AND region = '{region}' AND reading_hour = @period
GROUP BY reading_hour, store_id
