package health_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/notify"
)

// The secret of the channel is in no log line, document, answer or page, even if Slack repeats it.
func TestSecret_OfChannelNeverAppears(t *testing.T) {
	const secret = "T0-B0-veryhush"
	repeats := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as some proxies do
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "forbidden: %s %s", r.URL, r.Header.Get("Authorization"))
	}))
	t.Cleanup(repeats.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, env := range map[string]map[string]string{
		"webhook": {"SLACK_WEBHOOK_URL": repeats.URL + "/services/" + secret}, "gone": {"SLACK_WEBHOOK_URL": gone.URL + "/services/" + secret},
		"wrong": {"SLACK_WEBHOOK_URL": "ftp://" + secret}, "both": {"SLACK_WEBHOOK_URL": "https://x/" + secret, "SLACK_BOT_TOKEN": secret}, "token_alone": {"SLACK_BOT_TOKEN": secret},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			channel := notify.FromEnv(func(name string) string { return env[name] })
			w.Notifier.Slack, w.App.Config.Slack = channel, channel
			said := fmt.Sprintf("%v %+v %#v %s", w.App.Config, w.App.Config, w.App.Config, w.App.Config.Slack)
			jobs := []string{`{"job":"health"}`, `{"job":"dance"}`, `{"job":"health","date":"2000-01-01"}`}
			if name == "gone" { // each request that sends a notification retries for seconds
				jobs = []string{`{"job":"dance"}`, `{"job":"health"}`}
			}
			for _, data := range jobs {
				rec := ask(w, "POST", "/", data)
				said += rec.Body.String()
			}
			said += browse(w, "/").Body.String() + ask(w, "GET", "/report.json", "").Body.String() + ask(w, "GET", "/", "").Body.String()
			for _, collection := range []string{"function_status", "notifications", "quarantine", "audit"} {
				for doc, err := range w.Store.Scan(t.Context(), collection, "!", "~") {
					said += fmt.Sprint(doc, err)
				}
			}
			for _, severity := range []string{"INFO", "WARNING", "ERROR"} {
				said += fmt.Sprint(w.Logs.Lines("severity", severity))
			}
			if strings.Contains(said, secret) || !strings.Contains(said, "function_status") || !strings.Contains(said, "heartbeat") {
				i := max(0, strings.Index(said, secret)-200)
				t.Errorf("%s", said[i:min(len(said), i+400)])
			}
		})
	}
}
