package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// The types below are the YAML as written. What is said of a field here is what
// docs/configuration.md says of its key: go test ./shared/pipeline -run Reference -update.

type file struct {
	Schema      int               `yaml:"schema"`      // 1
	Name        string            `yaml:"name"`        // of the pipeline, for people and in notices
	TimeZone    string            `yaml:"time_zone"`   // such as Europe/Berlin: of local times, of schedules, of days
	Calendar    string            `yaml:"calendar"`    // what a period is: `day`, written 2026-02-03 and bounded by midnight in time_zone; or `hour`, written 2026-02-03T14, in UTC
	Kinds       map[string]string `yaml:"kinds"`       // kind of a processor → the key under which its changed entities stand in a trigger's entities_changed
	Phases      []filePhase       `yaml:"phases"`      // stages of the pipeline
	Transitions []fileTransition  `yaml:"transitions"` // from one phase to the next; one's downstream may be another's upstream
	Health      *fileHealth       `yaml:"health"`      // what the health checks ask besides. Default: nothing
	Schedules   []fileSchedule    `yaml:"schedules"`   // jobs that the scheduler sends; the relay must be one of them
}

type filePhase struct {
	Name       string          `yaml:"name"`       // unique
	Service    string          `yaml:"service"`    // Cloud Run service of its processors, which alerts and drift look at. Default: none
	Processors []fileProcessor `yaml:"processors"` // at least one
}

type fileProcessor struct {
	Name       string   `yaml:"name"`        // unique over all phases; what transitions call it, and source_table of its triggers
	Kind       string   `yaml:"kind"`        // one of `kinds`
	Class      string   `yaml:"class"`       // the name by which its runs lock each other out, in every language; unique. Default: the name in CamelCase with Processor behind it
	Table      string   `yaml:"table"`       // that it fills, dataset.table
	DateColumn string   `yaml:"date_column"` // says to which period a row belongs: a DATE where periods are days, a TIMESTAMP at the beginning of the hour where they are hours
	Key        []string `yaml:"key"`         // columns that make a row unique
	OrderBy    string   `yaml:"order_by"`    // TIMESTAMP: of several rows with one key, the newest by it is right
	Partition  string   `yaml:"partition"`   // `by_date`, `by_date_filter_required` (every query must filter) or `none`. Default: by_date
	Filled     []string `yaml:"filled"`      // columns in which NULL means that something is missing; checks with {column} are asked of each. Default: none
	Duplicates string   `yaml:"duplicates"`  // what the nightly sweep does about rows with one key: `report`, or `remove` all but the right one, which can be undone for 30 days. Default: report
}

type fileTransition struct {
	ID       string `yaml:"id"` // unique; in the ids of documents
	Upstream struct {
		Phase    string   `yaml:"phase"`    // whose processors are waited for
		Topic    string   `yaml:"topic"`    // to which they report; of one transition only
		Replaces []string `yaml:"replaces"` // subscriptions by which another orchestrator gets the same reports: while one is there, a deployment that would hand over is refused. Default: none
	} `yaml:"upstream"`
	Downstream struct {
		Phase           string   `yaml:"phase"`            // that is handed over to
		Topic           string   `yaml:"topic"`            // of its triggers
		TriggeredBy     string   `yaml:"triggered_by"`     // triggered_by of the triggers
		ParentProcessor string   `yaml:"parent_processor"` // parent_processor of the triggers
		Order           []string `yaml:"order"`            // of the messages of one hand-over: each processor that any mode names, once; 300 at most
	} `yaml:"downstream"`
	CompatibilityCollection string `yaml:"compatibility_collection"` // of the documents, one a period, that others read
	TriggerWithin           string `yaml:"trigger_within"`           // automatic hand-overs happen while the needed runs end within this time after the period's end, such as 72h; older ones are held
	ManagedSince            string `yaml:"managed_since"`            // reconciliation looks at no earlier period. Default: the first on record
	HandOver                *struct {
		Warn     string `yaml:"warn"`     // whole seconds, such as 5m
		Critical string `yaml:"critical"` // more than warn
	} `yaml:"hand_over"` // how long it may take from due to the broker's last answer, before somebody is told. Default: nobody is
	Modes  []fileMode  `yaml:"modes"`  // kinds of cycles that a period goes through, at most one for each event, in the order before, within, after
	Checks *fileChecks `yaml:"checks"` // what has to be true of the data before a hand-over. Default: nothing is asked, and messages say so
}

