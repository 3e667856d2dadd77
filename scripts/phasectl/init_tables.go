package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// writtenAt are usual names of the column that says when a row was written, the best first.
var writtenAt = []string{"processed_at", "updated_at", "loaded_at", "written_at", "ingested_at", "inserted_at", "computed_at", "created_at"}

// fromTables drafts a phase for each dataset.
func (d *draft) fromTables(ctx context.Context, f *flags, datasets []string) error {
	if err := d.checkFlags(); err != nil {
		return err
	}
	for i, name := range datasets {
		if !datasetName.MatchString(name) || slices.Contains(datasets[:i], name) {
			return usage(fmt.Errorf("--dataset: %q is no dataset, or is named twice", name))
		}
	}
	if len(datasets) < 2 {
		return usage(errors.New("--dataset: name two datasets or more, one for each phase in order, such as --dataset shop_raw --dataset shop_marts; " +
			"if one dataset has the tables of all phases, run phasectl init without --dataset"))
	}
	w, err := warehouseOf(f)
	if err != nil {
		return err
	}
	defer w.Close()
	client, err := w.Client(ctx)
	if err != nil {
		return unknown(err)
	}
	all, sharded := make([][]*bigquery.TableMetadata, len(datasets)), make([][]string, len(datasets))
	for i, name := range datasets {
		if all[i], sharded[i], err = tablesOf(ctx, client, name); err != nil {
			return unknown(fmt.Errorf("dataset %s: %w", name, err))
		}
	}
	d.Hourly = hourly(all)
	d.Name, d.ZoneGuessed = cmp.Or(d.Name, commonName(datasets)), d.Zone == ""
	d.Zone = cmp.Or(d.Zone, "UTC")
	seen := map[string]bool{}
	for i, name := range datasets {
		phase := draftPhase{Name: nameOf(strings.TrimPrefix(strings.ToLower(name), d.Name+"_"), "phase")}
		for _, prefix := range sharded[i] {
			phase.LeftOut = append(phase.LeftOut, name+"."+prefix+"*: its periods are tables of their own; one partitioned table is needed")
		}
		for _, table := range all[i] {
			id := table.FullID
			pr, why := draftTable(name+"."+id, table, d.Hourly)
			if why != "" {
				phase.LeftOut = append(phase.LeftOut, name+"."+id+": "+why)
				continue
			}
			if pr.Name = nameOf(strings.ToLower(id), "table"); seen[pr.Name] {
				pr.Name = nameOf(phase.Name+"_"+pr.Name, "table")
			}
			seen[pr.Name] = true
			phase.Processors = append(phase.Processors, pr)
		}
		if len(phase.Processors) == 0 {
			return findings(fmt.Errorf("--dataset: %s has no table for a processor: %s", name, cmp.Or(strings.Join(phase.LeftOut, "; "), "it is empty")))
		}
		d.Phases = append(d.Phases, phase)
	}
	return nil
}

// mostTables bounds the calls to BigQuery, one for each table.
const mostTables = 300

// shard is how a table is called that has one day of a series, such as events_20260203.
var shard = regexp.MustCompile(`^(.*_)(?:19|20)\d{6}$`)

// tablesOf reads the tables of a dataset, in the order of their names, and the prefixes of series.
func tablesOf(ctx context.Context, client *bigquery.Client, dataset string) (out []*bigquery.TableMetadata, sharded []string, err error) {
	it := client.Dataset(dataset).Tables(ctx)
	var tables []*bigquery.Table
	for {
		table, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if m := shard.FindStringSubmatch(table.TableID); m == nil {
			tables = append(tables, table)
		} else if !slices.Contains(sharded, m[1]) {
			sharded = append(sharded, m[1])
		}
	}
	if len(tables) > mostTables {
		return nil, nil, fmt.Errorf("%d tables; a transition expects %d processors at most: write the pipeline file by hand", len(tables), mostTables)
	}
	slices.SortFunc(tables, func(a, b *bigquery.Table) int { return strings.Compare(a.TableID, b.TableID) })
	for _, table := range tables {
		meta, err := table.Metadata(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("table %s: %w", table.TableID, err)
		}
		meta.FullID = table.TableID
		out = append(out, meta)
	}
	return out, sharded, nil
}

// hourly reports whether the tables are partitioned by the hour, all that have partitions.
func hourly(all [][]*bigquery.TableMetadata) bool {
	some := false
	for _, table := range slices.Concat(all...) {
		if p := table.TimePartitioning; p != nil {
			if p.Type != bigquery.HourPartitioningType || p.Field == "" {
				return false
			}
			some = true
		}
	}
	return some
}

