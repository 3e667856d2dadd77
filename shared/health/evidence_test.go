package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

// firstRun sets when a source has run first on a day; zero: it has not.
func (f *facts) firstRun(source string, day pipeline.Period, at time.Time) {
	f.firstRuns = slices.DeleteFunc(f.firstRuns, func(r warehouse.FirstRun) bool { return r.Source == source && r.Day == day })
	if !at.IsZero() {
		f.firstRuns = append(f.firstRuns, warehouse.FirstRun{Source: source, Day: day, At: at})
	}
}

func (f *facts) service(name string, edit func(*deployed.Service)) {
	s := f.services[name]
	edit(&s)
	f.services[name] = s
}

func (f *facts) function(name, source, definition string) {
	s := f.functions[name]
	s.source, s.definition = source, definition
	f.functions[name] = s
	if source != "" {
		f.seen[s.code()] = at("2026-01-01", 12, 0) // seen before what the others run
	}
}

// Planned work is quiet, and says so; what has nothing to do with its dates is not.
func TestMaintenance_PlannedWorkIsOKAndExplained(t *testing.T) {
	file := strings.Replace(string(pipeline.Default()), "\n  unseen_days:", "\n  maintenance: [{from: 2026-02-02, to: 2026-02-03, reason: tables move}]\n  unseen_days:", 1)
	planned, err := pipeline.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	w, _ := checker(t)
	key := cycle.Key{Transition: planned.Transitions[0], Period: night}
	r := wire.Completion{Processor: "player_game_summary", Reported: "x", Period: night, Status: wire.StatusSuccess, EventTime: at(today, 6, 0), ExecutionID: "x", CorrelationID: "x"}
	for _, day := range []pipeline.Period{"2026-02-01", night} {
		key.Period, r.Period = day, day
		if err := w.Engine.Record(t.Context(), key, r); err != nil {
			t.Fatal(err)
		}
	}
	const words = "2026-02-02 to 2026-02-03 is planned maintenance: tables move"
	for _, quiet := range []bool{false, true} {
		if quiet {
			w.App.Pipeline = planned
		}
		c := New(w.App)
		c.Dead = none
		got := by(c.Run(t.Context()))[HandOvers]
		all := strings.Join(got.Evidence, "\n")
		if got.State != Failing || !strings.Contains(all, "2026-02-01 overnight: overdue") || strings.Contains(all, "2026-02-03 overnight") == quiet || strings.Contains(all, words) != quiet {
			t.Errorf("quiet %v: %+v", quiet, got)
		}
	}
	f := sound(t)
	f.pipeline.Health.Maintenance = planned.Health.Maintenance
	f.firstRuns = nil // of the day after, too: sources fetch what the day before has brought
	f.runs[1].Began = f.runs[0].Began.Add(18 * time.Second)
	for _, id := range []string{LateUpstream, LockingActive} {
		if got := judged(f)[id]; got.State != OK {
			t.Errorf("%s: %+v", id, got)
		}
	}
	f.pipeline.Health.Maintenance[0].To = "2026-02-01" // it is over
	for _, id := range []string{LateUpstream, LockingActive} {
		if got := judged(f)[id]; got.State != Failing {
			t.Errorf("%s: %+v", id, got)
		}
	}
}

// While a whole transition is on hold its cycles are quiet, and the hold is not.
func TestHandOvers_TransitionOnHoldIsReportedOnce(t *testing.T) {
	f := sound(t)
	for range 3 {
		f.addCycle(cycle.Status{State: "on_hold", Reason: "deadline passed", Hold: &cycle.Hold{Whole: true, Until: morning.Add(time.Hour), Actor: "ada", Reason: "maintenance"}})
	}
	if got := judged(f)[HandOvers]; len(got.Evidence) != 2 || !strings.HasPrefix(got.Evidence[0], "phase3_to_phase4 is on hold") {
		t.Errorf("%s", got.Evidence)
	}
}

func TestChecks_ManyOverlapsAreSummarised(t *testing.T) {
	f := sound(t)
	f.runs = nil
	for i := range 20 {
		f.runs = append(f.runs, warehouse.ProcessorRun{Processor: "x", Period: night, ID: fmt.Sprint(i), Began: at(today, 6, i), Ended: at(today, 9, 0)})
	}
	if got := judged(f)[LockingActive]; len(got.Evidence) != mostShown+1 || got.Evidence[mostShown] != "and 14 more" {
		t.Errorf("%s", got.Evidence)
	}
}