type fileMode struct {
	Name     string   `yaml:"name"`     // unique in the transition
	Event    string   `yaml:"event"`    // runs that end `before`, `within` or `after` the period belong to this mode
	Critical []string `yaml:"critical"` // processors without which nothing is handed over; at least one
	Optional []string `yaml:"optional"` // the others that are waited for. Default: none
	Complete string   `yaml:"complete"` // when it is complete at once: `all` or `critical`
	Grace    *struct {
		QuorumPct int    `yaml:"quorum_pct"` // of all processors, 1 to 100
		After     string `yaml:"after"`      // such as 30m, since critical ones and quorum were there
	} `yaml:"grace"` // hands over without some optional ones. Default: never
	CountsFrom    string   `yaml:"counts_from"`    // runs that ended earlier do not count. A time relative to the period, of days on the local clock: `18:00`, `-1d 16:30`, `+1d 05:00`; of hours: `:20`, `-1h :50`, `+2h :05`
	AcceptEarlier []string `yaml:"accept_earlier"` // processors whose runs of earlier modes count too. Default: none
	NotBefore     string   `yaml:"not_before"`     // a time as counts_from: nothing is handed over before. Default: at once
	Deadline      string   `yaml:"deadline"`       // a time as counts_from: what is not complete by then is held, and somebody is told. Default: none
	AtDeadline    string   `yaml:"at_deadline"`    // `hold`, or `hand_over` what there is, if the critical ones are. Default: hold
	SecondRuns    string   `yaml:"second_runs"`    // what a further run of a processor means that was handed over: `ignore` or `resend_if_changed`
}

type fileSchedule struct {
	Name     string `yaml:"name"`     // unique
	Cron     string `yaml:"cron"`     // five fields, in time_zone
	Function string `yaml:"function"` // `reconcile`, `sweep` or `health`
	Job      string `yaml:"job"`      // of reconcile `relay` or `nightly`; else the function's name
}

// Parse reads a definition. The error joins every problem found, each with its line
// (what YAML itself cannot accept) or its path (what the definition contradicts).
func Parse(data []byte) (*Pipeline, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var shape []error
	if err := dec.Decode(&f); err != nil {
		var te *yaml.TypeError
		if !errors.As(err, &te) { // not YAML at all: nothing more can be said
			return nil, fmt.Errorf("pipeline definition: %w", err)
		}
		for _, e := range te.Errors {
			shape = append(shape, errors.New(inGo.ReplaceAllString(e, "$1")))
		}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		shape = append(shape, errors.New("a second document in the file"))
	}
	p, v := build(f)
	if all := append(shape, v.problems...); len(all) > 0 {
		return nil, fmt.Errorf("pipeline definition: %w", errors.Join(all...))
	}
	sum := sha256.Sum256(data)
	p.Hash = hex.EncodeToString(sum[:6])
	for _, t := range p.Transitions {
		t.definition = p.Hash
	}
	return p, nil
}

// inGo is how the decoder says that a key is unknown: its type is nobody's business.
var inGo = regexp.MustCompile(`(field \S+ not found) in type (?s:.*)`)

