//go:build !race

// One goroutine runs all of a case: the race detector would find nothing here and
// take six times as long. make test runs this file without it.

package cycle

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// The crash matrix: while one completion is handled, every call to the store or the broker
// fails in every way. After each of the aftermaths the outcome is the same as without the
// failure.

// night is one case: a world of its own.
type night struct {
	t      *testing.T
	w      *world
	part   int // messages of a part, 0 for the default
	shards int // that have the runs, 0 for the default
}

func (n *night) engine(p *process) *Engine {
	c := n.w.engine.Config
	c.Store, c.Publish = p, p.publish
	e := New(c)
	if n.shards > 0 {
		e.shards = func(*pipeline.Transition) int { return n.shards }
	}
	if n.part > 0 {
		e.inline, e.part = n.part, n.part
	}
	return e
}

func (n *night) healthy() *process { return &process{Store: n.w.store.Store, send: n.w.broker.publish} }

// handle is what the function does with deliveries that share a commit. It returns those that
// are not acknowledged.
func (n *night) handle(p *process, group ...Report) (left []Report) {
	for _, r := range group {
		if n.w.clock.now().Before(r.Completion.EventTime) {
			n.w.clock.set(r.Completion.EventTime)
		}
	}
	for i, a := range n.engine(p).completeGroup(context.Background(), n.w.key(group[0].Completion.Period), group) {
		if a.err != nil || a.result.OwnClaim {
			left = append(left, group[i])
		}
	}
	return left
}

// named makes reports of completions; each has the name and its number as message id.
func named(name string, cs ...wire.Completion) []Report {
	var group []Report
	for i, c := range cs {
		group = append(group, Report{c, fmt.Sprint(name, i)})
	}
	return group
}

func (n *night) pass(d time.Duration) { n.w.clock.set(n.w.clock.now().Add(d)) }

// redeliver delivers messages again, every 10 s, until they are acknowledged.
func (n *night) redeliver(left []Report) {
	for range 20 {
		n.pass(10 * time.Second)
		if left = n.handle(n.healthy(), left...); len(left) == 0 {
			return
		}
	}
	n.t.Errorf("%d messages were never acknowledged", len(left))
}

func (n *night) relay() {
	// A relay that meets a live claim leaves it to its holder.
	if err := n.engine(n.healthy()).Relay(context.Background(), n.w.tr, "relay", nil); err != nil {
		n.t.Error(err)
	}
}

// aftermaths are what can follow a disturbed delivery that was not acknowledged. Each
// ends with the broker's own redelivery, which always follows.
var aftermaths = map[string]func(n *night, left []Report){
	"alone":               func(n *night, left []Report) { n.pass(time.Hour); n.redeliver(left) },
	"redelivered_at_once": func(n *night, left []Report) { n.redeliver(left) },
	"relay_at_once_and_on": func(n *night, left []Report) {
		n.relay()
		n.pass(5 * time.Minute)
		n.relay()
		n.redeliver(left)
	},
	"relay_after_the_claim": func(n *night, left []Report) {
		n.pass(61 * time.Second)
		n.relay()
		n.redeliver(left)
	},
}

