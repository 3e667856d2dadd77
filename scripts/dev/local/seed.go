package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse/sample"
)

// sampleRows is how many rows of each period a seeded table has.
const sampleRows = 10

// furnish makes the datasets into which Phasegate writes, as the deployment does, and with seed the
// pipeline's tables. Existing datasets and tables stay as they are.
func furnish(ctx context.Context, a *app.App, seed bool) error {
	if a.Warehouse == nil || a.Config.BigQueryHost == "" { // never Google's
		return nil
	}
	client, err := a.Warehouse.Client(ctx)
	if err != nil {
		return err
	}
	for _, dataset := range []string{a.Config.Staging(), a.Config.Archive()} {
		if err := createDataset(ctx, client, dataset); err != nil {
			return err
		}
	}
	if !seed {
		return nil
	}
	if a.Pipeline.Hash == embedded() {
		return seedNBA(ctx, a, client)
	}
	for _, p := range a.Pipeline.Processors() {
		if err := seedTable(ctx, a, client, p); err != nil {
			return fmt.Errorf("table %s: %w", p.Table, err)
		}
	}
	return nil
}

// absent reports whether the error of reading an object's metadata says that there is no such object.
func absent(err error) (bool, error) {
	if api, ok := errors.AsType[*googleapi.Error](err); ok && api.Code == http.StatusNotFound {
		return true, nil
	}
	return false, err
}

func createDataset(ctx context.Context, client *bigquery.Client, name string) error {
	_, err := client.Dataset(name).Metadata(ctx)
	missing, err := absent(err)
	if missing {
		err = client.Dataset(name).Create(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("create dataset %s: %w", name, err)
	}
	return nil
}

// embedded is the hash of the pipeline file that is part of the binary.
func embedded() string {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		panic(fmt.Sprintf("the embedded pipeline file: %v", err))
	}
	return p.Hash
}

// seeded are the periods that have rows: those of the last day that are over. Their processors have
// run and not reported yet.
func seeded(a *app.App) (first, last pipeline.Period) {
	cal := a.Pipeline.Calendar
	now := cal.At(a.Now())
	return cal.AddDays(now, -1), cal.Add(now, -1)
}

// seedNBA makes the tables of the embedded pipeline, also those that only its checks read.
func seedNBA(ctx context.Context, a *app.App, client *bigquery.Client) error {
	_, err := client.Dataset("nba_analytics").Metadata(ctx)
	if missing, err := absent(err); !missing {
		return err // nil: made before
	}
	data := sample.Data{Client: client}
	_, yesterday := seeded(a)
	day := sample.Day{Date: yesterday, Games: 10, Players: 35, Minutes: 35, Context: 30}
	const scraped = "INSERT INTO nba_orchestration.scraper_execution_log (scraper_name, status, triggered_at) SELECT 'nbac_gamebook', 'success', ran FROM UNNEST(%s) AS ran"
	early := a.Pipeline.Calendar.Start(yesterday).Add(time.Hour)
	ran := fmt.Sprintf("[TIMESTAMP '%s', TIMESTAMP '%s']", early.Format(time.RFC3339), early.AddDate(0, 0, 1).Format(time.RFC3339))
	return errors.Join(data.Create(ctx), data.CreateFurther(ctx), data.Schedule(ctx, day), data.Fill(ctx, day), data.Exec(ctx, fmt.Sprintf(scraped, ran)))
}

// seedTable makes one table with the columns that the pipeline file names, and rows if processors
// report it. The type of a column is not in the file: those without another use are STRING.
func seedTable(ctx context.Context, a *app.App, client *bigquery.Client, p pipeline.Processor) error {
	dataset, name, _ := strings.Cut(p.Table, ".")
	if err := createDataset(ctx, client, dataset); err != nil {
		return err
	}
	table := client.Dataset(dataset).Table(name)
	_, err := table.Metadata(ctx)
	if missing, err := absent(err); !missing {
		return err // nil: made before
	}
	cal := a.Pipeline.Calendar
	period := bigquery.DateFieldType
	if cal.Hourly() {
		period = bigquery.TimestampFieldType
	}
	meta := &bigquery.TableMetadata{}
	var columns, values []string
	add := func(column string, kind bigquery.FieldType, value string) {
		if !slices.Contains(columns, column) {
			meta.Schema = append(meta.Schema, &bigquery.FieldSchema{Name: column, Type: kind})
			columns, values = append(columns, column), append(values, value)
		}
	}
	add(p.DateColumn, period, "period")
	if p.OrderBy != "" {
		add(p.OrderBy, bigquery.TimestampFieldType, "CURRENT_TIMESTAMP()")
	}
	for _, column := range slices.Concat(p.Key, p.Filled) {
		add(column, bigquery.StringFieldType, "FORMAT('sample %d', n)")
	}
	if p.Partition != pipeline.PartitionNone {
		meta.TimePartitioning = &bigquery.TimePartitioning{Field: p.DateColumn}
		meta.RequirePartitionFilter = p.Partition == pipeline.PartitionByDateFilter
	}
	if err := table.Create(ctx, meta); err != nil || a.Pipeline.ReportsTo(p.Name) == nil { // of the last phase nothing has run
		return err
	}
	first, last := seeded(a)
	var periods []string
	for at := first; at <= last; at = cal.Add(at, 1) {
		if cal.Hourly() {
			periods = append(periods, "TIMESTAMP '"+cal.Start(at).Format("2006-01-02 15:04:05+00")+"'")
		} else {
			periods = append(periods, "DATE '"+string(at)+"'")
		}
	}
	sql := fmt.Sprintf("INSERT INTO `%s` (`%s`) SELECT %s FROM UNNEST([%s]) AS period, UNNEST(GENERATE_ARRAY(1, %d)) AS n",
		p.Table, strings.Join(columns, "`, `"), strings.Join(values, ", "), strings.Join(periods, ", "), sampleRows)
	return sample.Data{Client: client}.Exec(ctx, sql)
}
