package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/policy"
)

// kind is what the page counts and filters cycles by.
type kind string

// The kinds that are no state of the engine.
const (
	kindLate       kind = "late"
	kindWithoutAll kind = "without_all"
	kindMadeUp     kind = "made_up"
	kindUnknown    kind = "unknown"
)

// look is how a kind is shown.
type look struct {
	Kind               kind
	Word, Tone, Symbol string
	loud               bool // it needs an operator
}

// looks are all kinds, in the order of the legend.
var looks = []look{
	{kind(policy.Overdue), "overdue", "bad", "over", true},
	{kind(cycle.StateBlocked), "blocked", "fair", "block", true},
	{kind(cycle.StateOnHold), "on hold", "hold", "pause", true},
	{kindUnknown, "unknown", "fair", "ask", true},
	{kind(cycle.StatePublishing), "publishing", "busy", "busy", false},
	{kind(cycle.StateChecking), "checking", "busy", "busy", false},
	{kind(cycle.StateGrace), "grace", "busy", "grace", false},
	{kind(policy.Waiting), "waiting", "calm", "wait", false},
	{kindWithoutAll, "published without all", "fair", "part", false},
	{kindLate, "published late", "fair", "late", false},
	{kindMadeUp, "made up for later", "calm", "miss", false},
	{kind(cycle.StatePublished), "published", "good", "ok", false},
	{kind(policy.Closed), "closed", "calm", "dash", false},
}

// rank is the place of a kind in looks: the worst is first.
func rank(k kind) int {
	return slices.IndexFunc(looks, func(l look) bool { return l.Kind == k })
}

func lookOf(k kind) look { return looks[rank(k)] }

// kindOf returns the kind of a cycle whose period can be read.
func kindOf(c *shown) kind {
	switch {
	case c.State == string(policy.Overdue) && c.made != "":
		return kindMadeUp
	case c.State == string(cycle.StatePublished) && len(c.Missing) > 0:
		return kindWithoutAll
	case c.State == string(cycle.StatePublished) && c.judged && !c.onTime:
		return kindLate
	}
	return kind(c.State)
}

// qualifier is what cycles.json says in addition to the state.
func (c *shown) qualifier() string {
	if string(c.kind) == c.State || c.kind == kindUnknown {
		return ""
	}
	return string(c.kind)
}

// since is from when on a cycle has been what it is, as far as that is recorded.
func (c *shown) since() time.Time {
	cal := c.of.Calendar()
	switch {
	case c.kind == kindUnknown:
		return time.Time{}
	case c.Hold != nil && c.State == string(cycle.StateOnHold):
		return c.Hold.Since
	case c.State == string(policy.Overdue) && c.TooLate:
		return c.of.LastInTime(c.period)
	case c.State == string(policy.Overdue):
		return c.mode.Due(cal, c.period)
	}
	for _, b := range c.Batches {
		if b.State != cycle.StatePublished {
			return begun(b)
		}
	}
	return c.Since
}

// begun is when a hand-over was due; before it is frozen, when it was begun.
func begun(b cycle.BatchStatus) time.Time {
	if b.DueAt.IsZero() {
		return b.CreatedAt
	}
	return b.DueAt
}

// stuck reports whether a hand-over should have been over by now, and since when it was due.
func (c *shown) stuck(now time.Time) (time.Time, bool) {
	if c.kind == kindUnknown || c.State == string(policy.Overdue) || c.State == string(cycle.StateBlocked) || c.State == string(cycle.StateOnHold) {
		return time.Time{}, false
	}
	for _, b := range c.Batches {
		if b.State != cycle.StatePublished && !b.DueAt.IsZero() && now.Sub(b.DueAt) > health.StuckAfter {
			return b.DueAt, true
		}
	}
	return c.Since, c.Due && !c.Since.IsZero() && now.Sub(c.Since) > health.StuckAfter
}

// size is how many processors the cycle expects.
func (c *shown) size() int { return len(c.Satisfied) + len(c.Missing) }

// name is what people call the cycle.
func (c *shown) name() string { return c.of.Called(c.period, c.mode.Name) }

// link is the address of the cycle's page, from the overview.
func (c *shown) link() string { return c.of.CyclePath(c.period, c.mode.Name) }

// label is what a cell says to a screen reader.
func (c *shown) label(clk clock) string {
	l := lookOf(c.kind)
	out := c.name() + ": " + l.Word
	if c.kind == kindUnknown {
		return out
	}
	out += fmt.Sprintf(", %d of %d", len(c.Satisfied), c.size())
	switch {
	case c.kind == kindWithoutAll:
		out += ", without " + few(c.Missing)
	case c.kind == kindMadeUp:
		out += ", " + c.made + " was handed over since"
	case c.Hold != nil && c.State == string(cycle.StateOnHold):
		out += ", until " + clk.short(c.Hold.Until)
	case l.loud && !c.since().IsZero():
		out += ", since " + clk.short(c.since())
	}
	if c.Early {
		out += ", before the adoption"
	}
	if c.planned != "" {
		out += ", planned maintenance"
	}
	return out
}

// command is what to type first about a cycle.
func (c *shown) command() string {
	args := string(c.period) + " " + c.mode.Name
	switch {
	case c.kind == kindUnknown:
		return "phasectl status --days 7"
	case c.Hold != nil && c.Hold.Whole && c.State == string(cycle.StateOnHold):
		return "phasectl release --reason '…'" + c.of.Option()
	case c.State == string(cycle.StateOnHold):
		return "phasectl release " + args + " --reason '…'" + c.of.Option()
	}
	return "phasectl explain " + args + c.of.Option()
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
