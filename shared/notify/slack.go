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

// Slack is a channel: the address of a webhook, or the token of a bot and the name of a channel.
type Slack struct {
	webhook secret
	token   secret
	channel string
	api     string // of Slack, for the token
	problem string // why the configuration is wrong
}

// secret prints as nothing.
type secret string

func (secret) String() string   { return "(secret)" }
func (secret) GoString() string { return "(secret)" }

// slackAPI takes messages of bots: https://api.slack.com/methods/chat.postMessage.
const slackAPI = "https://slack.com/api/chat.postMessage"

// ErrNoChannel means that no channel is configured: no notification is sent.
var ErrNoChannel = errors.New("no channel: neither SLACK_WEBHOOK_URL nor SLACK_BOT_TOKEN is set")

// FromEnv reads the channel. A wrong configuration is a [Slack.Problem] and no error: a
// hand-over must not fail because of a channel.
func FromEnv(getenv func(string) string) Slack {
	s := Slack{webhook: secret(getenv("SLACK_WEBHOOK_URL")), token: secret(getenv("SLACK_BOT_TOKEN")), channel: getenv("SLACK_CHANNEL")}
	if s.token != "" {
		s.api = slackAPI
	}
	switch {
	case s.webhook != "" && s.token != "":
		s.problem = "SLACK_WEBHOOK_URL and SLACK_BOT_TOKEN are both set: remove one of them"
	case s.webhook != "" && !webhookForm(string(s.webhook)):
		s.problem = "SLACK_WEBHOOK_URL: the value (secret, not shown) must be an address that begins with https://"
	case s.token != "" && s.channel == "":
		s.problem = "SLACK_CHANNEL: is required with SLACK_BOT_TOKEN, such as #pipeline-alerts"
	case s.webhook == "" && s.token == "" && s.channel != "":
		s.problem = fmt.Sprintf("SLACK_CHANNEL: %q needs SLACK_BOT_TOKEN: set it, or unset SLACK_CHANNEL", s.channel)
	}
	return s
}

// webhookForm reports whether an address is https, or http on this machine.
func webhookForm(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Problem returns why no message can be sent, or nil.
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

// laterError means that Slack accepts no message for a while.
type laterError struct{ After time.Duration }

func (e *laterError) Error() string { return fmt.Sprintf("Slack accepts no message for %s", e.After) }

const (
	// attempt bounds one attempt: less than half of the time for a message.
	attempt = 2 * time.Second
	// mostAnswer bounds the bytes read of an answer: the API repeats the message in it, with up
	// to six bytes a character.
	mostAnswer = 1 << 20
	// firstPause doubles after each attempt.
	firstPause = 250 * time.Millisecond
)

// Send sends a text in Slack's markup. Until ctx ends it retries a failed connection, a
// time-out, 5xx, and 429 after the time that Slack names. A refusal by Slack is an error at
// once, with Slack's error code. Each attempt has two seconds; if its answer is lost, the
// message may have been sent.
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
			err = errors.Join(err, &laterError{after})
		}
		return err
	}
}

// refusedError is an answer that is not worth a retry.
type refusedError struct{ word string }

func (e *refusedError) Error() string { return "Slack refused the message: " + e.word }

// client follows no redirect, so that the secret is sent to no other server.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// try sends once; after is the time that Slack asks to wait.
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
		return 0, &refusedError{"the address is invalid"}
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

// withoutAddress removes the address, the secret of a webhook, from an error.
func (s Slack) withoutAddress(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("Slack: %w", err)
}

// judge reads an answer. A webhook answers with a status and a word; the API answers 200
// with an object that says whether the message was accepted.
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
		return 0, errors.New("Slack: 200 with an unreadable answer")
	case said.OK:
		return 0, nil
	case said.Error == "ratelimited":
		return time.Second, errors.New("Slack: " + said.Error)
	case said.Error == "internal_error" || said.Error == "fatal_error" || said.Error == "service_unavailable" || said.Error == "request_timeout":
		return 0, errors.New("Slack: " + said.Error)
	}
	return 0, &refusedError{word(said.Error)}
}

// word returns Slack's error code if it looks like one. A proxy may answer instead of Slack,
// and its text may repeat the request with the secret.
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
