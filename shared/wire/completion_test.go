package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestCompletion_MatchesContract(t *testing.T) {
	c, warnings, err := wire.DecodeCompletion(delivered(string(testdata(t, "completion.json"))), nba(t))
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, warnings)
	_, value := c.Record()
	golden(t, "completion.golden.json", []byte(value+"\n"))
}

func TestCompletion_RequiredFieldsSuffice(t *testing.T) {
	c, warnings := decode(t, report())
	wantWarnings(t, warnings)
	want := wire.Completion{
		Processor: "player_game_summary", Reported: "player_game_summary", Period: "2026-02-03", Status: wire.StatusSuccess,
		EventTime: time.Date(2026, 2, 4, 11, 3, 13, 456_789_000, time.UTC), TimeSource: wire.TimeSourcePublish,
		ExecutionID: "987", CorrelationID: "987", IDSource: wire.IDSourceMessage,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A dead-lettered message comes back under another message id. Without an execution_id only
// the rest of the report shows that it is the same.
func TestRecord_WithoutExecutionIsSameUnderOtherMessageID(t *testing.T) {
	tr := nba(t)
	keyOf := func(id, data string) string {
		c, _, err := wire.DecodeCompletion(wire.Envelope{MessageID: id, PublishTime: time.Date(2026, 2, 4, 11, 3, 13, 0, time.UTC), Data: []byte(data)}, tr)
		if err != nil {
			t.Fatal(err)
		}
		key, value := c.Record()
		if back, err := wire.ParseCompletion(value); err != nil || back.ExecutionID != c.ExecutionID {
			t.Errorf("%+v, %v", back, err)
		}
		return key
	}
	for name, data := range map[string]string{"bare": report(), "with_a_correlation": report(`"correlation_id":"abc"`)} {
		if a, b := keyOf("1", data), keyOf("2", data); a != b {
			t.Errorf("%s: %s and %s", name, a, b)
		}
	}
	for _, other := range []string{report(`"correlation_id":"abc"`), report(`"record_count":5`), report(`"execution_id":"1"`)} {
		if a, b := keyOf("1", report()), keyOf("1", other); a == b {
			t.Errorf("%s is taken for another report", other)
		}
	}
}

func TestCompletion_NullIsAbsent(t *testing.T) {
	keys := []string{
		"execution_id", "correlation_id", "timestamp", "phase", "output_table", "output_dataset", "record_count", "records_failed",
		"duration_seconds", "parent_processor", "trigger_source", "trigger_message_id", "error_message", "error_type", "metadata",
	}
	for i, key := range keys {
		keys[i] = fmt.Sprintf("%q:null", key)
	}
	bare, _ := decode(t, report())
	for _, data := range []string{
		report(keys...), report(`"metadata":{"is_incremental":null,"entities_changed":null}`),
	} {
		c, warnings := decode(t, data)
		wantWarnings(t, warnings)
		if diff := cmp.Diff(bare, c); diff != "" {
			t.Errorf("%s (-absent +null):\n%s", data, diff)
		}
	}
}

func TestCompletion_EmptyStringIsAbsent(t *testing.T) {
	bare, _ := decode(t, report())
	c, warnings := decode(t, report(`"phase":""`, `"timestamp":""`, `"execution_id":""`, `"correlation_id":""`))
	wantWarnings(t, warnings)
	if diff := cmp.Diff(bare, c); diff != "" {
		t.Errorf("(-absent +empty):\n%s", diff)
	}
}

func TestWhatPythonWritesForNoNumber_IsNullWithAWarning(t *testing.T) {
	c, warnings := decode(t, report(`"record_count":NaN`, `"duration_seconds": -Infinity`, `"error_message":"NaN, \"Infinity\" and -Infinity"`,
		`"unknown":[1,Infinity]`, `"metadata":{"rate":NaN}`))
	want, _ := decode(t, report(`"error_message":"NaN, \"Infinity\" and -Infinity"`))
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-absent +received):\n%s", diff)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Field+" "+w.Value+" "+w.Problem)
	}
	const problem = " is no number in JSON, and is read as null"
	if diff := cmp.Diff([]string{"record_count NaN" + problem, "duration_seconds -Infinity" + problem, "unknown Infinity" + problem, "rate NaN" + problem}, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestCompletion_KeysAreMatchedExactly(t *testing.T) {
	c, _ := decode(t, report(`"Status":"failed"`, `"GAME_DATE":"2020-01-01"`, `"Record_Count":5`, `"Metadata":{"is_incremental":true}`,
		`"metadata":{"Is_Incremental":true}`, `"unknown":{"a":[1]}`))
	bare, _ := decode(t, report())
	if diff := cmp.Diff(bare, c); diff != "" {
		t.Errorf("keys of another case were read (-want +got):\n%s", diff)
	}
}

func TestCompletion_MalformedIsPermanent(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, tc := range map[string]struct {
		data  string
		field string
		part  string
	}{
		"no_data":                {"", "data", "is required"},
		"not_json":               {"success", "data", "(success)"},
		"array":                  {"[]", "data", "is not a JSON object"},
		"null":                   {"null", "data", "is not a JSON object"},
		"trailing_data":          {report() + " x", "data", "after top-level value"},
		"two_objects":            {report() + report(), "data", "after top-level value"},
		"cut_off":                {report()[:40], "data", "unexpected end"},
		"many_bad_bytes":         {strings.Repeat("a\xff", 500), "data", "UTF-8"},
		"not_utf8":               {report("\"error_message\":\"\xff\""), "data", "UTF-8"},
		"byte_order_mark":        {"\ufeff" + report(), "data", "is not JSON"},
		"nan_required":           {strings.Replace(report(), `"success"`, "NaN", 1), "status", "is required"},
		"nan_misspelt":           {report(`"duration_seconds":nan`), "data", "is not JSON"},
		"too_deep":               {report(`"metadata":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000)), "data", "is not JSON"},
		"no_name":                {`{"game_date":"2026-02-03","status":"success"}`, "processor_name", "is required"},
		"name_null":              {report(`"processor_name":null`), "processor_name", "is required"},
		"name_empty":             {report(`"processor_name":""`), "processor_name", "is empty"},
		"name_number":            {report(`"processor_name":5`), "processor_name", "(5)"},
		"name_object":            {report(`"processor_name":{"a":1}`), "processor_name", `({"a":1})`},
		"no_date":                {`{"processor_name":"p","status":"success"}`, "game_date", "is required"},
		"date_today":             {report(`"game_date":"TODAY"`), "game_date", `such as 2026-02-04 ("TODAY")`},
		"date_yesterday":         {report(`"game_date":"YESTERDAY"`), "game_date", `("YESTERDAY")`},
		"date_timestamp":         {report(`"game_date":"2026-02-03T00:00:00"`), "game_date", `("2026-02-03T00:00:00")`},
		"date_impossible":        {report(`"game_date":"2026-02-30"`), "game_date", `("2026-02-30")`},
		"date_short":             {report(`"game_date":"2026-2-3"`), "game_date", `("2026-2-3")`},
		"date_spaces":            {report(`"game_date":" 2026-02-03"`), "game_date", `(" 2026-02-03")`},
		"date_number":            {report(`"game_date":20260203`), "game_date", "(20260203)"},
		"date_long":              {report(`"game_date":"` + long + `"`), "game_date", "xxx"},
		"no_status":              {`{"processor_name":"p","game_date":"2026-02-03"}`, "status", "is required"},
		"status_unknown":         {report(`"status":"done"`), "status", `("done")`},
		"status_upper_case":      {report(`"status":"SUCCESS"`), "status", `("SUCCESS")`},
		"status_bool":            {report(`"status":true`), "status", "(true)"},
		"phase_another":          {report(`"phase":"phase_4_precompute"`), "phase", `is not phase_3_analytics ("phase_4_precompute")`},
		"phase_number":           {report(`"phase":3`), "phase", "(3)"},
		"timestamp_number":       {report(`"timestamp":1770203000.5`), "timestamp", "(1770203000.5)"},
		"timestamp_object":       {report(`"timestamp":{}`), "timestamp", "({})"},
		"timestamp_date":         {report(`"timestamp":"2026-02-04"`), "timestamp", `("2026-02-04")`},
		"timestamp_comma":        {report(`"timestamp":"2026-02-04T11:03:12,5Z"`), "timestamp", "12,5Z"},
		"timestamp_10_digits":    {report(`"timestamp":"2026-02-04T11:03:12.1234567890Z"`), "timestamp", ".1234567890Z"},
		"timestamp_short_zone":   {report(`"timestamp":"2026-02-04T11:03:12+0000"`), "timestamp", "+0000"},
		"timestamp_zone_24":      {report(`"timestamp":"2026-02-04T11:03:12+24:00"`), "timestamp", "+24:00"},
		"timestamp_no_seconds":   {report(`"timestamp":"2026-02-04T11:03Z"`), "timestamp", "11:03Z"},
		"timestamp_hour_24":      {report(`"timestamp":"2026-02-04T24:00:00Z"`), "timestamp", "24:00:00Z"},
		"timestamp_month_13":     {report(`"timestamp":"2026-13-04T11:03:12Z"`), "timestamp", "2026-13-04"},
		"timestamp_trailing":     {report(`"timestamp":"2026-02-04T11:03:12Z\n"`), "timestamp", `12Z\n`},
		"timestamp_named_zone":   {report(`"timestamp":"2026-02-04T11:03:12 EST"`), "timestamp", "EST"},
		"timestamp_basic_format": {report(`"timestamp":"20260204T110312Z"`), "timestamp", "20260204T110312Z"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := wire.DecodeCompletion(delivered(tc.data), nba(t))
			wantPermanent(t, err, tc.field, tc.part)
			if len(err.Error()) > 500 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			if diff := cmp.Diff(wire.Completion{}, c); diff != "" {
				t.Errorf("a refused report left a completion:\n%s", diff)
			}
		})
	}
}

func TestCompletion_EveryStatusIsAccepted(t *testing.T) {
	for _, s := range []wire.Status{"success", "partial", "failed", "no_data", "skipped"} {
		if c, _ := decode(t, report(fmt.Sprintf(`"status":%q`, s))); c.Status != s {
			t.Errorf("status %q, want %q", c.Status, s)
		}
	}
}

func TestTimestamp_EverySpellingIsDecoded(t *testing.T) {
	at := func(micros int) time.Time { return time.Date(2026, 2, 4, 11, 3, 12, micros*1000, time.UTC) }
	for written, want := range map[string]time.Time{
		"2026-02-04T11:03:12.123456+00:00":    at(123456),
		"2026-02-04T11:03:12+00:00":           at(0),
		"2026-02-04T11:03:12.123456":          at(123456),
		"2026-02-04T11:03:12":                 at(0),
		"2026-02-04 11:03:12.123456":          at(123456),
		"2026-02-04t11:03:12.5z":              at(500000),
		"2026-02-04T11:03:12Z":                at(0),
		"2026-02-04T11:03:12.123456789Z":      at(123456),
		"2026-02-04T11:03:12.999999999Z":      at(999999),
		"2026-02-04T06:03:12.123456-05:00":    at(123456),
		"2026-02-04T16:33:12.123456789+05:30": at(123456),
		"2026-02-04T11:03:12-00:00":           at(0),
	} {
		c, warnings := decode(t, report(fmt.Sprintf(`"timestamp":%q`, written)))
		wantWarnings(t, warnings)
		if c.EventTime != want || c.TimeSource != "" {
			t.Errorf("%s: event time %v (source %q), want %v", written, c.EventTime, c.TimeSource, want)
		}
	}
}

func TestTimestamp_ImplausibleIsReplacedByPublishTime(t *testing.T) {
	cut := published.Truncate(time.Microsecond)
	for _, tc := range []struct {
		name     string
		lead     time.Duration // of the timestamp before (-) or after the publish time
		believed bool
	}{
		{"a_day_before", -24 * time.Hour, true},
		{"more_than_a_day_before", -24*time.Hour - time.Microsecond, false},
		{"at_once", 0, true},
		{"five_minutes_after", 5 * time.Minute, true},
		{"more_than_five_minutes_after", 5*time.Minute + time.Microsecond, false},
		{"centuries_before", -900_000 * time.Hour, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent := cut.Add(tc.lead)
			c, warnings := decode(t, report(fmt.Sprintf(`"timestamp":%q`, sent.Format("2006-01-02T15:04:05.999999"))))
			want, source := sent, ""
			if tc.believed {
				wantWarnings(t, warnings)
			} else {
				want, source = cut, wire.TimeSourcePublish
				wantWarnings(t, warnings, "timestamp: "+sent.Format("2006-01-02T15:04:05"))
			}
			if c.EventTime != want || c.TimeSource != source {
				t.Errorf("event time %v (source %q), want %v (%q)", c.EventTime, c.TimeSource, want, source)
			}
		})
	}
}

func TestCompletion_EventTimeDecidesMode(t *testing.T) {
	// 03:30Z on 4 February is still the evening of the 3rd in New York.
	e := delivered(report(`"timestamp":"2026-02-04T03:30:00"`))
	e.PublishTime = time.Date(2026, 2, 4, 12, 0, 0, 0, time.UTC)
	c, _, err := wire.DecodeCompletion(e, nba(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := nba(t).ModeAt(c.Period, c.EventTime); got != "same_day" {
		t.Errorf("mode %q, want same_day", got)
	}
}

func TestCompletion_IdentityFallsBack(t *testing.T) {
	for name, tc := range map[string]struct {
		data                   string
		execution, correlation string
	}{
		"both":           {report(`"execution_id":"e"`, `"correlation_id":"c"`), "e", "c"},
		"no_correlation": {report(`"execution_id":"e"`), "e", "e"},
		"no_execution":   {report(`"correlation_id":"c"`), "987", "c"},
		"none":           {report(), "987", "987"},
		"empty":          {report(`"execution_id":""`, `"correlation_id":""`), "987", "987"},
	} {
		if c, _ := decode(t, tc.data); c.ExecutionID != tc.execution || c.CorrelationID != tc.correlation {
			t.Errorf("%s: execution %q, correlation %q", name, c.ExecutionID, c.CorrelationID)
		}
	}
}

func TestCompletion_ReportedNameIsCutAtRuneBoundary(t *testing.T) {
	c, _ := decode(t, report(`"processor_name":"x`+strings.Repeat("é", 1000)+`"`))
	if len(c.Reported) != 199 || !utf8.ValidString(c.Reported) {
		t.Errorf("reported name has %d bytes, valid UTF-8: %v", len(c.Reported), utf8.ValidString(c.Reported))
	}
}

func TestRecord_IsSameForEveryDelivery(t *testing.T) {
	data := string(testdata(t, "completion.json"))
	first := delivered(data)
	second := first
	second.MessageID, second.DeliveryAttempt, second.PublishTime = "988", 4, published.Add(time.Hour)
	second.Data = []byte(strings.ReplaceAll(data, "\n", "\r\n\t"))
	keys := map[string]bool{}
	for _, e := range []wire.Envelope{first, second} {
		c, _, err := wire.DecodeCompletion(e, nba(t))
		if err != nil {
			t.Fatal(err)
		}
		key, value := c.Record()
		keys[key] = true
		if want := hashOf(value)[len("sha256-"):][:16]; key != want {
			t.Errorf("key %s, want %s", key, want)
		}
	}
	if len(keys) != 1 {
		t.Errorf("one report has the keys %v", keys)
	}
	another, _ := decode(t, strings.Replace(data, "348", "349", 1))
	if key, _ := another.Record(); keys[key] {
		t.Error("another record count has the same key")
	}
}

func TestParseCompletion_RefusesOtherText(t *testing.T) {
	c, _ := decode(t, report())
	_, value := c.Record()
	for _, bad := range []string{"", "{}", "null", "[]", value + "x", value[:len(value)-1], strings.Replace(value, `"period"`, `"p"`, 1)} {
		if got, err := wire.ParseCompletion(bad); err == nil || !strings.Contains(err.Error(), "recorded completion") {
			t.Errorf("%q: %+v, error %v", bad, got, err)
		}
	}
}

func TestWithoutEntities_MarksTruncation(t *testing.T) {
	listed, _ := decode(t, report(`"metadata":{"is_incremental":true,"entities_changed":["a"]}`))
	if got := listed.WithoutEntities(); got.Entities != nil || !got.Truncated || !got.Incremental {
		t.Errorf("with a list: %+v", got)
	}
	if len(listed.Entities) != 1 || listed.Truncated {
		t.Errorf("the original has changed: %+v", listed)
	}
	unlisted, _ := decode(t, report())
	if got := unlisted.WithoutEntities(); got.Truncated {
		t.Errorf("without a list: %+v", got)
	}
}

func TestF15_EntitiesAreKeyedByTheDefinitionsKind(t *testing.T) {
	transition := parse(t, strings.Replace(string(pipeline.Default()), "player: players", "player: athletes", 1))
	c, _, err := wire.DecodeCompletion(delivered(string(testdata(t, "completion.json"))), transition)
	if err != nil {
		t.Fatal(err)
	}
	key := transition.EntitiesKey(c.Processor)
	out, err := wire.Trigger{
		SourceTable: c.Processor, AnalysisDate: c.Period, GameDate: c.Period, TriggerID: "id",
		EntitiesChanged: map[string][]string{key: c.Entities},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := `"entities_changed":{"athletes":["lebronjames"]}`; !strings.Contains(string(out), want) {
		t.Errorf("%s does not contain %s", out, want)
	}
}
