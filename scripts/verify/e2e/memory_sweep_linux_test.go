package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The most that a sweep removes without --force: shared/sweep, maxSurplus and maxSurplusPct.
const (
	mostSurplus = 10_000
	tableRows   = 4 * mostSurplus
	textColumns = 40
)

// duplicated is a BigQuery in which each table has the most surplus rows that a sweep removes,
// and 40 columns of text. The emulator takes too long for so many rows. The double answers the
// statements of a removal as if only that removal used the table. shared/sweep tests removals on
// the emulator.
type duplicated struct {
	t    *testing.T
	day  string
	keys int // that share the surplus rows
	wide int // bytes of a text, at least

	mu   sync.Mutex
	jobs map[string]string // statements by id
}

func (d *duplicated) rows() int { return d.keys + mostSurplus }

// row is one of the rows that share a key, in the order of the keys: the first one of a key stays.
func (d *duplicated) row(i int) (key int, hash string, stays bool) {
	each := d.rows() / d.keys
	sum := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
	return i / each, hex.EncodeToString(sum[:]), i%each == 0
}

// fingerprints are those of all these rows, and of the ones that stay.
func (d *duplicated) fingerprints() (before, after [3]int64) {
	for i := range d.rows() {
		_, hash, stays := d.row(i)
		a, errA := strconv.ParseInt(hash[:10], 16, 64)
		b, errB := strconv.ParseInt(hash[10:20], 16, 64)
		if errA != nil || errB != nil {
			d.t.Error(errA, errB)
		}
		for _, sum := range []*[3]int64{&before, &after} {
			if sum == &before || stays {
				sum[0], sum[1], sum[2] = sum[0]+1, sum[1]+a, sum[2]+b
			}
		}
	}
	return before, after
}

func fields(columns string) string {
	var out []string
	for _, c := range strings.Fields(columns) {
		name, kind, _ := strings.Cut(c, ":")
		out = append(out, fmt.Sprintf(`{"name":%q,"type":%q}`, name, kind))
	}
	return `{"fields":[` + strings.Join(out, ",") + `]}`
}

func cells(values ...any) string {
	var out strings.Builder
	for i, v := range values {
		fmt.Fprintf(&out, `%s{"v":%q}`, []string{"", ","}[min(i, 1)], fmt.Sprint(v))
	}
	return `{"f":[` + out.String() + `]}`
}

// columns are those of the tables.
func columns() string {
	out := "day:DATE id:STRING processed_at:TIMESTAMP"
	for i := range textColumns {
		out += fmt.Sprintf(" c%d:STRING", i)
	}
	return out
}

// page: "In addition to this limit, responses are also limited to 10 MB. By default, there is no
// maximum row count", https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults
const page = 10_000_000

// result is the answer to a statement: so many of its rows at most, from one on.
func (d *duplicated) result(sql string, from, most int) string {
	const at = 1770202992000000
	schema, total := "n:INTEGER", 1
	row := func(int) string { return cells(0) }
	switch {
	case strings.Contains(sql, "COUNTIF"):
		schema = "day:DATE rows:INTEGER keys:INTEGER surplus:INTEGER same:INTEGER without:INTEGER oldest:INTEGER newest:INTEGER"
		row = func(int) string { return cells(d.day, tableRows, d.keys, mostSurplus, 0, 0, at, at) }
	case strings.Contains(sql, "AS phasegate_key"):
		schema, total = "phasegate_key:STRING phasegate_hash:STRING "+columns(), d.rows()
		row = func(i int) string {
			key, hash, stays := d.row(i)
			values := []any{fmt.Sprintf("%06d", key), hash, d.day, fmt.Sprint("thing ", key), at}
			if stays {
				values[4] = at + 1
			}
			for c := range textColumns {
				values = append(values, fmt.Sprintf("the value of column %d in row %-*d", c, d.wide, i))
			}
			return cells(values...)
		}
	case strings.Contains(sql, "SELECT 0, f.*"):
		schema = "which:INTEGER n:INTEGER a:INTEGER b:INTEGER"
		before, after := d.fingerprints()
		sums := [][3]int64{after} // of a table after the removal
		if strings.Contains(sql, "UNION ALL") {
			sums = [][3]int64{before, after} // of its archive
		}
		total = len(sums)
		row = func(i int) string { return cells(i, sums[i][0], sums[i][1], sums[i][2]) }
	}
	var rows bytes.Buffer
	next := from
	for ; next < min(total, from+most) && rows.Len() < page; next++ {
		if next > from {
			rows.WriteByte(',')
		}
		rows.WriteString(row(next))
	}
	token := ""
	if next < total {
		token = fmt.Sprintf(`"pageToken":"%d",`, next)
	}
	return fmt.Sprintf(`{"jobComplete":true,"totalRows":"%d",%s"schema":%s,"jobReference":{"projectId":"p","jobId":"j"},"rows":[%s]}`, total, token, fields(schema), rows.String())
}

