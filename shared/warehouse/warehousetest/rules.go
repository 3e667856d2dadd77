package warehousetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pairs finds what may be dataset.table in a statement; an alias and its column look the same.
var pairs = regexp.MustCompile("`?\\b(\\w+)`?\\.`?(\\w+)`?")

// named returns the tables that a statement names, as dataset.table, each once.
func (p *Platform) named(statement string) ([]string, error) {
	var list struct {
		Datasets []struct{ DatasetReference struct{ DatasetID string } }
	}
	rec := p.send(http.MethodGet, "/projects/"+p.world.Project+"/datasets", nil)
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
		return nil, err
	}
	var out []string
	for _, m := range pairs.FindAllStringSubmatch(statement, -1) {
		table := m[1] + "." + m[2]
		for _, d := range list.Datasets {
			if d.DatasetReference.DatasetID == m[1] && !slices.Contains(out, table) {
				out = append(out, table)
			}
		}
	}
	return out, nil
}

func (p *Platform) location(dataset string) string {
	if l := p.Locations[dataset]; l != "" {
		return l
	}
	return "US"
}

// place gives a job its location, and refuses tables of another one. "If no location is specified […],
// BigQuery determines the location to run the job based on the datasets referenced in the request",
// https://cloud.google.com/bigquery/docs/locations#specify_locations. The text, status 404, reason
// notFound: https://github.com/yoshidan/google-cloud-rust/issues/269
func (p *Platform) place(reference map[string]any, tables []string) error {
	location, _ := reference["location"].(string)
	for _, table := range tables {
		dataset, _, _ := strings.Cut(table, ".")
		if location == "" {
			location = p.location(dataset)
		}
		if !strings.EqualFold(p.location(dataset), location) {
			return &Refusal{Code: http.StatusNotFound, Reason: "notFound", Message: "Not found: Dataset " + p.world.Project + ":" + dataset + " was not found in location " + location}
		}
	}
	if location == "" {
		location = "US"
	}
	reference["location"] = location
	return nil
}

// constant begins a value that is the same for all rows. Only such a value in a comparison with the
// partition column prunes: "use a constant expression in the filter",
// https://cloud.google.com/bigquery/docs/querying-partitioned-tables
const constant = `\s*(?:=|<=?|>=?|BETWEEN\b|IN\s*\()\s*(?:\w+\(\s*)*(?:(?:DATE|TIMESTAMP|DATETIME)\s*)?(?:['"@]|CURRENT_)`

// prunes reports whether a statement compares the bare column with a constant.
func prunes(statement, column string) bool {
	return column != "" && regexp.MustCompile("(?i)(?:^|[^\\w`])(?:`?\\w+`?\\.)?`?"+regexp.QuoteMeta(column)+"`?"+constant).MatchString(statement)
}

// unfiltered: "Cannot query over table 'moz-fx-data-…' without a filter over column(s) 'submission_timestamp' that
// can be used for partition elimination", https://github.com/mozilla/bigquery-etl/issues/2673
func (p *Platform) unfiltered(statement string, tables []string) *Refusal {
	for _, name := range tables {
		if t := p.Tables[name]; t.RequireFilter && !prunes(statement, t.Partition) && !strings.HasPrefix(statement, "INSERT") {
			return &Refusal{Code: http.StatusBadRequest, Reason: "invalidQuery",
				Message: fmt.Sprintf("Cannot query over table '%s.%s' without a filter over column(s) '%s' that can be used for partition elimination", p.world.Project, name, t.Partition)}
		}
	}
	return nil
}

// dates are constants in statements and in parameters.
var dates = regexp.MustCompile(`['"](\d{4}-\d\d-\d\d)\b`)

// days is how many days lie between the first and the last date that a statement names, at
// least one.
func days(statement string, parameters any) int64 {
	b, _ := json.Marshal(parameters)
	var all []string
	for _, m := range dates.FindAllStringSubmatch(statement+string(b), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		return 1
	}
	first, errFirst := time.Parse(time.DateOnly, slices.Min(all))
	last, errLast := time.Parse(time.DateOnly, slices.Max(all))
	if errFirst != nil || errLast != nil {
		return 1
	}
	return max(1, int64(last.Sub(first)/(24*time.Hour)))
}

// leastBilled: "with a minimum 10 MB data processed per table referenced by the query",
// https://cloud.google.com/bigquery/pricing#on_demand_pricing
const leastBilled = 10 << 20