// build turns the file into a Pipeline while the validator notes what is wrong.
func build(f file) (*Pipeline, *validator) {
	v := &validator{}
	if f.Schema != 1 {
		v.add("schema", "must be 1, is %d", f.Schema)
	}
	v.name("name", f.Name)
	zone := v.zone("time_zone", f.TimeZone)
	v.oneOf("calendar", f.Calendar, "day", "hour")
	p := &Pipeline{Name: f.Name, Calendar: Calendar{zone: zone, hourly: f.Calendar == "hour"}, Kinds: f.Kinds}
	for kind, key := range f.Kinds {
		v.name("kinds", kind)
		v.name("kinds."+kind, key)
	}
	phases := map[string]map[string]string{} // phase → processor → entities key
	owner := map[string]string{}             // processor → path, unique over the pipeline
	classes := map[string]bool{}
	tables := map[string]Processor{} // the first that fills it
	for i, fp := range f.Phases {
		path := fmt.Sprintf("phases[%d]", i)
		v.name(path+".name", fp.Name)
		if phases[fp.Name] != nil {
			v.add(path+".name", "phase %q is declared twice", fp.Name)
			continue
		}
		phases[fp.Name] = map[string]string{}
		v.service(path+".service", fp.Service)
		phase := Phase{Name: fp.Name, Service: fp.Service}
		for j, pr := range fp.Processors {
			path := fmt.Sprintf("%s.processors[%d]", path, j)
			if first, dup := owner[pr.Name]; dup {
				v.add(path+".name", "processor %q is declared twice, first at %s", pr.Name, first)
			}
			owner[pr.Name] = path
			phases[fp.Name][pr.Name] = f.Kinds[pr.Kind]
			processor := v.processor(path, pr, f.Kinds)
			v.unique(path+".class", "class", processor.Class, classes) // two would share their locks
			v.sameTable(path, processor, tables)
			phase.Processors = append(phase.Processors, processor)
		}
		if len(fp.Processors) == 0 {
			v.add(path+".processors", "is empty")
		}
		p.Phases = append(p.Phases, phase)
	}
	v.transitions(p, f.Transitions, phases)
	p.Health = v.health(f.Health, p.Calendar)
	names := map[string]bool{}
	for i, s := range f.Schedules {
		path := fmt.Sprintf("schedules[%d]", i)
		v.name(path+".name", s.Name)
		v.unique(path+".name", "schedule", s.Name, names)
		v.cron(path+".cron", s.Cron)
		v.oneOf(path+".function", s.Function, "reconcile", "sweep", "health")
		switch s.Function {
		case "sweep", "health":
			v.oneOf(path+".job", s.Job, s.Function)
		default:
			v.oneOf(path+".job", s.Job, "relay", "nightly")
		}
		p.Schedules = append(p.Schedules, Schedule(s))
	}
	if !slices.ContainsFunc(p.Schedules, func(s Schedule) bool { return s.Job == "relay" }) {
		v.add("schedules", "no job relay: nobody would look after grace periods, deadlines and what a process left when it died")
	}
	return p, v
}

func (v *validator) processor(path string, pr fileProcessor, kinds map[string]string) Processor {
	v.name(path+".name", pr.Name)
	if kinds[pr.Kind] == "" {
		v.add(path+".kind", "unknown kind %q", pr.Kind)
	}
	if pr.Class == "" {
		pr.Class = classOf(pr.Name)
	}
	v.class(path+".class", pr.Class)
	v.table(path+".table", pr.Table)
	v.column(path+".date_column", pr.DateColumn)
	v.column(path+".order_by", pr.OrderBy)
	if len(pr.Key) == 0 {
		v.add(path+".key", "is empty")
	}
	seen := map[string]bool{}
	for k, col := range pr.Key {
		at := fmt.Sprintf("%s.key[%d]", path, k)
		v.column(at, col)
		v.unique(at, "column", col, seen)
	}
	if pr.Partition == "" {
		pr.Partition = string(PartitionByDate)
	}
	v.oneOf(path+".partition", pr.Partition, string(PartitionByDate), string(PartitionByDateFilter), string(PartitionNone))
	seen = map[string]bool{}
	for k, col := range pr.Filled {
		at := fmt.Sprintf("%s.filled[%d]", path, k)
		v.column(at, col)
		v.unique(at, "column", col, seen)
	}
	if pr.Duplicates == "" {
		pr.Duplicates = string(DuplicatesReport)
	}
	v.oneOf(path+".duplicates", pr.Duplicates, string(DuplicatesReport), string(DuplicatesRemove))
	return Processor{Name: pr.Name, Class: pr.Class, Kind: pr.Kind, Table: pr.Table, DateColumn: pr.DateColumn,
		Key: pr.Key, OrderBy: pr.OrderBy, Partition: Partition(pr.Partition), Filled: pr.Filled, Duplicates: Duplicates(pr.Duplicates)}
}

// sameTable checks that processors of one table agree on what its rows are: two rules for
// what a duplicate is would undo each other.
func (v *validator) sameTable(path string, p Processor, tables map[string]Processor) {
	first, known := tables[p.Table]
	if !known {
		tables[p.Table] = p
		return
	}
	for _, f := range []struct {
		name string
		same bool
	}{
		{"date_column", p.DateColumn == first.DateColumn}, {"key", slices.Equal(p.Key, first.Key)}, {"order_by", p.OrderBy == first.OrderBy},
		{"partition", p.Partition == first.Partition}, {"duplicates", p.Duplicates == first.Duplicates},
	} {
		if !f.same {
			v.add(path+"."+f.name, "is another than that of %q, which fills %s too", first.Name, p.Table)
		}
	}
}

