//go:build unix && !race

package cycle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/pipeline"
)

// simFamily is a pipeline definition and, where there is a second, the one that takes
// its place while the pipeline runs.
type simFamily struct {
	name     string
	versions []*simRules
	texts    []simText // reports to choose from, decoded once
	byKey    map[string]*simRun
	good     []map[string][]*simText
}

// simRules is a pipeline definition in the simulation's own terms. The YAML that the engine
// runs on is made from it, and the oracle judges by it. So the oracle does not share a fault
// of the parser, the gate or the engine.
type simRules struct {
	version int
	zone    string
	start   time.Time // the first instant of simPeriod in that zone
	end     time.Time
	order   []string
	modes   []simMode
	tr      *pipeline.Transition
}

// simMode is one mode; times are durations since the period's start.
type simMode struct {
	name       string // under which it is stored
	now        string // its present name, "" for the same
	relation   int    // of its runs' event times to the period: -1 before, 0 within, 1 after
	critical   []string
	optional   []string
	all        bool // complete only with the optional ones
	quorum     int  // per cent; 0: no grace
	grace      time.Duration
	from       time.Duration
	earlier    []string
	notBefore  time.Duration
	deadline   time.Duration
	handOver   bool // at the deadline
	secondRuns bool // resend_if_changed
}

const (
	simPeriod = pipeline.Period("2026-02-03")
	simWithin = 72 * time.Hour  // trigger_within
	simEvery  = 2 * time.Minute // second_runs_every
	simNever  = time.Duration(math.MinInt64)
	simID     = "p_to_q"
)

// Processors: every second one is of a kind of its own.
const (
	alpha = "alpha_table"
	beta  = "beta_table"
	gamma = "gamma_table"
	delta = "delta_table"
)

var simKinds = map[string]string{alpha: "players", beta: "teams", gamma: "players", delta: "teams"}

func (m simMode) shown() string { return cmp.Or(m.now, m.name) }

func (m simMode) names() []string { return slices.Concat(m.critical, m.optional) }

func (r *simRules) mode(name string) int {
	return slices.IndexFunc(r.modes, func(m simMode) bool { return m.name == name })
}

// stored returns the name under which a mode is stored that is shown by another.
func (r *simRules) stored(shown string) string {
	for _, m := range r.modes {
		if m.shown() == shown {
			return m.name
		}
	}
	return shown
}

// simFamilies are the policies that the simulation runs. Each is one combination of modes,
// grace periods, times, second runs and changes of the definition.
var simFamilies = sync.OnceValue(func() []*simFamily {
	hour := time.Hour
	night := simMode{name: "night", relation: 1, critical: []string{alpha, beta, gamma}, all: true,
		from: 0, notBefore: simNever, deadline: simNever}
	graceful := simMode{name: "night", relation: 1, critical: []string{alpha}, optional: []string{beta, gamma}, all: true,
		quorum: 60, grace: 30 * time.Minute, from: 18 * hour, notBefore: 29 * hour, deadline: 34 * hour, secondRuns: true}
	day := simMode{name: "day", relation: 0, critical: []string{gamma}, optional: []string{delta},
		from: 10 * hour, notBefore: simNever, deadline: 13 * hour}
	full := graceful
	full.critical, full.optional = []string{alpha, gamma}, []string{beta, delta}
	full.earlier = []string{gamma, delta}
	eve := simMode{name: "eve", relation: -1, critical: []string{gamma}, optional: []string{delta},
		from: -8 * hour, notBefore: simNever, deadline: -3 * hour}
	hasty := simMode{name: "night", relation: 1, critical: []string{alpha}, optional: []string{beta, gamma, delta}, all: true,
		quorum: 50, grace: 10 * time.Minute, from: 24 * hour, notBefore: simNever, deadline: simNever}
	strict := simMode{name: "night", relation: 1, critical: []string{alpha}, optional: []string{beta, delta}, all: true,
		from: 24 * hour, notBefore: simNever, deadline: 31 * hour, handOver: true, secondRuns: true}
	with := func(m simMode, change func(*simMode)) simMode { change(&m); return m }
	return []*simFamily{
		simBuild("night_all", "UTC", []simMode{night}),
		simBuild("night_grace", "UTC", []simMode{graceful}, // a processor becomes critical
			[]simMode{with(graceful, func(m *simMode) { m.critical, m.optional = []string{alpha, beta}, []string{gamma} })}),
		simBuild("day_ignore", "UTC", []simMode{day}, // second runs are handed over
			[]simMode{with(day, func(m *simMode) { m.secondRuns = true })}),
		simBuild("day_resend", "UTC", // a processor is retired
			[]simMode{with(day, func(m *simMode) { m.secondRuns, m.deadline = true, simNever })},
			[]simMode{with(day, func(m *simMode) { m.secondRuns, m.deadline, m.optional = true, simNever, nil })}),
		simBuild("day_and_night", "UTC", []simMode{day, full}, // the second mode waits for all, at any hour
			[]simMode{day, with(full, func(m *simMode) { m.quorum, m.notBefore = 100, simNever })}),
		simBuild("like_nba", "America/New_York", []simMode{eve, day, full}, // a mode has another name
			[]simMode{eve, day, with(full, func(m *simMode) { m.now = "late" })}),
		simBuild("night_hasty", "UTC", // a processor is gained, and the grace is longer
			[]simMode{with(hasty, func(m *simMode) { m.optional = []string{beta, gamma} })},
			[]simMode{with(hasty, func(m *simMode) { m.grace = 40 * time.Minute })}),
		simBuild("night_promoted", "UTC", []simMode{hasty}, // a quorum is not met any more, and then is again
			[]simMode{with(hasty, func(m *simMode) { m.critical, m.optional = []string{alpha, beta}, []string{gamma, delta} })}),
		simBuild("night_deadline", "UTC", []simMode{strict}, // an incomplete cycle is not handed over at the deadline
			[]simMode{with(strict, func(m *simMode) { m.handOver = false })}),
		simBuild("night_overdue", "UTC", []simMode{with(full, func(m *simMode) { m.handOver, m.quorum, m.notBefore = true, 75, 30*hour })}),
	}
})