// scenes are the paths that a delivery can take: the deliveries before it, and the delivery.
// If a cycle waits for a time, the scene lasts until a relay has run after that time.
var scenes = map[string]struct {
	before []wire.Completion
	last   wire.Completion
	with   []wire.Completion // in the same group as last
	grace  bool              // two hours later a relay runs
	// ready is when the data becomes ready, "" if it always is. Until then the batch is
	// blocked, and a relay hands it over afterwards.
	ready   string
	noGames bool // the schedule has none for the period
	part    int  // messages of a part of a batch
	shards  int  // that have the runs
}{
	"completes_in_shards":  {before: overnight()[:4], last: overnight()[4], shards: 2},
	"group_in_shards":      {before: overnight()[:2], last: overnight()[2], with: overnight()[3:], shards: 2},
	"completes_in_parts":   {before: overnight()[:4], last: overnight()[4], part: 2},
	"runs_again_in_parts":  {before: overnight(), last: run(pgs, "2026-02-04 07:10", count(348)), with: []wire.Completion{run(tdef, "2026-02-04 07:10", count(7))}, part: 1},
	"completes_the_cycle":  {before: overnight()[:4], last: overnight()[4]},
	"completes_nothing":    {before: overnight()[:2], last: overnight()[2]},
	"critical_alone":       {before: nil, last: run(upg, "2026-02-03 10:31")},
	"starts_the_grace":     {before: []wire.Completion{overnight()[0], overnight()[2], overnight()[3]}, last: run(pgs, "2026-02-04 06:03"), grace: true},
	"ends_the_grace":       {before: []wire.Completion{overnight()[0], overnight()[2], overnight()[3], overnight()[4]}, last: run(utg, "2026-02-04 06:10"), grace: true},
	"late_optional":        {before: []wire.Completion{run(upg, "2026-02-03 10:31")}, last: run(utg, "2026-02-03 10:40")},
	"second_changed_run":   {before: overnight(), last: run(pgs, "2026-02-04 07:10", count(348))},
	"second_run_collected": {before: append(overnight(), run(pgs, "2026-02-04 07:10", count(348))), last: run(pgs, "2026-02-04 07:11", count(350)), grace: true},
	"second_run_unchanged": {before: overnight(), last: run(pgs, "2026-02-04 07:10")},
	"blocked_at_first":     {before: overnight()[:4], last: overnight()[4], grace: true, ready: "2026-02-04 06:20"},
	"blocked_and_replaced": {before: overnight(), last: run(pgs, "2026-02-04 07:10", count(348)), grace: true, ready: "2026-02-04 07:20"},
	"no_rows_and_no_games": {last: run(upg, "2026-02-03 10:31", count(0)), grace: true, noGames: true},
	"group_completes":      {before: overnight()[:2], last: overnight()[2], with: overnight()[3:]},
	"group_is_blocked": {before: overnight()[:3], last: overnight()[3], with: []wire.Completion{run(pgs, "2026-02-04 06:03", status(wire.StatusFailed)), overnight()[4]},
		grace: true, ready: "2026-02-04 06:20"},
	"group_of_second_runs": {before: overnight(), last: run(pgs, "2026-02-04 07:10", count(348)), with: []wire.Completion{run(tdef, "2026-02-04 07:10", count(7))}},
	"failed_run":           {before: overnight()[:4], last: run(pgs, "2026-02-04 06:03", status(wire.StatusFailed))},
}

// crashAll plays every case on both stores. Without it SQLite plays only the scenes of onSQLite. A
// disturbed delivery on SQLite, or one with a rival, then has one of the aftermaths in turn, and not
// each of them.
var crashAll = flag.Bool("crash.all", false, "TestCrashMatrix plays every case on every store")

var onSQLite = []string{"completes_the_cycle", "ends_the_grace", "second_changed_run", "group_completes"}

