package cycle

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestDoubtfulReports_AreLoggedAndShown(t *testing.T) {
	for name, tc := range map[string]struct {
		reported string
		expected bool // by the transition
		period   pipeline.Period
		want     string // "" for no doubt
		meant    string
	}{
		"misspelt":       {"player_gam_summary", false, "2026-02-03", `"player_gam_summary" reported for 2026-02-03, and is no processor that is waited for: did you mean player_game_summary?`, pgs},
		"another":        {"RosterHistoryProcessor", false, "2026-02-03", "", ""},
		"right":          {pgs, true, "2026-02-03", "", ""},
		"tomorrow":       {pgs, true, "2026-02-05", "", ""},
		"after_tomorrow": {pgs, true, "2026-02-06", "", ""},
		"far":            {pgs, true, "2062-02-03", `"player_game_summary" reported for 2062-02-03, which is later than every period that is expected now: did you mean 2026-02-03?`, "2026-02-03"},
		"next_year":      {pgs, true, "2027-02-04", `"player_game_summary" reported for 2027-02-04, which is later than every period that is expected now: did you mean 2026-02-04?`, "2026-02-04"},
		"like_none":      {pgs, true, "3131-11-19", `"player_game_summary" reported for 3131-11-19, which is later than every period that is expected now`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			w := newWorld(t, "memory")
			w.clock.set(at("2026-02-04 06:03"))
			c := run(tc.reported, "2026-02-04 06:02")
			c.Reported, c.Period = tc.reported, tc.period
			if !tc.expected {
				c.Processor = ""
			}
			w.mustDeliver(c)
			lines := w.events(telemetry.CompletionDoubtful)
			if tc.want == "" {
				if len(lines) != 0 {
					t.Errorf("%v", lines)
				}
			} else if len(lines) != 1 || lines[0]["severity"] != "WARNING" || lines[0]["message"] != tc.want || lines[0]["did_you_mean"] != tc.meant {
				t.Errorf("%v", lines)
			}
			ss, err := w.engine.Status(ctx, w.key(tc.period))
			if err != nil {
				t.Fatal(err)
			}
			var shown []string
			for _, st := range ss {
				shown = append(shown, st.Doubts...)
			}
			ahead, _, err := w.engine.Ahead(ctx, w.tr)
			if err != nil {
				t.Fatal(err)
			}
			far := strings.Contains(tc.want, "later than")
			if (len(ahead) == 1) != far || far && ahead[0].String() != tc.want {
				t.Errorf("ahead: %v", ahead)
			}
			if strings.Join(shown, "") != tc.want {
				t.Errorf("shown: %q", shown)
			}
			if w.clock.set(at("2026-02-14 06:03")); far {
				if ahead, _, err := w.engine.Ahead(ctx, w.tr); err != nil || len(ahead) != 0 {
					t.Errorf("ten days later: %v, %v", ahead, err)
				}
			}
		})
	}
}

// The right report ends the doubt about the misspelt one.
func TestDoubtfulReports_EndWithTheRightOne(t *testing.T) {
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:03"))
	bad := run(pgs, "2026-02-04 06:02")
	bad.Processor, bad.Reported = "", "PlayerGameSumaryProcessor"
	w.mustDeliver(bad)
	doubts := func() []Doubt {
		books, err := w.engine.PeriodStates(context.Background(), w.tr, "2026-02-03", "2026-02-03")
		if err != nil {
			t.Fatal(err)
		}
		return books[0].Doubts()
	}
	if ds := doubts(); len(ds) != 1 || ds[0].DidYouMean != pgs {
		t.Fatalf("%v", ds)
	}
	w.clock.set(at("2026-02-04 06:03").Add(time.Minute))
	w.mustDeliver([]wire.Completion{run(pgs, "2026-02-04 06:04")}...)
	if ds := doubts(); len(ds) != 0 {
		t.Errorf("%v", ds)
	}
}

// A period that cannot be read does not hide the reports of another.
func TestDoubtfulReports_OfOtherPeriodsAreShownNextToABrokenOne(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, "memory")
	w.clock.set(at("2026-02-04 06:03"))
	for _, period := range []pipeline.Period{"2026-03-01", "2026-03-02", "2026-03-03"} {
		c := run(pgs, "2026-02-04 06:02")
		c.Period = period
		w.mustDeliver(c)
	}
	if _, err := w.store.Apply(ctx, store.Merge(w.engine.periodRef(w.key("2026-03-02")), store.F("damaged", "batches"))); err != nil {
		t.Fatal(err)
	}
	ahead, broken, err := w.engine.Ahead(ctx, w.tr)
	if err != nil || len(ahead) != 2 || ahead[0].Period != "2026-03-01" || ahead[1].Period != "2026-03-03" {
		t.Errorf("%v, error %v", ahead, err)
	}
	if len(broken) != 1 || !strings.Contains(broken[0].Error(), "2026-03-02: ") {
		t.Errorf("broken: %v", broken)
	}
}