// reads returns the bytes that a statement reads of its tables, all their columns, and that are billed.
// A table is read by partitions if the statement compares its partition column with a constant.
func (p *Platform) reads(q request, tables []string) (bytes, billed int64) {
	for _, name := range tables {
		t := p.Tables[name]
		read := t.Bytes
		if prunes(q.statement, t.Partition) && t.Days > 1 {
			read = t.Bytes / t.Days * min(t.Days, days(q.statement, q.query["queryParameters"]))
		}
		bytes += read
		billed += max(leastBilled, read)
	}
	return bytes, billed
}

// dry answers a dry run. The emulator analyses each statement, then refuses a MERGE whose source is a
// query, which BigQuery takes: https://cloud.google.com/bigquery/docs/reference/standard-sql/dml-syntax#merge_statement.
// "If the query is valid, then BigQuery returns […] the number of bytes":
// https://cloud.google.com/bigquery/docs/running-queries#dry-run
func (p *Platform) dry(bytes int64, forward func() *httptest.ResponseRecorder) error {
	rewrite(forward(), func(out map[string]any) {
		status, _ := out["status"].(map[string]any)
		failure, _ := status["errorResult"].(map[string]any)
		if strings.Contains(text(failure["message"]), "MERGE: source must be a single-table reference") {
			out["status"] = map[string]any{"state": "DONE"}
		}
		out["statistics"] = map[string]any{"totalBytesProcessed": strconv.FormatInt(bytes, 10), "query": map[string]any{"totalBytesProcessed": strconv.FormatInt(bytes, 10)}}
	})
	return nil
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// streamedRow is a row in a streaming buffer.
type streamedRow struct {
	at  time.Time
	row map[string]any
}

// bufferKept: "Recent writes are typically those that occur within the last 30 minutes",
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-manipulation-language#limitations,
// quoted in https://github.com/wepay/kafka-connect-bigquery/issues/221
const bufferKept = 30 * time.Minute

func (p *Platform) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// buffer returns the rows of a table in its streaming buffer.
func (p *Platform) buffer(table string) (out []streamedRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streamed[table] {
		if p.now().Sub(s.at) < bufferKept {
			out = append(out, s)
		}
	}
	return out
}

// buffered refuses a statement that changes rows of a streaming buffer. "Note that all other rows in
// the table remain modifiable": those of partitions that the statement does not name. The text:
// https://github.com/glific/glific/issues/820
func (p *Platform) buffered(statement string, _ []string) *Refusal {
	m := mutating.FindStringSubmatch(statement)
	if m == nil {
		return nil
	}
	table := m[1] + "." + m[2]
	column := p.Tables[table].Partition
	for _, s := range p.buffer(table) {
		day, _, _ := strings.Cut(text(s.row[column]), "T")
		day, _, _ = strings.Cut(day, " ")
		if !prunes(statement, column) || strings.Contains(statement, "'"+day) {
			return &Refusal{Code: http.StatusBadRequest, Reason: "invalidQuery",
				Message: fmt.Sprintf("UPDATE or DELETE statement over table %s.%s would affect rows in the streaming buffer, which is not supported", p.world.Project, table)}
		}
	}
	return nil
}

// table answers requests about datasets and tables.
func (p *Platform) table(r *http.Request, dataset, table string, insertAll bool, body []byte, forward func() *httptest.ResponseRecorder) error {
	rec := forward()
	name := dataset + "." + table
	if insertAll && rec.Code == http.StatusOK {
		var rows struct {
			Rows []struct{ JSON map[string]any }
		}
		if err := json.Unmarshal(body, &rows); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, row := range rows.Rows {
			p.streamed[name] = append(p.streamed[name], streamedRow{p.now(), row.JSON})
		}
		return nil
	}
	if r.Method != http.MethodGet || rec.Code != http.StatusOK {
		return nil
	}
	rewrite(rec, func(out map[string]any) {
		out["location"] = p.location(dataset)
		t := p.Tables[name]
		if t.Bytes > 0 {
			out["numBytes"] = strconv.FormatInt(t.Bytes, 10)
		}
		if t.Partition != "" {
			out["timePartitioning"], out["requirePartitionFilter"] = map[string]any{"type": "DAY", "field": t.Partition}, t.RequireFilter
		}
		if rows := p.buffer(name); len(rows) > 0 {
			out["streamingBuffer"] = map[string]any{"estimatedRows": strconv.Itoa(len(rows)), "oldestEntryTime": strconv.FormatInt(rows[0].at.UnixMilli(), 10)}
		}
	})
	return nil
}
