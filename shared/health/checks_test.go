package health

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/deployed"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
	"github.com/phasegate/phasegate/shared/warehouse"
)

// morning is 11:20 local time on 2026-02-04: the night's deadline has passed, and the
// morning's jobs have had their time.
var morning = time.Date(2026, 2, 4, 17, 20, 0, 0, time.UTC)

const (
	transition = "phase3_to_phase4"
	night      = pipeline.Period("2026-02-03")
	today      = pipeline.Period("2026-02-04")
)

// sound are facts of which nothing is wrong.
func sound(t *testing.T) *facts {
	t.Helper()
	p, err := pipeline.Parse(pipeline.Default())
	if err != nil {
		t.Fatal(err)
	}
	p.Hash = "def"
	f := &facts{pipeline: p, now: morning, today: today, day: today, dayAt: morning, comparedErr: map[string]error{}, lockedAt: morning.Add(-5 * time.Hour),
		deadNames: []string{"a-dead-letter"}, dead: map[string]int64{"a-dead-letter": 0}, functions: map[string]status{}}
	r := reconcile.Report{From: "2026-01-29", To: "2026-02-05", Tables: 20, Shown: 20, Since: "2026-01-01", Expected: map[pipeline.Period]int64{}}
	f.compared = map[string]reconcile.Report{transition: r}
	for day := pipeline.Period("2026-01-28"); day <= today; day = p.Calendar.Add(day, 1) {
		r.Expected[day] = 7
		f.firstRuns = append(f.firstRuns, warehouse.FirstRun{Source: "nbac_gamebook", Day: day, At: at(day, 6, 3)}, warehouse.FirstRun{Source: "evening_odds", Day: day, At: at(day, 17, 0)})
	}
	f.runs = []warehouse.ProcessorRun{{Processor: "PlayerGameSummaryProcessor", Period: night, ID: "a", Began: at(today, 6, 3), Ended: at(today, 6, 4)},
		{Processor: "PlayerGameSummaryProcessor", Period: night, ID: "b", Began: at(today, 7, 10), Ended: at(today, 7, 11)}}
	for _, name := range []string{"reconcile", "sweep", "health"} {
		f.functions[name] = status{source: "abc", definition: "def", hasChannel: true, channel: "Slack, #night", heartbeats: map[string]time.Time{"relay": morning.Add(-3 * time.Minute),
			"nightly": at(today, 10, 31), "sweep": at(today, 10, 51), "health": at(today, 11, 5)}}
	}
	f.services = map[string]deployed.Service{}
	for _, name := range []string{"phasegate-health", "phasegate-transition", "nba-phase3-analytics-processors", "nba-phase4-precompute-processors"} {
		f.services[name] = deployed.Service{Region: "us-central1", Created: name + "-7", Ready: name + "-7", Commit: "4f2a", Traffic: []deployed.Target{{Revision: name + "-7", Latest: true, Percent: 100}}}
	}
	f.ownServices = []string{"phasegate-health", "phasegate-transition"}
	f.seen = map[string]time.Time{f.functions["reconcile"].code(): at("2026-02-01", 12, 0)}
	return f
}

// at is a local time of a day.
func at(day pipeline.Period, hour, minute int) time.Time {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		panic(err)
	}
	d, err := time.ParseInLocation(time.DateOnly, string(day), zone)
	if err != nil {
		panic(err)
	}
	return d.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute).UTC()
}

func judged(f *facts) map[string]Check {
	out := map[string]Check{}
	for _, c := range checks {
		out[c.id] = c.judge(f)
	}
	return out
}

// compare changes what reconciliation says.
func (f *facts) compare(edit func(*reconcile.Report)) {
	r := f.compared[transition]
	edit(&r)
	f.compared[transition] = r
}

func (f *facts) find(found reconcile.Finding) {
	f.compare(func(r *reconcile.Report) { r.Findings = append(r.Findings, &found) })
}

// books gives one cycle of the night a status.
func (f *facts) addCycle(st cycle.Status) {
	f.compare(func(r *reconcile.Report) {
		st.Period, st.Mode = string(night), "overnight"
		r.Periods = append(r.Periods, cycle.PeriodState{Key: cycle.Key{Transition: f.pipeline.Transitions[0], Period: night}, Cycles: []cycle.Status{st}})
	})
}

