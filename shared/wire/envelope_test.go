package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/wire"
)

// push is a delivery as the platform makes it, both spellings included.
const push = `{"message":{"data":"eyJhIjoxfQ==","attributes":{"k":"v"},"messageId":"987","message_id":"987",
 "publishTime":"2026-02-04T11:03:13.456789123Z","publish_time":"2026-02-04T11:03:13.456789123Z","orderingKey":"o"},
 "subscription":"projects/p/subscriptions/s","deliveryAttempt":3}`

var pushed = wire.Envelope{
	MessageID: "987", PublishTime: published, Attributes: map[string]string{"k": "v"}, Data: []byte(`{"a":1}`),
	Subscription: "projects/p/subscriptions/s", DeliveryAttempt: 3,
}

func post(body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + hex.EncodeToString(sum[:])[:32]
}

func TestEnvelope_PushIsDecoded(t *testing.T) {
	only := func(e wire.Envelope) wire.Envelope {
		return wire.Envelope{MessageID: e.MessageID, PublishTime: e.PublishTime, Data: e.Data}
	}
	attributesOnly := pushed
	attributesOnly.Data = nil
	noAttempt, numberAttribute := pushed, pushed
	noAttempt.DeliveryAttempt, numberAttribute.Attributes = 0, map[string]string{"k": "7"}
	for name, tc := range map[string]struct {
		body string
		want wire.Envelope
	}{
		"all":            {push, pushed},
		"snake_case":     {`{"message":{"data":"eyJhIjoxfQ==","message_id":"987","publish_time":"2026-02-04T11:03:13.456789123Z"}}`, only(pushed)},
		"camel_case":     {`{"message":{"data":"eyJhIjoxfQ==","messageId":"987","publishTime":"2026-02-04T11:03:13.456789123Z"}}`, only(pushed)},
		"another_offset": {`{"message":{"data":"eyJhIjoxfQ==","messageId":"987","publishTime":"2026-02-04T06:03:13.456789123-05:00"}}`, only(pushed)},
		"nulls_are_absent": {`{"message":{"data":"eyJhIjoxfQ==","messageId":null,"message_id":"987","publishTime":"2026-02-04T11:03:13.456789123Z",
			"attributes":null},"subscription":null,"deliveryAttempt":null}`, only(pushed)},
		"without_data": {strings.Replace(push, `"data":"eyJhIjoxfQ==",`, "", 1), attributesOnly},
		"empty_data":   {strings.Replace(push, "eyJhIjoxfQ==", "", 1), attributesOnly},
		// A malformed field that is not needed does not make a message invalid.
		"attempt_in_quotes": {strings.Replace(push, ":3}", `:"3"}`, 1), pushed},
		"attempt_negative":  {strings.Replace(push, ":3}", ":-3}", 1), noAttempt},
		"attempt_fraction":  {strings.Replace(push, ":3}", ":3.5}", 1), noAttempt},
		"attempt_object":    {strings.Replace(push, ":3}", ":{}}", 1), noAttempt},
		"attribute_number":  {strings.Replace(push, `"v"`, "7", 1), numberAttribute},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.FromRequest(post(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.PublishTime.Location() != time.UTC {
				t.Errorf("publish time in %v", got.PublishTime.Location())
			}
		})
	}
}