func simBuild(name, zone string, versions ...[]simMode) *simFamily {
	f := &simFamily{name: name, byKey: map[string]*simRun{}}
	for i, modes := range versions {
		f.versions = append(f.versions, simRulesOf(i, zone, modes))
	}
	f.write()
	return f
}

func simRulesOf(version int, zone string, modes []simMode) *simRules {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	start, err := time.ParseInLocation(time.DateOnly, string(simPeriod), loc)
	if err != nil {
		panic(err)
	}
	r := &simRules{version: version, zone: zone, modes: modes, start: start.UTC(), end: start.UTC().Add(24 * time.Hour)}
	for _, p := range []string{alpha, beta, gamma, delta} {
		if slices.ContainsFunc(modes, func(m simMode) bool { return slices.Contains(m.names(), p) }) {
			r.order = append(r.order, p)
		}
	}
	p, err := pipeline.Parse([]byte(r.yaml()))
	if err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, r.yaml()))
	}
	r.tr = p.Transitions[0]
	return r
}

func (r *simRules) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema: 1\nname: sim\ntime_zone: %s\ncalendar: day\nkinds: {player: players, team: teams}\n"+
		"schedules: [{name: relay, cron: \"*/5 * * * *\", function: reconcile, job: relay}]\n", r.zone)
	b.WriteString("phases:\n  - name: p\n    processors:\n")
	for _, p := range []string{alpha, beta, gamma, delta} {
		fmt.Fprintf(&b, "      - {name: %s, kind: %s, table: d.%s, date_column: day, key: [day], order_by: processed_at}\n",
			p, strings.TrimSuffix(simKinds[p], "s"), p)
	}
	b.WriteString("  - name: q\n    processors:\n      - {name: cache, kind: team, table: d.cache, date_column: day, key: [day], order_by: processed_at}\n")
	fmt.Fprintf(&b, "transitions:\n  - id: %s\n    upstream: {phase: p, topic: done}\n", simID)
	fmt.Fprintf(&b, "    downstream: {phase: q, topic: trigger, triggered_by: us, parent_processor: Us, order: [%s]}\n", strings.Join(r.order, ", "))
	fmt.Fprintf(&b, "    compatibility_collection: completion\n    trigger_within: %s\n    modes:\n", simWithin)
	for _, m := range r.modes {
		fmt.Fprintf(&b, "      - name: %s\n        event: %s\n        critical: [%s]\n        optional: [%s]\n", m.shown(),
			map[int]string{-1: "before", 0: "within", 1: "after"}[m.relation], strings.Join(m.critical, ", "), strings.Join(m.optional, ", "))
		fmt.Fprintf(&b, "        complete: %s\n        second_runs: %s\n        counts_from: %q\n        accept_earlier: [%s]\n",
			map[bool]string{true: "all", false: "critical"}[m.all], map[bool]string{true: "resend_if_changed", false: "ignore"}[m.secondRuns],
			simOffset(m.from), strings.Join(m.earlier, ", "))
		if m.now != "" {
			fmt.Fprintf(&b, "        formerly: [%s]\n", m.name)
		}
		if m.quorum > 0 {
			fmt.Fprintf(&b, "        grace: {quorum_pct: %d, after: %s}\n", m.quorum, m.grace)
		}
		if m.notBefore != simNever {
			fmt.Fprintf(&b, "        not_before: %q\n", simOffset(m.notBefore))
		}
		if m.deadline != simNever {
			fmt.Fprintf(&b, "        deadline: %q\n        at_deadline: %s\n", simOffset(m.deadline),
				map[bool]string{true: "hand_over", false: "hold"}[m.handOver])
		}
	}
	return b.String()
}

// simOffset writes a time since the period's start as definitions do.
func simOffset(d time.Duration) string {
	days := int(math.Floor(d.Hours() / 24))
	d -= time.Duration(days) * 24 * time.Hour
	s := fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
	if days == 0 {
		return s
	}
	return fmt.Sprintf("%+dd %s", days, s)
}
