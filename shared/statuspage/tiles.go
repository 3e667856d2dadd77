package statuspage

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/reconcile"
)

// tile is a number with its course, as docs/reference/glossary.md defines it.
type tile struct {
	Title, Number, Note string
	Label               string // of the drawing
	Line                string // points of a line, in 0 to 100
	DotY                string // where the line ends, in per cent
	Bars                []bar
	Goal                string // y of the dashed line, as an attribute; "" without
}

// bar is one of a day, from the left.
type bar struct {
	X, Width, Y, Height string
	Hot                 bool
}

// chart is the height of the drawing, in pixels, and the ground of its bars.
const chart = 34

func tiles(a *app.App, s *state, clk clock) []tile {
	for _, t := range s.transitions {
		if t.err != nil {
			return nil // what is left of the numbers would be wrong
		}
	}
	return []tile{onTime(a, s, clk), latencies(s, clk), accuracy(s, clk), duplicates(s, clk)}
}

// window returns the days of the window, the oldest first.
func window(s *state, clk clock) (out []pipeline.Period) {
	daily := clk.cal.Daily()
	today := daily.At(clk.now)
	for i := range s.days {
		out = append(out, daily.Add(today, i-s.days+1))
	}
	return out
}

// onTime is the share of judged cycles that were handed over before their deadline.
func onTime(a *app.App, s *state, clk clock) tile {
	judged, good := map[pipeline.Period]int{}, map[pipeline.Period]int{}
	for _, t := range s.transitions {
		for _, c := range t.cycles {
			if !c.judged {
				continue
			}
			day := clk.cal.Day(c.period)
			judged[day]++
			if c.onTime {
				good[day]++
			}
		}
	}
	out := tile{Title: fmt.Sprintf("On time, %d days", s.days), Number: "—", Note: "no cycle was due"}
	var shares []float64
	n, ok := 0, 0
	for _, day := range window(s, clk) {
		n, ok = n+judged[day], ok+good[day]
		if n > 0 {
			shares = append(shares, 100*float64(ok)/float64(n))
		}
	}
	if n == 0 {
		return out
	}
	slo := float64(a.Pipeline.Health.SLOPct)
	share := shares[len(shares)-1]
	out.Number = percent(share)
	out.Note = fmt.Sprintf("%d of %s, goal %s", ok, count(n, "cycle"), percent(slo))
	out.Label = fmt.Sprintf("share on time since the beginning of the window, now %s, goal %s", percent(share), percent(slo))
	least := min(slices.Min(shares), slo)
	least = max(0, least-(100-least)/4-0.5)
	y := func(v float64) float64 { return 4 + 92*(100-v)/(100-least) }
	var points []string
	for i, v := range shares {
		x := 100.0
		if len(shares) > 1 {
			x = 100 * float64(i) / float64(len(shares)-1)
		}
		points = append(points, fmt.Sprintf("%.4g,%.4g", x, y(v)))
	}
	out.Line, out.DotY, out.Goal = strings.Join(points, " "), fmt.Sprintf("%.4g%%", y(share)), fmt.Sprintf("%.4g%%", y(slo))
	return out
}

// percent writes a share: 100 % only if it is all.
func percent(v float64) string {
	v = math.Floor(v*10) / 10
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f %%", v)
	}
	return fmt.Sprintf("%.1f %%", v)
}

