// Package pipeline defines a pipeline: its phases and processors, the transitions between
// phases with their policies, its calendar and its schedules.
//
// A definition is one YAML file. [Parse] reads it strictly, and reports all unknown, missing
// and contradictory keys at once, with line or path. A [Pipeline] is valid and never changes.
// All other packages take names, rules and local times from it and have none of their own.
package pipeline

import (
	_ "embed"
	"fmt"
	"path"
	"slices"
	"time"
)

//go:embed nba.yaml
var nba []byte

// Default returns the YAML of the pipeline used where no file is named.
func Default() []byte { return slices.Clone(nba) }

// Pipeline is one valid definition.
type Pipeline struct {
	Name        string
	Calendar    Calendar
	Kinds       map[string]string // kind of a processor → key in entities_changed
	Phases      []Phase
	Transitions []*Transition
	Health      Health
	Schedules   []Schedule
	Defaults    []TakenDefault // keys that the file leaves out, in its order
	Hash        string         // first 12 hex digits of the SHA-256 of the file's bytes
}

// Phase is a stage of the pipeline.
type Phase struct {
	Name       string
	Service    string // Cloud Run service of its processors, "" when it is not known or none
	Guard      *Guard // nil: its triggers are not guarded
	Processors []Processor
}

// Processor fills one table.
type Processor struct {
	Name       string
	Formerly   []string // names that it had, the oldest first; nil: the definition does not say
	Class      string   // under which its runs lock each other out, in every language; unique
	Kind       string   // a key of Pipeline.Kinds
	Table      string   // dataset.table
	DateColumn string
	Key        []string // columns by which rows are unique
	OrderBy    string   // the newest by this column survives
	Partition  Partition
	Filled     []string // columns in which NULL means that something is missing
	Duplicates Duplicates
}

// Duplicates says what the sweep does about rows of a table that share a key.
type Duplicates string

// What it can do.
const (
	DuplicatesReport Duplicates = "report" // tell
	DuplicatesRemove Duplicates = "remove" // remove all but the right one, and tell
)

// Partition says how a table is partitioned.
type Partition string

// The ways in which tables are partitioned.
const (
	PartitionByDate       Partition = "by_date"                 // by its date column
	PartitionByDateFilter Partition = "by_date_filter_required" // and every query must filter by it
	PartitionNone         Partition = "none"
)

// Transition hands periods over from one phase to the next.
type Transition struct {
	ID                      string
	Formerly                []string // ids that it had, the oldest first; nil: the definition does not say
	UpstreamPhase           string
	UpstreamTopic           string
	Replaces                []string // subscriptions by which another orchestrator gets the same completions; * is any part of a name
	DownstreamPhase         string
	DownstreamTopic         string
	TriggeredBy             string // fixed value of the message
	ParentProcessor         string // fixed value of the message
	Order                   []string
	CompatibilityCollection string
	TriggerWithin           time.Duration // after the period's end; of the needed runs' event times
	ManagedSince            Period        // reconciliation does not judge earlier periods; "": from the first recorded one on
	HandOver                *HandOver     // nil: no alert on the duration
	Modes                   []Mode        // in the order in which a period lives through them
	Checks                  *Checks       // nil: hand-overs are not checked

	calendar   Calendar
	several    bool                // there are others
	places     map[string]int      // processor → its place in Order
	kinds      map[string]string   // processor → kind's key in entities_changed
	formerly   map[string][]string // processor → names that it had
	present    map[string]string   // name that a processor had → the one that it has
	definition string
}

// Calendar returns the calendar by which the transition's periods are made.
func (t *Transition) Calendar() Calendar { return t.calendar }

// Definition returns the hash of the definition that the transition belongs to.
func (t *Transition) Definition() string { return t.definition }

