package browser

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/scripts/dev/demo"
	"github.com/phasegate/phasegate/scripts/dev/local"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/sqlite"
	"github.com/phasegate/phasegate/shared/warehouse"
	"github.com/phasegate/phasegate/shared/wire"
)

var update = flag.Bool("update", false, "write the screenshots of docs/ anew")

// played is the state that a story of the demo leaves behind.
func played(t *testing.T, file string) *world {
	t.Helper()
	db := filepath.Join(t.TempDir(), "store.db")
	env, result, err := demo.Run(t.Context(), io.Discard, demo.View{}, local.Options{
		Config: app.Config{Project: "demo", PipelineFile: file, Claim: time.Minute, Lease: lease.Max}, Logs: io.Discard,
		Stores: func(now func() time.Time) app.Stores {
			return func(context.Context, app.Config) (store.Store, error) { return sqlite.Open(db, now) }
		},
	})
	if env != nil {
		t.Cleanup(func() {
			if err := env.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil || !result.OK() {
		t.Fatalf("%+v, %v", result, err)
	}
	w := &world{App: env.App, t: t, env: env}
	s := httptest.NewServer(health.New(func(context.Context) (*app.App, error) { return w.App, nil }))
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// until sets the clock of the demo to a local time.
func (w *world) until(local string) { w.t.Helper(); w.env.Clock.AdvanceTo(w.local(local)) }

// evaluate writes the heartbeats of all jobs, and evaluates health.
func (w *world) evaluate() {
	w.t.Helper()
	for _, s := range w.Pipeline.Schedules {
		w.must(w.Heartbeat(w.t.Context(), s.Function, s.Job))
	}
	c := w.checker()
	c.Reconcile.Contents = func(_ context.Context, ps []pipeline.Processor, from, to pipeline.Period) map[string]warehouse.Contents {
		out := map[string]warehouse.Contents{}
		for _, p := range ps {
			out[p.Table] = warehouse.Contents{Slices: map[pipeline.Period]warehouse.Slice{}}
		}
		for _, t := range w.Pipeline.Transitions { // the tables have the row counts that the runs reported
			periods, err := w.Engine.PeriodStates(w.t.Context(), t, from, to)
			w.must(err)
			for _, b := range periods {
				for _, m := range t.Modes {
					for name, r := range b.Counting(m) {
						_, p, _ := w.Pipeline.Processor(name)
						if table, ok := out[p.Table]; ok && r.RecordCount != nil {
							table.Slices[b.Period] = warehouse.Slice{Rows: *r.RecordCount, Oldest: r.EventTime, Newest: r.EventTime}
						}
					}
				}
			}
		}
		for _, p := range ps {
			if w.Pipeline.ReportsTo(p.Name) == nil { // the next phase has run for every period
				for day := from; day <= to; day = w.Pipeline.Calendar.Add(day, 1) {
					out[p.Table].Slices[day] = warehouse.Slice{Rows: 200, Oldest: w.Now(), Newest: w.Now()}
				}
			}
		}
		return out
	}
	c.FirstRuns = func(_ context.Context, from, to pipeline.Period) (out []warehouse.FirstRun, err error) {
		for day := from; day <= to; day = w.Pipeline.Calendar.Add(day, 1) {
			out = append(out, warehouse.FirstRun{Source: "nbac_gamebook", Day: day, At: w.Pipeline.Calendar.Start(day).Add(6 * time.Hour)})
		}
		return out, nil
	}
	c.Dead = func(context.Context) (map[string]int64, error) {
		dead := map[string]int64{}
		for _, t := range w.Pipeline.Transitions {
			dead[pipeline.DeadLetterTopic(t.UpstreamTopic)], dead[pipeline.DeadLetterTopic(t.ShadowTopic())] = 0, 0
		}
		for _, s := range w.Pipeline.Schedules {
			dead[pipeline.DeadLetterTopic(s.Topic())] = 0
		}
		return dead, nil
	}
	w.must(c.Remember(w.t.Context(), c.Run(w.t.Context())))
}

// The pictures of docs/ are those of the demo's state: a good night, a bad one after it, a cycle,
// and the pipeline by the hour.
func TestScreenshots_OfDemo(t *testing.T) {
	ctx := chromium(t)
	w := played(t, "")
	shoot := func(name, path string, w *world, heights ...int64) {
		t.Helper()
		for i, width := range []int64{1280, 390} {
			w.open(ctx, path, width, heights[i], false)
			if wrong := ask[[]string](t, ctx, layout); len(wrong) > 0 {
				t.Errorf("%s, %d px:\n  %s", name, width, strings.Join(wrong, "\n  "))
			}
			var picture []byte
			w.must(chromedp.Run(ctx, chromedp.CaptureScreenshot(&picture)))
			picture = small(t, picture)
			if len(picture) > 150<<10 {
				t.Errorf("%s, %d px: %d KiB", name, width, len(picture)>>10)
			}
			if file := filepath.Join("..", "..", "..", "docs", "images", "status-page-"+name+map[int64]string{1280: "", 390: "-phone"}[width]+".png"); *update {
				w.must(os.WriteFile(file, picture, 0o644))
			} else if _, err := os.Stat(file); err != nil {
				t.Error(err)
			}
		}
	}
	headlineOf := func(w *world, want string) {
		t.Helper()
		w.open(ctx, "", 1280, 900, false)
		if got := ask[string](t, ctx, headline); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	_, err := delivery.MarkDiscarded(t.Context(), w.App, "m11", audit.Record{Action: "quarantine_discard", Actor: "ada", Reason: "the next report had a date"}, "r1")
	w.must(err)
	w.evaluate()
	w.open(ctx, "", 1280, 900, false)
	if tone := ask[string](t, ctx, `document.querySelector(".hero").className`); tone != "hero good" {
		t.Errorf("after a good night the headline is %q: %s", tone, ask[string](t, ctx, `document.querySelector("#checks").closest("section").innerText`))
	}
	headlineOf(w, "Every cycle is handed over, or is not due yet")
	shoot("good", "", w, 1000, 1400)
	shoot("cycle", "cycle/2026-02-03/overnight", w, 1300, 1500)

	// The next morning: a processor fails, and an operator holds a cycle.
	tr := w.Pipeline.Transitions[0]
	const night, next = pipeline.Period("2026-02-05"), pipeline.Period("2026-02-06")
	w.until("2026-02-05 17:05")
	w.report(tr, run{next, ok, 240, 189, ""}, nextTeam)
	w.until("2026-02-05 17:32")
	w.report(tr, run{next, wire.StatusFailed, 0, 64, "Quota exceeded: bytes scanned"}, nextPlayer)
	w.until("2026-02-06 06:03")
	w.report(tr, run{night, ok, 348, 527, ""}, players, nextPlayer, nextTeam)
	w.until("2026-02-06 06:40")
	w.relay()
	w.until("2026-02-06 08:05")
	w.evaluate()
	w.until("2026-02-06 08:20")
	_, err = w.Engine.Hold(t.Context(), cycle.Key{Transition: tr, Period: next}, "same_day", 6*time.Hour, "ada", "two box scores are wrong")
	w.must(err)
	w.relay()
	headlineOf(w, "1 cycle overdue, 1 on hold, 1 waits for a failed processor")
	shoot("bad", "", w, 1300, 1400)
	shoot("hours", "", played(t, "../../dev/demo/retail.yaml"), 1100, 1400)
}

func square(a, b uint8) int { return (int(a) - int(b)) * (int(a) - int(b)) }

// small is a picture with at most 256 colours.
func small(t *testing.T, picture []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	b := from.Bounds()
	n := map[color.RGBA]int{}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			n[color.RGBAModel.Convert(from.At(x, y)).(color.RGBA)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(n), func(a, b color.RGBA) int {
		return cmp.Or(n[b]-n[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	var palette color.Palette
	frequent := min(len(colours), 160)
	for _, c := range colours[:frequent] {
		palette = append(palette, c)
	}
	away := map[color.RGBA]int{} // from the nearest in the palette, squared
	for len(palette) < min(len(colours), 256) {
		farthest := color.RGBA{}
		for _, c := range colours[frequent:] {
			last := palette[len(palette)-1].(color.RGBA)
			if len(palette) == frequent {
				last = palette[palette.Index(c)].(color.RGBA)
			}
			d := square(c.R, last.R) + square(c.G, last.G) + square(c.B, last.B)
			if old, known := away[c]; !known || d < old {
				away[c] = d
			}
			if away[c] > away[farthest] {
				farthest = c
			}
		}
		palette = append(palette, farthest)
	}
	nearest := map[color.RGBA]uint8{}
	for _, c := range colours {
		nearest[c] = uint8(palette.Index(c))
	}
	to := image.NewPaletted(b, palette)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			to.SetColorIndex(x, y, nearest[color.RGBAModel.Convert(from.At(x, y)).(color.RGBA)])
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