func (v *validator) transitions(p *Pipeline, fts []fileTransition, phases map[string]map[string]string) {
	if len(fts) == 0 {
		v.add("transitions", "is empty")
	}
	ids, topics, collections := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, ft := range fts {
		path := fmt.Sprintf("transitions[%d]", i)
		v.name(path+".id", ft.ID)
		v.unique(path+".id", "transition", ft.ID, ids)
		v.phase(path+".upstream.phase", ft.Upstream.Phase, phases)
		v.phase(path+".downstream.phase", ft.Downstream.Phase, phases)
		v.topic(path+".upstream.topic", ft.Upstream.Topic)
		v.topic(path+".downstream.topic", ft.Downstream.Topic)
		v.unique(path+".upstream.topic", "a transition from topic", ft.Upstream.Topic, topics) // one subscription each
		replaced := map[string]bool{}
		for j, name := range ft.Upstream.Replaces {
			at := fmt.Sprintf("%s.upstream.replaces[%d]", path, j)
			if !topicForm.MatchString(name) || name == Subscription(ft.Upstream.Topic, "transition") {
				v.add(at, "%q is no name of another's subscription", clip(name))
			}
			v.unique(at, "subscription", name, replaced)
		}
		v.required(path+".downstream.triggered_by", ft.Downstream.TriggeredBy)
		v.required(path+".downstream.parent_processor", ft.Downstream.ParentProcessor)
		v.name(path+".compatibility_collection", ft.CompatibilityCollection)
		v.unique(path+".compatibility_collection", "collection", ft.CompatibilityCollection, collections)
		if slices.Contains(ownCollections, ft.CompatibilityCollection) {
			v.add(path+".compatibility_collection", "%q is one of our own collections", ft.CompatibilityCollection)
		}
		t := &Transition{
			ID:            ft.ID,
			UpstreamPhase: ft.Upstream.Phase, UpstreamTopic: ft.Upstream.Topic, Replaces: ft.Upstream.Replaces,
			DownstreamPhase: ft.Downstream.Phase, DownstreamTopic: ft.Downstream.Topic,
			TriggeredBy: ft.Downstream.TriggeredBy, ParentProcessor: ft.Downstream.ParentProcessor,
			Order:                   ft.Downstream.Order,
			CompatibilityCollection: ft.CompatibilityCollection,
			TriggerWithin:           v.duration(path+".trigger_within", ft.TriggerWithin),
			calendar:                p.Calendar,
			kinds:                   phases[ft.Upstream.Phase],
		}
		if h := ft.HandOver; h != nil {
			t.HandOver = &HandOver{Warn: v.seconds(path+".hand_over.warn", h.Warn), Critical: v.seconds(path+".hand_over.critical", h.Critical)}
			if t.HandOver.Warn >= t.HandOver.Critical {
				v.add(path+".hand_over.warn", "%s is not less than critical, %s", t.HandOver.Warn, t.HandOver.Critical)
			}
		}
		if ft.ManagedSince != "" {
			var err error
			if t.ManagedSince, err = p.Calendar.Parse(ft.ManagedSince); err != nil {
				v.add(path+".managed_since", "%v", err)
			}
		}
		v.modes(path, t, ft.Modes)
		v.order(path+".downstream.order", t)
		t.Checks = v.checks(path+".checks", ft.Checks, t, p.processors(ft.Upstream.Phase))
		p.Transitions = append(p.Transitions, t)
	}
	for i, a := range fts {
		for _, b := range fts {
			if len(b.ID) > len(a.ID) && b.ID[:len(a.ID)+1] == a.ID+"_" {
				v.add(fmt.Sprintf("transitions[%d].id", i), "%q followed by _ begins the id %q: their documents would mingle", a.ID, b.ID)
			}
		}
	}
}

