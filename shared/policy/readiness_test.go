package policy

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestAssess_ComparesEachNumberWithItsBounds(t *testing.T) {
	coverage := pipeline.Check{Name: pipeline.MinutesCoverage, Warn: &pipeline.Bound{Op: "<", Limit: 90}, Block: &pipeline.Bound{Op: "<", Limit: 80}}
	nulls := pipeline.Check{Name: "null_pct", Warn: &pipeline.Bound{Op: ">=", Limit: 5}, Unknown: pipeline.UnknownWarns}
	for name, tc := range map[string]struct {
		coverage, nulls Measurement
		outcome         Outcome
		states          []string
		reasons         []string
		verified        bool
	}{
		"all_well":      {Measurement{Value: 97.44}, Measurement{Value: 4.9}, Passed, []string{"pass", "pass"}, nil, true},
		"on_the_bounds": {Measurement{Value: 80}, Measurement{Value: 5}, Passed, []string{"warn", "warn"}, []string{"minutes_coverage_pct is 80, warns when < 90", "null_pct is 5, warns when >= 5"}, true},
		"blocked":       {Measurement{Value: 71.4285}, Measurement{Value: 0}, Failed, []string{"fail", "pass"}, []string{"minutes_coverage_pct is 71.43, blocks when < 80"}, false},
		"unknown":       {Measurement{Problem: "no table"}, Measurement{Value: 0}, Unknown, []string{"unknown", "pass"}, []string{"minutes_coverage_pct unknown: no table"}, false},
		"both_unknown":  {Measurement{Problem: "down"}, Measurement{Problem: "down"}, Unknown, []string{"unknown", "unknown"}, []string{"minutes_coverage_pct and null_pct unknown: down"}, false},
		"tolerated":     {Measurement{Value: 100}, Measurement{Problem: "no column"}, Passed, []string{"pass", "unknown"}, []string{"null_pct unknown: no column"}, false},
		"fails_anyhow":  {Measurement{Value: 0}, Measurement{Problem: "no column"}, Failed, []string{"fail", "unknown"}, []string{"minutes_coverage_pct is 0, blocks when < 80", "null_pct unknown: no column"}, false},
		"no_number":     {Measurement{Value: math.NaN()}, Measurement{Value: math.Inf(-1)}, Unknown, []string{"unknown", "unknown"}, []string{"minutes_coverage_pct and null_pct unknown: is no finite number"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := Assess([]pipeline.Check{coverage, nulls}, []Measurement{tc.coverage, tc.nulls})
			if r.Outcome != tc.outcome || r.Verified() != tc.verified {
				t.Errorf("%s, verified %t", r.Outcome, r.Verified())
			}
			if diff := cmp.Diff(tc.reasons, r.Reasons); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			for i, c := range r.Checks {
				if c.State != tc.states[i] || (c.Value == nil) != (c.State == "unknown") {
					t.Errorf("%+v, want %s", c, tc.states[i])
				}
			}
			if got := r.MinutesCoverage; (got == nil) != (tc.states[0] == "unknown") || got != nil && *got != math.Round(tc.coverage.Value*10)/10 {
				t.Errorf("minutes coverage %v", got)
			}
		})
	}
	if r := Assess(nil, nil); r.Outcome != NotChecked || r.Verified() {
		t.Errorf("nothing was asked: %+v", r)
	}
	if r := Assess([]pipeline.Check{coverage, coverage}, []Measurement{{Value: 100}}); r.Outcome != Unknown {
		t.Errorf("an answer is missing: %+v", r)
	}
}

