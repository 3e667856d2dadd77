package main

import (
	"context"
	"errors"
	"html"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/functions/health"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	checks "github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/policy"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

var (
	onPage   = regexp.MustCompile(`(?s)<p class="cmd"><code>(.*?)</code></p>`)
	tag      = regexp.MustCompile(`<[^>]*>`)
	cellLink = regexp.MustCompile(`href="(cycle/[^"]*)"`)
	pageWord = regexp.MustCompile(`'[^']*'|[^' ]+`)
)

// accepted reports why phasectl does not take a command.
func accepted(line string) error {
	cmd, rest, err := newRoot().Find(pageWord.FindAllString(line, -1)[1:])
	if err == nil && !cmd.HasParent() {
		err = errors.New("no such command")
	}
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err == nil {
		err = cmd.ValidateRequiredFlags()
	}
	return err
}

// phasectl accepts each command as the status page shows it: for cycles in every state, locks,
// sweeps, quarantine and checks.
func TestStatusPage_CommandsAreAccepted(t *testing.T) {
	at := time.Date(2026, 2, 4, 10, 20, 0, 0, time.UTC) // 05:20 in New York
	w := apptest.New(t, at)
	tr := w.Pipeline.Transitions[0]
	ready := cycle.Readiness{Outcome: policy.Passed}
	config := w.Engine.Config
	config.Check = func(context.Context, cycle.Key, string, []string) cycle.Readiness { return ready }
	w.App.Engine = cycle.New(config)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	report := func(p string, names ...string) {
		t.Helper()
		key := cycle.Key{Transition: tr, Period: pipeline.Period(p)}
		for _, name := range names {
			must(w.Engine.Record(t.Context(), key, wire.Completion{Processor: name, Reported: name, Period: key.Period, Status: wire.StatusSuccess, EventTime: w.Now(), ExecutionID: "run-" + name + p, CorrelationID: "x"}))
		}
		_, err := w.Engine.Converge(t.Context(), key, "m")
		must(err)
	}
	_, err := w.Locks.Acquire(t.Context(), lease.Key{Class: "PlayerGameSummaryProcessor", Period: "2026-02-02"}, "run-that-died")
	must(err)
	report("2026-01-31", tr.Order...) // published
	ready = cycle.Readiness{Outcome: policy.Failed, Reasons: []string{"too few"}}
	report("2026-02-03", tr.Order...) // blocked
	_, err = w.Engine.Hold(t.Context(), cycle.Key{Transition: tr, Period: "2026-02-04"}, "overnight", 24*time.Hour, "ada", "wait")
	must(err)
	_, err = w.Store.Apply(t.Context(), store.Merge(store.Ref{Collection: "sweeps", ID: "20260204t100000-4w6avzz7~player_game_summary_2026-02-03"}, store.F("nba_analytics.player_game_summary", "table"), store.F("2026-02-03", "period"),
		store.F("applied", "state"), store.F("nightly", "actor"), store.F("r", "reason"), store.F(72, "keys"), store.F(72, "surplus"), store.F(map[string]any{"rows": 144, "a": 1, "b": 2}, "before"),
		store.F(map[string]any{"rows": 72, "a": 1, "b": 2}, "after"), store.F("phasegate_sweep_archive.sweep_x", "archive"), store.F(store.ServerTime, "planned_at")),
		store.Merge(store.Ref{Collection: "quarantine", ID: "12845077"}, store.F("transition", "function"), store.F("no period", "reason"), store.F(store.ServerTime, "received_at")))
	must(err)
	w.SetNow(at.Add(2 * time.Hour))
	c := checks.New(w.App)
	must(c.Remember(t.Context(), c.Run(t.Context())))

	h := health.New(func(context.Context) (*app.App, error) { return w.App, nil })
	page := func(path string) string {
		t.Helper()
		rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/"+path, nil)
		r.Header.Set("Accept", "text/html")
		h.ServeHTTP(rec, r)
		if rec.Code != 200 {
			t.Fatalf("%s: %d %s", path, rec.Code, rec.Body)
		}
		return rec.Body.String()
	}
	overview := page("")
	pages := []string{overview}
	for _, m := range cellLink.FindAllStringSubmatch(overview, -1) {
		pages = append(pages, page(html.UnescapeString(m[1])))
	}
	verbs := map[string]bool{}
	for _, p := range pages {
		for _, m := range onPage.FindAllStringSubmatch(p, -1) {
			line := strings.TrimSpace(html.UnescapeString(tag.ReplaceAllString(m[1], "")))
			words := strings.Fields(line)
			if words[0] != "phasectl" {
				continue // gcloud, make
			}
			verbs[words[1]] = true
			if err := accepted(line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	for _, verb := range []string{"explain", "trigger", "close", "hold", "release", "checks", "locks", "sweep", "quarantine", "dead-letter"} {
		if !verbs[verb] {
			t.Errorf("no page shows phasectl %s", verb)
		}
	}
}
