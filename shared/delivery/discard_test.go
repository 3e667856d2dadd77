package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/audit"
	"github.com/phasegate/phasegate/shared/delivery"
	"github.com/phasegate/phasegate/shared/store"
)

// meddling does something around each commit.
type meddling struct {
	store.Store
	before func()
	after  func([]store.Version, error) ([]store.Version, error)
}

func (m meddling) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	if m.before != nil {
		m.before()
	}
	versions, err := m.Store.Apply(ctx, writes...)
	if m.after != nil {
		return m.after(versions, err)
	}
	return versions, err
}

func TestMarkDiscarded_SettlesAMessageOnce(t *testing.T) {
	ref := store.Ref{Collection: "quarantine", ID: "m1"}
	change := func(t *testing.T, w *apptest.World, fields ...store.Field) {
		t.Helper()
		if _, err := w.Store.Apply(t.Context(), store.Merge(ref, fields...)); err != nil {
			t.Fatal(err)
		}
	}
	lost := errors.New("the answer is lost")
	for name, tc := range map[string]struct {
		fields  []store.Field // of the document at first
		meddle  func(t *testing.T, w *apptest.World) meddling
		done    bool
		err     error // nil: none
		records int   // of audit
		by      string
	}{
		"waiting":   {[]store.Field{store.F("r", "reason")}, nil, true, nil, 1, "ada"},
		"not there": {nil, nil, false, delivery.ErrNotQuarantined, 0, ""},
		"replayed":  {[]store.Field{store.F(now, "replayed_at"), store.F("bob", "replayed_by")}, nil, false, nil, 0, ""},
		"discarded": {[]store.Field{store.F(now, "discarded_at"), store.F("bob", "discarded_by"), store.F("other", "discard")}, nil, false, nil, 0, "bob"},
		"received again": {[]store.Field{store.F("r", "reason")}, func(t *testing.T, w *apptest.World) meddling {
			n := 0
			return meddling{Store: w.Store, before: func() {
				if n++; n == 1 {
					change(t, w, store.F("another", "reason"))
				}
			}}
		}, true, nil, 1, "ada"},
		"replayed in between": {[]store.Field{store.F("r", "reason")}, func(t *testing.T, w *apptest.World) meddling {
			return meddling{Store: w.Store, before: func() { change(t, w, store.F(now, "replayed_at")) }}
		}, false, nil, 0, ""},
		"changes all the time": {[]store.Field{store.F("r", "reason")}, func(t *testing.T, w *apptest.World) meddling {
			n := int64(0)
			return meddling{Store: w.Store, before: func() { n++; change(t, w, store.F(n, "n")) }}
		}, false, errAny, 0, ""},
		"its commit was tried twice": {[]store.Field{store.F("r", "reason")}, func(_ *testing.T, w *apptest.World) meddling {
			return meddling{Store: w.Store, after: func([]store.Version, error) ([]store.Version, error) { return nil, store.ErrExists }}
		}, true, nil, 1, "ada"},
		"its answer is lost": {[]store.Field{store.F("r", "reason")}, func(_ *testing.T, w *apptest.World) meddling {
			return meddling{Store: w.Store, after: func([]store.Version, error) ([]store.Version, error) { return nil, lost }}
		}, false, lost, 1, "ada"},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			if tc.fields != nil {
				change(t, w, tc.fields...)
			}
			a := *w.App
			if tc.meddle != nil {
				a.Store = tc.meddle(t, w)
			}
			done, err := delivery.MarkDiscarded(t.Context(), &a, "m1", audit.Record{Action: "quarantine_discard", Actor: "ada", Reason: "closed"}, "id")
			if done != tc.done || (err == nil) != (tc.err == nil) || tc.err != nil && tc.err != errAny && !errors.Is(err, tc.err) {
				t.Errorf("done %v, error %v", done, err)
			}
			records := 0
			for _, err := range w.Store.Scan(t.Context(), "audit", "!", "~") {
				if err != nil {
					t.Fatal(err)
				}
				records++
			}
			by, _ := w.Doc(t, "quarantine", "m1").Data["discarded_by"].(string)
			if records != tc.records || by != tc.by {
				t.Errorf("%d audit records, discarded by %q", records, by)
			}
		})
	}
}

var errAny = errors.New("any")

func TestQuarantine_ExpiresOnlyOnceSettled(t *testing.T) {
	act := audit.Record{Action: "quarantine", Actor: "ada", Reason: "corrected"}
	for name, settle := range map[string]func(t *testing.T, w *apptest.World, id string) error{
		"replayed": func(t *testing.T, w *apptest.World, id string) error {
			return delivery.MarkReplayed(t.Context(), w.App, id, act, "r")
		},
		"discarded": func(t *testing.T, w *apptest.World, id string) error {
			done, err := delivery.MarkDiscarded(t.Context(), w.App, id, act, "d")
			if !done {
				t.Error("not discarded")
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, now)
			receive := func() error {
				if rec := post(function(w, refuse), string(envelope("4711", "{}"))); rec.Code != 202 {
					return fmt.Errorf("answered %d: %s", rec.Code, rec.Body)
				}
				return nil
			}
			for _, c := range []struct {
				step    string
				do      func() error
				expires bool
			}{
				{"received", receive, false},
				{"redelivered", receive, false},
				{name, func() error { return settle(t, w, "4711") }, true},
				{"received again", receive, true}, // later
			} {
				w.SetNow(w.Now().Add(24 * time.Hour))
				if err := c.do(); err != nil {
					t.Fatal(err)
				}
				want := any(nil)
				if c.expires {
					want = w.Now().Add(store.Kept)
				}
				if got, there := w.Doc(t, "quarantine", "4711").Data[store.ExpiresAt]; got != want || !there {
					t.Errorf("%s: expires_at is %v (written: %t), want %v", c.step, got, there, want)
				}
			}
		})
	}
}
