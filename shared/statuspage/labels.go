package statuspage

import "slices"

// The narrowest drawings, in pixels: of a wide window (64 rem), and of a phone.
const (
	widePixels   = 736
	narrowPixels = 288
	charPixels   = 6.8 // of the font, on average
)

// label is a text next to a mark: Text always, Extra in a wide window.
type label struct {
	Text, Extra string
	TextX       string
	Dx          int
	Anchor      string
	Wide        bool // all of it in a wide window alone
}

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
