package warehouse

import (
	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// A period is a DATE where periods are days, and the TIMESTAMP of its beginning where they
// are hours.

// columnType is the type of the column that says to which period a row belongs.
func columnType(cal pipeline.Calendar) bigquery.FieldType {
	if cal.Hourly() {
		return bigquery.TimestampFieldType
	}
	return bigquery.DateFieldType
}

// literal is a period in a statement. Only by literals other partitions are left unread.
func literal(cal pipeline.Calendar, p pipeline.Period) string {
	if cal.Hourly() {
		return "TIMESTAMP '" + cal.Start(p).Format("2006-01-02 15:04:05+00") + "'"
	}
	return "DATE '" + string(p) + "'"
}

// value is a period as a parameter.
func value(cal pipeline.Calendar, p pipeline.Period) any {
	if cal.Hourly() {
		return cal.Start(p)
	}
	return civil.DateOf(cal.Start(p).In(cal.Zone()))
}

// periodOf reads what a query answers; false when it is no period.
func periodOf(cal pipeline.Calendar, v any) (pipeline.Period, bool) {
	if cal.Hourly() {
		at, ok := v.(time.Time)
		if !ok || !at.Truncate(time.Hour).Equal(at) {
			return "", false
		}
		return cal.At(at), true
	}
	day, ok := v.(civil.Date)
	return pipeline.Period(day.String()), ok
}

func window(cal pipeline.Calendar, from, to pipeline.Period) []bigquery.QueryParameter {
	return []bigquery.QueryParameter{{Name: "first", Value: value(cal, from)}, {Name: "last", Value: value(cal, to)}}
}
