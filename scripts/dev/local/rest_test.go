package local

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (w *world) post(path, body string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://"+w.PubSub+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestPubSub_TakesCompletionsByREST(t *testing.T) {
	w := newWorld(t, "memory")
	w.Clock.AdvanceTo(at("2026-02-04 06:05"))
	for _, processor := range five {
		data, err := json.Marshal(done(processor, "2026-02-04 06:00"))
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"messages":[{"data":%q,"attributes":{"from":"curl"}}]}`, base64.StdEncoding.EncodeToString(data))
		code, answer := w.post("/v1/projects/test/topics/"+w.tr.UpstreamTopic+":publish", body)
		var got struct{ MessageIDs []string }
		if err := json.Unmarshal([]byte(answer), &got); err != nil || code != 200 || len(got.MessageIDs) != 1 || got.MessageIDs[0] == "" {
			t.Fatalf("%d %s, %v", code, answer, err)
		}
	}
	w.settle()
	if n := len(w.phase4.accepted()); n != 5 {
		t.Errorf("Phase 4 received %d messages", n)
	}
}

func TestPubSub_RefusesOtherRequestsByREST(t *testing.T) {
	w := newWorld(t, "memory")
	topic := "/v1/projects/test/topics/" + w.tr.UpstreamTopic
	for _, tc := range []struct {
		path, body, want string
		code             int
	}{
		{"/v1/projects/test/topics/other:publish", `{"messages":[{"data":"e30="}]}`, `"status":"NOT_FOUND"`, 404},
		{topic + ":publish", `{"message":{}}`, `"status":"INVALID_ARGUMENT"`, 400},
		{topic + ":publish", `{"messages":[{"data":"not base64"}]}`, `"status":"INVALID_ARGUMENT"`, 400},
		{topic + ":publish", `{"messages":[{"data":"` + strings.Repeat("A", 24_000_000) + `"}]}`, "too large", 400},
		{topic + ":pull", `{}`, "REST only publishes here", 501},
		{"/v1/projects/test/subscriptions/s:pull", `{}`, "REST only publishes here", 501},
	} {
		if code, answer := w.post(tc.path, tc.body); code != tc.code || !strings.Contains(answer, tc.want) {
			t.Errorf("%s %.40s: %d %s", tc.path, tc.body, code, answer)
		}
	}
}

// A client that connects and sends nothing blocks neither other clients nor the end of the server.
func TestPubSub_EndsWhileAClientIsSilent(t *testing.T) {
	s, err := servePubSub(0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := http.Post("http://"+s.Addr+"/v1/projects/p/topics/t:publish", "application/json", strings.NewReader(`{"messages":[{"data":"e30="}]}`))
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("%v %v", resp, err)
	}
	resp.Body.Close()
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > helloTimeout/2 {
		t.Errorf("closed after %v", took)
	}
	http.DefaultClient.CloseIdleConnections()
}
