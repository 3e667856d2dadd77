-- What a region has of an article.
SELECT
  counted_hour AS hour,
  sku,
  units,
  @now AS computed_at
FROM retail_enriched.stock_{region}
WHERE counted_hour = @period