func TestCrashMatrix(t *testing.T) {
	tr, follows, allHarms := nba(t), slices.Sorted(maps.Keys(aftermaths)), slices.Sorted(maps.Keys(harms))
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			var cases atomic.Int64
			t.Cleanup(func() { t.Logf("%d cases on %s", cases.Load(), driver) })
			for name, scene := range scenes {
				if driver == "sqlite" && !*crashAll && !slices.Contains(onSQLite, name) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					group := append([]wire.Completion{scene.last}, scene.with...)
					play := func(t *testing.T, p func(n *night) *process, aftermath func(*night, []Report)) (*process, outcome) {
						cases.Add(1)
						n := &night{t: t, w: newWorldOf(t, driver, tr), part: scene.part, shards: scene.shards}
						n.w.clock.set(at("2026-02-02 16:00"))
						if scene.ready != "" {
							n.w.engine.Check = func(context.Context, Key, string, []string) Readiness {
								if n.w.clock.now().Before(at(scene.ready)) {
									return Readiness{Outcome: Failed, Reasons: []string{"not yet"}}
								}
								return Readiness{Outcome: Passed}
							}
						}
						if scene.noGames {
							n.w.engine.Expected = func(context.Context, Key) (int64, error) { return 0, nil }
						}
						for _, r := range named("before", scene.before...) {
							if len(n.handle(n.healthy(), r)) > 0 {
								t.Fatalf("%s was not acknowledged", r.Completion.Processor)
							}
						}
						disturbed := p(n)
						if left := n.handle(disturbed, named("last", group...)...); len(left) > 0 {
							aftermath(n, left)
						}
						if scene.grace {
							n.pass(2 * time.Hour)
							n.relay()
						}
						return disturbed, n.outcome()
					}
					_, want := play(t, (*night).healthy, aftermaths["alone"])
					turn := 0
					for _, h := range allHarms {
						kind := harms[h]
						for _, rival := range []bool{false, true} {
							for k, reached := 1, true; reached; k++ {
								reached = false
								turn++
								for i, after := range follows {
									if (driver == "sqlite" || rival) && !*crashAll && i != turn%len(follows) {
										continue
									}
									t.Run(fmt.Sprintf("%s_at_%d/%s/rival_%t", kind, k, after, rival), func(t *testing.T) {
										p, got := play(t, func(n *night) *process {
											p := n.healthy()
											p.at, p.harm = k, h
											if rival {
												p.rival = func() { n.handle(n.healthy(), named("rival", group...)...) }
											}
											return p
										}, aftermaths[after])
										reached = p.calls >= k
										if diff := cmp.Diff(want, got); diff != "" {
											t.Errorf("the end differs (-undisturbed +disturbed):\n%s", diff)
										}
									})
								}
							}
						}
					}
				})
			}
		})
	}
}

// outcome is everything that must not depend on the failure. It leaves out the times of
// the hand-over: a failure delays it.
type outcome struct {
	Batches    map[string]endBatch
	Projection map[string]any
	Sent       []string // trigger ids, each once
}

type endBatch struct {
	State    State
	Cause    string
	Runs     []string
	Payloads map[string]string
}

func (n *night) outcome() outcome {
	n.t.Helper()
	o := outcome{Batches: map[string]endBatch{}, Projection: map[string]any{}}
	sent := map[string]string{} // trigger id → payload
	for _, tr := range n.w.broker.got {
		raw, err := tr.Encode()
		if err != nil {
			n.t.Fatal(err)
		}
		if first, copied := sent[tr.TriggerID]; copied && first != string(raw) {
			n.t.Errorf("two messages with the trigger id %s differ:\n%s\n%s", tr.TriggerID, first, raw)
		}
		sent[tr.TriggerID] = string(raw)
	}
	o.Sent = slices.Sorted(maps.Keys(sent))
	for doc, err := range n.w.store.Store.Scan(context.Background(), triggersCollection, "!", "~") {
		if err != nil {
			n.t.Fatal(err)
		}
		_, b, err := parseBatch(n.w.key("2026-02-03"), doc)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, id := range b.Parts {
			f := fields{doc: n.w.doc(partsCollection, id)}
			if f.messages(b.Messages); f.err != nil || len(f.doc.Data) == 0 {
				n.t.Fatal(f.err, id)
			}
		}
		end := endBatch{State: b.State, Cause: b.Cause, Runs: sorted(b.Runs), Payloads: map[string]string{}}
		for name, m := range b.Messages {
			end.Payloads[name] = withoutTime(n.t, m.Payload)
			if m.ID == "" && b.State == StatePublished {
				n.t.Errorf("%s is published without an id for %s", b.ID, name)
			}
			if m.Payload != sent[b.ID+"/"+name] {
				n.t.Errorf("%s/%s: stored and sent payload differ", b.ID, name)
			}
		}
		if b.Holder != "" {
			n.t.Errorf("%s is still claimed by %s", b.ID, b.Holder)
		}
		o.Batches[b.ID] = end
	}
	for field, v := range n.w.projection() {
		if _, isTime := v.(time.Time); isTime {
			v = "some time"
		}
		o.Projection[field] = v
	}
	return o
}

func withoutTime(t *testing.T, payload string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(payload), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "timestamp")
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
