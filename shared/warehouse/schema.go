package warehouse

import (
	"fmt"
	"slices"

	"cloud.google.com/go/bigquery"
)

// changed says in which field a schema differs from what it was; "" when in none. Records are
// compared in depth and in order, since BigQuery assigns their fields by place.
func changed(now, was bigquery.Schema, record string) string {
	for _, old := range was {
		at := named(now, old.Name)
		if at < 0 {
			return record + old.Name + " is gone"
		}
		if is, then := typeOf(now[at]), typeOf(old); is != then {
			return fmt.Sprintf("%s%s is %s, was %s", record, old.Name, is, then)
		}
		if inside := changed(now[at].Schema, old.Schema, record+old.Name+"."); inside != "" {
			return inside
		}
	}
	for i, f := range now {
		switch {
		case named(was, f.Name) < 0:
			return record + f.Name + " is new"
		case record != "" && was[i].Name != f.Name:
			return record + f.Name + " stands at another place"
		}
	}
	return ""
}

func named(schema bigquery.Schema, name string) int {
	return slices.IndexFunc(schema, func(f *bigquery.FieldSchema) bool { return f.Name == name })
}

// typeOf leaves out whether NULL is allowed: a copy of a table's rows allows it everywhere.
func typeOf(f *bigquery.FieldSchema) string {
	t := string(f.Type)
	if f.RangeElementType != nil {
		t += fmt.Sprintf("<%s>", f.RangeElementType.Type)
	}
	if f.Repeated {
		t = fmt.Sprintf("ARRAY<%s>", t)
	}
	return t
}
