package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// locations says whether BigQuery keeps all datasets of a pipeline, and ours, in one location: a
// query reads, and a write reaches, one location alone. deployed: ours have to be there.
// https://cloud.google.com/bigquery/docs/locations#specify_locations
func locations(ctx context.Context, w *warehouse.Warehouse, c app.Config, p *pipeline.Pipeline, deployed bool) warehouse.Verification {
	v := warehouse.Verification{Name: "locations of datasets"}
	ours := []string{c.Staging(), c.Archive()}
	where := map[string][]string{} // location → datasets
	var problems []error
	for _, dataset := range append(datasets(p), ours...) {
		switch location, err := w.Location(ctx, dataset); {
		case err != nil:
			v.Unknown, problems = true, append(problems, err)
		case location != "":
			where[location] = append(where[location], dataset)
		case deployed && slices.Contains(ours, dataset):
			problems = append(problems, fmt.Errorf("%s does not exist: make deploy creates it", dataset))
		}
	}
	if len(where) > 1 {
		v.Unknown = false // it is known, although another dataset could not be read
		problems = append(problems, fmt.Errorf("%s: a statement reads and writes in one location: move the datasets into that of the tables; "+
			"make deploy places %s there", eachLocation(where), strings.Join(ours, " and ")))
	}
	if err := errors.Join(problems...); err != nil {
		v.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return v
}

// eachLocation says which datasets are where.
func eachLocation(where map[string][]string) string {
	var each []string
	for _, location := range slices.Sorted(maps.Keys(where)) {
		each = append(each, location+" has "+strings.Join(where[location], ", "))
	}
	return strings.Join(each, "; ")
}

// datasets are those of the tables, and those that the readiness checks read together with them.
func datasets(p *pipeline.Pipeline) (out []string) {
	add := func(dataset string) {
		if !slices.Contains(out, dataset) {
			out = append(out, dataset)
		}
	}
	for _, processor := range p.Processors() {
		dataset, _, _ := strings.Cut(processor.Table, ".")
		add(dataset)
	}
	for _, t := range p.Transitions {
		if t.Checks != nil {
			for _, dataset := range t.Checks.Datasets {
				add(dataset)
			}
		}
	}
	return out
}
