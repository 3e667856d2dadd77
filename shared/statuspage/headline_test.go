package statuspage

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/wire"
)

// cellOf finds a cycle among the newest ones.
func cellOf(o overview, name string) recentCell {
	for _, row := range o.Rows {
		for _, c := range row.Cells {
			if c != nil && c.Name == name {
				return *c
			}
		}
	}
	return recentCell{}
}

// Slack says critical at once, so the page is red before the deadline too.
func TestOverview_NamesFailedCriticalProcessor(t *testing.T) {
	w := apptest.New(t, morning.Add(-8*time.Hour)) // 04:20
	record(t, w, night, wire.StatusFailed, "player_game_summary")
	w.SetNow(morning.Add(-7 * time.Hour))
	remember(t, w, time.Minute, health.OK)
	o := view(t, w, "")
	if o.Headline != "1 cycle waits for a failed processor: player_game_summary, since 04:20: QuotaExceeded …" || o.Tone != "bad" || len(o.Todo) != 1 {
		t.Fatalf("%q %s %+v", o.Headline, o.Tone, o.Todo)
	}
	if item := o.Todo[0]; item.Since != "04:20" || item.Command != "phasectl explain 2026-02-03 overnight" || item.Look.Word != "processor failed" || !strings.HasPrefix(item.Error, "QuotaExceeded: é") {
		t.Errorf("%+v", item)
	}
	if want := "Repair the cause, and run player_game_summary again: each completion is handled at once. The deadline is 10:00"; o.Todo[0].Remark != want {
		t.Errorf("%q, want %q", o.Todo[0].Remark, want)
	}
	if lines := cellOf(o, "2026-02-03 overnight").Lines; !slices.Equal(lines, []string{"deadline 10:00", "failed: player_game_summary"}) {
		t.Errorf("the cell says %q", lines)
	}
	record(t, w, night, wire.StatusSuccess, "player_game_summary")
	if o = view(t, w, ""); o.Headline != "Every cycle is handed over, or is not due yet" || len(o.Todo) != 0 {
		t.Errorf("%q %+v", o.Headline, o.Todo)
	}
	record(t, w, night, wire.StatusFailed, "team_defense_game_summary") // optional
	if o = view(t, w, ""); len(o.Todo) != 0 {
		t.Errorf("%q %+v", o.Headline, o.Todo)
	}
}
