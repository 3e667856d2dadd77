package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
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

// label is a text next to a mark: Text always, Extra in a wide window.
type label struct {
	Text, Extra string
	TextX       string
	Dx          int
	Anchor      string
	Wide        bool // all of it in a wide window alone
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

const (
	laneTop    = 40
	laneHeight = 42
	// The narrowest drawings, in pixels: of a wide window (64 rem), and of a phone.
	widePixels   = 736
	narrowPixels = 288
	charPixels   = 6.8 // of the font, on average
	closest      = 22  // between two hand-overs that are two marks
	// around is what the axis shows before and after the deadline at most, of days and of hours.
	daysBefore, daysAfter   = 24 * time.Hour, 14 * time.Hour
	hoursBefore, hoursAfter = 4 * time.Hour, 8 * time.Hour
)

// axis maps times to places.
type axis struct{ from, to time.Time }

func (a axis) share(t time.Time) float64 {
	return 100 * float64(t.Sub(a.from)) / float64(a.to.Sub(a.from))
}

func (a axis) x(t time.Time) string { return per(a.share(t)) }

func (a axis) inside(t time.Time) bool { return !t.Before(a.from) && !t.After(a.to) }

func per(share float64) string { return fmt.Sprintf("%.2f%%", share) }

// placer keeps labels of a lane apart, at both widths.
type placer struct{ narrow, wide map[int][][2]float64 }

func newPlacer() *placer { return &placer{map[int][][2]float64{}, map[int][][2]float64{}} }

// take reserves what a mark covers: a share of the width, and so many pixels to both sides.
func (p *placer) take(lane int, from, to, pixels float64) {
	p.narrow[lane] = append(p.narrow[lane], [2]float64{from*narrowPixels/100 - pixels, to*narrowPixels/100 + pixels})
	p.wide[lane] = append(p.wide[lane], [2]float64{from*widePixels/100 - pixels, to*widePixels/100 + pixels})
}

func free(taken [][2]float64, at [2]float64, width float64) bool {
	return at[0] >= 0 && at[1] <= width && !slices.ContainsFunc(taken, func(o [2]float64) bool { return at[0] < o[1] && o[0] < at[1] })
}

// place finds the side on which a label fits, and how much of it.
func (p *placer) place(lane int, from, to float64, pixels float64, text, extra string) (out label, ok bool) {
	best := 0
	var narrow, wide [2]float64
	for _, right := range []bool{true, false} {
		span := func(width float64, text string) [2]float64 {
			length := charPixels*float64(len([]rune(text))) + 2
			if right {
				at := to*width/100 + pixels + 3
				return [2]float64{at, at + length}
			}
			at := from*width/100 - pixels - 3
			return [2]float64{at - length, at}
		}
		n, w, full := span(narrowPixels, text), span(widePixels, text), span(widePixels, text+extra)
		score, fits := 0, false
		candidate := label{Text: text, TextX: per(to), Dx: int(pixels) + 3}
		if !right {
			candidate.TextX, candidate.Dx, candidate.Anchor = per(from), -int(pixels)-3, "end"
		}
		taken := w
		switch {
		case free(p.wide[lane], full, widePixels):
			score, candidate.Extra, taken, fits = 2, extra, full, true
		case free(p.wide[lane], w, widePixels):
			score, fits = 1, true
		}
		inNarrow := free(p.narrow[lane], n, narrowPixels)
		if inNarrow {
			score += 2
		}
		if candidate.Wide = !inNarrow; fits && score > best {
			best, out, narrow, wide = score, candidate, n, taken
		}
	}
	if best == 0 {
		return label{}, false
	}
	p.wide[lane] = append(p.wide[lane], wide)
	if !out.Wide {
		p.narrow[lane] = append(p.narrow[lane], narrow)
	}
	return out, true
}

// newTimeline draws what is recorded of a cycle.
func newTimeline(s *cycleState, clk clock) timeline {
	c, x := s.shown, s.explained
	ax := newAxis(s, clk)
	t := timeline{From: ax.from.Unix(), To: ax.to.Unix()}
	places := newPlacer()
	var names []string
	for _, name := range c.of.Order {
		if c.mode.Names(name) {
			names = append(names, name)
		}
	}
	for _, r := range x.Runs {
		if !slices.Contains(names, r.Processor) {
			names = append(names, r.Processor) // reported, and not expected
		}
	}
	for i, name := range names {
		t.Lanes = append(t.Lanes, lane{name, t.runs(i, name, s, ax, places, clk)})
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
	t.Label = t.summary(c, x, clk)
	return t
}

// newAxis covers what happened, as far as it is near the deadline.
func newAxis(s *cycleState, clk clock) axis {
	c, x := s.shown, s.explained
	cal := clk.cal
	due := c.mode.Due(cal, c.period)
	low, high := due.Add(-daysBefore), due.Add(daysAfter)
	least := 2 * time.Hour
	if cal.Hourly() {
		low, high, least = due.Add(-hoursBefore), due.Add(hoursAfter), 30*time.Minute
	}
	if from := cal.Instant(c.period, c.mode.CountsFrom); from.After(low) && from.Before(due) {
		low = from // earlier runs are of another mode
	}
	from, to := due, due
	add := func(t time.Time) {
		if !t.IsZero() && !t.Before(low) && !t.After(high) {
			if t.Before(from) {
				from = t
			}
			if t.After(to) {
				to = t
			}
		}
	}
	if c.mode.NotBefore != nil {
		add(cal.Instant(c.period, *c.mode.NotBefore))
	}
	for _, r := range x.Runs {
		add(r.EventTime)
		if r.Duration != nil {
			add(r.EventTime.Add(-time.Duration(*r.Duration * float64(time.Second))))
		}
	}
	for _, b := range x.Batches {
		add(begun(b))
		add(b.PublishedAt)
	}
	for _, r := range s.records {
		add(r.At)
	}
	if ended := c.State == string(cycle.StatePublished); !ended {
		add(s.at)
	}
	if d := to.Sub(from); d < least {
		from, to = from.Add((d-least)/2), to.Add((least-d)/2)
	}
	pad := to.Sub(from) / 20
	return axis{from.Add(-pad).Truncate(time.Second), to.Add(pad).Truncate(time.Second)}
}

func laneY(i int) int { return laneTop + i*laneHeight + laneHeight/2 }

// runs draws the runs of a processor on its lane, and returns what stands below its name.
func (t *timeline) runs(i int, name string, s *cycleState, ax axis, places *placer, clk clock) string {
	c := s.shown
	first := len(t.Marks)
	var extras []string
	failed, all := 0, 0
	type edge struct{ from, to float64 }
	var edges []edge
	for _, r := range s.explained.Runs {
		if r.Processor != name {
			continue
		}
		all++
		m := mark{Tone: "good", Symbol: "dot", Y: laneY(i), At: r.EventTime.Unix()}
		extra := ""
		if r.RecordCount != nil {
			extra = fmt.Sprintf(" %d rows", *r.RecordCount)
		}
		switch {
		case r.Status == wire.StatusFailed:
			m.Tone, m.Symbol, extra = "bad", "fail", " failed"
			failed++
		case !r.Counts:
			m.Tone, m.Symbol, extra = "calm", "dash", " "+string(r.Status)
		case late(c, r):
			m.Tone, extra = "fair", extra+", late"
		}
		m.Title = fmt.Sprintf("%s: %s at %s%s", name, r.Status, clk.exact(r.EventTime), strings.ReplaceAll(extra, " failed", ""))
		e := edge{}
		switch {
		case r.EventTime.Before(ax.from):
			m.Symbol, m.Edge, m.X, e = "left", true, "0.8%", edge{0.8, 0.8}
			t.Outside = true
		case r.EventTime.After(ax.to):
			m.Symbol, m.Edge, m.X, e = "right", true, "99.2%", edge{99.2, 99.2}
			t.Outside = true
		default:
			m.X = ax.x(r.EventTime)
			e = edge{ax.share(r.EventTime), ax.share(r.EventTime)}
			if r.Duration != nil {
				began := max(ax.share(r.EventTime.Add(-time.Duration(*r.Duration*float64(time.Second)))), 0)
				m.Start, e.from = per(began), began
			}
		}
		t.Marks, extras, edges = append(t.Marks, m), append(extras, extra), append(edges, e)
		places.take(i, e.from, e.to, 7)
	}
	for k := range t.Marks[first:] {
		m := &t.Marks[first+k]
		text := clk.in(time.Unix(m.At, 0)).Format("15:04")
		if m.Edge {
			text, extras[k] = clk.in(time.Unix(m.At, 0)).Format("Jan 2 15:04"), ""
		}
		m.label, _ = places.place(i, edges[k].from, edges[k].to, 7, text, extras[k])
	}
	var words []string
	if slices.Contains(c.mode.Critical, name) {
		words = append(words, "critical")
	}
	if !c.mode.Names(name) {
		words = append(words, "not expected")
	}
	switch {
	case all == 0:
		words = append(words, "no run yet")
	case failed > 0:
		words = append(words, fmt.Sprintf("%s, %d failed", count(all, "run"), failed))
	default:
		words = append(words, count(all, "run"))
	}
	return strings.Join(words, " · ")
}

// batches draws the hand-overs. Those that would cover each other are one mark.
func (t *timeline) batches(i int, s *cycleState, ax axis, places *placer, clk clock) {
	t.Y = laneY(i)
	var last float64
	for _, b := range s.explained.Batches {
		at := b.PublishedAt
		open := at.IsZero()
		if open {
			at = begun(b)
		}
		if at.IsZero() || !ax.inside(at) {
			continue
		}
		share := ax.share(at)
		if n := len(t.Batches); n > 0 && (share-last)*narrowPixels/100 < closest && !open && !t.Batches[n-1].Open {
			m := &t.Batches[n-1]
			first, _, _ := strings.Cut(m.Number, "–")
			m.Number, m.Width = fmt.Sprintf("%s–%d", first, b.N), 34
			m.Title += fmt.Sprintf(", %d at %s", b.N, clk.exact(at))
			last = max(last, share-1)
			continue
		}
		l := lookOf(kind(b.State))
		m := batchMark{X: per(share), Tone: l.Tone, Number: fmt.Sprint(b.N), Y: t.Y, At: at.Unix(), Open: open, Width: 18, Title: fmt.Sprintf("hand-over %d at %s", b.N, clk.exact(at))}
		if open {
			end := min(ax.share(s.at), 100)
			m.End = per(max(end, share))
		} else {
			t.HandOver = append(t.HandOver, m.X)
		}
		t.Batches = append(t.Batches, m)
		last = share
	}
	for k := range t.Batches {
		share := ax.share(time.Unix(t.Batches[k].At, 0))
		places.take(i, share, share, float64(t.Batches[k].Width)/2)
	}
	for k := range t.Batches {
		m := &t.Batches[k]
		share := ax.share(time.Unix(m.At, 0))
		text := clk.in(time.Unix(m.At, 0)).Format("15:04")
		if m.Open {
			text = string(s.explained.State)
		}
		m.label, _ = places.place(i, share, share, float64(m.Width)/2, text, "")
	}
}

// people draws what operators did: holds as areas, the rest as points.
func (t *timeline) people(i int, s *cycleState, ax axis, places *placer, clk clock) {
	y := laneY(i)
	type placed struct {
		from, to float64
		text     string
		extra    string
		into     *label
	}
	var all []placed
	areas, marks := []area{}, []mark{}
	for k, r := range s.records {
		if r.Action == "release" || r.Action == "sweep" {
			continue
		}
		if r.Action == "hold" {
			from, to := ax.share(r.At), ax.share(holdEnd(s, k))
			if from = max(from, 0); from > 100 || to < 0 {
				continue
			}
			to = min(to, 100)
			areas = append(areas, area{X: per(from), Width: per(to - from), Tone: "hold", Y: y, At: max(r.At.Unix(), t.From), Title: fmt.Sprintf("hold by %s at %s", r.Actor, clk.exact(r.At))})
			places.take(i, from, to, 2)
			all = append(all, placed{from, to, "hold", " by " + cutShort(r.Actor), nil})
			continue
		}
		if !ax.inside(r.At) {
			continue
		}
		share := ax.share(r.At)
		marks = append(marks, mark{X: per(share), Tone: "calm", Symbol: "person", Y: y, At: r.At.Unix(), Title: fmt.Sprintf("%s by %s at %s", r.Action, r.Actor, clk.exact(r.At))})
		places.take(i, share, share, 8)
		all = append(all, placed{share, share, cutShort(r.Action), " by " + cutShort(r.Actor), nil})
	}
	a, m := 0, 0
	for _, p := range all {
		l, _ := places.place(i, p.from, p.to, 8, p.text, p.extra)
		if p.text == "hold" && a < len(areas) && areas[a].X == per(p.from) {
			areas[a].label = l
			a++
		} else {
			marks[m].label = l
			m++
		}
	}
	t.Areas, t.Marks = areas, append(t.Marks, marks...)
}

func cutShort(s string) string {
	if r := []rune(s); len(r) > 16 {
		return string(r[:15]) + "…"
	}
	return s
}

// holdEnd is when the hold of a record ended: with the next release or hold of the same scope, or
// at the time that the record says.
func holdEnd(s *cycleState, i int) time.Time {
	r := s.records[i]
	end := until(r)
	for _, later := range s.records[i+1:] {
		if (later.Action == "release" || later.Action == "hold") && later.Mode == r.Mode && later.At.Before(end) {
			return later.At
		}
	}
	if end.After(s.at) {
		return s.at
	}
	return end
}

// until reads the end of a hold from its record; the engine writes "…, until TIME: …".
func until(r audit.Recorded) time.Time {
	_, rest, _ := strings.Cut(r.Detail, ", until ")
	word, _, _ := strings.Cut(rest, ": ")
	t, err := time.Parse(time.RFC3339, word)
	if err != nil {
		return r.At
	}
	return t
}

// lines draws the limits of the mode, and the time of the read.
func (t *timeline) lines(s *cycleState, ax axis, clk clock) {
	c, cal := s.shown, clk.cal
	places := newPlacer()
	add := func(at time.Time, tone, text, extra string, dash bool) {
		if !ax.inside(at) {
			return
		}
		l := line{X: ax.x(at), Tone: tone, Dash: dash, At: at.Unix()}
		for row, y := range []int{12, 30} {
			if got, ok := places.place(row, ax.share(at), ax.share(at), 2, text, extra); ok && (!got.Wide || row == 1) {
				l.label, l.Y = got, y
				break
			}
		}
		places.take(0, ax.share(at), ax.share(at), 1)
		places.take(1, ax.share(at), ax.share(at), 1)
		t.Lines = append(t.Lines, l)
	}
	if c.mode.Deadline != nil {
		at := cal.Instant(c.period, *c.mode.Deadline)
		add(at, "bad", "deadline", " "+clk.in(at).Format("15:04"), true)
	}
	if c.mode.NotBefore != nil {
		at := cal.Instant(c.period, *c.mode.NotBefore)
		add(at, "calm", "not before", " "+clk.in(at).Format("15:04"), false)
	}
	if c.State != string(cycle.StatePublished) {
		add(s.at, "calm", "now", "", true)
	}
	if from, to, ok := grace(c); ok && ax.inside(from) && ax.inside(to) {
		t.Grace = &area{X: ax.x(from), Width: per(ax.share(to) - ax.share(from)), Tone: "busy", Y: laneTop, At: from.Unix(),
			Title: "grace period from " + clk.short(from) + " to " + clk.short(to)}
		if l, ok := places.place(1, ax.share(from), ax.share(from), 2, "grace", " "+span(to.Sub(from))); ok {
			t.Grace.label = l
		}
	}
}

// grace is the window in which the cycle waited, or waits, for optional processors.
func grace(c *shown) (from, to time.Time, ok bool) {
	if c.mode.Grace == nil {
		return from, to, false
	}
	for _, b := range c.Batches {
		if !b.GraceSince.IsZero() {
			return b.GraceSince, b.GraceSince.Add(c.mode.Grace.After), true
		}
	}
	return from, to, false
}

// ticks are hours of the local clock, or minutes of an hour. A change of the clock adds the zone.
func (t *timeline) ticks(ax axis, clk clock) {
	minutes := int(ax.to.Sub(ax.from).Minutes())
	step := 0
	for _, m := range []int{5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440} {
		if step = m; minutes/m <= 13 {
			break
		}
	}
	skip := 1 // every which label a phone shows
	for minutes/(step*skip) > 5 {
		skip++
	}
	unit := time.Duration(min(step, 60)) * time.Minute
	_, before := clk.in(ax.from).Zone()
	_, after := clk.in(ax.to).Zone()
	layout := "15:04"
	if before != after {
		layout = "15:04 MST"
		skip *= 2
	}
	n := 0
	previous := ""
	for at := ax.from.Truncate(unit).Add(unit); at.Before(ax.to); at = at.Add(unit) {
		l := clk.in(at)
		wall := l.Hour()*60 + l.Minute()
		if wall%step != 0 {
			continue
		}
		tk := tick{X: ax.x(at), At: at.Unix()}
		share := ax.share(at)
		if text := l.Format(layout); share > 3 && share < 97 && (step < 60 || l.Format("15") != previous || step == 60) {
			tk.Text, previous = text, l.Format("15")
			tk.Wide = n%skip != 0 || share < 8 || share > 92
			n++
		}
		t.Ticks = append(t.Ticks, tk)
	}
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
	return strings.Join(parts, "; ")
}
