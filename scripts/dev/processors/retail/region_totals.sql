-- What a shop took, and how much of what it sold came back.
SELECT
  sales.sold_hour AS hour,
  sales.store_id AS store_id,
  sales.amount AS amount,
  IFNULL(back.units, 0) AS returned,
  @now AS computed_at
FROM retail_enriched.sales_{region} AS sales
LEFT JOIN (
  SELECT store_id, SUM(units) AS units
  FROM retail_enriched.returns_{region}
  WHERE returned_hour = @period
  GROUP BY store_id
) AS back ON back.store_id = sales.store_id
WHERE sales.sold_hour = @period
