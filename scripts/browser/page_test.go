// Package browser looks at the status page as people do: in a browser, on a phone, at night.
package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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

	"github.com/phasegate/phasegate/shared/emulatortest"
)

var update = flag.Bool("update", false, "write the screenshots of docs/ anew")

// morning is 11:20 in New York on 2026-02-04.
var morning = time.Date(2026, 2, 4, 16, 20, 0, 0, time.UTC)

const hostile = `<script>alert(1)</script>`

// chromium is a browser, skipped where there is none.
func chromium(t *testing.T) context.Context {
	t.Helper()
	program := emulatortest.Browser(t)
	// Its processes may write for a moment after it has ended: what is left then is left.
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
	return browser
}

// open shows the page in a window of a size; what the browser complains about is an error.
func (n *night) open(ctx context.Context, query string, width, height int64, dark bool) {
	n.t.Helper()
	var mu sync.Mutex
	chromedp.ListenTarget(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := ev.(type) {
		case *cdplog.EventEntryAdded:
			if !strings.Contains(e.Entry.URL, "favicon") {
				n.t.Errorf("the browser says: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventConsoleAPICalled, *runtime.EventExceptionThrown, *page.EventJavascriptDialogOpening:
			n.t.Errorf("the page runs something: %T", e)
		}
	})
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	n.must(chromedp.Run(ctx, cdplog.Enable(), chromedp.EmulateViewport(width, height), emulation.SetScriptExecutionDisabled(true),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}), chromedp.Navigate(n.url+"/"+query)))
}

// ask evaluates an expression in the page.
func ask[T any](n *night, ctx context.Context, expression string) (out T) {
	n.t.Helper()
	n.must(chromedp.Run(ctx, chromedp.Evaluate(expression, &out)))
	return out
}

// cell is the text of a cycle's cell.
func (n *night) cell(ctx context.Context, period, mode string) string {
	return ask[string](n, ctx, fmt.Sprintf(`document.querySelector('[id="phase3_to_phase4-%s"] td[data-of="%s"]').textContent.replace(/\s+/g, " ").trim()`, period, mode))
}