func TestEnvelope_MalformedIsPermanentAndKeepsReadableFields(t *testing.T) {
	change := func(from, to string) string {
		if !strings.Contains(push, from) {
			t.Fatalf("%q is not in the push", from)
		}
		return strings.ReplaceAll(push, from, to)
	}
	for name, tc := range map[string]struct {
		body   string
		field  string
		part   string
		wantID string // "" means the body's hash
		data   string // "" means the raw body
	}{
		"empty":                 {"", "body", "is required", "", ""},
		"not_json":              {"hello", "body", "(hello)", "", ""},
		"array":                 {"[1]", "body", "is not a JSON object", "", ""},
		"null":                  {"null", "body", "is not a JSON object", "", ""},
		"not_utf8":              {"{\"a\":\"\xff\"}", "body", "UTF-8", "", ""},
		"trailing_data":         {push + "{}", "body", "after top-level value", "", ""},
		"no_message":            {`{"subscription":"s"}`, "message", "is required", "", ""},
		"message_null":          {`{"message":null}`, "message", "is required", "", ""},
		"message_wrong_case":    {change(`"message":`, `"Message":`), "message", "is required", "", ""},
		"message_not_an_object": {`{"message":"m"}`, "message", `("m")`, "", ""},
		"no_id":                 {strings.NewReplacer(`"messageId":"987",`, "", `"message_id":"987",`, "").Replace(push), "message.messageId", "is required", "", `{"a":1}`},
		"empty_id":              {change(`"987"`, `""`), "message.messageId", "is required", "", `{"a":1}`},
		"id_not_a_string":       {change(`"987"`, `987`), "message.messageId", "(987)", "", `{"a":1}`},
		"id_too_long":           {change(`"987"`, `"`+strings.Repeat("9", 1025)+`"`), "message.messageId", "1024", strings.Repeat("9", 1025), `{"a":1}`},
		"no_publish_time":       {change(`"publish`, `"x`), "message.publishTime", "is required", "987", `{"a":1}`},
		"publish_time_no_zone":  {change(`123Z"`, `123"`), "message.publishTime", "2026-02-04T11:03:13.456789123)", "987", `{"a":1}`},
		"publish_time_number":   {change(`"2026-02-04T11:03:13.456789123Z"`, `1770000000`), "message.publishTime", "(1770000000)", "987", `{"a":1}`},
		"publish_time_year_1":   {change(`2026-`, `0001-`), "message.publishTime", "0001-02-04", "987", `{"a":1}`},
		"publish_time_far":      {change(`2026-`, `9999-`), "message.publishTime", "9999-02-04", "987", `{"a":1}`},
		"data_not_base64":       {change(`eyJhIjoxfQ==`, `{}`), "message.data", "({})", "987", ""},
		"data_not_a_string":     {change(`"eyJhIjoxfQ=="`, `{"a":1}`), "message.data", `({"a":1})`, "987", ""},
		"attributes_array":      {change(`{"k":"v"}`, `["k"]`), "message.attributes", `(["k"])`, "987", `{"a":1}`},
		"subscription_number":   {change(`"projects/p/subscriptions/s"`, `7`), "subscription", "(7)", "987", `{"a":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.FromRequest(post(tc.body))
			wantPermanent(t, err, tc.field, tc.part)
			if tc.wantID == "" {
				tc.wantID = hashOf(tc.body)
			}
			if tc.data == "" {
				tc.data = tc.body
			}
			if got.MessageID != tc.wantID {
				t.Errorf("message id %q, want %q", got.MessageID, tc.wantID)
			}
			if string(got.Data) != tc.data {
				t.Errorf("data %q, want %q", got.Data, tc.data)
			}
		})
	}
}

func TestEnvelope_InvalidFieldKeepsOtherFields(t *testing.T) {
	got, err := wire.FromRequest(post(strings.ReplaceAll(push, "2026-02-04T", "2026-02-34T")))
	wantPermanent(t, err, "message.publishTime")
	want := pushed
	want.PublishTime = time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFromRequest_DisconnectedClientIsNoPermanentError(t *testing.T) {
	gone := errors.New("connection reset")
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader(push[:40]), iotest.ErrReader(gone)))
	_, err := wire.FromRequest(r)
	var permanent *wire.PermanentError
	if !errors.Is(err, gone) || errors.As(err, &permanent) {
		t.Errorf("error %v, want a transient one that wraps %v", err, gone)
	}
}

func TestEnvelope_LargestMessageFitsAndLargerIsCut(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 10<<20)
	body := `{"message":{"messageId":"1","publishTime":"2026-02-04T11:03:13Z","data":"` + base64.StdEncoding.EncodeToString(data) + `"}}`
	got, err := wire.FromRequest(post(body))
	if err != nil || !bytes.Equal(got.Data, data) {
		t.Fatalf("10 MiB of data: %d bytes, error %v", len(got.Data), err)
	}
	const limit = (10<<20+2)/3*4 + 1<<20
	for _, size := range []int{limit, limit + 1} {
		got, err := wire.FromRequest(post(strings.Repeat(" ", size)))
		wantPermanent(t, err, "body")
		if tooLarge := strings.Contains(err.Error(), "larger"); tooLarge != (size > limit) || len(got.Data) != limit {
			t.Errorf("body of limit%+d bytes: %v, %d bytes kept", size-limit, strings.TrimSpace(err.Error()), len(got.Data))
		}
	}
}

func envelopes() *rapid.Generator[wire.Envelope] {
	return rapid.Custom(func(t *rapid.T) wire.Envelope {
		return wire.Envelope{
			MessageID:    rapid.StringN(1, 50, 1024).Draw(t, "id"),
			PublishTime:  time.Unix(rapid.Int64Range(0, 253_370_000_000).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
			Attributes:   rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "attributes"),
			Data:         rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
			Subscription: rapid.String().Draw(t, "subscription"),
		}
	})
}

func TestPush_RoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := envelopes().Draw(t, "envelope")
		sent := want
		sent.DeliveryAttempt = 7
		got, err := wire.FromRequest(post(string(sent.Push())))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestPush_WithoutPublishTimeIsRefusedAgain(t *testing.T) {
	e, err := wire.FromRequest(post(`{"processor_name":"posted without an envelope"}`))
	wantPermanent(t, err, "message")
	again, err := wire.FromRequest(post(string(e.Push())))
	wantPermanent(t, err, "message.publishTime", "is required")
	if diff := cmp.Diff(e, again); diff != "" {
		t.Errorf("handed over again it is another message (-first +second):\n%s", diff)
	}
}

func TestDocumentID_IsSafe(t *testing.T) {
	for id, same := range map[string]bool{
		"987": true, "sha256-00ff": true, "a.b_c-D": true, "_x_": true, "...": true, strings.Repeat("9", 200): true,
		"": false, ".": false, "..": false, "__": false, "__x__": false, "____": false, "a/b": false, "ü": false, "a b": false,
		"9\n": false, strings.Repeat("9", 201): false,
	} {
		want := id
		if !same {
			want = hashOf(id)
		}
		if got := (wire.Envelope{MessageID: id}).DocumentID(); got != want {
			t.Errorf("%q: document %q, want %q", id, got, want)
		}
	}
}

func TestDocumentID_IsSafeForAnyMessageID(t *testing.T) {
	safe := regexp.MustCompile(`^[A-Za-z0-9_.-]{1,200}$`)
	rapid.Check(t, func(t *rapid.T) {
		e := wire.Envelope{MessageID: rapid.String().Draw(t, "id")}
		if got := e.DocumentID(); !safe.MatchString(got) || strings.Trim(got, ".") == "" && len(got) < 3 {
			t.Fatalf("document id %q", got)
		}
	})
}
