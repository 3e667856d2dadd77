package guard

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestGuard_ForwardsRequestAndAnswerUnchanged(t *testing.T) {
	var got *http.Request
	var body string
	b := newBench(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got, body = r, string(text)
		w.Header().Set("X-Answer", "yes")
		_, _ = io.WriteString(w, "done")
	})
	sent := push("k", "a")
	resp, err := http.Post(b.url+"/work", "application/json", strings.NewReader(push("first", "a")))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Header.Get("X-Answer") != "yes" {
		t.Errorf("the answer's headers: %v", resp.Header)
	}
	status, answer := b.post("/work?date=2026-02-03", sent, "Authorization", "Bearer t", "Content-Type", "application/json", "Te", "trailers")
	if status != 200 || answer != "done" || body != sent {
		t.Errorf("%d %q; the service got %q", status, answer, body)
	}
	if got.Header.Get("Authorization") != "Bearer t" || got.RequestURI != "/work?date=2026-02-03" || got.Host != strings.TrimPrefix(b.url, "http://") || got.Header.Get("Te") != "" {
		t.Errorf("authorization %q, address %q, host %q", got.Header.Get("Authorization"), got.RequestURI, got.Host)
	}
}

func zipped(text string) string {
	var b strings.Builder
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// Pub/Sub accepts compressed answers, and a proxy in front may compress requests.
func TestGuard_ReadsCompressedRequestsAndAnswers(t *testing.T) {
	var got, accepted string
	encoding, answer := "gzip", zipped(`{"status":"completed"}`)
	b := newBench(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got, accepted = string(body), r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", encoding)
		_, _ = io.WriteString(w, answer)
	}, func(c *Config) { c.SuccessJSON = map[string][]string{"status": {"completed"}} })
	sent := zipped(push("k", "a"))
	status, body := b.post("/work", sent, "Content-Encoding", "gzip", "Accept-Encoding", "gzip, deflate, br")
	if status != 200 || body != answer || got != sent || accepted != "gzip" {
		t.Errorf("%d %q; the service got %q, and may answer with %q", status, body, got, accepted)
	}
	for name, copied := range map[string][]string{"compressed": {sent, "Content-Encoding", "gzip"}, "plain": {push("k", "a")}} {
		if status, _ := b.post("/work", copied[0], copied[1:]...); status != 204 {
			t.Errorf("a copy, %s: %d", name, status)
		}
	}
	for _, test := range []struct{ encoding, answer string }{
		{"gzip", zipped(`{"status":"skipped"}`)},
		{"gzip", "no gzip"},
		{"br", `{"status":"completed"}`},
		{"gzip", zipped(`{"status":"completed","more":"` + strings.Repeat("x", maxAnswer) + `"}`)},
	} {
		encoding, answer = test.encoding, test.answer
		if status, _ := b.post("/work", push("other", "a"), "Accept-Encoding", "gzip"); status != 503 {
			t.Errorf("an answer %q that says of no success: %d", test.encoding, status)
		}
	}
	// A body that the guard cannot read is no delivery, and is passed on.
	encoding, answer = "identity", "{}"
	for encoding, body := range map[string]string{"br": push("x", "a"), "gzip": push("x", "a")} {
		before := b.received.Load()
		for range 2 {
			if status, _ := b.post("/work", body, "Content-Encoding", encoding); status != 200 {
				t.Errorf("%s: %d", encoding, status)
			}
		}
		if n := b.received.Load() - before; n != 2 {
			t.Errorf("%s: the service got %d requests, want 2", encoding, n)
		}
	}
	bomb := zipped(strings.Repeat(" ", maxBody) + push("x", "a"))
	if status, _ := b.post("/work", bomb, "Content-Encoding", "gzip"); status != 200 {
		t.Errorf("a body that comes to more than %d bytes: %d", maxBody, status)
	}
}

func TestGuard_KeepsAnAnswerOfOneMegabyte(t *testing.T) {
	for size, want := range map[int]int{maxAnswer: maxAnswer, maxAnswer + 1: 0} {
		b := newBench(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", size)) })
		if status, body := b.post("/work", push("k", "a")); status != 200 || len(body) != want {
			t.Errorf("%d bytes: %d with %d bytes, want %d", size, status, len(body), want)
		}
		if status, _ := b.post("/work", push("k", "a")); status != 204 {
			t.Errorf("%d bytes: the copy: %d", size, status)
		}
	}
}
