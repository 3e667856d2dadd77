package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Guard says how phasectl guard works in front of the service of a phase.
type Guard struct {
	Scope       string // names the service in receipts
	Paths       []string
	Success     []int               // statuses that mean that the work was done
	SuccessJSON map[string][]string // field of the answer → values that mean so; empty: any answer
	TTL         time.Duration
	Limit       time.Duration // of a run
	Cooldown    bool          // after a failure the next run waits for TTL
	OnLost      OnLost
	Unkeyed     Unkeyed
	Serial      map[string][]string // source_table of a trigger → classes that it sets off
}

// OnLost says what becomes of a run whose claim is lost.
type OnLost string

// What can become of it.
const (
	OnLostRun  OnLost = "run"
	OnLostKill OnLost = "kill"
)

// Unkeyed says what is done with a POST that is no delivery of Pub/Sub.
type Unkeyed string

// What can be done with it.
const (
	UnkeyedPass   Unkeyed = "pass"
	UnkeyedRefuse Unkeyed = "refuse"
)

const (
	// MinGuardTTL leaves time for three renewals of some seconds each.
	MinGuardTTL = 30 * time.Second
	// MaxGuarded is the longest request of Cloud Run
	// (https://cloud.google.com/run/docs/configuring/request-timeout).
	MaxGuarded = time.Hour
)

// Acknowledged are the statuses by which Pub/Sub takes a message for done
// (https://cloud.google.com/pubsub/docs/push#receive_push).
func Acknowledged() []int { return []int{102, 200, 201, 202, 204} }

// ScopeForm is the form of the name of a service in receipts.
var ScopeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (v *validator) guard(path string, g *fileGuard) *Guard {
	if g == nil {
		return nil
	}
	switch {
	case g.Scope == "" && v.elsewhere(path+".scope"):
	case g.Scope == "":
		v.add(path+".scope", "is required, because the phase has no service: write the name of the service that receives the triggers")
	case !ScopeForm.MatchString(g.Scope):
		v.add(path+".scope", "%q is no name of a service (letters, digits, -, _ and ., at most 100)", clip(g.Scope))
	}
	if len(g.Paths) == 0 && !v.elsewhere(path+".paths") {
		v.add(path+".paths", "is empty: name at least one path, such as /")
	}
	v.distinct(path+".paths", "path", g.Paths, func(at, p string) {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?#") {
			v.add(at, "%q is no path of an address: begin it with /, and leave out the query", clip(p))
		}
	})
	if len(g.Success) == 0 && !v.elsewhere(path+".success") {
		v.add(path+".success", "is empty: name at least one status, such as 200")
	}
	for i, status := range g.Success {
		if !slices.Contains(Acknowledged(), status) {
			v.add(fmt.Sprintf("%s.success[%d]", path, i), "%d: Pub/Sub would deliver the message again: use some of 102, 200, 201, 202, 204", status)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(g.SuccessJSON)) {
		if len(g.SuccessJSON[field]) == 0 {
			v.add(path+".success_json."+field, "is empty: every answer would be a failure; name at least one value, or remove the field")
		}
	}
	v.oneOf(path+".on_lost", g.OnLost, string(OnLostRun), string(OnLostKill))
	v.oneOf(path+".unkeyed", g.Unkeyed, string(UnkeyedPass), string(UnkeyedRefuse))
	return &Guard{Scope: g.Scope, Paths: g.Paths, Success: g.Success, SuccessJSON: g.SuccessJSON, Cooldown: g.Cooldown, OnLost: OnLost(g.OnLost), Unkeyed: Unkeyed(g.Unkeyed),
		TTL: v.within(path+".ttl", g.TTL, MinGuardTTL), Limit: v.within(path+".limit", g.Limit, time.Second), Serial: g.Serial}
}

// within reads a duration of whole seconds that is no longer than a request of Cloud Run.
func (v *validator) within(path, s string, least time.Duration) time.Duration {
	d := v.seconds(path, s)
	if d > 0 && (d < least || d > MaxGuarded) {
		v.add(path, "%q is not between %gs and 1h: no request of Cloud Run takes longer", s, least.Seconds())
	}
	return d
}

// guards checks what a guard says against the other sections.
func (v *validator) guards(p *Pipeline) {
	scopes := map[string]bool{}
	for i, ph := range p.Phases {
		if ph.Guard == nil {
			continue
		}
		path := fmt.Sprintf("phases[%d].guard", i)
		v.unique(path+".scope", "scope", ph.Guard.Scope, scopes)
		var classes, tables []string
		for _, pr := range ph.Processors {
			classes = append(classes, pr.Class)
		}
		for _, t := range p.Transitions {
			if t.DownstreamPhase == ph.Name {
				tables = append(tables, t.Order...)
			}
		}
		if len(p.Transitions) > 0 && len(tables) == 0 {
			v.add(path, "no transition hands over to %q, so the service gets no trigger: remove guard, or correct downstream.phase", ph.Name)
			continue
		}
		for _, table := range slices.Sorted(maps.Keys(ph.Guard.Serial)) {
			at := path + ".serial." + table
			if !slices.Contains(tables, table) {
				v.add(at, "%q is source_table of no trigger to %q: the transitions hand over %s%s", clip(table), ph.Name, strings.Join(tables, ", "), DidYouMean(table, tables))
			}
			if len(ph.Guard.Serial[table]) == 0 {
				v.add(at, "is empty: name the classes of the processors that it sets off, or remove it")
			}
			v.distinct(at, "class", ph.Guard.Serial[table], func(at, class string) {
				if !slices.Contains(classes, class) {
					v.add(at, "unknown class %q: the phase has %s%s", clip(class), strings.Join(classes, ", "), DidYouMean(class, classes))
				}
			})
		}
	}
}

// warnings name what a guard leaves open.
func (g *Guard) warnings(path string, add func(format string, args ...any)) {
	if len(g.Serial) == 0 {
		return
	}
	if len(g.SuccessJSON) == 0 {
		add("%s.success_json is missing: if the service answers 200 although a lock of its own was held, its skipped work counts as done", path)
	}
	if !g.Cooldown || g.OnLost != OnLostKill {
		add("%s.serial without cooldown: true and on_lost: kill: if the service has a lock of its own, a run after a failure can meet it", path)
	}
}
