package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	pgs  = "player_game_summary"
	tdef = "team_defense_game_summary"
	toff = "team_offense_game_summary"
	upg  = "upcoming_player_game_context"
	utg  = "upcoming_team_game_context"

	gameDay = pipeline.Period("2026-02-03") // over at 2026-02-04 00:00, too late from 2026-02-07 00:00
)

// nba returns the default's transition, with some of its YAML replaced: old, new, ….
func nba(t testing.TB, replace ...string) *pipeline.Transition {
	t.Helper()
	definition := string(pipeline.Default())
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(definition, replace[i]) {
			t.Fatalf("the definition has no %q", replace[i])
		}
		definition = strings.ReplaceAll(definition, replace[i], replace[i+1])
	}
	return parse(t, definition)
}

// fataler is a test, a benchmark or a check of a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func parse(t fataler, definition string) *pipeline.Transition {
	t.Helper()
	p, err := pipeline.Parse([]byte(definition))
	if err != nil {
		t.Fatalf("%v\n%s", err, definition)
	}
	return p.Transitions[0]
}

// at is a local time of the NBA pipeline, with or without seconds.
func at(s string) time.Time {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		panic(err)
	}
	layout := time.DateTime[:len(s)]
	t, err := time.ParseInLocation(layout, s, zone)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

// run is a successful run with 100 records. Its key is made of what makes it unlike
// the other runs of a test.
func run(processor, when string, edits ...func(*Run)) Run {
	r := Run{Key: processor + "@" + when, Completion: &wire.Completion{
		Processor: processor, Reported: processor, Period: gameDay, Status: wire.StatusSuccess,
		EventTime: at(when), ExecutionID: processor + "@" + when}}
	count(100)(&r)
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func status(s wire.Status) func(*Run) { return func(r *Run) { r.Status = s } }
func count(n int64) func(*Run)        { return func(r *Run) { r.RecordCount = &n } }
func noCount(r *Run)                  { r.RecordCount = nil }
func truncated(r *Run)                { r.Truncated = true }
func key(k string) func(*Run)         { return func(r *Run) { r.Key = k } }
func execution(id string) func(*Run)  { return func(r *Run) { r.ExecutionID = id } }
func entities(names ...string) func(*Run) {
	return func(r *Run) { r.Entities, r.Incremental = names, true }
}
func failed(errorType string) func(*Run) {
	return func(r *Run) { r.Status, r.ErrorType, r.ErrorMessage = wire.StatusFailed, errorType, "a long story" }
}
func unknown(r *Run) { r.Processor = "" }

// runs makes one run of each processor, all at one time.
func runs(when string, processors ...string) []Run {
	var out []Run
	for _, name := range processors {
		out = append(out, run(name, when))
	}
	return out
}

func names(s ...string) []string { return append([]string{}, s...) }

// input is what a decision about the game day in one mode depends on. now and
// graceStart may be empty.
func input(t testing.TB, tr *pipeline.Transition, mode, now, graceStart string, rs []Run) Input {
	t.Helper()
	m, ok := tr.Mode(mode)
	if !ok {
		t.Fatalf("no mode %s", mode)
	}
	in := Input{Transition: tr, Mode: m, Period: gameDay, Runs: rs}
	if now != "" {
		in.Now = at(now)
	}
	if graceStart != "" {
		in.GraceStart = at(graceStart)
	}
	return in
}

// decision is one row of a table of verdicts.
type decision struct {
	name       string
	mode       string
	now        string
	graceStart string
	runs       []Run
	want       Verdict
}

func check(t *testing.T, tr *pipeline.Transition, rows []decision) {
	t.Helper()
	for _, tc := range rows {
		t.Run(tc.name, func(t *testing.T) {
			if tc.want.Ignored == nil {
				tc.want.Ignored = names()
			}
			got := Decide(input(t, tr, tc.mode, tc.now, tc.graceStart, tc.runs))
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Verdict{}, "Policy", "Definition")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
