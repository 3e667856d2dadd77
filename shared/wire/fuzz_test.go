package wire_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/phasegate/phasegate/shared/wire"
)

// onlyPermanent fails on an error that would be retried for ever.
func onlyPermanent(t *testing.T, err error) {
	t.Helper()
	var p *wire.PermanentError
	if !errors.As(err, &p) {
		t.Fatalf("error %v is no PermanentError", err)
	}
	if len(p.Value) > 200 || !utf8.ValidString(p.Value) {
		t.Fatalf("value of %d bytes is not clipped, or no UTF-8", len(p.Value))
	}
}

func FuzzFromRequest(f *testing.F) {
	for _, body := range []string{
		push, "", "null", "[]", `{"message":null}`, `{"message":{}}`, `{"message":{"messageId":"1","publishTime":"2026-02-04T11:03:13Z"}}`,
		`{"message":{"data":"%%%","attributes":{"":""}},"deliveryAttempt":99999999999999999999}`,
		`{"specversion":"1.0","id":"i","type":"t","source":"s","data":` + push + `}`,
		`{"specversion":"1.0","data_base64":1}`, `{"data_base64":{},"specversion":"1.0"}`, `{"specversion":"1.0","data_base64":""}`,
		`{"specversion":"0.3","datacontentencoding":1}`, `{"datacontentencoding":1,"specversion":"0.3"}`, `{"":1,"specversion":"1.0"}`,
	} {
		for _, contentType := range []string{"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"} {
			f.Add(body, contentType, "", "", "")
		}
		f.Add(body, "application/json", "1.0", "google.cloud.pubsub.topic.v1.messagePublished", "2026-02-04T11:03:13Z")
		f.Add(body, "", "0.3", "", "0000-00-00")
	}
	f.Fuzz(func(t *testing.T, body, contentType, version, eventType, eventTime string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		for name, value := range map[string]string{
			"Content-Type": contentType, "Ce-Specversion": version, "Ce-Type": eventType, "Ce-Time": eventTime, "Ce-Id": "e", "Ce-": "x",
		} {
			r.Header[name] = []string{value}
		}
		e, err := wire.FromRequest(r)
		if e.MessageID == "" || e.DocumentID() == "" {
			t.Fatalf("no message id; error %v", err)
		}
		if err != nil {
			onlyPermanent(t, err)
			if len(e.Data) == 0 && body != "" {
				t.Fatalf("nothing kept for quarantine; error %v", err)
			}
			return
		}
		again, err := wire.FromRequest(post(string(e.Push())))
		if err != nil {
			t.Fatal(err)
		}
		e.DeliveryAttempt = 0
		if diff := cmp.Diff(e, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("handed over again it is another message (-first +second):\n%s", diff)
		}
	})
}

func FuzzDecodeCompletion(f *testing.F) {
	f.Add(string(testdata(f, "completion.json")))
	for _, name := range strangers {
		f.Add(report(fmt.Sprintf(`"processor_name":%q`, name)))
		f.Add(report(fmt.Sprintf(`"processor_name":"X","output_table":%q`, name)))
	}
	for _, data := range []string{
		"", "null", "{", report(`"processor_name":""`), report(`"record_count":1e999999999`), report(`"record_count":"9007199254740993"`),
		report(`"duration_seconds":-0.0`), report(`"timestamp":"0001-01-01T00:00:00"`), report(`"timestamp":"9999-12-31T23:59:59.999999-23:59"`),
		report(`"timestamp":"2026-02-04T11:03:12.123456789z"`), report(`"execution_id":"\ud800"`), report(`"metadata":{"entities_changed":["\u0000",null,[]]}`),
		report(`"metadata":{"is_incremental":true,"entities_changed":` + names(0, 300) + `}`), report("\"error_message\":\"\xff\""),
	} {
		f.Add(data)
	}
	transition := nba(f)
	f.Fuzz(func(t *testing.T, data string) {
		c, warnings, err := wire.DecodeCompletion(delivered(data), transition)
		if err != nil {
			onlyPermanent(t, err)
			return
		}
		for _, w := range warnings {
			if w.Field == "" || w.Problem == "" || len(w.Value) > 200 || !utf8.ValidString(w.Value) {
				t.Fatalf("warning %+v", w)
			}
		}
		if c.Processor != "" && !transition.Expects(c.Processor) {
			t.Fatalf("processor %q is not expected", c.Processor)
		}
		if lead := c.EventTime.Sub(published); lead < -24*time.Hour-time.Microsecond || lead > 5*time.Minute {
			t.Fatalf("event time %v", c.EventTime)
		}
		if len(c.Entities) > wire.MaxEntities || len(c.Reported) > 200 || c.ExecutionID == "" || c.CorrelationID == "" {
			t.Fatalf("completion %+v", c)
		}
		key, value := c.Record()
		back, err := wire.ParseCompletion(value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, back); diff != "" {
			t.Fatalf("recorded it is another (-decoded +parsed):\n%s", diff)
		}
		if again, _ := back.Record(); again != key {
			t.Fatalf("key %s, then %s", key, again)
		}
	})
}

func FuzzDecodeJob(f *testing.F) {
	for _, data := range []string{
		`{"job":"relay"}`, `{"job":"sweep","table":"player_game_summary","date":"2026-02-03"}`, `{"job":"rm -rf"}`, `{"Job":"relay"}`,
		`{"job":{"job":"relay"}}`, `{"job":"relay","__proto__":{}}`, `{"job":"sweep","table":"../../x"}`, "", "null", "[", "{\"job\":\"\xff\"}",
	} {
		f.Add(data)
	}
	for _, name := range strangers {
		f.Add(fmt.Sprintf(`{"job":%q}`, name))
		f.Add(fmt.Sprintf(`{"job":"sweep","table":%q}`, name))
	}
	known := "relay nightly sweep health verify"
	f.Fuzz(func(t *testing.T, data string) {
		j, err := wire.DecodeJob(delivered(data))
		if err != nil {
			onlyPermanent(t, err)
			return
		}
		if !strings.Contains(known, j.Job) || j.Job == "" || strings.Contains(j.Job, " ") {
			t.Fatalf("job %q", j.Job)
		}
	})
}
