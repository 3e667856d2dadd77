package warehouse_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/warehouse/warehousetest"
)

// dryRuns stands between a client and the emulator. The emulator takes no query as the source of a
// MERGE, so a table with the query's columns takes its place.
type dryRuns struct {
	*warehousetest.World
	t        *testing.T
	refuse   func(sql string) *warehousetest.Refusal
	metadata map[string]map[string]any // table → fields of its metadata
	bytes    map[string]string         // table → bytes of its MERGE

	mu     sync.Mutex
	tables int
	sqls   []string
}

var standIn = regexp.MustCompile(`\(SELECT \*, [^()]*\)`)

func (d *dryRuns) pass(r *http.Request, body []byte, forward func() *httptest.ResponseRecorder) error {
	edit := func(change func(map[string]any)) {
		rec := forward()
		var answer map[string]any
		if json.Unmarshal(rec.Body.Bytes(), &answer) == nil {
			change(answer)
			rec.Body.Reset()
			_ = json.NewEncoder(rec.Body).Encode(answer)
		}
	}
	var job map[string]any
	_ = json.Unmarshal(body, &job)
	configuration, _ := job["configuration"].(map[string]any)
	if configuration["dryRun"] != true {
		_, table, _ := strings.Cut(r.URL.Path, "/tables/")
		edit(func(answer map[string]any) {
			for k, v := range d.metadata[table] {
				answer[k] = v
			}
		})
		return nil
	}
	query := configuration["query"].(map[string]any)
	sql := query["query"].(string)
	d.mu.Lock()
	d.sqls = append(d.sqls, sql)
	if d.refuse != nil {
		if refusal := d.refuse(sql); refusal != nil {
			d.mu.Unlock()
			return refusal
		}
	}
	if rows := standIn.FindString(sql); strings.HasPrefix(sql, "MERGE ") {
		d.tables++
		name := fmt.Sprintf("nba_analytics.stand_in_%d", d.tables)
		d.Exec("CREATE TABLE " + name + " AS SELECT * FROM " + rows + " WHERE FALSE")
		query["query"] = strings.ReplaceAll(sql, rows, d.Rename(name))
	}
	d.mu.Unlock()
	body, err := json.Marshal(job)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	edit(func(answer map[string]any) {
		for table, n := range d.bytes {
			if strings.Contains(sql, "`"+table+"`") && strings.HasPrefix(sql, "MERGE ") {
				answer["statistics"].(map[string]any)["totalBytesProcessed"] = n
			}
		}
	})
	return err
}

// verify returns what is found, by name.
func (d *dryRuns) verify(archive string) map[string]warehouse.Verification {
	p, err := pipeline.Parse([]byte(d.Definition()))
	if err != nil {
		d.t.Fatal(err)
	}
	out := map[string]warehouse.Verification{}
	for _, v := range d.Through(d.pass).VerifyWrites(d.t.Context(), p, night, archive) {
		out[v.Name] = v
	}
	return out
}

