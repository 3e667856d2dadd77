-- What has become scarce gets dearer: generated.
SELECT
  hour AS made_hour,
  sku,
  100 / (1 + SUM(units)) AS value,
  @now AS computed_at
FROM ({stock})
GROUP BY hour, sku
