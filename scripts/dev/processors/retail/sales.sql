-- What the tills of a region took in the hour, by shop.
SELECT
  reading_hour AS sold_hour,
  store_id,
  SUM(value) AS amount,
  COUNT(*) AS receipts,
  @now AS loaded_at
FROM retail_raw.readings
WHERE kind = 'sales' AND region = '{region}' AND reading_hour = @period
GROUP BY reading_hour, store_id
