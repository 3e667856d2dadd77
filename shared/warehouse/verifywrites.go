package warehouse

import (
	"context"
	"fmt"
	"strings"

	"cloud.google.com/go/bigquery"

	"github.com/phasegate/phasegate/shared/dedup"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// writing is a statement that changes a table or copies its rows.
type writing struct {
	name, sql  string
	parameters []bigquery.QueryParameter
}

// The names of statements that write.
const (
	mergeName      = "merge"
	mergeByKeyName = "merge by key"
	removalName    = "removal"
	archiveName    = "archive copy"
)

// writings returns the statements by which rows of the target are written, removed and archived,
// without running one. The period's own rows stand for those in the staging table and in the
// archive, so neither table has to exist.
func (t Target) writings(meta *bigquery.TableMetadata, archive string) ([]writing, error) {
	rows := func(column string) string {
		return fmt.Sprintf("SELECT *, %s FROM %s AS %s WHERE %s", column, quoted(t.Processor.Table), rowAlias, t.slice(rowAlias+"."))
	}
	full := []dedup.Row{{leftOut: strings.Repeat("0", len(defaulted(meta.Schema)))}}
	var out []writing
	for _, name := range []string{mergeName, mergeByKeyName} {
		t.ByKey = name == mergeByKeyName
		sql, err := t.merge(meta.Schema, full, quoted(t.Processor.Table), "("+rows("'' AS "+leftOut)+")")
		if err != nil {
			return nil, err
		}
		out = append(out, writing{name: name, sql: sql})
	}
	r := Removal{Target: t, Archive: archive + ".phasegate_verify", standIn: rows("TRUE AS " + kept)}
	return append(out,
		writing{name: removalName, sql: r.statement(meta.Schema, Fingerprint{}, ours+"source."+kept)},
		writing{name: archiveName, sql: r.copy(), parameters: survivors([]string{""})}), nil
}

// VerifyWrites asks BigQuery, in dry runs, about the statements by which the rows of each table are
// written, removed and archived. A dry run writes nothing and costs nothing. An answer names the
// table and each refused statement. A table of another kind is left out: [Warehouse.VerifyTables]
// warns of it. A warning says how much a write reads from a table without partitions.
func (w *Warehouse) VerifyWrites(ctx context.Context, p *pipeline.Pipeline, period pipeline.Period, archive string) []Verification {
	var out []Verification
	dataset, err := w.dataset(ctx, archive)
	switch {
	case err != nil:
		out = append(out, Verification{Name: archiveName, Problem: problem(err), Unknown: true})
	case dataset == nil:
		out = append(out, Verification{Name: archiveName, Warning: fmt.Sprintf("dataset %s does not exist, so it is not verified: make deploy creates the dataset", archive)})
	}
	var targets []Target
	for _, processor := range p.Processors() {
		targets = append(targets, Target{Processor: processor, Period: period, Calendar: p.Calendar})
	}
	verified := make([]*Verification, len(targets))
	SideBySide(len(targets), func(i int) { verified[i] = w.verifyWrites(ctx, targets[i], archive, dataset != nil) })
	for _, v := range verified {
		if v != nil {
			out = append(out, *v)
		}
	}
	return out
}

func (w *Warehouse) verifyWrites(ctx context.Context, t Target, archive string, archived bool) *Verification {
	client, err := w.Client(ctx)
	if err != nil {
		return nil
	}
	meta, err := w.metadata(ctx, t.Processor.Table)
	if err != nil {
		return nil
	}
	if _, err := t.takes(meta); err != nil {
		return nil
	}
	v := &Verification{Name: "writes into " + t.Processor.Table}
	statements, err := t.writings(meta, archive)
	if err != nil {
		v.Problem = problem(err)
		return v
	}
	var problems, untried []string
	refusedOnes := 0
	reads := meta.NumBytes
	for _, s := range statements {
		if s.name == archiveName && !archived {
			continue
		}
		q := client.Query(s.sql)
		q.Location, q.Parameters = meta.Location, s.parameters
		bytes, err := dry(ctx, q)
		switch {
		case err != nil && strings.Contains(err.Error(), "source must be a single-table reference"): // the emulator
			untried = append(untried, s.name)
		case err != nil:
			problems = append(problems, s.name+": "+problem(err))
			if refused(err) && !unasked(err) {
				refusedOnes++
			}
		case s.name == mergeName && bytes > 0:
			reads = min(reads, bytes)
		}
	}
	v.Problem, v.Unknown = strings.Join(problems, "; "), len(problems) > 0 && refusedOnes == 0
	var warnings []string
	if part := meta.TimePartitioning; t.Processor.Partition == pipeline.PartitionNone || part != nil && part.Field != t.Processor.DateColumn || part == nil && meta.NumBytes > 0 {
		warnings = append(warnings, fmt.Sprintf("the table is not partitioned by %s, so each write reads all of it, %d bytes: partition it by that column", t.Processor.DateColumn, reads))
		v.Bytes = reads
	}
	if len(untried) > 0 {
		warnings = append(warnings, "the BigQuery emulator cannot dry-run "+strings.Join(untried, ", "))
	}
	v.Warning = strings.Join(warnings, "; ")
	return v
}
