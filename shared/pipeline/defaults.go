package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TakenDefault is a key that the file leaves out, with the value that it gets.
type TakenDefault struct {
	Path  string // such as transitions[0].trigger_within
	Value string
}

const (
	defaultKind     = "entity"
	defaultKindKey  = "entities"
	defaultMaxBytes = 1_000_000_000
)

// relaySchedule is the schedule of the relay where the file has none. Terraform has the same.
var relaySchedule = fileSchedule{Name: "relay", Cron: "*/5 * * * *", Function: FunctionReconcile, Job: "relay"}

// defaults fills in the keys that the file leaves out, and lists them. A value that depends on
// another section, such as a phase's processors, is left out if that section is wrong.
func (f *file) defaults() (taken []TakenDefault) {
	text := func(path string, field *string, value string) {
		if *field == "" && value != "" {
			*field = value
			taken = append(taken, TakenDefault{path, value})
		}
	}
	list := func(path string, field *[]string, value []string) {
		if *field == nil && len(value) > 0 {
			*field = value
			taken = append(taken, TakenDefault{path, strings.Join(value, ", ")})
		}
	}
	text("calendar", &f.Calendar, "day")
	kind := ""
	switch {
	case len(f.Kinds) == 0:
		kind = defaultKind
	case len(f.Kinds) == 1:
		for kind = range f.Kinds {
		}
	}
	for i := range f.Phases {
		if g := f.Phases[i].Guard; g != nil {
			path := fmt.Sprintf("phases[%d].guard", i)
			text(path+".scope", &g.Scope, f.Phases[i].Service)
			list(path+".paths", &g.Paths, []string{"/"})
			if g.Success == nil {
				g.Success = []int{200, 201, 202, 204}
				taken = append(taken, TakenDefault{path + ".success", "200, 201, 202, 204"})
			}
			text(path+".ttl", &g.TTL, "2m")
			text(path+".limit", &g.Limit, "1h")
			text(path+".on_lost", &g.OnLost, string(OnLostRun))
			text(path+".unkeyed", &g.Unkeyed, string(UnkeyedPass))
		}
		for j := range f.Phases[i].Processors {
			pr, path := &f.Phases[i].Processors[j], fmt.Sprintf("phases[%d].processors[%d]", i, j)
			text(path+".kind", &pr.Kind, kind)
			if nameForm.MatchString(pr.Name) {
				text(path+".class", &pr.Class, camel(stored(pr.Name, pr.Formerly))+"Processor")
			}
			text(path+".partition", &pr.Partition, string(PartitionByDate))
			text(path+".duplicates", &pr.Duplicates, string(DuplicatesReport))
			if pr.Kind == defaultKind && len(f.Kinds) == 0 {
				f.Kinds = map[string]string{defaultKind: defaultKindKey}
				taken = append(taken, TakenDefault{"kinds." + defaultKind, defaultKindKey})
			}
		}
	}
	for i := range f.Transitions {
		t, path := &f.Transitions[i], fmt.Sprintf("transitions[%d]", i)
		of := f.phase(t.Upstream.Phase)
		for j := range t.Modes {
			m, path := &t.Modes[j], fmt.Sprintf("%s.modes[%d]", path, j)
			optional := SetOf(m.Optional)
			list(path+".critical", &m.Critical, slices.DeleteFunc(of.names(), func(name string) bool { return optional[name] }))
			text(path+".complete", &m.Complete, string(CompleteAll))
			text(path+".counts_from", &m.CountsFrom, begins(Relation(m.Event), f.Calendar == "hour"))
			if m.Deadline != "" {
				text(path+".at_deadline", &m.AtDeadline, string(DeadlineHold))
			}
			text(path+".second_runs", &m.SecondRuns, string(SecondRunsResend))
			if m.SecondRuns == string(SecondRunsResend) {
				text(path+".second_runs_every", &m.SecondRunsEvery, "2m")
			}
		}
		if id := stored(t.ID, t.Formerly); nameForm.MatchString(id) {
			text(path+".downstream.triggered_by", &t.Downstream.TriggeredBy, id)
			text(path+".downstream.parent_processor", &t.Downstream.ParentProcessor, camel(id)+"Orchestrator")
			text(path+".compatibility_collection", &t.CompatibilityCollection, id+"_completion")
		}
		expected := map[string]bool{}
		for _, m := range t.Modes {
			maps.Copy(expected, SetOf(m.Critical, m.Optional))
		}
		list(path+".downstream.order", &t.Downstream.Order, slices.DeleteFunc(of.names(), func(name string) bool { return !expected[name] }))
		text(path+".trigger_within", &t.TriggerWithin, "72h")
		if c := t.Checks; c != nil {
			text(path+".checks.timeout", &c.Timeout, "30s")
			if c.MaxBytesBilled == nil {
				limit := int64(defaultMaxBytes)
				c.MaxBytesBilled = &limit
				taken = append(taken, TakenDefault{path + ".checks.max_bytes_billed", strconv.Itoa(defaultMaxBytes)})
			}
			list(path+".checks.datasets", &c.Datasets, of.datasets())
		}
	}
	if !slices.ContainsFunc(f.Schedules, func(s fileSchedule) bool { return s.Job == relaySchedule.Job || s.Name == relaySchedule.Name }) {
		f.Schedules = append(f.Schedules, relaySchedule) // the last: problems name the others by their place in the file
		taken = append(taken, TakenDefault{"schedules", relaySchedule.Name + ", " + relaySchedule.Cron})
	}
	return taken
}

// phase returns a phase by its name, an empty one if there is none.
func (f *file) phase(name string) filePhase {
	i := slices.IndexFunc(f.Phases, func(p filePhase) bool { return p.Name == name })
	if i < 0 {
		return filePhase{}
	}
	return f.Phases[i]
}

func (p filePhase) names() (names []string) {
	for _, pr := range p.Processors {
		names = append(names, pr.Name)
	}
	return names
}

// datasets returns those of the phase's tables, each once.
func (p filePhase) datasets() (datasets []string) {
	for _, pr := range p.Processors {
		if dataset, _, ok := strings.Cut(pr.Table, "."); ok && !slices.Contains(datasets, dataset) {
			datasets = append(datasets, dataset)
		}
	}
	return datasets
}

// begins is the default of counts_from: the beginning of the time in which the mode's runs end.
// The time before a period has no beginning; its default is one period earlier.
func begins(event Relation, hourly bool) string {
	at := Offset{hourly: hourly}
	switch event {
	case Before:
		at.Periods = -1
	case After:
		at.Periods = 1
	case Within:
	default:
		return "" // an unknown event is reported
	}
	return at.String()
}

// camel writes player_game_summary as PlayerGameSummary.
func camel(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