func TestStatusPage_WorksInBrowser(t *testing.T) {
	ctx, n := chromium(t), newNight(t, hostile)
	n.plant()
	n.open(ctx, "", 1280, 900, false)

	t.Run("the grid has the planted states", func(t *testing.T) {
		for at, want := range map[[2]string][]string{
			{"2026-01-31", "overnight"}: {"published 5 of 5", "all_complete", "player_game_summary complete"},
			{"2026-02-03", "overnight"}: {"published 3 of 5", "critical_plus_majority_60pct", "team_defense_game_summary failed", "upcoming_team_game_context missing", "phase3_to_phase4_2026-02-03_overnight~1"},
			{"2026-02-03", "same_day"}:  {"overdue", "upcoming_player_game_context failed"},
			{"2026-02-03", "tomorrow"}:  {"published 1 of 2"},
			{"2026-02-04", "same_day"}:  {"on_hold", "On hold until 2026-02-04 15:30 EST, by ada: two box scores are wrong"},
			{"2026-02-05", "overnight"}: {"no records"},
		} {
			got := n.cell(ctx, at[0], at[1])
			for _, text := range want {
				if !strings.Contains(got, text) {
					t.Errorf("%v: %q, want %q", at, got, text)
				}
			}
		}
		whole := ask[string](n, ctx, `document.body.textContent`)
		for _, text := range []string{"phasectl sweep undo 20260204t155000-4w6avzz7~player_game_summary_2026-02-03", "phasectl locks release PlayerGameSummaryProcessor_2026-02-02", "America/New_York", "relay", "locking_active"} {
			if !strings.Contains(whole, text) {
				t.Errorf("no %q", text)
			}
		}
	})

	t.Run("every colour has a word beside it", func(t *testing.T) {
		if n := ask[int](n, ctx, `document.querySelectorAll(".word, .hero, .dots li").length`); n < 50 {
			t.Errorf("only %d coloured things", n)
		}
		if silent := ask[[]string](n, ctx, `[...document.querySelectorAll(".word, .hero, .dots li")].filter(e => !/[a-z]{2,}/.test(e.textContent)).map(e => e.outerHTML)`); len(silent) > 0 {
			t.Errorf("colour alone: %q", silent)
		}
	})

	t.Run("landmarks, headings and labels", func(t *testing.T) {
		for expression, want := range map[string]int{
			`document.querySelectorAll("h1").length`: 1, `document.querySelectorAll("main").length`: 1, `document.querySelectorAll("header").length`: 1, `document.querySelectorAll("footer").length`: 1,
			`[...document.querySelectorAll("section")].filter(s => !document.getElementById(s.getAttribute("aria-labelledby"))).length`: 0,
			`[...document.querySelectorAll("table")].filter(t => !t.caption).length`:                                                    0,
			`document.querySelectorAll("thead th:not([scope=col]), tbody th:not([scope=row])").length`:                                  0,
			`[...document.querySelectorAll("select, input")].filter(e => !e.labels.length).length`:                                      0,
			`new Set([...document.querySelectorAll("[id]")].map(e => e.id)).size - document.querySelectorAll("[id]").length`:            0,
		} {
			if got := ask[int](n, ctx, expression); got != want {
				t.Errorf("%s is %d, want %d", expression, got, want)
			}
		}
		if lang, title := ask[string](n, ctx, `document.documentElement.lang`), ask[string](n, ctx, `document.title`); lang != "en" || !strings.HasPrefix(title, "failing: nba") {
			t.Errorf("%q %q", lang, title)
		}
	})

	t.Run("a script as a name stays text", func(t *testing.T) {
		if n := ask[int](n, ctx, `document.querySelectorAll("script, iframe, img, object, [onclick], [onerror], link").length`); n != 0 {
			t.Errorf("%d things that could do something", n)
		}
		if got := n.cell(ctx, "2026-02-04", "same_day"); !strings.Contains(got, hostile) {
			t.Errorf("%q", got)
		}
	})

	t.Run("it fits a phone", func(t *testing.T) {
		for _, query := range []string{"", "?days=90"} {
			n.open(ctx, query, 390, 844, false)
			n.must(chromedp.Run(ctx, chromedp.Evaluate(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil)))
			if width := ask[int](n, ctx, `document.scrollingElement.scrollWidth`); width > 390 {
				t.Errorf("%q is %d wide: %v", query, width, ask[[]string](n, ctx, `[...document.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > 391).slice(0, 5).map(e => e.outerHTML.slice(0, 200))`))
			}
		}
		if rows := ask[int](n, ctx, `document.querySelectorAll(".grid tbody tr").length`); rows != 91 {
			t.Errorf("%d rows of 90 days and the next", rows)
		}
	})

	t.Run("it can be read at night", func(t *testing.T) {
		grounds := map[bool]string{}
		for _, dark := range []bool{false, true} {
			n.open(ctx, "", 1280, 900, dark)
			grounds[dark] = ask[string](n, ctx, `getComputedStyle(document.body).backgroundColor`)
			// https://www.w3.org/TR/WCAG22/#contrast-minimum: 4.5 to 1.
			if weak := ask[[]string](n, ctx, `(() => {
				const lum = c => { const [r, g, b] = c.match(/[\d.]+/g).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
				const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c } return "rgb(255, 255, 255)" };
				return [...document.querySelectorAll("body *")].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
					const [a, b] = [lum(getComputedStyle(e).color), lum(ground(e))].sort((x, y) => y - x);
					return [(a + .05) / (b + .05), e.outerHTML.slice(0, 120)] }).filter(([c]) => c < 4.5).slice(0, 5).map(String) })()`); len(weak) > 0 {
				t.Errorf("dark %v: weak contrast: %q", dark, weak)
			}
		}
		if grounds[false] == grounds[true] {
			t.Errorf("the ground is %s by day and night", grounds[true])
		}
	})

	if *update {
		n := newNight(t, "seen with the league")
		n.plant()
		for file, s := range map[string]struct {
			width, height int64
			dark          bool
		}{"status-page.png": {1180, 1660, false}, "status-page-phone.png": {390, 1100, true}} {
			n.open(ctx, "?days=7", s.width, s.height, s.dark)
			var picture []byte
			n.must(chromedp.Run(ctx, chromedp.CaptureScreenshot(&picture)))
			n.must(os.WriteFile(filepath.Join("..", "..", "docs", file), picture, 0o644))
		}
	}
}
