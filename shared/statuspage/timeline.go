package statuspage

import (
	"fmt"
	"slices"
	"strings"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/policy"
)

// timeline is the drawing of a cycle. Places across are per cent of its width, so that texts keep
// their size; data-at has the time of a mark, between data-from and data-to.
type timeline struct {
	From, To int64 // Unix seconds
	Height   int
	Bottom   int // of the lanes
	Label    string
	Note     string
	Lanes    []lane
	Rules    []int
	Ticks    []tick
	Grace    *area
	Lines    []line
	HandOver []string // x of published hand-overs
	Y        int      // of the hand-overs' lane
	Marks    []mark
	Batches  []batchMark
	Areas    []area // holds
	Outside  bool   // a mark stands for a time before or after the axis
}

type lane struct{ Name, Note string }

type tick struct {
	X, Text string
	At      int64
	Wide    bool // the text is shown in a wide window alone
}

// line is a vertical line with its label.
type line struct {
	X, Tone string
	Dash    bool
	Y       int // of the label; 0: none fits
	At      int64
	label
}

type area struct {
	X, Width, Tone, Title string
	Y                     int
	At                    int64
	label
}

// mark is a point in time on a lane.
type mark struct {
	X, Start, Tone, Symbol, Title string
	Y                             int
	At                            int64
	Edge                          bool // it is outside the axis
	label
}

type batchMark struct {
	X, End, Tone, Number string
	Title                string
	Y                    int
	At                   int64
	Open                 bool
	Width                int
	label
}

// Base is the y of a text in the middle of a lane.
func (m mark) Base() string      { return fmt.Sprintf("%.1f", float64(m.Y)+4.5) }
func (m batchMark) Base() string { return fmt.Sprintf("%.1f", float64(m.Y)+4.3) }
func (a area) Base() string      { return fmt.Sprintf("%.1f", float64(a.Y)+4.5) }

// Top is the y of a hold's area.
func (a area) Top() int { return a.Y - 9 }

// Half is half of a batch's width.
func (m batchMark) Half() int { return m.Width / 2 }

// From is the y at which a line begins, above its label.
func (l line) From() int { return l.Y - 10 }

// Depth is the height of the lanes.
func (t timeline) Depth() int { return t.Bottom - laneTop }

// Foot is the y of the texts below the lanes.
func (t timeline) Foot() int { return t.Bottom + 17 }

// newTimeline draws what is recorded of a cycle.
func newTimeline(s *cycleState, clk clock) timeline {
	c, x := s.shown, s.explained
	ax := newAxis(s, clk)
	t := timeline{From: ax.from.Unix(), To: ax.to.Unix()}
	places := newPlacer()
	runs := map[string][]cycle.RunStatus{}
	for _, r := range x.Runs {
		runs[r.Processor] = append(runs[r.Processor], r)
	}
	names, all := laneNames(c, x)
	for i, name := range names {
		t.Lanes = append(t.Lanes, lane{name, t.runs(i, name, runs[name], s, ax, places, clk)})
	}
	t.batches(len(names), s, ax, places, clk)
	t.people(len(names)+1, s, ax, places, clk)
	t.Lanes = append(t.Lanes, lane{"Hand-overs", "the number of the batch"}, lane{"People", "holds, triggers and closings"})
	for i := range len(t.Lanes) + 1 {
		t.Rules = append(t.Rules, laneTop+i*laneHeight)
	}
	t.Bottom = laneTop + len(t.Lanes)*laneHeight
	t.Height = t.Bottom + 22
	t.lines(s, ax, clk)
	t.ticks(ax, clk)
	t.Note = clk.in(ax.from).Format("Mon Jan 2 15:04") + " to " + clk.in(ax.to).Format("Mon Jan 2 15:04") + ", " + clk.cal.Zone().String()
	if all > len(names) {
		t.Note += fmt.Sprintf("; %d of %d processors, those that failed or are missing first", len(names), all)
	}
	t.Label = t.summary(c, x, clk)
	return t
}

// laneNames returns the processors that have a lane, and how many there are. If these are too many, those that
// failed or are missing come first.
func laneNames(c *shown, x cycle.Explanation) (names []string, all int) {
	known := map[string]bool{}
	add := func(name string) {
		if !known[name] {
			known[name] = true
			names = append(names, name)
		}
	}
	if c.mode.Size() > mostLanes {
		for _, name := range slices.Concat(x.Failed, x.Missing) {
			add(name)
		}
	}
	for _, name := range c.of.Order {
		if c.mode.Names(name) {
			add(name)
		}
	}
	for _, r := range x.Runs {
		add(r.Processor) // reported, and not expected
	}
	return names[:min(len(names), mostLanes)], len(names)
}

// summary says in words what the drawing shows.
func (t *timeline) summary(c *shown, x cycle.Explanation, clk clock) string {
	var parts []string
	for _, r := range x.Runs {
		parts = append(parts, fmt.Sprintf("%s %s at %s", r.Processor, r.Status, clk.short(r.EventTime)))
	}
	for _, b := range x.Batches {
		if b.PublishedAt.IsZero() {
			parts = append(parts, fmt.Sprintf("hand-over %d is %s since %s", b.N, b.State, clk.short(begun(b))))
		} else {
			parts = append(parts, fmt.Sprintf("hand-over %d at %s", b.N, clk.short(b.PublishedAt)))
		}
	}
	if len(parts) == 0 {
		return "nothing is recorded of " + c.name()
	}
	return strings.Join(policy.Capped(parts), "; ")
}
