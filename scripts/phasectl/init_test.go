package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// typed gives standard input these lines.
func typed(t *testing.T, lines ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answers")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stdin
	os.Stdin = in
	t.Cleanup(func() { os.Stdin = was; in.Close() })
}

// shop are the answers of a pipeline with 12 processors in 3 phases.
var shop = []string{"shop", "Europe/Berlin", "day", "raw, clean, marts", "orders, refunds, visits, stock", "sales, returns, sessions, inventory, customers",
	"revenue, churn, forecast", "", "", ""}

func parsedFile(t *testing.T, file string) *pipeline.Pipeline {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Parse(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return p
}

func TestInit_WritesAValidFileFromAnswers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	typed(t, shop...)
	want(t, 0, []string{"wrote " + file + ": 12 processors in 3 phases, 2 transitions\n", "  phasectl pipeline check " + file + "\n", "Time zone [UTC]: Europe/Berlin\n"}, "init", "--file", file)
	p := parsedFile(t, file)
	if p.Name != "shop" || p.Calendar.Zone().String() != "Europe/Berlin" || p.TransitionIDs() != "raw_to_clean, clean_to_marts" || len(p.Transitions[1].Order) != 5 ||
		p.Transitions[0].UpstreamTopic != "shop-raw-complete" || p.Transitions[1].DownstreamTopic != "shop-marts-trigger" || p.Phases[2].Processors[0].Table != "shop_marts.revenue" {
		t.Errorf("%+v", p)
	}
	want(t, 0, []string{" is valid: pipeline shop", "    deadline  12:00 on the next day"}, "pipeline", "check", file)

	// The settings in the file's comments are valid, too.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	offered := strings.NewReplacer("        # optional", "        optional", "        # grace", "        grace", "        # not_before", "        not_before", "    # service", "    service",
		"    # checks:", "    checks:", "    #   before_hand_over", "      before_hand_over", "    #     - name", "        - name", "    #       ", "          ").Replace(string(data))
	if q, err := pipeline.Parse([]byte(offered)); err != nil || q.Transitions[0].Modes[0].Grace == nil || q.Transitions[1].Checks == nil || q.Phases[0].Service != "shop-raw" || len(q.Warnings()) > 0 {
		t.Errorf("%v\n%s", err, offered)
	}
}

func TestInit_ByTheHourIsValid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	typed(t, "", "shop", "Berlin", "", "hour", "raw", "raw, marts", "orders, orders", "orders", "orders", "revenue", "", "", "hour", "id", "")
	out := want(t, 0, []string{"wrote "}, "init", "--file", file)
	if p := parsedFile(t, file); !p.Calendar.Hourly() || p.Transitions[0].Modes[0].Deadline.String() != "+1h :45" || p.Phases[0].Processors[0].OrderBy != "updated_at" {
		t.Errorf("%s %+v", out, p)
	}
}

// When the input ends, each further question takes its default. Only commas separate names.
func TestInit_TakesDefaultsAtTheEndOfTheAnswers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	typed(t, "shop", "UTC", "day", "raw clean", "raw, clean", "orders", "sales")
	out := want(t, 0, []string{`"raw clean" has a blank: separate names with commas`, "wrote "}, "init", "--file", file)
	parsedFile(t, file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "decide") {
			lines++
		}
	}
	if !strings.Contains(out, fmt.Sprintf("%d lines say decide", lines)) {
		t.Errorf("%d lines say decide, not as in %s", lines, out)
	}
}

func TestInit_ReplacesNoFileUnlessTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	typed(t, shop...)
	want(t, 1, []string{file + " exists: name another file, or replace it with --overwrite"}, "init", "--file", file)
	// Another process may write it while the questions are asked.
	if err := writeNew(file, []byte("theirs"), false); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
	want(t, 0, []string{"wrote "}, "init", "--file", file, "--overwrite")
	parsedFile(t, file)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".phasectl*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestInit_WithoutAnswersWritesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	typed(t, "shop")
	want(t, 64, []string{`no answer to "Phases in order, such as raw, clean, marts"`}, "init", "--file", file, "--time-zone", "UTC")
	want(t, 64, []string{`--time-zone: "Berlin" is no time zone`}, "init", "--file", file, "--time-zone", "Berlin")
	want(t, 64, []string{`--name: "google_shop" begins with phasegate or goog`}, "init", "--file", file, "--name", "google_shop")
	want(t, 64, []string{`--name: "My shop" is no name`}, "init", "--file", file, "--name", "My shop")
	want(t, 64, []string{"--dataset: name two datasets or more"}, "init", "--file", file, "--dataset", "shop_raw")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// An interrupt ends the command while it waits for an answer.
func TestInit_EndsAtAnInterrupt(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stdin
	os.Stdin = in
	t.Cleanup(func() { os.Stdin = was; out.Close(); in.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	prompt, ended := newOutput(), make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"init", "--file", filepath.Join(t.TempDir(), "p.yaml")}, newOutput(), prompt)
	}()
	prompt.mu.Lock()
	asked := prompt.changed
	prompt.mu.Unlock()
	<-asked
	cancel()
	if code := <-ended; code != 64 {
		t.Errorf("%d: %s", code, prompt)
	}
}

