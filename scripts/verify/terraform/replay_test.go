package terraform

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// firing is a notification of an alert.
type firing struct {
	key, title, labels string
	at                 time.Time
}

// fired evaluates every condition of every alert for each minute of the play.
func (w *play) fired() (out []firing) {
	slices.SortStableFunc(w.entries, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, m := range w.plan.some("google_logging_metric") {
		f, err := parseFilter(m.text("filter"))
		if err != nil {
			w.t.Fatal(err)
		}
		extracted := map[string]string{}
		for label, v := range m.at("label_extractors").AsValueMap() {
			extracted[label] = extractor.FindStringSubmatch(v.AsString())[1]
		}
		for _, e := range w.entries {
			if !f.matches(e) {
				continue
			}
			labels := map[string]string{"monitored_resource": e.Resource.Type}
			maps.Copy(labels, e.Resource.Labels)
			for label, path := range extracted {
				if v := e.field(path); v != nil {
					labels[label] = fmt.Sprint(v)
				}
			}
			w.metrics.add("logging_googleapis_com:user_"+m.text("name"), labels, e.at, 1)
		}
	}
	for key, policy := range policies(w.t, w.plan) {
		for _, c := range conditions(policy) {
			title := text(c, "display_name")
			if query := text(c, "condition_prometheus_query_language", "0", "query"); query != "" {
				out = append(out, w.firedQuery(key, title, query, duration(w.t, text(c, "condition_prometheus_query_language", "0", "duration")))...)
				continue
			}
			f, err := parseFilter(text(c, "condition_matched_log", "0", "filter"))
			if err != nil {
				w.t.Fatal(err)
			}
			limit, last := duration(w.t, policy.text("alert_strategy", "0", "notification_rate_limit", "0", "period")), time.Time{}
			for _, e := range w.entries {
				if f.matches(e) && !e.at.Before(last.Add(limit)) {
					last = e.at
					out = append(out, firing{key, title, fmt.Sprint(e.JSONPayload["period"], " ", e.JSONPayload["mode"], " ", e.JSONPayload["message"]), e.at})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b firing) int { return a.at.Compare(b.at) })
	return out
}

// firedQuery opens an incident for each set of labels that a query has returned for the time lasting.
func (w *play) firedQuery(key, title, query string, lasting time.Duration) (out []firing) {
	e := promql(query)
	began, open := map[string]time.Time{}, map[string]bool{}
	for at := w.since; at.Before(w.end); at = at.Add(time.Minute) {
		got := e(w.metrics, at)
		for labels := range began {
			if _, still := got[labels]; !still {
				delete(began, labels)
				delete(open, labels)
			}
		}
		for labels := range got {
			if began[labels].IsZero() {
				began[labels] = at
			}
			if !open[labels] && at.Sub(began[labels]) >= lasting {
				open[labels] = true
				out = append(out, firing{key, title, labels, at})
			}
		}
	}
	return out
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func localTime(t *testing.T, local string) time.Time {
	t.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", local, nba(t).Calendar.Zone())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// show prints what fired, a line an alert.
func (w *play) show(name string) []string {
	first, count := map[string]firing{}, map[string]int{}
	var pages []string
	for _, f := range w.fired() {
		if count[f.key]++; count[f.key] == 1 {
			first[f.key] = f
			pages = append(pages, f.key)
		}
	}
	for _, key := range pages {
		f := first[key]
		w.t.Logf("| %s | %s | %s | %d | %s |", name, key, f.at.In(w.Pipeline.Calendar.Zone()).Format("2006-01-02 15:04 MST"), count[key], f.labels)
	}
	if len(pages) == 0 {
		w.t.Logf("| %s | nothing | | | |", name)
	}
	slices.Sort(pages)
	return pages
}

// No alert fires in the first 72 hours after a deployment at any time of day, in a good week, or
// when the clock changes.
func TestReplay_NothingFiresWhenNothingIsWrong(t *testing.T) {
	p := planned(t, nil)
	for name, tc := range map[string]struct {
		since   string
		hours   int
		managed pipeline.Period // what the pipeline file says
	}{
		"first 72 hours, deployed at 03:30": {"2026-02-03 03:30", 72, ""},
		"first 72 hours, deployed at 08:30": {"2026-02-03 08:30", 72, ""},
		"first 72 hours, deployed at 11:30": {"2026-02-03 11:30", 72, ""},
		"first 72 hours, deployed at 20:00": {"2026-02-03 20:00", 72, ""},
		"first 72 hours and a good week":    {"2026-02-03 15:00", 7 * 24, ""},
		"first 72 hours, adopted at noon":   {"2026-02-03 12:00", 72, "2026-02-03"},
		"the clock is set forward":          {"2026-03-06 15:00", 72, ""},
		"the clock is set back":             {"2026-10-30 15:00", 72, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPlay(t, p, localTime(t, tc.since), time.Duration(tc.hours)*time.Hour, night{})
			w.Pipeline.Transitions[0].ManagedSince = tc.managed
			w.live()
			if pages := w.show(name); len(pages) > 0 {
				t.Errorf("%q", pages)
			}
		})
	}
}

// Each bad night fires the alerts on its fault, and no others. By the evening operators have repaired
// it. A cycle that is late at its deadline of 10:00 also fails a check of health, and is a finding of
// the nightly job at 10:30.
func TestReplay_BadNightsFireWhatTheyShould(t *testing.T) {
	p := planned(t, nil)
	for name, tc := range map[string]struct {
		wrong night
		fires []string
	}{
		"a night like any other":       {night{}, nil},
		"messages are delivered twice": {night{again: true}, nil},

		"a critical processor fails":          {night{failed: "player_game_summary"}, []string{"cycle-overdue", "findings-left", "health-failing"}},
		"a critical processor never reports":  {night{silent: "player_game_summary"}, []string{"cycle-overdue", "findings-left", "health-failing"}},
		"an optional processor never reports": {night{silent: "team_defense_game_summary"}, []string{"findings-left", "health-failing"}},
		// The nightly job repairs it, so the hand-over is late.
		"rows without a report":            {night{backfilled: "player_game_summary"}, []string{"cycle-overdue", "hand-over-latency/critical-900s", "hand-over-latency/warn-300s", "health-failing"}},
		"the data is not ready until noon": {night{unready: true}, []string{"cycle-blocked", "cycle-overdue", "findings-left", "hand-over-latency/critical-900s", "hand-over-latency/warn-300s", "health-failing"}},

		"the next phase loses its triggers": {night{idle: true}, []string{"findings-left", "health-failing"}},
		"9 duplicate rows":                  {night{surplus: 9}, []string{"duplicates/found", "findings-left", "health-failing"}},
		"72 duplicate rows":                 {night{surplus: 72}, []string{"duplicates/found", "duplicates/many", "findings-left", "health-failing"}},
		"an invalid message":                {night{invalid: true}, []string{"findings-left", "health-failing", "message-quarantined"}},
		"a run dies under its lock":         {night{leaked: true}, []string{"findings-left", "health-failing", "lock-leaked"}},

		"the scheduler sends no relay": {night{noRelay: true}, []string{"health-failing", "heartbeat-absent"}},
		"the store fails for an hour":  {night{down: true}, []string{"deliveries-failing", "function-errors", "heartbeat-absent"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPlay(t, p, localTime(t, "2026-02-03 03:30"), 41*time.Hour, tc.wrong)
			w.live()
			if pages := w.show(name); !slices.Equal(pages, tc.fires) {
				t.Errorf("%q, want %q", pages, tc.fires)
			}
		})
	}
}