func TestAssess_GroupsChecksWithSameReason(t *testing.T) {
	checks := []pipeline.Check{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	down := Measurement{Problem: "down"}
	r := Assess(checks, []Measurement{down, down, down, down})
	if want := []string{"a, b, c and 1 more unknown: down"}; !slices.Equal(r.Reasons, want) {
		t.Errorf("%q", r.Reasons)
	}
}

// A cycle passes only if every check that may block was answered with a number on the right
// side of its bound.
func TestAssess_PassesOnlyIfEveryBlockingCheckIsWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.Ptr(rapid.Custom(func(t *rapid.T) pipeline.Bound {
			return pipeline.Bound{Op: rapid.SampledFrom([]string{"<", "<=", ">", ">="}).Draw(t, "op"), Limit: float64(rapid.IntRange(-2, 2).Draw(t, "limit"))}
		}), true)
		checks := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pipeline.Check {
			return pipeline.Check{Name: rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "name"), Warn: bound.Draw(t, "warn"), Block: bound.Draw(t, "block"),
				Unknown: rapid.SampledFrom([]pipeline.Unknown{"", pipeline.UnknownBlocks, pipeline.UnknownWarns}).Draw(t, "unknown")}
		}), 1, 5).Draw(t, "checks")
		measured := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Measurement {
			return Measurement{Value: rapid.OneOf(rapid.Float64(), rapid.Float64Range(-3, 3), rapid.Just(math.NaN())).Draw(t, "value"),
				Problem: rapid.SampledFrom([]string{"", "", "p", "q"}).Draw(t, "problem")}
		}), 0, 5).Draw(t, "measured")
		r := Assess(checks, measured)
		answered := func(i int) bool {
			return i < len(measured) && measured[i].Problem == "" && !math.IsNaN(measured[i].Value) && !math.IsInf(measured[i].Value, 0)
		}
		for i, c := range checks {
			right := answered(i) && !c.Block.Crossed(measured[i].Value)
			if r.Verified() && !right {
				t.Fatalf("verified although %s is not right: %+v", c.Name, r)
			}
			if r.Outcome == Passed && !right && (answered(i) || c.Unknown != pipeline.UnknownWarns) {
				t.Fatalf("passed although %s is not right: %+v", c.Name, r)
			}
		}
		if r.Outcome != Passed && len(r.Reasons) == 0 {
			t.Fatalf("%s without a reason", r.Outcome)
		}
		if !encodable(r) {
			t.Fatalf("cannot be kept: %+v", r)
		}
	})
}

// encodable: NaN and the infinities have no place in JSON.
func encodable(r Readiness) bool {
	_, err := json.Marshal(r)
	return err == nil
}

// The schedule matters only to an empty cycle, and closes it only if the schedule is known.
func TestPolicy_ClosesEmptyCycleOnlyIfScheduleExpectsNothing(t *testing.T) {
	tr := nba(t)
	m, _ := tr.Mode("same_day")
	none, some := int64(0), int64(208)
	run := func(count *int64, status wire.Status) Run {
		return Run{Key: "k", Completion: &wire.Completion{Processor: upg, Reported: upg, Status: status, EventTime: at("2026-02-03 10:35"), RecordCount: count}}
	}
	for name, tc := range map[string]struct {
		runs     []Run
		expected Expected
		began    []string
		when     string
		want     State
	}{
		"nothing_and_no_games":   {nil, ExpectedNone, nil, "2026-02-03 13:00", Closed},
		"nothing_and_games":      {nil, ExpectedSome, nil, "2026-02-03 13:00", Overdue},
		"nothing_and_unknown":    {nil, ExpectedUnknown, nil, "2026-02-03 13:00", Overdue},
		"known_before_deadline":  {nil, ExpectedNone, nil, "2026-02-03 11:00", Closed},
		"no_rows_and_no_games":   {[]Run{run(&none, wire.StatusSuccess)}, ExpectedNone, nil, "2026-02-03 11:00", Closed},
		"no_rows_and_unknown":    {[]Run{run(&none, wire.StatusSuccess)}, ExpectedUnknown, nil, "2026-02-03 11:00", Ready},
		"rows_and_no_games":      {[]Run{run(&some, wire.StatusSuccess)}, ExpectedNone, nil, "2026-02-03 11:00", Ready},
		"count_unknown":          {[]Run{run(nil, wire.StatusSuccess)}, ExpectedNone, nil, "2026-02-03 11:00", Ready},
		"rows_of_a_failed_run":   {[]Run{run(&some, wire.StatusFailed)}, ExpectedNone, nil, "2026-02-03 13:00", Closed},
		"begun_is_begun_anyhow":  {[]Run{run(&none, wire.StatusSuccess)}, ExpectedNone, []string{upg}, "2026-02-03 11:00", Ready},
		"partial_without_a_rows": {[]Run{run(&none, wire.StatusPartial)}, ExpectedNone, nil, "2026-02-03 11:00", Closed},
	} {
		in := Input{Transition: tr, Mode: m, Period: gameDay, Runs: tc.runs, Now: at(tc.when), Expected: tc.expected, Began: tc.began}
		if v := Decide(in); v.State != tc.want || v.Reason == "" {
			t.Errorf("%s: %s (%s), want %s", name, v.State, v.Reason, tc.want)
		}
	}
}
