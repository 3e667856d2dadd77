package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const theSecret = "T000-B000-hush"

// answer is what a Slack of the tests says to one try.
type answer struct {
	status     int
	body       string
	retryAfter string
	hangs      bool // until the caller has gone
}

// slackServer answers as Slack does, one answer a try, the last one for ever.
type slackServer struct {
	*httptest.Server
	answers []answer
	got     []map[string]any
	tokens  []string
	waits   []time.Duration
}

func newSlack(t *testing.T, answers ...answer) *slackServer {
	s := &slackServer{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		var body map[string]any
		if err == nil {
			err = json.Unmarshal(data, &body)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%v: %s", err, data)
		}
		a := s.answers[min(len(s.got), len(s.answers)-1)]
		s.got, s.tokens = append(s.got, body), append(s.tokens, r.Header.Get("Authorization"))
		if a.hangs {
			<-r.Context().Done()
			return
		}
		if a.retryAfter != "" {
			w.Header().Set("Retry-After", a.retryAfter)
		}
		if a.status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *slackServer) wait(ctx context.Context, d time.Duration) error {
	s.waits = append(s.waits, d)
	return ctx.Err()
}

func (s *slackServer) byWebhook() Slack {
	return FromEnv(func(name string) string {
		return map[string]string{"SLACK_WEBHOOK_URL": s.URL + "/services/" + theSecret}[name]
	})
}

func (s *slackServer) byToken() Slack {
	c := FromEnv(func(name string) string {
		return map[string]string{"SLACK_BOT_TOKEN": theSecret, "SLACK_CHANNEL": "#night"}[name]
	})
	c.api = s.URL
	return c
}

func TestSlack_ResponseDecidesRetryAndError(t *testing.T) {
	ok, apiOK := answer{status: 200, body: "ok"}, answer{status: 200, body: `{"ok":true,"channel":"C1"}`}
	busy := answer{status: 503, body: "upstream of /services/" + theSecret}
	for name, tc := range map[string]struct {
		token   bool
		answers []answer
		tries   int
		waits   []time.Duration
		err     string // "" is sent
	}{
		"taken":                     {answers: []answer{ok}, tries: 1},
		"taken_api":                 {token: true, answers: []answer{apiOK}, tries: 1},
		"api_repeats_the_message":   {token: true, answers: []answer{{status: 200, body: `{"ok":true,"channel":"C1","message":{"text":"` + strings.Repeat("x", 40_000) + `"}}`}}, tries: 1},
		"5xx_passes":                {answers: []answer{busy, {status: 500}, ok}, tries: 3, waits: []time.Duration{250 * time.Millisecond, 500 * time.Millisecond}},
		"429_is_left_alone":         {answers: []answer{{status: 429, body: "rate_limited", retryAfter: "2"}, ok}, tries: 2, waits: []time.Duration{2 * time.Second}},
		"429_api":                   {token: true, answers: []answer{{status: 429, retryAfter: "1"}, apiOK}, tries: 2, waits: []time.Duration{time.Second}},
		"429_without_saying_when":   {answers: []answer{{status: 429}, ok}, tries: 2, waits: []time.Duration{time.Second}},
		"429_for_longer_than_it_is": {answers: []answer{{status: 429, retryAfter: "120"}}, tries: 1, err: "Slack: 429: too many messages\nSlack accepts no message for 2m0s"},
		"invalid_payload":           {answers: []answer{{status: 400, body: "invalid_payload"}}, tries: 1, err: "Slack refused the message: 400 invalid_payload"},
		"no_service":                {answers: []answer{{status: 404, body: "no_service"}}, tries: 1, err: "Slack refused the message: 404 no_service"},
		"a_proxy_repeats_the_path":  {answers: []answer{{status: 403, body: "forbidden: /services/" + theSecret}}, tries: 1, err: "Slack refused the message: 403 without a reason"},
		"another_word_than_ok":      {answers: []answer{{status: 200, body: "<html>sign in</html>"}}, tries: 1, err: "Slack refused the message: 200 without a reason"},
		"moved":                     {answers: []answer{{status: 302}}, tries: 1, err: "Slack refused the message: 302 without a reason"},
		"not_in_channel":            {token: true, answers: []answer{{status: 200, body: `{"ok":false,"error":"not_in_channel"}`}}, tries: 1, err: "Slack refused the message: not_in_channel"},
		"api_is_ill":                {token: true, answers: []answer{{status: 200, body: `{"ok":false,"error":"internal_error"}`}, apiOK}, tries: 2, waits: []time.Duration{250 * time.Millisecond}},
		"api_says_nothing":          {token: true, answers: []answer{{status: 200, body: "hm"}, apiOK}, tries: 2, waits: []time.Duration{250 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlack(t, tc.answers...)
			c, token := s.byWebhook(), ""
			want := map[string]any{"text": "*a* message", "unfurl_links": false}
			if tc.token {
				c, token, want["channel"] = s.byToken(), "Bearer "+theSecret, "#night"
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := c.send(ctx, "*a* message", s.wait)
			if said := fmt.Sprint(err); err != nil && said != tc.err || err == nil && tc.err != "" {
				t.Errorf("%v, want %q", err, tc.err)
			}
			if len(s.got) != tc.tries || !cmp.Equal(s.waits, tc.waits) || !cmp.Equal(s.got[0], want) || s.tokens[0] != token {
				t.Errorf("%d tries, waits %v, first %v, token %q", len(s.got), s.waits, s.got[0], s.tokens[0])
			}
		})
	}
}

// A request that hangs ends at its deadline, and its error says why.
func TestSlack_HangingRequestTimesOut(t *testing.T) {
	s := newSlack(t, answer{hangs: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.byWebhook().Send(ctx, "x")
	s.Close() // waits for the one that hangs
	if !errors.Is(err, context.DeadlineExceeded) || len(s.got) != 1 {
		t.Errorf("%v, %d tries", err, len(s.got))
	}
}

func TestSlack_SecretIsNeverPrinted(t *testing.T) {
	gone := newSlack(t, answer{status: 200})
	gone.Close()
	for name, c := range map[string]Slack{"gone": gone.byWebhook(), "gone_api": gone.byToken(),
		"broken": FromEnv(func(name string) string {
			return map[string]string{"SLACK_WEBHOOK_URL": "http://elsewhere/" + theSecret}[name]
		})} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := c.Send(ctx, "x")
		if err == nil {
			t.Errorf("%s: sent", name)
		}
		for _, said := range []string{fmt.Sprint(err), c.String(), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c), fmt.Sprintf("%+v", struct{ S Slack }{c}), fmt.Sprintf("%#v", &struct{ S Slack }{c})} {
			if strings.Contains(said, theSecret) {
				t.Errorf("%s: %s", name, said)
			}
		}
	}
}

func TestSlack_EnvironmentSelectsChannel(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		want string // of Problem, or of the channel
		ok   bool
	}{
		"webhook":         {map[string]string{"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x"}, "Slack, by webhook", true},
		"loopback":        {map[string]string{"SLACK_WEBHOOK_URL": "http://127.0.0.1:99/x"}, "Slack, by webhook", true},
		"webhook_channel": {map[string]string{"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x", "SLACK_CHANNEL": "#night"}, "Slack, by webhook", true},
		"token":           {map[string]string{"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_CHANNEL": "#night"}, "Slack, #night", true},
		"none":            {nil, ErrNoChannel.Error(), false},
		"unencrypted":     {map[string]string{"SLACK_WEBHOOK_URL": "http://hooks.slack.com/services/x"}, "SLACK_WEBHOOK_URL: the value (secret, not shown) must be an address that begins with https://", false},
		"no_address":      {map[string]string{"SLACK_WEBHOOK_URL": "%zz"}, "SLACK_WEBHOOK_URL: the value (secret, not shown) must be an address that begins with https://", false},
		"both":            {map[string]string{"SLACK_WEBHOOK_URL": "https://x", "SLACK_BOT_TOKEN": "xoxb-1", "SLACK_CHANNEL": "#x"}, "SLACK_WEBHOOK_URL and SLACK_BOT_TOKEN are both set: remove one of them", false},
		"token_alone":     {map[string]string{"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_CHANNEL: is required with SLACK_BOT_TOKEN, such as #pipeline-alerts", false},
		"channel_alone":   {map[string]string{"SLACK_CHANNEL": "#night"}, `SLACK_CHANNEL: "#night" needs SLACK_BOT_TOKEN: set it, or unset SLACK_CHANNEL`, false},
	} {
		c := FromEnv(func(name string) string { return tc.env[name] })
		if c.String() != tc.want || (c.Problem() == nil) != tc.ok {
			t.Errorf("%s: %q, problem %v", name, c.String(), c.Problem())
		}
	}
	if !errors.Is(Slack{}.Problem(), ErrNoChannel) {
		t.Error("a channel that was never read is one")
	}
}
