package processors

import "strings"

// Regions of the retail pipeline: most of its processors exist once for each.
var Regions = []string{"north", "south", "east", "west", "central", "online"}

// ofRegion cuts sales_north into sales and north.
func ofRegion(name string) (kind, region string) {
	for _, r := range Regions {
		if kind, ok := strings.CutSuffix(name, "_"+r); ok {
			return kind, r
		}
	}
	return name, ""
}

func retailQuery(name string) (string, error) {
	kind, region := ofRegion(name)
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

// What a region has in each hour.
const (
	Shops    = 5
	Articles = 8
)
