package warehouse

import (
	"fmt"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

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

// groups is the GROUP BY that puts rows of one period together. Rows between two hours belong
// to no period: they are groups of their own.
func groups(cal pipeline.Calendar, column string) string {
	if cal.Hourly() {
		return fmt.Sprintf("TIMESTAMP_TRUNC(%[1]s, HOUR), %[1]s = TIMESTAMP_TRUNC(%[1]s, HOUR)", column)
	}
	return column
}

// within is the condition that a column lies in the periods from one to another, the last
// one up to its end.
func within(cal pipeline.Calendar, column string, from, to pipeline.Period) string {
	return fmt.Sprintf("%s >= %s AND %[1]s < %[3]s", column, literal(cal, from), literal(cal, cal.Add(to, 1)))
}

// placed reads the smallest date of a group: the period, and a value that belongs to none.
func placed(cal pipeline.Calendar, p pipeline.Processor, v bigquery.Value) (period pipeline.Period, stray string, err error) {
	if period, ok := periodOf(cal, v); ok {
		return period, "", nil
	}
	if at, isTime := v.(time.Time); isTime && cal.Hourly() {
		return cal.At(at), at.UTC().Format(time.RFC3339Nano), nil
	}
	return "", "", fmt.Errorf("%w: column %s of %s holds %v: make it a %s", errUnreadable, p.DateColumn, p.Table, v, columnType(cal))
}

func window(cal pipeline.Calendar, from, to pipeline.Period) []bigquery.QueryParameter {
	return []bigquery.QueryParameter{{Name: "first", Value: value(cal, from)}, {Name: "last", Value: value(cal, to)}}
}
