package processors

import (
	"context"
	"fmt"
	"strings"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

// Regions of the retail pipeline: most of its processors exist once for each.
var Regions = []string{"north", "south", "east", "west", "central", "online"}

// ofRegion cuts sales_north into sales and north.
func ofRegion(name string) (kind, region string, ok bool) {
	for _, r := range Regions {
		if kind, ok := strings.CutSuffix(name, "_"+r); ok {
			return kind, r, true
		}
	}
	return name, "", false
}

func retailQuery(name string) (string, error) {
	kind, region, _ := ofRegion(name)
	sql, err := queries.ReadFile("retail/" + kind + ".sql")
	if err != nil {
		return "", err
	}
	all := func(table string) string {
		var parts []string
		for _, r := range Regions {
			parts = append(parts, "SELECT * FROM retail_aggregates."+table+"_"+r+" WHERE hour = @period")
		}
		return strings.Join(parts, " UNION ALL ")
	}
	return strings.NewReplacer("{region}", region, "{totals}", all("region_totals"), "{stock}", all("region_stock")).Replace(string(sql)), nil
}

// retailNext: what the tills and the shelves of a region have told is added up, and once
// all is, the forecasts are made. Returns and footfall are looked up by who needs them.
func retailNext() map[string]string {
	next := map[string]string{}
	for _, r := range Regions {
		next["sales_"+r], next["stock_"+r], next["returns_"+r], next["footfall_"+r] = "region_totals_"+r, "region_stock_"+r, "", ""
		next["region_totals_"+r], next["region_stock_"+r] = "", ""
	}
	next["region_totals_north"], next["region_totals_south"] = "demand_forecast", "staffing"
	next["region_stock_north"], next["region_stock_south"] = "replenishment", "price_suggestions"
	return next
}

// What the retail pipeline's tables have besides the columns that the definition names.
var retailColumns = map[string]string{
	"sales": "store_id STRING, amount INT64, receipts INT64", "stock": "sku STRING, units INT64", "returns": "store_id STRING, sku STRING, units INT64",
	"footfall": "store_id STRING, visitors INT64", "region_totals": "store_id STRING, amount INT64, returned INT64", "region_stock": "sku STRING, units INT64",
	"demand_forecast": "store_id STRING, value FLOAT64", "staffing": "store_id STRING, value FLOAT64",
	"replenishment": "sku STRING, value FLOAT64", "price_suggestions": "sku STRING, value FLOAT64",
}

// CreateRetail makes the retail pipeline's tables, empty.
func CreateRetail(ctx context.Context, data sample.Data, p *pipeline.Pipeline) error {
	for _, dataset := range []string{"retail_raw", "retail_reference", "retail_orchestration", "retail_enriched", "retail_aggregates", "retail_forecasts"} {
		if err := data.Client.Dataset(dataset).Create(ctx, nil); err != nil {
			return fmt.Errorf("create dataset %s: %w", dataset, err)
		}
	}
	tables := []string{
		"CREATE TABLE retail_raw.readings (kind STRING, region STRING, reading_hour TIMESTAMP, store_id STRING, sku STRING, value INT64)",
		"CREATE TABLE retail_reference.open_shops (open_hour TIMESTAMP, region STRING, shops INT64)",
		"CREATE TABLE retail_orchestration.feed_log (feed STRING, started_at TIMESTAMP)",
	}
	for _, phase := range p.Phases {
		for _, pr := range phase.Processors {
			kind, _, _ := ofRegion(pr.Name)
			ddl := fmt.Sprintf("CREATE TABLE %s (%s TIMESTAMP, %s, %s TIMESTAMP)", pr.Table, pr.DateColumn, retailColumns[kind], pr.OrderBy)
			if pr.Partition != pipeline.PartitionNone {
				ddl += fmt.Sprintf(" PARTITION BY TIMESTAMP_TRUNC(%s, HOUR)", pr.DateColumn)
			}
			tables = append(tables, ddl)
		}
	}
	for _, ddl := range tables {
		if err := data.Exec(ctx, ddl); err != nil {
			return err
		}
	}
	return nil
}

// What a region has in each hour.
const (
	Shops    = 5
	Articles = 8
)

// Read puts what some shops of regions have read in an hour into the raw table.
func Read(ctx context.Context, data sample.Data, cal pipeline.Calendar, hour pipeline.Period, first, last int, regions ...string) error {
	at := cal.Start(hour).Format("2006-01-02 15:04:05+00")
	return data.Exec(ctx, fmt.Sprintf(`INSERT INTO retail_raw.readings
		SELECT kind, region, TIMESTAMP '%s', FORMAT('%%s-%%d', region, shop), FORMAT('sku-%%d', article), 1 + MOD(ABS(FARM_FINGERPRINT(CONCAT(kind, region, '%[1]s'))) + 7 * shop + article, 90)
		FROM UNNEST(['sales', 'stock', 'returns', 'footfall']) AS kind, UNNEST(['%s']) AS region, UNNEST(GENERATE_ARRAY(%d, %d)) AS shop, UNNEST(GENERATE_ARRAY(1, %d)) AS article`,
		at, strings.Join(regions, "', '"), first, last, Articles))
}

// Open puts an hour into the book of opening hours.
func Open(ctx context.Context, data sample.Data, cal pipeline.Calendar, hour pipeline.Period) error {
	return data.Exec(ctx, fmt.Sprintf("INSERT INTO retail_reference.open_shops SELECT TIMESTAMP '%s', region, %d FROM UNNEST(['%s']) AS region",
		cal.Start(hour).Format("2006-01-02 15:04:05+00"), Shops, strings.Join(Regions, "', '")))
}