// Without records the answer is unknown if work was expected.
func TestChecks_MissingRecordsAreUnknown(t *testing.T) {
	f := sound(t)
	f.compare(func(r *reconcile.Report) { r.Since, r.Tables, r.Shown, r.Periods = "", 0, 0, nil })
	got := judged(f)
	for _, id := range []string{TrackingAccuracy, HandOvers, ExpectedProcessors} {
		if got[id].State != Unknown || !strings.Contains(got[id].Evidence[0], "nothing was ever recorded, and work was expected") {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
}

// A deployment has a day to be reported to.
func TestRecorded_DeploymentHasADayToBeReportedTo(t *testing.T) {
	for hours, want := range map[int]State{0: OK, 23: OK, 25: Unknown} {
		f := sound(t)
		f.compare(func(r *reconcile.Report) { r.Since, r.Tables, r.Shown, r.Periods = "", 0, 0, nil })
		f.scheduled = map[string]time.Time{}
		for _, s := range f.pipeline.Schedules {
			f.scheduled[scheduleKey(s)] = f.now.Add(-time.Duration(hours) * time.Hour)
		}
		got := judged(f)
		for _, id := range []string{TrackingAccuracy, HandOvers, ExpectedProcessors} {
			if got[id].State != want {
				t.Errorf("%d hours after the deployment: %s: %+v", hours, id, got[id])
			}
		}
	}
}

// Runs of before the deployment could take no lock of ours.
func TestLockingActive_RunsOfBeforeTheDeploymentTakeNoLock(t *testing.T) {
	f := sound(t)
	f.lockedAt = time.Time{}
	f.scheduled = map[string]time.Time{scheduleKey(f.pipeline.Schedules[0]): f.now.Add(-time.Minute)}
	if got := judged(f)[LockingActive]; got.State != OK || !strings.Contains(got.Evidence[0], "since the deployment of") {
		t.Errorf("%+v", got)
	}
	f.scheduled[scheduleKey(f.pipeline.Schedules[0])] = f.now.AddDate(0, 0, -1)
	if got := judged(f)[LockingActive]; got.State != Failing {
		t.Errorf("%+v", got)
	}
}

// A dead scraper stays failing, although its days without a run count for the usual time.
func TestLateUpstream_DeadScraperStaysFailing(t *testing.T) {
	for dead := 1; dead <= 13; dead++ {
		f := sound(t)
		f.firstRuns = nil
		for day := f.pipeline.Calendar.Add(today, -usualDays); day <= today; day = f.pipeline.Calendar.Add(day, 1) {
			f.firstRun("bdl_box_scores", day, at(day, 6, 10)) // which goes on
			if day <= f.pipeline.Calendar.Add(today, -dead) {
				f.firstRun("nbac_gamebook", day, at(day, 6, 3))
			}
		}
		if got := judged(f)[LateUpstream]; got.State != Failing {
			t.Errorf("dead for %d days: %+v", dead, got)
		}
	}
}

func TestChecks_EvidenceIsNeverEmpty(t *testing.T) {
	f := sound(t)
	p := *f.pipeline
	p.Schedules = nil
	f.pipeline, f.functions = &p, nil
	for id, c := range judged(f) {
		if len(c.Evidence) == 0 {
			t.Errorf("%s: no evidence", id)
		}
	}
}

// The evidence says which, how many and since when. Several items have a command each; one has it
// as the action of the check.
func TestEvidence_NamesEachItemWithItsCommand(t *testing.T) {
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	f := &facts{pipeline: p}
	for want, found := range map[string]*reconcile.Finding{
		"leaked_lock 2026-02-03 P_2026-02-03 not renewed since 2026-02-04 06:05 EST": {Type: reconcile.LeakedLock, Period: "2026-02-03", Evidence: map[string]any{"lock": "P_2026-02-03", "renewed": time.Date(2026, 2, 4, 11, 5, 0, 0, time.UTC)}},
		"quarantine_waiting 3 messages":                                              {Type: reconcile.QuarantineWaiting, Evidence: map[string]any{"messages": 3}},
		"duplicate_rows 2026-02-03 d.t 10 rows too many":                             {Type: reconcile.DuplicateRows, Period: "2026-02-03", Table: "d.t", Evidence: map[string]any{"duplicates": int64(10)}},
	} {
		if got := f.describe(found); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	one := verdict{action: "phasectl status"}
	one.item("phasectl locks release A", "A")
	if c := one.check(); c.Action != "phasectl locks release A" || c.Evidence[0] != "A" {
		t.Errorf("%+v", c)
	}
	two := verdict{action: "phasectl status"}
	two.item("phasectl locks release A", "A")
	two.item("phasectl locks release B", "B")
	if c := two.check(); c.Action != "phasectl status" || c.Evidence[0] != "A: phasectl locks release A" || c.Evidence[1] != "B: phasectl locks release B" {
		t.Errorf("%+v", c)
	}
}

// A finding about rows has a number where one about a name has the name.
func TestDescribe_NamesReportedProcessorAlone(t *testing.T) {
	rows := int64(5)
	for want, evidence := range map[string]map[string]any{
		"phantom_completion 2026-02-03": {"reported": &rows}, `local_timestamp 2026-02-03 "Roster" (did you mean roster?)`: {"reported": "Roster", "did_you_mean": "roster"},
	} {
		kind, _, _ := strings.Cut(want, " ")
		if got := new(facts).describe(&reconcile.Finding{Type: kind, Period: "2026-02-03", Evidence: evidence}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