// recorded are answers of BigQuery's API about tables: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables
var recorded = map[string]map[string]string{
	"shop_raw": {
		"orders": `"type":"TABLE","timePartitioning":{"type":"DAY","field":"order_day"},"requirePartitionFilter":true,
			"schema":{"fields":[{"name":"order_id","type":"STRING"},{"name":"order_day","type":"DATE"},{"name":"created_at","type":"TIMESTAMP"},{"name":"updated_at","type":"TIMESTAMP"}]},
			"tableConstraints":{"primaryKey":{"columns":["order_day","order_id"]}}`,
		"sales-2024":      `"type":"TABLE","schema":{"fields":[{"name":"day","type":"DATE"},{"name":"loaded_at","type":"TIMESTAMP"}]}`,
		"events_20260202": "", "events_20260203": "",
		"umlauts": `"type":"TABLE","schema":{"fields":[{"name":"tägig","type":"DATE"},{"name":"loaded_at","type":"TIMESTAMP"}]}`,
		"Visits": `"type":"TABLE","timePartitioning":{"type":"DAY","field":"day"},"clustering":{"fields":["visitor","day"]},
			"schema":{"fields":[{"name":"day","type":"DATE"},{"name":"visitor","type":"STRING"},{"name":"seen","type":"TIMESTAMP"}]}`,
		"latest": `"type":"VIEW","view":{"query":"SELECT 1"},"schema":{"fields":[{"name":"day","type":"DATE"}]}`,
		"notes":  `"type":"TABLE","schema":{"fields":[{"name":"text","type":"STRING"}]}`,
		"logins": `"type":"TABLE","timePartitioning":{"type":"DAY"},"schema":{"fields":[{"name":"login_day","type":"DATE"},{"name":"loaded_at","type":"TIMESTAMP"}]}`,
		"days":   `"type":"TABLE","schema":{"fields":[{"name":"day","type":"DATE"}]}`,
	},
	"shop_marts": {
		"orders": `"type":"TABLE","timePartitioning":{"type":"DAY","field":"day"},"schema":{"fields":[{"name":"day","type":"DATE"},{"name":"region","type":"STRING"},{"name":"computed_at","type":"TIMESTAMP"}]},
			"clustering":{"fields":["region"]}`,
	},
	"shop_empty": {},
}

// playback serves the recorded answers.
func playback(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		i := slices.Index(parts, "datasets")
		w.Header().Set("Content-Type", "application/json")
		tables, known := recorded[parts[i+1]]
		about := func(table string) string {
			return fmt.Sprintf(`"id":"p:%s.%s","tableReference":{"projectId":"p","datasetId":%[1]q,"tableId":%[2]q}`, parts[i+1], table)
		}
		switch {
		case !known:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"error":{"code":404,"message":"Not found: Dataset p:%s","errors":[{"reason":"notFound"}]}}`, parts[i+1])
		case len(parts) == i+4:
			fmt.Fprintf(w, `{"kind":"bigquery#table",%s,%s}`, about(parts[i+3]), tables[parts[i+3]])
		default:
			var list []string
			for name := range tables {
				list = append(list, "{"+about(name)+"}")
			}
			fmt.Fprintf(w, `{"kind":"bigquery#tableList","totalItems":%d,"tables":[%s]}`, len(list), strings.Join(list, ","))
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("BIGQUERY_EMULATOR_HOST", strings.TrimPrefix(server.URL, "http://"))
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
}

func TestInit_ReadsTablesOfBigQuery(t *testing.T) {
	playback(t)
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	want(t, 0, []string{"wrote " + file + ": 4 processors in 2 phases, 1 transition\n",
		"  left out: shop_raw.latest: it is of type VIEW\n", "  left out: shop_raw.notes: it has no column of type DATE that says to which period a row belongs\n",
		"  left out: shop_raw.days: it has no column of type TIMESTAMP that says when a row was written\n",
		"  left out: shop_raw.sales-2024: its name has other characters than letters, digits and _\n", "  left out: shop_raw.events_*: its periods are tables of their own", "  left out: shop_raw.umlauts: column \"tägig\" has other characters",
	}, "init", "--file", file, "--dataset", "shop_raw", "--dataset", "shop_marts", "--time-zone", "Europe/Berlin")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`
      - name: visits
        table: shop_raw.Visits
        date_column: day # partitions the table
        key: [day, visitor] # decide: the columns that make a row unique; these are its clustering
        order_by: seen # decide: when a row was written; this is the first TIMESTAMP
`, `
      - name: logins
        table: shop_raw.logins
        date_column: login_day # decide: the table is not partitioned by such a column; this is its first DATE
        key: [login_day] # decide: the columns that make a row unique; the table declares no primary key
        order_by: loaded_at
        partition: none
`, `
      - name: orders
        table: shop_raw.orders
        date_column: order_day # partitions the table
        key: [order_day, order_id] # the declared primary key
        order_by: updated_at
        partition: by_date_filter_required
`, `
      - name: marts_orders
        table: shop_marts.orders
        date_column: day # partitions the table
        key: [day, region] # decide: the columns that make a row unique; these are its clustering
        order_by: computed_at
`, "time_zone: Europe/Berlin # of days"} {
		if !strings.Contains(string(data), part) {
			t.Errorf("without %s\n%s", part, data)
		}
	}
	if p := parsedFile(t, file); p.Name != "shop" || p.Phases[1].Name != "marts" || p.Transitions[0].UpstreamTopic != "shop-raw-complete" {
		t.Errorf("%+v", p)
	}
}

func TestInit_SaysWhatOfBigQueryItCannotUse(t *testing.T) {
	playback(t)
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	want(t, 1, []string{"--dataset: shop_empty has no table for a processor: it is empty"}, "init", "--file", file, "--dataset", "shop_raw", "--dataset", "shop_empty")
	want(t, 2, []string{"dataset shop_none: ", "Not found"}, "init", "--file", file, "--dataset", "shop_raw", "--dataset", "shop_none")
	want(t, 64, []string{`--dataset: "shop-raw" is no dataset`}, "init", "--file", file, "--dataset", "shop-raw", "--dataset", "shop_marts")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