func writable(t *testing.T) *dryRuns {
	t.Helper()
	d := &dryRuns{t: t, World: warehousetest.NBA(t, good)}
	if err := d.Sample().CreateFurther(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// A statement that is wrong for a table is found before a processor or a sweep needs it.
func TestVerifyWrites_DryRunsEachStatementOfEachTable(t *testing.T) {
	d := writable(t)
	d.Exec("ALTER TABLE nba_analytics.player_game_summary ADD COLUMN note STRING")
	before := d.Count("nba_analytics.player_game_summary")
	archive := d.Staging()
	found := d.verify(archive)
	for _, table := range []string{"nba_analytics.player_game_summary", "nba_analytics.team_offense_game_summary", "nba_precompute.player_daily_cache", "nba_predictions.ml_feature_store_v2"} {
		if v, there := found["writes into "+d.Rename(table)]; !there || v.Problem != "" {
			t.Errorf("%s: %+v", table, v)
		}
	}
	kinds := map[string]int{}
	for _, sql := range d.sqls {
		switch {
		case strings.HasPrefix(sql, "CREATE TABLE `"+archive+"`."):
			kinds["archive copy"]++
		case strings.Contains(sql, "phasegate: the rows have changed"):
			kinds["removal"]++
		case strings.Contains(sql, " IN (SELECT "):
			kinds["merge by key"]++
		case strings.HasPrefix(sql, "MERGE "):
			kinds["merge"]++
		}
	}
	if len(found) != 10 || len(d.sqls) != 40 || kinds["merge"] != 10 || kinds["merge by key"] != 10 || kinds["removal"] != 10 || kinds["archive copy"] != 10 {
		t.Errorf("%d tables, %d statements: %v", len(found), len(d.sqls), kinds)
	}
	if after := d.Count("nba_analytics.player_game_summary"); after != before {
		t.Errorf("%d rows before, %d after", before, after)
	}
}

func TestVerifyWrites_NamesTableStatementAndError(t *testing.T) {
	d := writable(t)
	players, offense := d.Rename("nba_analytics.player_game_summary"), d.Rename("nba_analytics.team_offense_game_summary")
	d.refuse = func(sql string) *warehousetest.Refusal {
		switch {
		case strings.Contains(sql, "`player_game_summary`") && (strings.Contains(sql, "phasegate_target") || strings.HasPrefix(sql, "CREATE")):
			return &warehousetest.Refusal{Code: http.StatusBadRequest, Reason: "invalidQuery", Message: "Unrecognized name: points at [1:9]"}
		case strings.Contains(sql, "`team_offense_game_summary`"):
			return &warehousetest.Refusal{Code: http.StatusForbidden, Reason: "accessDenied", Message: "Access Denied: Permission bigquery.tables.updateData denied"}
		}
		return nil
	}
	found := d.verify(d.Staging())
	if v := found["writes into "+players]; v.Problem != "removal: Unrecognized name: points at [1:9]; archive copy: Unrecognized name: points at [1:9]" || v.Unknown {
		t.Errorf("%+v", v)
	}
	if v := found["writes into "+offense]; !strings.HasPrefix(v.Problem, "merge: Access Denied: Permission bigquery.tables.updateData denied; merge by key: Access Denied") || !v.Unknown {
		t.Errorf("without a right it is unknown: %+v", v)
	}
	if v := found["writes into "+d.Rename("nba_analytics.team_defense_game_summary")]; v.Problem != "" {
		t.Errorf("%+v", v)
	}
	// The first deployment makes the dataset of the archive.
	d.refuse, d.sqls = nil, nil
	found = d.verify("not_there")
	if v := found["archive copy"]; v.Problem != "" || v.Warning != "dataset not_there does not exist, so it is not verified: make deploy creates the dataset" || len(d.sqls) != 30 {
		t.Errorf("%+v, %d statements", v, len(d.sqls))
	}
}

// Each write into a table without partitions by its date column reads all of it.
func TestVerifyWrites_WarnsOfTablesThatAWriteReadsWhole(t *testing.T) {
	d := writable(t)
	d.metadata = map[string]map[string]any{
		"player_game_summary":        {"numBytes": "777", "timePartitioning": map[string]any{"type": "DAY", "field": "game_date"}},
		"player_daily_cache":         {"numBytes": "5000", "timePartitioning": map[string]any{"type": "DAY", "field": "processed_at"}},
		"team_defense_zone_analysis": {"numBytes": "6000"},
		"ml_feature_store_v2":        {"numBytes": "123456789"},
	}
	d.bytes = map[string]string{"player_daily_cache": "4000"}
	found := d.verify(d.Staging())
	for table, want := range map[string]string{
		"nba_analytics.player_game_summary":         "",
		"nba_precompute.player_daily_cache":         "the table is not partitioned by cache_date, so each write reads all of it, 4000 bytes: partition it by that column",
		"nba_precompute.team_defense_zone_analysis": "the table is not partitioned by analysis_date, so each write reads all of it, 6000 bytes: partition it by that column",
		"nba_predictions.ml_feature_store_v2":       "the table is not partitioned by game_date, so each write reads all of it, 123456789 bytes: partition it by that column",
	} {
		if v, there := found["writes into "+d.Rename(table)]; !there || v.Problem != "" || v.Warning != want {
			t.Errorf("%s: %+v, want %q", table, v, want)
		} else if named := strings.Contains(want, fmt.Sprintf(" %d bytes", v.Bytes)); named != (want != "") || want == "" && v.Bytes != 0 {
			t.Errorf("%s: %d bytes, want those of %q", table, v.Bytes, want)
		}
	}
}