var errAway = errors.New("it is away")

func TestChecks_HealthyPipelineIsOK(t *testing.T) {
	for id, c := range judged(sound(t)) {
		if c.State != OK && id != ExpectedProcessors || len(c.Evidence) == 0 || c.Action != "" {
			t.Errorf("%s: %+v", id, c)
		}
	}
}

// Each problem is found by its own check, which names the problem and the suggested command.
// No unrelated check finds it.
func TestChecks_EachProblemIsFoundByItsOwnCheck(t *testing.T) {
	relayAt := func(at time.Time) func(*facts) {
		return func(f *facts) { f.functions["reconcile"].heartbeats["relay"] = at }
	}
	finding := func(kind string, severity reconcile.Severity) func(*facts) {
		return func(f *facts) {
			f.find(reconcile.Finding{Type: kind, Period: night, Table: "nba_analytics.player_game_summary", Severity: severity, Status: reconcile.Open, Evidence: map[string]any{}, Repair: "phasectl help-this"})
		}
	}
	for name, c := range map[string]struct {
		wrong    func(*facts)
		check    string
		state    State
		evidence string
	}{
		"1_of_5_shown": {func(f *facts) { f.compare(func(r *reconcile.Report) { r.Shown = 12 }) }, TrackingAccuracy, Failing, "60.0 %"},
		"overdue":      {func(f *facts) { f.addCycle(cycle.Status{State: "overdue", Reason: "deadline 10:00 EST passed"}) }, HandOvers, Failing, "2026-02-03 overnight: overdue: deadline 10:00 EST passed"},
		"blocked_for_long": {func(f *facts) {
			f.addCycle(cycle.Status{State: "blocked", Reason: "minutes", Since: morning.Add(-time.Hour)})
		}, HandOvers, Failing, "blocked since 2026-02-04 11:20 EST: minutes"},
		"due_and_left": {func(f *facts) { f.addCycle(cycle.Status{State: "waiting", Due: true, Since: morning.Add(-time.Hour)}) }, HandOvers, Failing, "due since 2026-02-04 11:20 EST"},
		"publishing_for_long": {func(f *facts) {
			f.addCycle(cycle.Status{Batches: []cycle.BatchStatus{{State: cycle.StatePublishing, DueAt: morning.Add(-time.Hour)}}})
		}, HandOvers, Failing, "publishing since"},
		"degraded": {func(f *facts) {
			f.addCycle(cycle.Status{State: "published", Missing: []string{"team_defense_game_summary"}, Batches: []cycle.BatchStatus{{State: cycle.StatePublished, Cause: "critical_plus_majority_80pct", PublishedAt: morning.Add(-time.Hour)}}})
		}, HandOvers, Failing, "handed over without team_defense_game_summary"},
		"publishing_for_long_behind_a_hold": {func(f *facts) { // it is frozen: the hold is about what comes next
			f.addCycle(cycle.Status{State: "publishing", Hold: &cycle.Hold{Whole: true, Until: morning.Add(time.Hour), Actor: "ada", Reason: "maintenance"},
				Batches: []cycle.BatchStatus{{State: cycle.StatePublishing, DueAt: morning.Add(-time.Hour)}}})
		}, HandOvers, Failing, "publishing since"},
		"books_away":             {func(f *facts) { f.comparedErr[transition] = errAway }, HandOvers, Unknown, "it is away"},
		"next_phase":             {finding(reconcile.NextPhaseMissing, reconcile.Critical), NextPhase, Failing, "next_phase_missing 2026-02-03"},
		"duplicates_however_few": {finding(reconcile.DuplicateRows, reconcile.Info), Duplicates, Failing, "duplicate_rows 2026-02-03 nba_analytics.player_game_summary"},
		"missing_completion":     {finding(reconcile.MissingCompletion, reconcile.Critical), Reconciliation, Failing, "missing_completion 2026-02-03"},
		"local_timestamp":        {finding(reconcile.LocalTimestamp, reconcile.Warning), Reconciliation, Failing, "local_timestamp 2026-02-03 nba_analytics.player_game_summary"},
		"doubtful_report": {func(f *facts) {
			r := f.compared[transition]
			r.Findings = append(r.Findings, &reconcile.Finding{Type: reconcile.DoubtfulReport, Period: "2062-02-03", Severity: reconcile.Warning, Status: reconcile.Open,
				Evidence: map[string]any{"reported": "player_game_summary", "did_you_mean": "2026-02-03"}})
			f.compared[transition] = r
		}, Reconciliation, Failing, `doubtful_report 2062-02-03 "player_game_summary" (did you mean 2026-02-03?)`},
		"renamed":              {finding(reconcile.Renamed, reconcile.Critical), Reconciliation, Failing, "renamed 2026-02-03"},
		"leaked_lock":          {finding(reconcile.LeakedLock, reconcile.Warning), Locks, Failing, "leaked_lock"},
		"quarantine":           {finding(reconcile.QuarantineWaiting, reconcile.Warning), Quarantine, Failing, "quarantine_waiting"},
		"dead_letters":         {func(f *facts) { f.dead["a-dead-letter"] = 3 }, DeadLetterMessages, Failing, "3 messages wait in a-dead-letter"},
		"dead_letters_gone":    {func(f *facts) { delete(f.dead, "a-dead-letter") }, DeadLetterMessages, Failing, "the subscription a-dead-letter does not exist"},
		"dead_letters_in_part": {func(f *facts) { f.dead["a-dead-letter"], f.deadErr = 3, errAway }, DeadLetterMessages, Failing, "3 messages wait in a-dead-letter"},
		"dead_letters_away":    {func(f *facts) { f.deadErr = errAway }, DeadLetterMessages, Unknown, "it is away"},
		"scraper_8_hours_late": {func(f *facts) { f.firstRun("nbac_gamebook", today, at(today, 14, 45)) }, LateUpstream, Failing, "nbac_gamebook ran first at 14:45 EST, expected by 08:00 EST"},
		"scraper_missing":      {func(f *facts) { f.firstRun("nbac_gamebook", today, time.Time{}) }, LateUpstream, Failing, "nbac_gamebook has not run on 2026-02-04, expected by 08:00 EST"},
		"nothing_upstream":     {func(f *facts) { f.firstRuns = nil }, LateUpstream, Failing, "nothing has run upstream"},
		"nothing_upstream_and_no_schedule": {func(f *facts) {
			f.firstRuns = nil
			f.compare(func(r *reconcile.Report) { r.Expected = nil })
		}, LateUpstream, Unknown, "it is unknown whether work was expected"},
		"scraper_missing_and_no_schedule": {func(f *facts) { // of a date long ago, too: it may have been a break
			f.firstRun("nbac_gamebook", today, time.Time{})
			f.compare(func(r *reconcile.Report) { delete(r.Expected, night) })
		}, LateUpstream, Unknown, "nbac_gamebook has not run on 2026-02-04, and it is unknown whether work was expected the day before"},
		"dead_before_midnight": {func(f *facts) {
			f.firstRun("nbac_gamebook", night, time.Time{})
			f.firstRun("nbac_gamebook", today, time.Time{})
			f.dayAt = at(today, 1, 5)
		}, LateUpstream, Failing, "nbac_gamebook has not run on 2026-02-03"},
		"degraded_by_a_repair": {func(f *facts) {
			f.addCycle(cycle.Status{State: "published", Missing: []string{"team_defense_game_summary"}, Batches: []cycle.BatchStatus{{State: cycle.StatePublished, Cause: cycle.CauseReconciliation}}})
		}, HandOvers, Failing, "handed over without team_defense_game_summary"},
		"one_period_unreadable": {func(f *facts) {
			f.compare(func(r *reconcile.Report) {
				r.Periods = append(r.Periods, cycle.PeriodState{Key: cycle.Key{Transition: f.pipeline.Transitions[0], Period: night}, Problem: errAway})
			})
		}, HandOvers, Unknown, "2026-02-03: it is away"},
		"locks_taken_no_more": {func(f *facts) { f.lockedAt = morning.Add(-6 * 24 * time.Hour) }, LockingActive, Failing, "a run began at 2026-02-04 07:10 EST, and no lock was taken since 2026-01-29 12:20 EST"},
		"upstream_away":       {func(f *facts) { f.firstErr = errAway }, LateUpstream, Unknown, "it is away"},
		"two_at_once":         {func(f *facts) { f.runs[1].Began = f.runs[0].Began.Add(18 * time.Second) }, LockingActive, Failing, "two runs of PlayerGameSummaryProcessor for 2026-02-03 at once: a from 2026-02-04 06:03 EST and b"},
		"two_at_once_by_name": {func(f *facts) {
			f.runs[1].Began, f.runs[1].Processor = f.runs[0].Began.Add(18*time.Second), "player_game_summary"
		}, LockingActive, Failing, "at once"},
		"one_died_beside_another": {func(f *facts) { f.runs[0].Ended, f.runs[1].Began = time.Time{}, f.runs[0].Began.Add(18*time.Second) }, LockingActive, Failing, "at once"},
		"nobody_locks":            {func(f *facts) { f.lockedAt = time.Time{} }, LockingActive, Failing, "2 runs in the last 7 days, and none has taken a lock"},
		"history_partly_unread": {func(f *facts) {
			f.runs[1].Began, f.runsErr = f.runs[0].Began.Add(18*time.Second), errAway
		}, LockingActive, Failing, "two runs of PlayerGameSummaryProcessor for 2026-02-03 at once"},
		"history_away":    {func(f *facts) { f.runsErr = errAway }, LockingActive, Unknown, "it is away"},
		"locks_away":      {func(f *facts) { f.lockedErr = errAway }, LockingActive, Unknown, "it is away"},
		"relay_dead":      {relayAt(morning.Add(-16 * time.Minute)), Heartbeats, Failing, "relay has not finished since 2026-02-04 12:04 EST"},
		"relay_never":     {relayAt(time.Time{}), Heartbeats, Failing, "relay has never finished, and was due at 2026-02-04 12:15 EST"},
		"relay_never_yet": {func(f *facts) { relayAt(time.Time{})(f); f.firstEvaluation = true }, Heartbeats, Unknown, "relay has never finished"},
		"nightly_never_since": {func(f *facts) {
			delete(f.functions["reconcile"].heartbeats, "nightly")
			f.scheduled = map[string]time.Time{"nightly 30 10 * * *": at(today, 10, 0)}
		}, Heartbeats, Failing, "nightly has never finished, and was due at 2026-02-04 10:30 EST"},
		"nightly_dead":       {func(f *facts) { f.functions["reconcile"].heartbeats["nightly"] = at(night, 10, 31) }, Heartbeats, Failing, "nightly has not finished since 2026-02-03 10:31 EST, and was due at 2026-02-04 10:30 EST"},
		"heartbeats_away":    {func(f *facts) { f.statusErr = errAway }, Heartbeats, Unknown, "it is away"},
		"another_source":     {func(f *facts) { f.function("sweep", "fff", "def") }, DeployedCode, Failing, "sweep runs source fff, pipeline file def, and the newest is source abc, pipeline file def, since 2026-02-01 12:00 EST"},
		"another_definition": {func(f *facts) { f.function("sweep", "abc", "fff") }, DeployedCode, Failing, "sweep runs source abc, pipeline file fff"},
		"never_deployed":     {func(f *facts) { f.function("sweep", "", "") }, DeployedCode, Unknown, "sweep has not reported its source yet"},
		"without_definition": {func(f *facts) { f.function("sweep", "abc", "") }, DeployedCode, Unknown, "sweep has not reported its source yet"},
		"without_source":     {func(f *facts) { f.function("sweep", "", "def") }, DeployedCode, Unknown, "sweep has not reported its source yet"},
		"service_missing":    {func(f *facts) { delete(f.services, "phasegate-transition") }, DeployedServices, Failing, "phasegate-transition does not exist"},
		"service_unnamed":    {func(f *facts) { delete(f.services, "nba-phase3-analytics-processors") }, DeployedServices, Failing, "nba-phase3-analytics-processors does not exist"},
		"old_revision": {func(f *facts) {
			f.service("nba-phase4-precompute-processors", func(s *deployed.Service) { s.Traffic = []deployed.Target{{Revision: "x-6", Percent: 100}} })
		}, DeployedServices, Failing, "nba-phase4-precompute-processors: 100 % of its traffic go to x-6, and the latest revision is nba-phase4-precompute-processors-7"},
		"half_deployed": {func(f *facts) {
			f.service("phasegate-health", func(s *deployed.Service) { s.Created = "phasegate-health-8" })
		}, DeployedServices, Failing, "phasegate-health: revision phasegate-health-8 was made and is not ready"},
		"no_commit": {func(f *facts) {
			f.service("nba-phase3-analytics-processors", func(s *deployed.Service) { s.Commit = "" })
		}, DeployedServices, Unknown, "no label commit-sha"},
		"services_away": {func(f *facts) { f.servicesErr = errAway }, DeployedServices, Unknown, "it is away"},
		"no_channel": {func(f *facts) {
			s := f.functions["reconcile"]
			s.hasChannel, s.channel = false, "SLACK_CHANNEL: is required"
			f.functions["reconcile"] = s
		}, Configuration, Failing, "reconcile has no Slack channel: SLACK_CHANNEL: is required"},
		"channel_unsaid": {func(f *facts) {
			s := f.functions["sweep"]
			s.hasChannel, s.channel = false, ""
			f.functions["sweep"] = s
		}, Configuration, Unknown, "sweep has not reported its Slack channel yet"},
		"channel_away":           {func(f *facts) { f.statusErr = errAway }, Configuration, Unknown, "it is away"},
		"judged_by_another_file": {func(f *facts) { f.pipeline.Hash = "mine" }, Configuration, Unknown, "this check uses pipeline file mine, and no function runs it"},
		"unread_table":           {func(f *facts) { f.compare(func(r *reconcile.Report) { r.Unknown = []string{"nba_analytics.x: gone"} }) }, Duplicates, Unknown, "nba_analytics.x: gone"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.wrong(f)
			got := judged(f)
			check := got[c.check]
			if check.State != c.state || !strings.Contains(strings.Join(check.Evidence, "\n"), c.evidence) || check.Action == "" {
				t.Errorf("%+v, want %s: %s", check, c.state, c.evidence)
			}
			for id, other := range got {
				shared := strings.HasSuffix(name, "_away") || name == "unread_table" || id == ExpectedProcessors
				if id != c.check && other.State != OK && !shared {
					t.Errorf("and %s is %s: %s", id, other.State, other.Evidence)
				}
			}
		})
	}
}

