package statuspage

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// counted counts the documents of periods and hand-overs that are read.
type counted struct {
	store.Store
	n *int
}

func (c counted) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		for doc, err := range c.Store.Scan(ctx, collection, from, to) {
			if strings.HasPrefix(collection, "phase_") {
				*c.n++
			}
			if !yield(doc, err) {
				return
			}
		}
	}
}

// A settled period is read once, until it is too old; an open one, and all that follow it, for each
// request.
func TestOverview_ReadsSettledPeriodsOnce(t *testing.T) {
	w := apptest.New(t, morning.Add(-40*24*time.Hour))
	tr, cal := w.Pipeline.Transitions[0], w.Pipeline.Calendar
	for d := -30; d <= 0; d++ {
		w.SetNow(morning.Add(time.Duration(d)*24*time.Hour - 7*time.Hour))
		names := tr.Order
		if d == -10 {
			names = names[:1] // overdue
		}
		record(t, w, cal.Add(night, d), wire.StatusSuccess, names...)
		if d == -30 {
			if err := w.Engine.Relay(t.Context(), tr, "", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.SetNow(morning)
	read := 0
	config := w.Engine.Config
	config.Store = counted{w.Store, &read}
	w.App.Engine = cycle.New(config)
	p := &Page{}
	look := func(days int) (o overview, docs int) {
		t.Helper()
		read = 0
		return newOverview(w.App, p.readAll(t.Context(), w.App, days), query{Days: days}), read
	}
	first, all := look(30)
	again, some := look(30)
	if labels(first) != labels(again) || !strings.Contains(labels(again), "2026-01-24 overnight: overdue, 1 of 5") || all < 55 || some > all/2 {
		t.Errorf("%d documents at first, %d again:\n%s", all, some, labels(again))
	}
	if len(first.Settled) != 0 || len(again.Settled) != 1 || again.Settled[0] != "Cycles before 2026-01-24 are settled, as of 12:20" {
		t.Errorf("%q, then %q", first.Settled, again.Settled)
	}
	// The page shows at once that an operator has closed the overdue cycle.
	for _, m := range tr.Modes {
		if _, err := w.Engine.Close(t.Context(), cycle.Key{Transition: tr, Period: "2026-01-24"}, m, "ada", "no data"); err != nil {
			t.Fatal(err)
		}
	}
	if o, _ := look(30); o.Headline == first.Headline || !strings.Contains(labels(o), "2026-01-24 overnight: closed") {
		t.Errorf("%q\n%s", o.Headline, labels(o))
	}
	if _, docs := look(30); docs > all/3 {
		t.Errorf("%d documents with all settled", docs)
	}
	if o, docs := look(90); docs < all || labels(o) == "" { // the longer window begins with periods that were not read
		t.Errorf("%d documents of 90 days", docs)
	}
	w.SetDown(true)
	if o, _ := look(30); o.Headline != "Unknown: the state cannot be read" {
		t.Errorf("%q", o.Headline)
	}
	w.SetDown(false)
	for name, at := range map[string]time.Time{"old": morning.Add(keepFor), "of a clock that went back": morning.Add(-time.Second)} {
		w.SetNow(morning)
		look(30)
		w.SetNow(at)
		if _, docs := look(30); docs < all {
			t.Errorf("%s: %d documents", name, docs)
		}
	}
}

// Before trigger_within is over, a completion makes a further hand-over.
func TestSettled_KeepsNoPeriodThatCompletionsMayChange(t *testing.T) {
	w := apptest.New(t, morning)
	tr := w.Pipeline.Transitions[0]
	published := &shown{kind: "published"}
	for name, tc := range map[string]struct {
		at     time.Time
		cycles []*shown
		keeps  bool
	}{
		"within trigger_within": {tr.LastInTime(night), []*shown{published}, false},
		"after it":              {tr.LastInTime(night).Add(1), []*shown{published, {kind: "closed"}, {kind: kindLate}}, true},
		"overdue":               {tr.LastInTime(night).Add(1), []*shown{published, {kind: "overdue"}}, false},
		"publishing":            {tr.LastInTime(night).Add(1), []*shown{{kind: "publishing"}}, false},
		"unknown":               {tr.LastInTime(night).Add(1), []*shown{{kind: kindUnknown}}, false},
		"before the adoption":   {tr.LastInTime(night).Add(1), []*shown{{kind: "waiting", Status: cycle.Status{Early: true}}}, true},
	} {
		k, m := &settled{}, cycle.Managed{Since: "2026-01-01"}
		k.add(tr, night, m, tc.at, tc.cycles)
		_, next, _ := k.upTo(tr, night, "2026-02-05", m, tc.at)
		if keeps := next != night; keeps != tc.keeps {
			t.Errorf("%s: kept %v", name, keeps)
		}
		for what, other := range map[string]cycle.Managed{"another first period": {Since: "2026-01-02"}, "another first relay": {Since: m.Since, At: morning}} {
			k.add(tr, night, m, tc.at, tc.cycles)
			if _, next, _ := k.upTo(tr, night, "2026-02-05", other, tc.at); next != night {
				t.Errorf("%s: kept for %s", name, what)
			}
		}
	}
}
