// Package browser tests the status page as people see it: in Chromium, at the widths of
// screens and phones, light and dark.
package browser

import (
	"context"
	_ "embed" // the checks of the layout
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/phasegate/phasegate/shared/emulatortest"
)

//go:embed testdata/layout.js
var layout string

const hostile = `<script>alert(1)</script>"'&`

// chromium is a browser, skipped where there is none.
func chromium(t *testing.T) context.Context {
	t.Helper()
	program := emulatortest.Browser(t)
	// Processes of the browser may still write when it has ended, so the test ignores errors of RemoveAll.
	folder, err := os.MkdirTemp("", "browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.UserDataDir(folder),
		chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.WSURLReadTimeout(time.Minute))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	browser, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(browser); err != nil { // and waits until it has ended
			t.Error(err)
		}
	})
	var mu sync.Mutex
	chromedp.ListenTarget(browser, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := ev.(type) {
		case *cdplog.EventEntryAdded:
			if !strings.Contains(e.Entry.URL, "favicon") {
				t.Errorf("the browser says: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventConsoleAPICalled, *runtime.EventExceptionThrown, *page.EventJavascriptDialogOpening:
			t.Errorf("the page runs something: %T", e)
		}
	})
	return browser
}

// open shows a page in a window of a size.
func (w *world) open(ctx context.Context, path string, width, height int64, dark bool) {
	w.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	w.must(chromedp.Run(ctx, cdplog.Enable(), chromedp.EmulateViewport(width, height), emulation.SetScriptExecutionDisabled(true),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}), chromedp.Navigate(w.url+"/"+path)))
}

// ask evaluates an expression in the page.
func ask[T any](t *testing.T, ctx context.Context, expression string) (out T) {
	t.Helper()
	if err := chromedp.Run(ctx, chromedp.Evaluate(expression, &out)); err != nil {
		t.Fatal(err)
	}
	return out
}

const headline = `document.querySelector("h1").textContent.trim()`

func TestStatusPage_LayoutHoldsAtEveryWidth(t *testing.T) {
	ctx := chromium(t)
	night, hours, change, empty := newNight(t, hostile), newHours(t), newChange(t), newWorld(t, "", time.Date(2026, 2, 4, 16, 20, 0, 0, time.UTC))
	for _, p := range []struct {
		name, path string
		world      *world
	}{
		{"bad night", "", night}, {"ninety days", "?days=90", night}, {"filtered", "?state=published&processor=player_game_summary&days=14", night},
		{"blocked cycle", "cycle/2026-02-03/overnight", night}, {"overdue cycle", "cycle/2026-02-04/tomorrow", night}, {"cycle on hold", "cycle/2026-02-04/same_day", night},
		{"cycle without records", "cycle/2026-02-09/overnight", night},
		{"hours", "?days=14", hours}, {"days of hours", "?days=30", hours}, {"overdue hour", "cycle/2026-10-27T06/hourly?transition=" + hours.Pipeline.Transitions[0].ID, hours},
		{"day of 23 hours", "cycle/2026-03-07/overnight", change}, {"day of 25 hours", "cycle/2026-10-31/overnight", change},
		{"nothing recorded", "", empty},
	} {
		t.Run(p.name, func(t *testing.T) {
			for _, width := range []int64{1280, 1000, 720, 390, 320} {
				for _, dark := range []bool{false, true} {
					p.world.open(ctx, p.path, width, 900, dark)
					ask[any](t, ctx, `document.querySelectorAll("details").forEach(d => d.open = true)`)
					if wrong := ask[[]string](t, ctx, layout); len(wrong) > 0 {
						t.Errorf("%d px, dark %v:\n  %s", width, dark, strings.Join(wrong, "\n  "))
					}
				}
			}
		})
	}
}

