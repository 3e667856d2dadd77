package app_test

import (
	"testing"
	"time"

	"github.com/phasegate/phasegate/shared/app/apptest"
	"github.com/phasegate/phasegate/shared/store"
)

// The newest heartbeat of any function names the deployed definition. Older heartbeats do not count.
func TestDeployed_IsTheDefinitionOfTheNewestHeartbeat(t *testing.T) {
	start := time.Date(2026, 2, 4, 12, 0, 0, 0, time.UTC)
	type beat struct {
		function   string
		after      time.Duration
		definition string
	}
	for name, tc := range map[string]struct {
		beats []beat
		want  string
		at    time.Duration
	}{
		"none":                 {nil, "", 0},
		"the last is newest":   {[]beat{{"health", 0, "old"}, {"sweep", time.Hour, "new"}}, "new", time.Hour},
		"the first is newest":  {[]beat{{"health", time.Hour, "new"}, {"sweep", 0, "old"}}, "new", time.Hour},
		"one in the middle is": {[]beat{{"health", 0, "old"}, {"reconcile", time.Hour, "new"}, {"sweep", 0, "old"}}, "new", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := apptest.New(t, start)
			for _, b := range tc.beats {
				ref := store.Ref{Collection: "function_status", ID: b.function}
				if _, err := w.Store.Apply(t.Context(), store.Merge(ref, store.F(start.Add(b.after), "heartbeats", "job"), store.F(start.Add(b.after-time.Hour), "heartbeats", "another"),
					store.F(b.definition, "definition"))); err != nil {
					t.Fatal(err)
				}
			}
			got, at, err := w.Deployed(t.Context())
			if err != nil || got != tc.want || tc.want != "" && !at.Equal(start.Add(tc.at)) {
				t.Errorf("%q at %s, error %v", got, at, err)
			}
		})
	}
}