func (d *duplicated) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Error(err)
	}
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	answer := func() string {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch {
		case strings.Contains(r.URL.Path, "/tables"):
			return `{"type":"TABLE","location":"US","schema":` + fields(columns()) + `}`
		case r.Method == http.MethodPost:
			var job struct {
				JobReference  struct{ JobID string }
				Configuration struct{ Query struct{ Query string } }
			}
			if err := json.Unmarshal(body, &job); err != nil || job.Configuration.Query.Query == "" {
				d.t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
			id = job.JobReference.JobID
			d.jobs[id] = job.Configuration.Query.Query
		}
		return fmt.Sprintf(`{"status":{"state":"DONE"},"statistics":{"query":{}},"jobReference":{"projectId":"p","jobId":%q,"location":"US"},"configuration":{"query":{"query":"SELECT 1"}}}`, id)
	}
	out.Header().Set("Content-Type", "application/json")
	if !strings.Contains(r.URL.Path, "/queries/") {
		_, _ = io.WriteString(out, answer())
		return
	}
	d.mu.Lock()
	sql := d.jobs[id]
	d.mu.Unlock()
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("startIndex") + q.Get("pageToken"))
	most, err := strconv.Atoi(q.Get("maxResults"))
	if err != nil {
		most = d.rows()
	}
	_, _ = io.WriteString(out, d.result(sql, from, most))
}

// As many sweeps at once as the platform sends to an instance. Each one removes the most surplus
// rows that it may, of as many keys as rows, or of one key, also in rows of 20 kB.
func TestMemory_SweepFitsIntoItsInstance(t *testing.T) {
	i := deployed(t, "sweep")
	definition := bytes.ReplaceAll(wide(i.concurrency), []byte("order_by: processed_at}"), []byte("order_by: processed_at, duplicates: remove}"))
	for _, c := range []struct {
		name       string
		keys, wide int
	}{{"many keys", mostSurplus, 0}, {"one key", 1, 0}, {"one key, rows of 20 kB", 1, 480}} {
		t.Run(c.name, func(t *testing.T) {
			tables := &duplicated{t: t, keys: c.keys, wide: c.wide, jobs: map[string]string{}}
			server := httptest.NewServer(tables)
			t.Cleanup(server.Close)
			w := newWorld(t, of(t, subject{name: "wide", mode: "overnight"}, definition), "BIGQUERY_EMULATOR_HOST="+server.Listener.Addr().String(), "GOMEMLIMIT="+i.limit, "LOG_LEVEL=warn")
			tables.day = string(w.period(2))
			var jobs []string
			for n := range i.concurrency {
				jobs = append(jobs, fmt.Sprintf(`{"job":"sweep","table":"d.t%d","date":%q}`, n, tables.day))
			}
			w.post("sweep", jobs...)
			removed := 0
			for doc, err := range w.store.Scan(t.Context(), "sweeps", "0", "9~") {
				if err != nil {
					t.Fatal(err)
				}
				if doc.Data["state"] == "applied" && doc.Data["surplus"] == int64(mostSurplus) {
					removed++
				}
			}
			if removed != i.concurrency {
				t.Errorf("%d of %d sweeps have removed their rows", removed, i.concurrency)
			}
			i.fits(t, w.process)
		})
	}
}