func (v *validator) modes(path string, t *Transition, fms []fileMode) {
	if len(fms) == 0 {
		v.add(path+".modes", "is empty")
	}
	names, events := map[string]bool{}, map[string]bool{}
	order := []string{string(Before), string(Within), string(After)}
	last := -1
	for i, fm := range fms {
		path := fmt.Sprintf("%s.modes[%d]", path, i)
		v.name(path+".name", fm.Name)
		v.unique(path+".name", "mode", fm.Name, names)
		v.oneOf(path+".event", fm.Event, order...)
		v.unique(path+".event", "a mode for event", fm.Event, events)
		if at := slices.Index(order, fm.Event); at >= 0 {
			if at < last {
				v.add(path+".event", "%s comes before the mode above: modes stand in the order before, within, after", fm.Event)
			}
			last = at
		}
		v.oneOf(path+".complete", fm.Complete, string(CompleteAll), string(CompleteCritical))
		v.oneOf(path+".second_runs", fm.SecondRuns, string(SecondRunsIgnore), string(SecondRunsResend))
		m := Mode{
			Name: fm.Name, Event: Relation(fm.Event), Critical: fm.Critical, Optional: fm.Optional,
			Complete: Completeness(fm.Complete), AcceptEarlier: fm.AcceptEarlier, SecondRuns: SecondRuns(fm.SecondRuns),
			NotBefore:  v.optionalOffset(t.calendar, path+".not_before", fm.NotBefore),
			Deadline:   v.optionalOffset(t.calendar, path+".deadline", fm.Deadline),
			AtDeadline: v.atDeadline(path, fm),
		}
		if from := v.optionalOffset(t.calendar, path+".counts_from", fm.CountsFrom); from != nil {
			m.CountsFrom = *from
		} else if fm.CountsFrom == "" {
			v.add(path+".counts_from", "is required")
		}
		if fm.Grace != nil {
			if fm.Grace.QuorumPct < 1 || fm.Grace.QuorumPct > 100 {
				v.add(path+".grace.quorum_pct", "must be 1 to 100, is %d", fm.Grace.QuorumPct)
			}
			m.Grace = &Grace{QuorumPct: fm.Grace.QuorumPct, After: v.duration(path+".grace.after", fm.Grace.After)}
		}
		v.sets(path, m, t)
		m.named = map[string]bool{}
		for _, name := range slices.Concat(m.Critical, m.Optional) {
			m.named[name] = true
		}
		t.Modes = append(t.Modes, m)
	}
}

func (v *validator) atDeadline(path string, fm fileMode) AtDeadline {
	if fm.AtDeadline == "" {
		return DeadlineHold
	}
	if fm.Deadline == "" {
		v.add(path+".at_deadline", "means nothing without a deadline")
	}
	v.oneOf(path+".at_deadline", fm.AtDeadline, string(DeadlineHold), string(DeadlineHandOver))
	return AtDeadline(fm.AtDeadline)
}

// sets checks a mode's processors against each other and against the phase.
func (v *validator) sets(path string, m Mode, t *Transition) {
	if len(m.Critical) == 0 {
		v.add(path+".critical", "is empty")
	}
	where := map[string]string{}
	for _, set := range []struct {
		field string
		names []string
	}{{"critical", m.Critical}, {"optional", m.Optional}} {
		for i, name := range set.names {
			at := fmt.Sprintf("%s.%s[%d]", path, set.field, i)
			if _, ok := t.kinds[name]; !ok {
				v.add(at, "unknown processor %q in phase %q", name, t.UpstreamPhase)
			}
			switch first := where[name]; {
			case first == set.field:
				v.add(at, "%q stands twice", name)
			case first != "":
				v.add(at, "%q is both critical and optional", name)
			}
			where[name] = set.field
		}
	}
	seen := map[string]bool{}
	for i, name := range m.AcceptEarlier {
		at := fmt.Sprintf("%s.accept_earlier[%d]", path, i)
		if where[name] == "" {
			v.add(at, "%q is neither critical nor optional here", name)
		}
		v.unique(at, "processor", name, seen)
	}
}

// order checks that the messages' order names each expected processor once.
func (v *validator) order(path string, t *Transition) {
	expected := map[string]bool{}
	for _, m := range t.Modes {
		maps.Copy(expected, m.named)
	}
	seen := map[string]bool{}
	for i, name := range t.Order {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !expected[name] {
			v.add(at, "%q is expected by no mode", name)
		}
		v.unique(at, "processor", name, seen)
	}
	for _, name := range sortedKeys(expected) {
		if !seen[name] {
			v.add(path, "%q is missing", name)
		}
	}
	if len(expected) > maxProcessors {
		v.add(path, "%d processors: one document a period carries at most %d", len(expected), maxProcessors)
	}
}

// ownCollections are those whose documents the system keeps for itself.
var ownCollections = []string{"phase_periods", "phase_triggers", "processing_locks", "lock_tokens", "processor_runs", "quarantine",
	"function_status", "sweeps", "audit", "notices"}

// maxProcessors bounds a transition: all runs of a period stand in one document of
// at most 1 MiB.
const maxProcessors = 300

func (v *validator) duration(path, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		v.add(path, "%q is no positive duration such as 30m or 72h", s)
	}
	return d
}