// MatchesSubscription reports whether a name is one of upstream.replaces, where * is any part of it.
func MatchesSubscription(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// Unmanaged says why no period of the transition is compared at an instant; "" where one is.
func (t *Transition) Unmanaged(at time.Time) string {
	if ahead := t.calendar.Add(t.calendar.At(at), t.Lead()); t.ManagedSince > ahead {
		return fmt.Sprintf("managed_since %q of %s is in the future: until then nothing is compared; correct the year, or wait", t.ManagedSince, t.ID)
	}
	return ""
}

// Prefix names the transition in front of a line about it, where there are several.
func (t *Transition) Prefix() string {
	if t.several {
		return t.ID + ": "
	}
	return ""
}

// Called is what people call a cycle: with the transition, where there are several.
func (t *Transition) Called(p Period, mode string) string {
	if t.several {
		return string(p) + " " + mode + " of " + t.ID
	}
	return string(p) + " " + mode
}

// LastInTime returns the end of trigger_within: what ends later is handed over by a person
// alone.
func (t *Transition) LastInTime(p Period) time.Time { return t.calendar.End(p).Add(t.TriggerWithin) }

// CyclePath is the address of a cycle's page, from the status page.
func (t *Transition) CyclePath(p Period, mode string) string {
	path := "cycle/" + string(p) + "/" + mode
	if t.several {
		path += "?transition=" + t.ID
	}
	return path
}

// Option is what names the transition in a command behind other words; "" where there is
// one only.
func (t *Transition) Option() string {
	if t.several {
		return " --transition " + t.ID
	}
	return ""
}

// Expects reports whether any mode of the transition names the processor. Only
// such names ever become field names of documents.
func (t *Transition) Expects(processor string) bool {
	_, ok := t.places[processor]
	return ok
}

// Place returns the place of a processor's message in Order; those that no mode names come last.
func (t *Transition) Place(processor string) int {
	if i, ok := t.places[processor]; ok {
		return i
	}
	return len(t.Order)
}

// EntitiesKey returns the key of entities_changed under which the changed entities
// of an expected processor are handed over.
func (t *Transition) EntitiesKey(processor string) string { return t.kinds[processor] }

// Subscription returns the name of the push subscription that feeds the transition.
func (t *Transition) Subscription() string { return Subscription(t.UpstreamTopic, FunctionTransition) }

// ShadowTopic returns the name of the topic whose completions are handled in the
// shadow of the transition: recorded and decided in collections of its own, never handed over.
func (t *Transition) ShadowTopic() string { return ownNames + "shadow-" + t.ID }

// Mode returns the mode that has, or had, that name.
func (t *Transition) Mode(name string) (Mode, bool) {
	i := slices.IndexFunc(t.Modes, func(m Mode) bool { return m.Name == name || slices.Contains(m.Formerly, name) })
	if i < 0 {
		return Mode{}, false
	}
	return t.Modes[i], true
}

// ModeAt returns the name of the mode to which an event at time t belongs for the
// period, "" when no mode is declared for that relation.
func (t *Transition) ModeAt(p Period, event time.Time) string { return t.ModesOf(p)(event) }

// ModesOf returns ModeAt for one period, with the period's bounds worked out once.
func (t *Transition) ModesOf(p Period) func(event time.Time) string {
	relation := t.calendar.relations(p)
	return func(event time.Time) string {
		r := relation(event)
		for i := range t.Modes {
			if t.Modes[i].Event == r {
				return t.Modes[i].Name
			}
		}
		return ""
	}
}

func (t *Transition) modeNames() (names []string) {
	for _, m := range t.Modes {
		names = append(names, m.Name)
	}
	return names
}

// HandOver says how long a hand-over may take, from the moment it is due to the
// broker's last id. Whole seconds; Warn is less than Critical.
type HandOver struct {
	Warn     time.Duration
	Critical time.Duration
}

// Mode is one kind of cycle that a period goes through, with its policy.
type Mode struct {
	Name          string
	Formerly      []string // names that it had, the oldest first; nil: the definition does not say
	Event         Relation
	Critical      []string
	Optional      []string
	Complete      Completeness
	Grace         *Grace // nil: never without completeness
	CountsFrom    Offset
	AcceptEarlier []string // processors whose runs count too if they count for an earlier mode
	NotBefore     *Offset  // nil: at once
	Deadline      *Offset  // nil: none
	AtDeadline    AtDeadline
	SecondRuns    SecondRuns
	// SecondRunsEvery is the least time between two further hand-overs of one processor; 0
	// where second runs are ignored.
	SecondRunsEvery time.Duration

	named, critical, earlier map[string]bool
}

// IsCritical reports whether nothing is handed over without the processor.
func (m Mode) IsCritical(processor string) bool { return m.critical[processor] }

// AcceptsEarlier reports whether the processor's runs for an earlier mode count too.
func (m Mode) AcceptsEarlier(processor string) bool { return m.earlier[processor] }

// Names reports whether the mode expects the processor, critical or optional.
func (m Mode) Names(processor string) bool { return m.named[processor] }

// Due returns when a period should have been handed over: at the mode's deadline, or where
// it has none, at the period's end.
func (m Mode) Due(c Calendar, p Period) time.Time {
	if m.Deadline == nil {
		return c.End(p)
	}
	return c.Instant(p, *m.Deadline)
}

// LastDue returns when the last mode of a period should have been handed over.
func (t *Transition) LastDue(p Period) time.Time {
	last := t.calendar.End(p)
	for _, m := range t.Modes {
		if due := m.Due(t.calendar, p); due.After(last) {
			last = due
		}
	}
	return last
}

// Size returns how many processors the mode expects.
func (m Mode) Size() int { return len(m.named) }

// Completeness says which processors make a cycle complete.
type Completeness string

// The kinds of completeness.
const (
	CompleteAll      Completeness = "all"
	CompleteCritical Completeness = "critical"
)

// Grace allows a hand-over without some optional processors: when the critical ones
// and QuorumPct percent of all are complete, After that came to hold.
type Grace struct {
	QuorumPct int
	After     time.Duration
}

// AtDeadline says what becomes of a cycle whose deadline passes before its policy is
// met. Completeness ends a hold at any time.
type AtDeadline string

// What can be done at a deadline.
const (
	DeadlineHold     AtDeadline = "hold"      // overdue until the policy is met or an operator acts
	DeadlineHandOver AtDeadline = "hand_over" // what is complete, if the critical ones are; else hold
)

// SecondRuns says what a further run of a processor means that was handed over.
type SecondRuns string

// The policies for second runs.
const (
	SecondRunsIgnore SecondRuns = "ignore"
	SecondRunsResend SecondRuns = "resend_if_changed"
)

// Schedule is a job that the platform's scheduler sends.
type Schedule struct {
	Name     string
	Cron     string // five fields, on the clock of [Pipeline.Zone]
	Function string
	Job      string
}

// Topic returns the name of the topic to which the job is sent.
func (s Schedule) Topic() string { return ResourceName(s.Function) }

// JobTopic returns the name of the topic that a function's jobs are sent to; false when
// the pipeline schedules none for it, and then there is no such topic.
func (p *Pipeline) JobTopic(function string) (string, bool) {
	for _, s := range p.Schedules {
		if s.Function == function {
			return s.Topic(), true
		}
	}
	return "", false
}

// Lead returns how many periods ahead of the present one completions are expected: a
// mode may live before its period begins.
func (t *Transition) Lead() int {
	lead := 0
	for _, m := range t.Modes {
		lead = max(lead, -m.CountsFrom.Periods)
	}
	return lead
}
