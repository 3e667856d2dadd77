package statuspage

import (
	"fmt"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
)

const (
	laneTop    = 40
	laneHeight = 42
	closest    = 22 // between two hand-overs that are two marks
)

func laneY(i int) int { return laneTop + i*laneHeight + laneHeight/2 }

// runs draws the runs of a processor on its lane, and returns what stands below its name.
func (t *timeline) runs(i int, name string, runs []cycle.RunStatus, s *cycleState, ax axis, places *placer, clk clock) string {
	c := s.shown
	first := len(t.Marks)
	var extras []string
	failed, all := 0, 0
	type edge struct{ from, to float64 }
	var edges []edge
	for _, r := range runs {
		all++
		m := mark{Tone: "good", Symbol: "dot", Y: laneY(i), At: r.EventTime.Unix()}
		extra := ""
		if r.RecordCount != nil {
			extra = " " + count(int(*r.RecordCount), "row")
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
	if c.mode.IsCritical(name) {
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