// draftTable reads a processor from its table, or says why the table has none.
func draftTable(name string, meta *bigquery.TableMetadata, hourly bool) (pr draftProcessor, why string) {
	pr.Table = name
	if meta.Type != bigquery.RegularTable && meta.Type != "" {
		return pr, "it is of type " + string(meta.Type)
	}
	if _, table, _ := strings.Cut(name, "."); !datasetName.MatchString(table) {
		return pr, "its name has other characters than letters, digits and _"
	}
	period := bigquery.DateFieldType
	if hourly {
		period = bigquery.TimestampFieldType
	}
	columns := func(of bigquery.FieldType) (names []string) {
		for _, field := range meta.Schema {
			if field.Type == of && !field.Repeated {
				names = append(names, field.Name)
			}
		}
		return names
	}
	periods := columns(period)
	switch p := meta.TimePartitioning; {
	case p != nil && slices.Contains(periods, p.Field):
		pr.Date, pr.DateNote = p.Field, "partitions the table"
		if meta.RequirePartitionFilter || p.RequirePartitionFilter {
			pr.Partition = "by_date_filter_required"
		}
	case len(periods) > 0:
		pr.Date, pr.Partition, pr.DateNote = periods[0], "none", "decide: the table is not partitioned by such a column; this is its first "+string(period)
	default:
		return pr, fmt.Sprintf("it has no column of type %s that says to which period a row belongs", period)
	}
	if c := meta.TableConstraints; c != nil && c.PrimaryKey != nil && len(c.PrimaryKey.Columns) > 0 {
		pr.Key, pr.KeyNote = c.PrimaryKey.Columns, "the declared primary key"
	} else {
		pr.Key, pr.KeyNote = []string{pr.Date}, "decide: the columns that make a row unique; the table declares no primary key"
		if meta.Clustering != nil && len(meta.Clustering.Fields) > 0 {
			for _, field := range meta.Clustering.Fields {
				if !slices.Contains(pr.Key, field) {
					pr.Key = append(pr.Key, field)
				}
			}
			pr.KeyNote = "decide: the columns that make a row unique; these are its clustering"
		}
	}
	times := slices.DeleteFunc(columns(bigquery.TimestampFieldType), func(c string) bool { return c == pr.Date || slices.Contains(pr.Key, c) })
	if len(times) == 0 {
		return pr, "it has no column of type TIMESTAMP that says when a row was written"
	}
	pr.OrderBy, pr.OrderNote = times[0], "decide: when a row was written; this is the first TIMESTAMP"
	for _, usual := range writtenAt {
		if slices.Contains(times, usual) {
			pr.OrderBy, pr.OrderNote = usual, ""
			break
		}
	}
	for _, column := range append(slices.Clone(pr.Key), pr.Date, pr.OrderBy) {
		if !safeColumn.MatchString(column) {
			return pr, fmt.Sprintf("column %q has other characters than letters, digits and _", column)
		}
	}
	return pr, ""
}

// commonName is what the names of datasets begin with: shop of shop_raw and shop_marts.
func commonName(datasets []string) string {
	words := strings.Split(strings.ToLower(datasets[0]), "_")
	for _, name := range datasets[1:] {
		other := strings.Split(strings.ToLower(name), "_")
		n := 0
		for n < len(words) && n < len(other) && words[n] == other[n] {
			n++
		}
		words = words[:n]
	}
	return nameOf(strings.Join(words, "_"), "pipeline")
}

// nameOf makes a safe name of a text: other characters become _, and one that begins with no
// letter gets a word in front.
func nameOf(text, word string) string {
	text = strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			return r
		}
		return '_'
	}, text)
	if text == "" {
		return word
	}
	if text[0] < 'a' {
		text = word + "_" + strings.TrimLeft(text, "_")
	}
	return text[:min(len(text), 100)]
}

// warehouseOf opens BigQuery without a pipeline file.
func warehouseOf(f *flags) (*warehouse.Warehouse, error) {
	c, err := app.ConfigFromEnv(f.getenv(nil))
	if err != nil {
		return nil, usage(err)
	}
	if c.Local && c.BigQueryHost == "" {
		return nil, unknown(errors.New("the documents are on this machine and BIGQUERY_EMULATOR_HOST is not set: Google's BigQuery is not asked"))
	}
	return warehouse.New(c.Project, c.BigQueryHost), nil
}