// latencies are the slowest hand-overs of each day.
func latencies(s *state, clk clock) tile {
	out := tile{Title: "Slowest hand-over, newest day", Number: "—", Note: "no hand-over that a policy caused"}
	slowest := map[pipeline.Period]time.Duration{}
	var all []time.Duration
	var warn time.Duration
	daily := clk.cal.Daily()
	for _, t := range s.transitions {
		if t.HandOver != nil && (warn == 0 || t.HandOver.Warn < warn) {
			warn = t.HandOver.Warn
		}
		for _, c := range t.cycles {
			for _, b := range c.Batches {
				if took, ok := reconcile.Took(b); ok {
					all = append(all, took)
					day := daily.At(b.DueAt)
					slowest[day] = max(slowest[day], took)
				}
			}
		}
	}
	if len(all) == 0 {
		return out
	}
	days := window(s, clk)
	for _, day := range days {
		if d, ok := slowest[day]; ok {
			out.Number = span(d)
		}
	}
	l := reconcile.Percentiles(all)
	seconds := func(v float64) string { return span(time.Duration(v * float64(time.Second))) }
	out.Note = fmt.Sprintf("median %s, 95 %% within %s", seconds(l.P50), seconds(l.P95))
	out.Label = fmt.Sprintf("slowest hand-over of each day, on a logarithmic scale; the slowest took %s", seconds(l.Max))
	most := math.Log1p(max(l.Max, warn.Seconds()) * 1.2)
	if warn > 0 {
		out.Note += "; dashed: the warning, " + span(warn)
		out.Goal = fmt.Sprintf("%.4g", chart*(1-math.Log1p(warn.Seconds())/most))
	}
	out.Bars = bars(days, func(day pipeline.Period) (float64, bool) {
		d, ok := slowest[day]
		if !ok {
			return 0, false
		}
		return max(math.Log1p(d.Seconds())/most, 0.06), warn > 0 && d > warn
	})
	return out
}

// bars draws a bar a day; its height is a share of the chart's.
func bars(days []pipeline.Period, height func(pipeline.Period) (float64, bool)) (out []bar) {
	step := 100 / float64(len(days))
	for i, day := range days {
		share, hot := height(day)
		if share > 0 {
			h := chart * share
			out = append(out, bar{fmt.Sprintf("%.4g%%", float64(i)*step), fmt.Sprintf("%.4g%%", min(step*0.65, 5)), fmt.Sprintf("%.4g", chart-h), fmt.Sprintf("%.4g", h), hot})
		}
	}
	return out
}

// accuracy is what the last health report measured.
func accuracy(s *state, clk clock) tile {
	out := tile{Title: "Tracking accuracy", Number: "—", Note: measured(s, clk, "the tables could not all be read")}
	if t := s.report.Tracking; t != nil {
		out.Number = percent(100 * float64(t.Shown) / float64(t.Tables))
		out.Note = fmt.Sprintf("%d of %s with rows are shown as complete", t.Shown, count(t.Tables, "table"))
	}
	return out
}

// measured is why there is no number.
func measured(s *state, clk clock, why string) string {
	switch {
	case s.reportErr != nil:
		return "the health report cannot be read"
	case s.report.At.IsZero():
		return "health is not evaluated yet"
	}
	return why + " at " + clk.short(s.report.At)
}

// duplicates are the rows that the last health report found, and those that sweeps removed.
func duplicates(s *state, clk clock) tile {
	out := tile{Title: "Duplicate rows", Number: "—", Note: measured(s, clk, "the tables could not all be read")}
	if n := s.report.DuplicateRows; n != nil {
		out.Number, out.Note = fmt.Sprint(*n), "found at "+clk.short(s.report.At)
	}
	if s.removalsErr != nil {
		return out
	}
	removed := map[pipeline.Period]int64{}
	var total, most int64
	days := window(s, clk)
	for _, r := range s.removals {
		day := clk.cal.Daily().At(r.At)
		if r.State == "applied" && slices.Contains(days, day) {
			removed[day] += r.Removed
			total, most = total+r.Removed, max(most, removed[day])
		}
	}
	if total > 0 {
		out.Note += fmt.Sprintf("; sweeps removed %d", total)
		out.Label = fmt.Sprintf("rows that sweeps removed on each day, %d in all", total)
		out.Bars = bars(days, func(day pipeline.Period) (float64, bool) { return float64(removed[day]) / float64(most), false })
	}
	return out
}