// A check that is quiet for a reason is ok, and names the reason.
func TestChecks_NormalSilenceIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		quiet    func(*facts)
		check    string
		evidence string
	}{
		"no_service_is_named": {func(f *facts) {
			for i := range f.pipeline.Phases {
				f.pipeline.Phases[i].Service = ""
			}
		}, DeployedServices, "the pipeline file names no service of phase_3_analytics"},
		"early":          {func(f *facts) { f.firstRun("nbac_gamebook", today, time.Time{}); f.dayAt = at(today, 7, 0) }, LateUpstream, "those of 2026-02-04 are expected by 08:00 EST, and failing after 10:00 EST"},
		"not_yet":        {func(f *facts) { f.firstRun("nbac_gamebook", today, time.Time{}); f.dayAt = at(today, 9, 0) }, LateUpstream, "those of 2026-02-04 are expected by 08:00 EST, and failing after 10:00 EST"},
		"late_and_there": {func(f *facts) { f.firstRun("nbac_gamebook", today, at(today, 9, 30)) }, LateUpstream, "nbac_gamebook was late on 2026-02-04: 09:30"},
		"off_season": {func(f *facts) {
			f.firstRuns = nil
			f.compare(func(r *reconcile.Report) { r.Expected = map[pipeline.Period]int64{night: 0, "2026-02-02": 0, today: 0} })
		}, LateUpstream, "no work was expected"},
		"first_day_after_a_break": {func(f *facts) {
			f.firstRuns = nil
			f.dayAt = at(today, 5, 0)
			f.compare(func(r *reconcile.Report) { r.Expected = map[pipeline.Period]int64{"2026-02-02": 0, night: 0, today: 2} })
		}, LateUpstream, "nothing has run upstream on 2026-02-03, and no work was expected"},
		"first_runs_after_a_break": {func(f *facts) {
			f.firstRuns = []warehouse.FirstRun{{Source: "nbac_gamebook", Day: today, At: at(today, 6, 3)}}
		}, LateUpstream, "the usual upstream runs are not known yet; 1 source has run on 2026-02-04"},
		"on_hold": {func(f *facts) {
			f.addCycle(cycle.Status{Period: string(night), Mode: "overnight", State: "on_hold", Hold: &cycle.Hold{Until: morning.Add(time.Hour), Actor: "ada", Reason: "box scores"}})
		}, HandOvers, "2026-02-03 overnight is on hold until 2026-02-04 13:20 EST: box scores (ada); to end it: phasectl release 2026-02-03 overnight --reason '…'"},
		"all_on_hold": {func(f *facts) {
			f.addCycle(cycle.Status{State: "on_hold", Hold: &cycle.Hold{Whole: true, Until: morning.Add(time.Hour), Actor: "ada", Reason: "maintenance"}})
		}, HandOvers, "phase3_to_phase4 is on hold until 2026-02-04 13:20 EST: maintenance (ada); to end it: phasectl release --reason '…'"},
		"made_up_for_since": {func(f *facts) {
			f.compare(func(r *reconcile.Report) {
				r.Periods = append(r.Periods, cycle.PeriodState{Key: cycle.Key{Transition: f.pipeline.Transitions[0], Period: night}, Cycles: []cycle.Status{
					{Period: string(night), Mode: "same_day", State: "overdue", Reason: "deadline 13:00 EST passed"},
					{Period: string(night), Mode: "overnight", State: "published", Batches: []cycle.BatchStatus{{State: cycle.StatePublished}}}}})
			})
		}, HandOvers, "2026-02-03 same_day: overdue: deadline 13:00 EST passed; overnight was handed over since"},
		"degraded_long_ago": {func(f *facts) {
			f.addCycle(cycle.Status{State: "published", Missing: []string{"team_defense_game_summary"}, Batches: []cycle.BatchStatus{{State: cycle.StatePublished}}})
			f.now = morning.Add(24 * time.Hour)
		}, HandOvers, "every cycle"},
		"deployed_a_moment_ago": {func(f *facts) { // the relay has run since, the daily sweep has not
			f.function("reconcile", "fff", "def")
			f.function("health", "fff", "def")
			delete(f.seen, f.functions["health"].code())
			f.seen = seen(f.functions, f.seen)
		}, DeployedCode, "sweep has not run since 2026-02-04 12:17 EST"},
		"an_old_instance_ends_after_a_deployment": {func(f *facts) { // which comes function by function, and health looks once an hour
			f.function("reconcile", "fff", "def")
			f.function("sweep", "fff", "def")
			f.seen[f.functions["sweep"].code()] = at(today, 11, 4)
			h := f.functions["health"]
			h.heartbeats = map[string]time.Time{"health": at(today, 11, 5)}
			f.functions["health"] = h
		}, DeployedCode, "health has ended a job just after"},
		"degraded_before_its_deadline": {func(f *facts) { // the fifth one is usually there at half past six
			f.addCycle(cycle.Status{State: "published", Missing: []string{"team_defense_game_summary"}, Batches: []cycle.BatchStatus{{State: cycle.StatePublished}}})
			f.now = at(today, 5, 5)
		}, HandOvers, "every cycle"},
		"no_games_the_night_before": {func(f *facts) {
			f.firstRun("nbac_gamebook", today, time.Time{})
			f.compare(func(r *reconcile.Report) { r.Expected[night] = 0 })
		}, LateUpstream, "nbac_gamebook has not run on 2026-02-04, and no work was expected the day before"},
		"before_it_was_managed": {func(f *facts) { // the first completions are of last night
			f.addCycle(cycle.Status{State: "overdue", Reason: "deadline 13:00 EST passed: 0 of 2 complete"})
			f.compare(func(r *reconcile.Report) { r.Since = night })
		}, HandOvers, "every cycle"},
		"a_backfill": {func(f *facts) {
			f.lockedAt = time.Time{}
			for i := range f.runs {
				f.runs[i].Period = "2025-11-05"
			}
		}, LockingActive, "no processor has run for the last 7 days"},
		"a_retry_after_a_crash": {func(f *facts) {
			f.runs[0].Ended = time.Time{}
			f.runs[1].Began, f.runs[1].Ended = f.runs[0].Began.Add(2*time.Minute), f.runs[0].Began.Add(3*time.Minute)
		}, LockingActive, "no two at once"},
		"one_that_ran_once": {func(f *facts) { f.firstRun("backfill", "2026-02-01", at("2026-02-01", 6, 0)) }, LateUpstream, "1 source is expected"},
		"nobody_ran":        {func(f *facts) { f.runs, f.lockedAt = nil, time.Time{} }, LockingActive, "no processor has run"},
		"a_run_that_died":   {func(f *facts) { f.runs[0].Ended = time.Time{} }, LockingActive, "no two at once"},
		"not_due_since_deployed": {func(f *facts) {
			delete(f.functions["reconcile"].heartbeats, "nightly")
			f.scheduled = map[string]time.Time{"nightly 30 10 * * *": at(today, 10, 45)}
		}, Heartbeats, "nightly has not been due since 2026-02-04 10:45 EST, when its schedule was first seen"},
		"another_time_of_day": {func(f *facts) { // nightly ran at 10:31 of the day before, by another schedule
			f.functions["reconcile"].heartbeats["nightly"] = at(night, 10, 31)
			f.scheduled = map[string]time.Time{"nightly 30 10 * * *": at(today, 12, 0)}
		}, Heartbeats, "nightly has not been due since 2026-02-04 12:00 EST"},
		"function_not_due": {func(f *facts) {
			f.functions["sweep"] = status{}
			f.scheduled = map[string]time.Time{"sweep 50 10 * * *": at(today, 11, 0)}
		}, DeployedCode, "sweep has had nothing to do yet"},
		"channel_not_due": {func(f *facts) {
			f.functions["sweep"] = status{}
			f.scheduled = map[string]time.Time{"sweep 50 10 * * *": at(today, 11, 0)}
		}, Configuration, "sweep has had nothing to do yet"},
		"relay_under_way": {func(f *facts) { f.functions["reconcile"].heartbeats["relay"] = morning.Add(-6 * time.Minute) }, Heartbeats, "relay: 2026-02-04 12:14"},
		"nightly_under_way": {func(f *facts) {
			f.now = at(today, 10, 40)
			f.functions["reconcile"].heartbeats["nightly"] = at(night, 10, 31)
			f.functions["reconcile"].heartbeats["relay"] = f.now
		}, Heartbeats, "nightly: 2026-02-03 10:31"},
		"blocked_a_moment_ago": {func(f *facts) { f.addCycle(cycle.Status{State: "blocked", Since: morning.Add(-time.Minute)}) }, HandOvers, "or is not due yet"},
		"waiting":              {func(f *facts) { f.addCycle(cycle.Status{State: "waiting"}) }, HandOvers, "or is not due yet"},
		"waiting_for_a_failed_one": {func(f *facts) {
			f.addCycle(cycle.Status{State: "waiting", Mode: "overnight", Failed: []string{"player_game_summary"}})
		}, HandOvers, "overnight waits for player_game_summary, which failed; to see why: phasectl explain"},
		"waiting_for_a_failed_one_and_the_rest": {func(f *facts) {
			f.addCycle(cycle.Status{State: "waiting", Mode: "overnight", Failed: []string{"player_game_summary"}})
		}, HandOvers, "every other cycle"},
		"skipped": {func(f *facts) {
			f.find(reconcile.Finding{Type: reconcile.Untriggered, Severity: reconcile.Info, Status: reconcile.Skipped})
		}, Reconciliation, "agree"},
		"in_shadow": {func(f *facts) { // there are no documents of ours
			f.addCycle(cycle.Status{State: "waiting"})
			f.compare(func(r *reconcile.Report) { r.Tables, r.Shown, r.Periods[0].Recorded = 0, 0, true })
		}, TrackingAccuracy, "no table has rows of the last 7 days that must be shown as complete"},
		"no_rows": {func(f *facts) { f.compare(func(r *reconcile.Report) { r.Tables, r.Shown = 0, 0 }) }, TrackingAccuracy, "no table has rows"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.quiet(f)
			if got := judged(f)[c.check]; got.State != OK || !strings.Contains(strings.Join(got.Evidence, "\n"), c.evidence) {
				t.Errorf("%+v, want ok: %s", got, c.evidence)
			}
		})
	}
}
