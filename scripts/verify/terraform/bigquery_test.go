package terraform

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// doubled is a BigQuery in which one player has a number of surplus rows. It is only good enough for
// the log lines and documents of a sweep; other tests remove rows on the emulator.
func doubled(t *testing.T, surplus int) string {
	answer := func(columns string, rows ...string) string {
		var fields, values []string
		for _, c := range strings.Fields(columns) {
			name, kind, _ := strings.Cut(c, ":")
			fields = append(fields, fmt.Sprintf(`{"name":%q,"type":%q}`, name, kind))
		}
		for _, r := range rows {
			var cells []string
			for _, v := range strings.Fields(r) {
				cells = append(cells, fmt.Sprintf(`{"v":%q}`, v))
			}
			values = append(values, `{"f":[`+strings.Join(cells, ",")+`]}`)
		}
		return fmt.Sprintf(`{"jobComplete":true,"totalRows":"%d","schema":{"fields":[%s]},"rows":[%s],"jobReference":{"projectId":"test","jobId":"j"}}`,
			len(rows), strings.Join(fields, ","), strings.Join(values, ","))
	}
	const day, at = "2026-02-03", 1770202992000000
	var copies []string
	sum := 0
	for i := range surplus + 1 {
		copies = append(copies, fmt.Sprintf("a %010x%010x %s a %d", i, i, day, at+i))
		sum += i
	}
	const fingerprint = "which:INTEGER n:INTEGER a:INTEGER b:INTEGER"
	after := fmt.Sprintf("%%d 1 %d %[1]d", surplus)
	result := func(sql string) string {
		switch {
		case surplus > 0 && strings.Contains(sql, "COUNTIF") && strings.Contains(sql, "`player_game_summary`"):
			return answer("day:DATE rows:INTEGER keys:INTEGER surplus:INTEGER same:INTEGER without:INTEGER oldest:INTEGER newest:INTEGER",
				fmt.Sprintf("%s 1000 1 %d 0 0 %d %[3]d", day, surplus, at))
		case strings.Contains(sql, "COUNTIF"):
			return answer("day:DATE rows:INTEGER")
		case strings.Contains(sql, "AS phasegate_key"):
			return answer("phasegate_key:STRING phasegate_hash:STRING game_date:DATE player_lookup:STRING processed_at:TIMESTAMP", copies...)
		case strings.Contains(sql, "UNION ALL"):
			return answer(fingerprint, fmt.Sprintf("0 %d %d %[2]d", surplus+1, sum), fmt.Sprintf(after, 1))
		case strings.Contains(sql, "SELECT 0, f.*"):
			return answer(fingerprint, fmt.Sprintf(after, 0))
		}
		return answer("n:INTEGER", "0")
	}
	var mu sync.Mutex
	results := map[string]string{} // by job
	return answering(t, func(path, body string) string {
		mu.Lock()
		defer mu.Unlock()
		id := path[strings.LastIndex(path, "/")+1:]
		switch {
		case strings.Contains(path, "/tables"):
			return `{"type":"TABLE","schema":{"fields":[{"name":"game_date","type":"DATE"},{"name":"player_lookup","type":"STRING"},{"name":"processed_at","type":"TIMESTAMP"}]}}`
		case strings.HasSuffix(path, "/queries"): // in one call
			return result(body)
		case strings.Contains(path, "/queries/"):
			if text, begun := results[id]; begun {
				return text
			}
			return result("")
		case strings.HasSuffix(path, "/jobs"):
			var job struct{ JobReference struct{ JobID string } }
			if err := json.Unmarshal([]byte(body), &job); err != nil {
				t.Error(err)
			}
			id = job.JobReference.JobID
			results[id] = result(body)
		}
		return fmt.Sprintf(`{"status":{"state":"DONE"},"statistics":{"query":{}},"jobReference":{"projectId":"test","jobId":%q},"configuration":{"query":{"query":"SELECT 1"}}}`, id)
	})
}

// denied is a BigQuery that refuses every request.
func denied(t *testing.T) string {
	return answering(t, func(string, string) string { return "" })
}

// answering answers requests to BigQuery. The answer "" means that access is denied.
func answering(t *testing.T, answer func(path, body string) string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		text := answer(req.URL.Path, string(body))
		if text == "" {
			w.WriteHeader(http.StatusForbidden)
			text = `{"error":{"code":403,"message":"Access Denied","errors":[{"reason":"accessDenied"}]}}`
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
