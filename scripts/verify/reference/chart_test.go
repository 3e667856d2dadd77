package reference

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the chart")

// The chart of completions at once is drawn from the table of the page, so it cannot differ from it.
func TestReferenceOfFanIn_ChartShowsTheTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "explanation", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	got := chart(fanIn(t, string(page)))
	file := filepath.Join(root, "docs", "images", "fan-in.svg")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/images/fan-in.svg is not the table's: %v; run this test with -update", err)
	}
}

// design is one column of the table.
type design struct {
	name   string
	points []point
}

type point struct {
	completions, seconds float64
	failed               bool
}

var (
	rowOfDouble = regexp.MustCompile(`(?m)^\| ([\d,]+), double \|(.*)\|$`)
	cellOfTime  = regexp.MustCompile(`^([\d.,]+) s(; .*fail.*)?`)
)

// fanIn reads the rows of the double: completions, then a time for each design.
func fanIn(t *testing.T, page string) []design {
	t.Helper()
	designs := []design{{name: "Phasegate"}, {name: "a transaction that counts"}, {name: "a document each, counted"}}
	for _, row := range rowOfDouble.FindAllStringSubmatch(page, -1) {
		n := number(t, row[1])
		cells := strings.Split(row[2], "|")
		for i, column := range []int{0, len(cells) - 2, len(cells) - 1} {
			if m := cellOfTime.FindStringSubmatch(strings.TrimSpace(cells[column])); m != nil {
				designs[i].points = append(designs[i].points, point{n, number(t, m[1]), m[2] != ""})
			}
		}
	}
	if len(designs[0].points) < 4 || len(designs[1].points) == 0 || len(designs[2].points) == 0 {
		t.Fatalf("the table has other columns than the chart expects: %v", designs)
	}
	return designs
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(strings.ReplaceAll(text, ",", ""), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// chart draws the designs on two logarithmic axes. A hollow point is a run in which completions failed.
func chart(designs []design) []byte {
	const (
		left, right, top, bottom = 64, 520, 24, 320
		fewest, most             = 3, 20_000  // completions
		fastest, slowest         = 0.2, 1_000 // seconds
	)
	x := func(n float64) float64 {
		return left + (right-left)*math.Log(n/fewest)/math.Log(float64(most)/fewest)
	}
	y := func(s float64) float64 {
		return bottom - (bottom-top)*math.Log(s/fastest)/math.Log(slowest/fastest)
	}
	var b bytes.Buffer
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 372" role="img" font-family="system-ui, sans-serif" font-size="12">`)
	line(`<title>Seconds until all completions of a period that arrive at once are answered, by their number, for three designs</title>`)
	line(`<style>text{fill:#57606a}.grid{stroke:#8c959f;stroke-opacity:.3}.d0{stroke:#1a7f37;fill:#1a7f37}.d1{stroke:#cf222e;fill:#cf222e}.d2{stroke:#9a6700;fill:#9a6700}.failed{fill:#fff}path{fill:none!important;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#8d96a0}.d0{stroke:#3fb950;fill:#3fb950}.d1{stroke:#f85149;fill:#f85149}.d2{stroke:#d29922;fill:#d29922}.failed{fill:#0d1117}}</style>`)
	for _, s := range []float64{1, 10, 100, 1_000} {
		line(`<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%g s</text>`, left, right, y(s), y(s), left-8, y(s)+4, s)
	}
	for _, n := range []float64{5, 23, 100, 300, 1_000, 10_000} {
		line(`<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>`, x(n), x(n), top, bottom, x(n), bottom+18, n)
	}
	line(`<text x="%d" y="%d" text-anchor="middle">completions of one period at once</text>`, (left+right)/2, bottom+40)
	for i, d := range designs {
		var path []string
		for _, p := range d.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(p.completions), y(p.seconds)))
		}
		line(`<path class="d%d" d="M%s"/>`, i, strings.Join(path, " L"))
		for _, p := range d.points {
			class := fmt.Sprintf("d%d", i)
			if p.failed {
				class += " failed"
			}
			line(`<circle class="%s" cx="%.1f" cy="%.1f" r="4.5" stroke-width="2"/>`, class, x(p.completions), y(p.seconds))
		}
		line(`<circle class="d%d" cx="%d" cy="%d" r="4.5"/><text x="%d" y="%d">%s</text>`, i, right+24, 56+24*i, right+36, 60+24*i, d.name)
	}
	line(`<circle class="d1 failed" cx="%d" cy="%d" r="4.5" stroke-width="2"/><text x="%d" y="%d">hollow: completions failed</text>`, right+24, 136, right+36, 140)
	line(`</svg>`)
	return b.Bytes()
}
