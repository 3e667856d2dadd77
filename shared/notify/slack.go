package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Slack is a channel: a webhook's address, or a bot's token and a channel's name.
type Slack struct {
	webhook secret
	token   secret
	channel string
	api     string // of Slack, for the token
	problem string // why there is no channel
}

// secret prints as nothing.
type secret string

func (secret) String() string   { return "(secret)" }
func (secret) GoString() string { return "(secret)" }

// slackAPI takes messages of bots: https://api.slack.com/methods/chat.postMessage.
const slackAPI = "https://slack.com/api/chat.postMessage"

// ErrNoChannel says that nobody is told.
var ErrNoChannel = errors.New("no channel: neither SLACK_WEBHOOK_URL nor SLACK_BOT_TOKEN is set")

// FromEnv reads the channel. What is wrong with it is a [Slack.Problem], and no error: a
// hand-over must not fail because of a channel.
func FromEnv(getenv func(string) string) Slack {
	s := Slack{webhook: secret(getenv("SLACK_WEBHOOK_URL")), token: secret(getenv("SLACK_BOT_TOKEN")), channel: getenv("SLACK_CHANNEL")}
	if s.token != "" {
		s.api = slackAPI
	}
	switch {
	case s.webhook != "" && s.token != "":
		s.problem = "SLACK_WEBHOOK_URL and SLACK_BOT_TOKEN are set: one of them is one too many"
	case s.webhook != "" && !webhookForm(string(s.webhook)):
		s.problem = "SLACK_WEBHOOK_URL: its value, which is a secret, is no address that begins with https://"
	case s.token != "" && s.channel == "":
		s.problem = "SLACK_CHANNEL: is required beside SLACK_BOT_TOKEN, such as #pipeline-alerts"
	case s.webhook == "" && s.token == "" && s.channel != "":
		s.problem = fmt.Sprintf("SLACK_CHANNEL: %q needs SLACK_BOT_TOKEN beside it", s.channel)
	}
	return s
}

// webhookForm: over the network encrypted, on this machine as it likes.
func webhookForm(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Problem says why nobody can be told, nil where somebody can.
func (s Slack) Problem() error {
	switch {
	case s.problem != "":
		return errors.New(s.problem)
	case s.webhook == "" && s.token == "":
		return ErrNoChannel
	}
	return nil
}

// String describes the channel without its secret.
func (s Slack) String() string {
	switch err := s.Problem(); {
	case err != nil:
		return err.Error()
	case s.webhook != "":
		return "Slack, by webhook"
	}
	return "Slack, " + s.channel
}

// GoString is String: no way of printing shows the secret.
func (s Slack) GoString() string { return s.String() }

// LaterError says for how long Slack wants to be left alone.
type LaterError struct{ After time.Duration }

func (e *LaterError) Error() string { return fmt.Sprintf("Slack takes no more for %s", e.After) }

const (
	// attempt bounds one try: less than half of what a message may take.
	attempt = 2 * time.Second
	// mostAnswer bounds what is read of an answer: the API repeats the message in it, with up
	// to six bytes a character.
	mostAnswer = 1 << 20
	// firstPause doubles from try to try.
	firstPause = 250 * time.Millisecond
)

// Send sends a text in Slack's markup. It tries again, until ctx ends, what may pass: a
// connection that fails, a time-out, 429 after as long as Slack says, 5xx. What Slack
// refuses is an error at once, with Slack's word for it. Each try has two seconds, of which
// an answer that is lost may have been a message.
func (s Slack) Send(ctx context.Context, text string) error { return s.send(ctx, text, sleep) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (s Slack) send(ctx context.Context, text string, wait func(context.Context, time.Duration) error) error {
	if err := s.Problem(); err != nil {
		return err
	}
	for pause := firstPause; ; pause *= 2 {
		after, err := s.try(ctx, text)
		var final *refusedError
		if err == nil || errors.As(err, &final) {
			return err
		}
		idle := max(pause, after)
		deadline, ends := ctx.Deadline()
		if (!ends || time.Until(deadline) > idle) && wait(ctx, idle) == nil {
			continue
		}
		if after > 0 {
			err = errors.Join(err, &LaterError{after})
		}
		return err
	}
}

// refusedError is an answer that another try does not change.
type refusedError struct{ word string }

func (e *refusedError) Error() string { return "Slack refuses it: " + e.word }

// client follows no redirect: a secret goes where it was meant to go.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// try sends once; after is how long Slack wants to be left alone.
func (s Slack) try(ctx context.Context, text string) (after time.Duration, err error) {
	body := map[string]any{"text": text, "unfurl_links": false}
	address := string(s.webhook)
	if address == "" {
		address, body["channel"] = s.api, s.channel
	}
	data, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("Slack: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attempt, fmt.Errorf("no answer within %s", attempt))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(data))
	if err != nil {
		return 0, &refusedError{"its address cannot be asked"}
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+string(s.token))
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, s.withoutAddress(ctx, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return 0, s.withoutAddress(ctx, err)
	}
	return s.judge(resp, strings.TrimSpace(string(answer)))
}

// withoutAddress leaves the address, which is the secret of a webhook, out of an error.
func (s Slack) withoutAddress(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("Slack: %w", err)
}

// judge reads an answer: that of a webhook is a status and a word, that of the API 200 and
// an object that says whether it was taken.
func (s Slack) judge(resp *http.Response, answer string) (after time.Duration, err error) {
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || seconds < 1 {
			seconds = 1
		}
		return time.Duration(min(seconds, 3600)) * time.Second, errors.New("Slack: 429: too many messages")
	case resp.StatusCode >= 500:
		return 0, fmt.Errorf("Slack: %d", resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return 0, &refusedError{fmt.Sprintf("%d %s", resp.StatusCode, word(answer))}
	case s.webhook != "":
		if answer != "ok" {
			return 0, &refusedError{"200 " + word(answer)}
		}
		return 0, nil
	}
	var said struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	switch err := json.Unmarshal([]byte(answer), &said); {
	case err != nil:
		return 0, errors.New("Slack: 200 without an answer that can be read")
	case said.OK:
		return 0, nil
	case said.Error == "ratelimited":
		return time.Second, errors.New("Slack: " + said.Error)
	case said.Error == "internal_error" || said.Error == "fatal_error" || said.Error == "service_unavailable" || said.Error == "request_timeout":
		return 0, errors.New("Slack: " + said.Error)
	}
	return 0, &refusedError{word(said.Error)}
}

// word is what Slack says, if it is one of its words: what a proxy answers in its place
// may repeat what it was asked.
func word(answer string) string {
	for _, r := range answer {
		if (r < 'a' || r > 'z') && r != '_' {
			return "without a reason"
		}
	}
	if answer == "" || len(answer) > 60 {
		return "without a reason"
	}
	return answer
}