func TestStatusPage_HeadlineLegendAndCellsAgree(t *testing.T) {
	ctx := chromium(t)
	night, hours := newNight(t, "the league"), newHours(t)
	const counts = `(() => {
		const cells = {}, legend = {};
		for (const a of document.querySelectorAll(".week td a")) { const word = a.getAttribute("aria-label").split(": ")[1].split(",")[0]; cells[word] = (cells[word] || 0) + 1 }
		for (const a of document.querySelectorAll("nav .key a")) { const m = a.textContent.trim().match(/^(.*) (\d+)$/); legend[m[1]] = +m[2]; if (m[1] !== "all" && !a.href.includes("state=")) legend[m[1] + " links to " + a.href] = 1 }
		cells.all = Object.values(cells).reduce((a, b) => a + b, 0)
		return [cells, legend] })()`
	for _, p := range []struct {
		w              *world
		path, headline string
		loud           map[string]int
	}{
		{night, "", "1 cycle overdue, 1 blocked, 1 on hold", map[string]int{"overdue": 1}},
		{night, "?days=30", "1 cycle overdue, 1 blocked, 1 on hold", map[string]int{"overdue": 1, "blocked": 1, "on hold": 1, "published late": 1, "made up for later": 1}},
		{night, "?days=90", "1 cycle overdue, 1 blocked, 1 on hold", map[string]int{"overdue": 1}},
		{hours, "?days=14", "2 cycles overdue", map[string]int{"overdue": 2}},
	} {
		p.w.open(ctx, p.path, 1280, 900, false)
		got := ask[[]map[string]int](t, ctx, counts)
		if fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
			t.Errorf("%s: cells %v, legend %v", p.path, got[0], got[1])
		}
		for word, n := range p.loud {
			if got[0][word] != n {
				t.Errorf("%s: %d cells are %s, want %d", p.path, got[0][word], word, n)
			}
		}
		if h := ask[string](t, ctx, headline); h != p.headline {
			t.Errorf("%s: %q", p.path, h)
		}
	}
	// A cell's link leads to its cycle.
	night.open(ctx, "", 1280, 900, false)
	for _, link := range ask[[]string](t, ctx, `[...document.querySelectorAll(".week td a, .todo a")].map(a => a.href)`) {
		resp, err := http.Get(link)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v %v", link, resp, err)
		}
		resp.Body.Close()
	}
}

func TestStatusPage_HoldNewerThanReportChangesHeadline(t *testing.T) {
	ctx, w := chromium(t), newNight(t, "the league")
	w.open(ctx, "", 1280, 900, false)
	said := ask[string](t, ctx, `document.querySelector(".hero").textContent.replace(/\s+/g, " ")`)
	for _, text := range []string{"1 on hold", "Health was evaluated at 11:05, 27 min ago", "The report does not know yet: 2026-02-04 same_day is on hold.", "phasectl release 2026-02-04 same_day --reason '…'",
		"Since 11:20: on hold by ada until 2026-02-04 15:20 EST: two box scores are wrong", "phasectl explain 2026-02-04 tomorrow", "(QuotaExceeded: Quota exceeded: bytes scanned"} {
		if !strings.Contains(said, text) {
			t.Errorf("no %q in %s", text, said)
		}
	}
	if title := ask[string](t, ctx, `document.title`); !strings.HasPrefix(title, "1 cycle overdue, 1 blocked, 1 on hold: nba") {
		t.Errorf("title: %q", title)
	}
}

func TestStatusPage_CycleTellsItsStory(t *testing.T) {
	ctx, w := chromium(t), newNight(t, hostile)
	w.open(ctx, "cycle/2026-02-03/overnight", 1280, 900, false)
	said := ask[string](t, ctx, `document.body.textContent.replace(/\s+/g, " ")`)
	for _, text := range []string{"2026-02-03 overnight is blocked", "minutes_coverage_pct is 71.3, blocks when < 80", "phasectl checks run 2026-02-03 overnight",
		"QuotaExceeded: Custom quota exceeded", "8 min 47 s", "348", "critical_plus_majority_80pct", "late_completion", "second_run", "Phase 4 lost its tables", "two box scores are being corrected",
		"~1/player_game_summary → 1284", hostile, "grace 30 min", "deadline 10:00", "not before 05:00", "Log of the cycle"} {
		if !strings.Contains(said, text) {
			t.Errorf("no %q in %s", text, said)
		}
	}
	link := ask[string](t, ctx, `document.querySelector('#runs').closest("section").querySelector("td a").href`)
	for _, text := range []string{"https://console.cloud.google.com/logs/query;query=jsonPayload.execution_id=%22run-", "%20timestamp%3E=%22", "?project=nba-prod"} {
		if !strings.Contains(link, text) {
			t.Errorf("no %q in %s", text, link)
		}
	}
}

func TestStatusPage_FocusIsVisible(t *testing.T) {
	ctx, w := chromium(t), newNight(t, "the league")
	for _, path := range []string{"", "cycle/2026-02-03/overnight"} {
		w.open(ctx, path, 1280, 900, false)
		for i := range 30 {
			if err := chromedp.Run(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
				t.Fatal(err)
			}
			if got := ask[string](t, ctx, `(() => { const e = document.activeElement, s = getComputedStyle(e); return e === document.body || s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 ? "" : e.outerHTML.slice(0, 100) })()`); got != "" {
				t.Errorf("%s, after %d tabs: %s", path, i+1, got)
			}
		}
	}
}
