package statuspage

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestCycles_HaveStateQualifierAndCommand(t *testing.T) {
	w := apptest.New(t, morning.Add(-7*time.Hour))
	record(t, w, "2026-02-01", wire.StatusSuccess, "team_offense_game_summary")
	record(t, w, "2026-02-02", wire.StatusSuccess, "player_game_summary", "upcoming_player_game_context", "team_offense_game_summary")
	record(t, w, night, wire.StatusSuccess, w.Pipeline.Transitions[0].Order...)
	w.SetNow(morning)
	rec := httptest.NewRecorder()
	if err := new(Page).Cycles(t.Context(), w.App, httptest.NewRequest("GET", "/cycles.json?days=7", nil), rec); err != nil {
		t.Fatal(err)
	}
	var got cycles
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got.Schema != 1 || got.Days != 7 || !got.At.Equal(morning) {
		t.Fatalf("%+v, %v", got, err)
	}
	found := map[string]cycleJSON{}
	for _, c := range got.Cycles {
		found[c.Period+" "+c.Mode] = c
	}
	if c := found["2026-02-03 overnight"]; c.State != "published" || c.Qualifier != "" || c.Complete != 5 || c.HandOvers != 1 || c.PublishedAt.IsZero() || c.Command != "" {
		t.Errorf("%+v", c)
	}
	if c := found["2026-02-02 overnight"]; len(c.Missing) != 2 || c.State == "overdue" != (c.Command != "") {
		t.Errorf("%+v", c)
	}
	if c := found["2026-02-01 overnight"]; c.State != "overdue" || c.Command != "phasectl explain 2026-02-01 overnight" || c.Since.IsZero() {
		t.Errorf("%+v", c)
	}
}

// Programs see the same qualifiers as people: late, without_all and made_up.
func TestCycles_QualifyState(t *testing.T) {
	w := apptest.New(t, morning.Add(-4*24*time.Hour-7*time.Hour)) // 05:20
	tr := w.Pipeline.Transitions[0]
	record(t, w, "2026-01-30", wire.StatusSuccess, tr.Order...)      // in time
	if err := w.Engine.Relay(t.Context(), tr, "", nil); err != nil { // from now on cycles are judged
		t.Fatal(err)
	}
	w.SetNow(morning.Add(-3 * 24 * time.Hour)) // after the deadline
	record(t, w, "2026-01-31", wire.StatusSuccess, tr.Order...)
	w.SetNow(morning.Add(-2*24*time.Hour - 7*time.Hour))
	but := slices.DeleteFunc(slices.Clone(tr.Order), func(name string) bool { return name == "team_defense_game_summary" }) // which is optional
	record(t, w, "2026-02-01", wire.StatusSuccess, but...)
	for _, ago := range []time.Duration{2*24*time.Hour + 6*time.Hour, 0} { // the grace period is over
		w.SetNow(morning.Add(-ago))
		if err := w.Engine.Relay(t.Context(), tr, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	found := func(query string) map[string]string {
		t.Helper()
		rec := httptest.NewRecorder()
		if err := new(Page).Cycles(t.Context(), w.App, httptest.NewRequest("GET", "/cycles.json?days=7"+query, nil), rec); err != nil {
			t.Fatal(err)
		}
		var got cycles
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, c := range got.Cycles {
			out[c.Period+" "+c.Mode] = c.State + " " + c.Qualifier
		}
		return out
	}
	all := found("")
	for name, want := range map[string]string{"2026-01-30 overnight": "published ", "2026-01-31 overnight": "published late", "2026-02-01 overnight": "published without_all",
		"2026-01-31 same_day": "overdue made_up", "2026-02-03 overnight": "overdue "} {
		if all[name] != want {
			t.Errorf("%s is %q, want %q", name, all[name], want)
		}
	}
	for _, kind := range []string{"late", "without_all", "made_up", "overdue", "published"} {
		some := found("&state=" + kind)
		for name, got := range some {
			state, qualifier, _ := strings.Cut(got, " ")
			if qualifier != kind && (qualifier != "" || state != kind) {
				t.Errorf("state=%s has %s: %s", kind, name, got)
			}
		}
		if len(some) == 0 {
			t.Errorf("state=%s has none", kind)
		}
	}
}
