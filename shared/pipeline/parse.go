package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Parse reads a definition. The error joins every problem found, each with its line
// (what YAML itself cannot accept) or its path (what the definition contradicts).
func Parse(data []byte) (*Pipeline, error) {
	var root yaml.Node // the first document, as it is written
	written := yaml.Unmarshal(data, &root) == nil
	if written {
		if _, err := expanded(&root, map[*yaml.Node]int{}); err != nil {
			return nil, fmt.Errorf("pipeline definition: %w", err)
		}
	}
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var shape []error
	mistyped := map[string]bool{}
	if err := dec.Decode(&f); err != nil {
		var te *yaml.TypeError
		if !errors.As(err, &te) { // not YAML at all: nothing more can be said
			return nil, fmt.Errorf("pipeline definition: %w", located(data, err))
		}
		for _, e := range te.Errors {
			text, path := explainShape(e, &root)
			mistyped[path] = true
			shape = append(shape, errors.New(text))
		}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		shape = append(shape, errors.New("a second document in the file"))
	}
	p, v := build(f, mistyped)
	if written {
		v.numbers("", &root, reflect.TypeFor[file]())
	}
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

// build turns the file into a Pipeline while the validator notes what is wrong.
func build(f file, mistyped map[string]bool) (*Pipeline, *validator) {
	v := &validator{mistyped: mistyped, tables: map[string]Processor{}, phases: map[string]string{}}
	taken := f.defaults()
	switch f.Schema {
	case 1:
	case 0:
		if !v.elsewhere("schema") {
			v.add("schema", "is required: write schema: 1")
		}
	default:
		v.add("schema", "must be 1, is %d", f.Schema)
	}
	v.name("name", f.Name)
	zone := v.zone("time_zone", f.TimeZone)
	v.oneOf("calendar", f.Calendar, "day", "hour")
	p := &Pipeline{Name: f.Name, Calendar: Calendar{zone: zone, hourly: f.Calendar == "hour"}, Kinds: f.Kinds, Defaults: taken}
	for kind, key := range f.Kinds {
		v.name("kinds", kind)
		v.name("kinds."+kind, key)
	}
	phases := map[string]map[string]string{} // phase → processor → entities key
	owner := map[string]string{}             // processor → path, unique over the pipeline
	classes := map[string]bool{}
	processors := v.names("processor")
	for i, fp := range f.Phases {
		path := fmt.Sprintf("phases[%d]", i)
		v.name(path+".name", fp.Name)
		if phases[fp.Name] != nil {
			v.add(path+".name", "phase %q is declared twice", fp.Name)
			continue
		}
		phases[fp.Name] = map[string]string{}
		v.service(path+".service", fp.Service)
		phase := Phase{Name: fp.Name, Service: fp.Service, Guard: v.guard(path+".guard", fp.Guard)}
		for j, pr := range fp.Processors {
			path := fmt.Sprintf("%s.processors[%d]", path, j)
			if first, dup := owner[pr.Name]; dup {
				v.add(path+".name", "processor %q is declared twice, first at %s", pr.Name, first)
			}
			owner[pr.Name] = path
			phases[fp.Name][pr.Name], v.phases[pr.Name] = f.Kinds[pr.Kind], fp.Name
			processors.formerly(path, pr.Name, pr.Formerly)
			processor := v.processor(path, pr, f.Kinds)
			v.unique(path+".class", "class", processor.Class, classes) // two would share their locks
			v.sameTable(path, processor)
			phase.Processors = append(phase.Processors, processor)
		}
		if len(fp.Processors) == 0 && !v.elsewhere(path+".processors") {
			v.add(path+".processors", "is empty")
		}
		p.Phases = append(p.Phases, phase)
	}
	processors.done()
	v.transitions(p, f.Transitions, phases)
	v.guards(p)
	p.Health = v.health(f.Health, p.Calendar)
	names := map[string]bool{}
	for i, s := range f.Schedules {
		path := fmt.Sprintf("schedules[%d]", i)
		s.Cron = strings.Join(strings.Fields(s.Cron), " ") // health remembers a schedule by it
		v.name(path+".name", s.Name)
		v.unique(path+".name", "schedule", s.Name, names)
		v.cron(path+".cron", Schedule(s), zone)
		v.oneOf(path+".function", s.Function, FunctionReconcile, FunctionSweep, FunctionHealth)
		switch s.Function {
		case FunctionSweep, FunctionHealth:
			v.oneOf(path+".job", s.Job, s.Function)
		default:
			v.oneOf(path+".job", s.Job, "relay", "nightly")
		}
		p.Schedules = append(p.Schedules, Schedule(s))
	}
	if !slices.ContainsFunc(p.Schedules, func(s Schedule) bool { return s.Job == relaySchedule.Job }) { // else it has its default
		i := slices.IndexFunc(p.Schedules, func(s Schedule) bool { return s.Name == relaySchedule.Name })
		v.add(fmt.Sprintf("schedules[%d].name", i), "%q is the name of another job than relay, which finishes grace periods, deadlines and the hand-overs of dead processes: rename this schedule", relaySchedule.Name)
	}
	if len(v.problems) == 0 { // else some of the times are not known
		v.relays(p)
	}
	return p, v
}

func (v *validator) processor(path string, pr fileProcessor, kinds map[string]string) Processor {
	v.name(path+".name", pr.Name)
	if names := slices.Sorted(maps.Keys(kinds)); kinds[pr.Kind] == "" && (pr.Kind != "" || !v.elsewhere(path+".kind")) {
		v.add(path+".kind", "unknown kind %q: kinds has %s%s", clip(pr.Kind), strings.Join(names, ", "), DidYouMean(pr.Kind, names))
	}
	v.class(path+".class", pr.Class)
	v.table(path+".table", pr.Table)
	v.column(path+".date_column", pr.DateColumn)
	v.column(path+".order_by", pr.OrderBy)
	v.ordered(path, pr)
	if pr.Key == nil {
		v.absent(path+".key", "")
	} else if len(pr.Key) == 0 {
		v.add(path+".key", "is empty")
	}
	v.distinct(path+".key", "column", pr.Key, v.column)
	v.oneOf(path+".partition", pr.Partition, string(PartitionByDate), string(PartitionByDateFilter), string(PartitionNone))
	v.distinct(path+".filled", "column", pr.Filled, v.column)
	v.oneOf(path+".duplicates", pr.Duplicates, string(DuplicatesReport), string(DuplicatesRemove))
	return Processor{Name: pr.Name, Formerly: pr.Formerly, Class: pr.Class, Kind: pr.Kind, Table: pr.Table, DateColumn: pr.DateColumn,
		Key: pr.Key, OrderBy: pr.OrderBy, Partition: Partition(pr.Partition), Filled: pr.Filled, Duplicates: Duplicates(pr.Duplicates)}
}

// sameTable checks that processors of one table agree on what its rows are: two rules for
// what a duplicate is would undo each other.
func (v *validator) sameTable(path string, p Processor) {
	first, known := v.tables[p.Table]
	if !known {
		v.tables[p.Table] = p
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
	if len(fts) == 0 && !v.elsewhere("transitions") {
		v.add("transitions", "is empty")
	}
	ids, topics, collections := map[string]bool{}, map[string]bool{}, map[string]bool{}
	former := v.names("transition")
	for i, ft := range fts {
		path := fmt.Sprintf("transitions[%d]", i)
		v.name(path+".id", ft.ID)
		v.unique(path+".id", "transition", ft.ID, ids)
		former.formerly(path, ft.ID, ft.Formerly)
		v.phase(path+".upstream.phase", ft.Upstream.Phase, phases)
		v.phase(path+".downstream.phase", ft.Downstream.Phase, phases)
		v.topic(path+".upstream.topic", ft.Upstream.Topic)
		v.topic(path+".downstream.topic", ft.Downstream.Topic)
		v.unique(path+".upstream.topic", "a transition from topic", ft.Upstream.Topic, topics) // one subscription each
		v.distinct(path+".upstream.replaces", "subscription", ft.Upstream.Replaces, func(at, name string) {
			own := MatchesSubscription(name, Subscription(ft.Upstream.Topic, FunctionTransition))
			if !topicForm.MatchString(strings.ReplaceAll(name, "*", "x")) || own {
				v.add(at, "%q is no name of another's subscription, and no pattern of such names, as eventarc-*-orchestrator-* is", clip(name))
			}
		})
		v.name(path+".compatibility_collection", ft.CompatibilityCollection)
		v.unique(path+".compatibility_collection", "collection", ft.CompatibilityCollection, collections)
		if slices.Contains(ownCollections, ft.CompatibilityCollection) {
			v.add(path+".compatibility_collection", "%q is one of our own collections", ft.CompatibilityCollection)
		}
		t := &Transition{
			ID: ft.ID, Formerly: ft.Formerly,
			UpstreamPhase: ft.Upstream.Phase, UpstreamTopic: ft.Upstream.Topic, Replaces: ft.Upstream.Replaces,
			DownstreamPhase: ft.Downstream.Phase, DownstreamTopic: ft.Downstream.Topic,
			TriggeredBy: ft.Downstream.TriggeredBy, ParentProcessor: ft.Downstream.ParentProcessor,
			Order:                   ft.Downstream.Order,
			CompatibilityCollection: ft.CompatibilityCollection,
			TriggerWithin:           v.atLeast(path+".trigger_within", ft.TriggerWithin, p.Calendar.leastWithin(), "72h"),
			calendar:                p.Calendar,
			several:                 len(fts) > 1,
			kinds:                   phases[ft.Upstream.Phase],
			formerly:                map[string][]string{},
			present:                 map[string]string{},
			places:                  map[string]int{},
		}
		for i, name := range t.Order {
			t.places[name] = i
		}
		for _, pr := range p.processors(ft.Upstream.Phase) {
			t.formerly[pr.Name] = pr.Formerly
			for _, old := range pr.Formerly {
				t.present[old] = pr.Name
			}
		}
		if h := ft.HandOver; h != nil {
			t.HandOver = &HandOver{Warn: v.seconds(path+".hand_over.warn", h.Warn), Critical: v.seconds(path+".hand_over.critical", h.Critical)}
			if t.HandOver.Critical > 0 && t.HandOver.Warn >= t.HandOver.Critical {
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
	former.done()
	v.chain(p.Transitions)
	for i, a := range p.Transitions {
		for _, b := range p.Transitions {
			if strings.HasPrefix(b.StoredID(), a.StoredID()+"_") {
				v.add(fmt.Sprintf("transitions[%d].id", i), "%q followed by _ begins the id %q: their documents would mingle", a.StoredID(), b.StoredID())
			}
		}
	}
}

// SetOf makes a set of names.
func SetOf(lists ...[]string) map[string]bool {
	names := map[string]bool{}
	for _, list := range lists {
		for _, name := range list {
			names[name] = true
		}
	}
	return names
}

// order checks that the messages' order names each expected processor once.
func (v *validator) order(path string, t *Transition) {
	expected := map[string]bool{}
	for _, m := range t.Modes {
		maps.Copy(expected, m.named)
	}
	seen := v.distinct(path, "processor", t.Order, func(at, name string) {
		if !expected[name] {
			v.add(at, "%q is expected by no mode%s", clip(name), DidYouMean(name, sortedKeys(expected)))
		}
	})
	for _, name := range sortedKeys(expected) {
		if _, known := t.kinds[name]; known && !seen[name] {
			v.add(path, "%q is missing", name)
		}
	}
	if len(expected) > MaxProcessors {
		v.add(path, "%d processors: a transition takes at most %d", len(expected), MaxProcessors)
	}
	bytes := 0
	for name := range expected {
		bytes += len(stored(name, t.formerly[name]))
	}
	if bytes > maxNameBytes {
		v.add(path, "the names of its %d processors have %d bytes together, and one document takes %d: shorten names, or move processors to another transition", len(expected), bytes, maxNameBytes)
	}
}

// ownCollections are those whose documents the system keeps for itself.
var ownCollections = []string{"phase_periods", "phase_runs", "phase_trigger_parts", "phase_triggers", "processing_locks", "lock_tokens", "processor_runs", "quarantine",
	"function_status", "sweeps", "audit", "notifications", "receipts", "open_receipts"}

// MaxProcessors bounds a transition. An instance reads all runs of a period at once. The summary of its
// hand-overs stands in one document of at most 1 MiB, with two runs of each processor.
const MaxProcessors = 10_000

// maxNameBytes bounds the stored names of all processors of a transition. The batch that begins a cycle
// has all of them, and its document takes 1 MiB.
const maxNameBytes = 512 << 10

func (v *validator) duration(path, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		v.add(path, "%q is no positive duration such as 30m or 72h", s)
	}
	return d
}
