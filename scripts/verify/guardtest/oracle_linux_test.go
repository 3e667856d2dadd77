package guardtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// disturbance is what was done to an instance: a kill at a moment, or a suspension.
type disturbance struct {
	slot        int
	what        string
	from, until time.Time
	dead        time.Time // of a guard that was killed: when it no longer ran
	beyond      bool      // the time of a claim
}

// run is one execution of the service, as its log says.
type run struct {
	key, id                string
	delivery               int
	began, effect, failure time.Time // zero if it did not come to that
}

// runs reads the service's log.
func runs(t testing.TB, file string) (all []*run) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	byID := map[string]*run{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var line struct {
			Event, Key, Run string
			Delivery        int
			At              int64
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v: %s", file, err, lines.Bytes())
		}
		at := time.Unix(0, line.At)
		switch line.Event {
		case "begin":
			byID[line.Run] = &run{key: line.Key, id: line.Run, delivery: line.Delivery, began: at}
			all = append(all, byID[line.Run])
		case "effect":
			byID[line.Run].effect = at
		case "failure":
			byID[line.Run].failure = at
		}
	}
	return all
}

// verdict counts what the documented limits allow.
type verdict struct {
	keys, runs, failures int
	again                map[string]int // keys whose work had its effect more than once, by cause
	overlaps             map[string]int // runs that began next to another one of the key, by cause
	widest               time.Duration  // between an effect and the kill before its record
	undisturbed          int            // keys of which no delivery was disturbed
}

const workedOn = ", and the service worked on"

// judge compares the service's log with the deliveries. Everything that the documented limits do
// not allow fails the test. All times are of one clock.
func judge(t testing.TB, keys []string, all []*run, deliveries []delivery, done []disturbance) verdict {
	t.Helper()
	v := verdict{keys: len(keys), runs: len(all), again: map[string]int{}, overlaps: map[string]int{}}
	byID, byKey, delivered := map[int]delivery{}, map[string][]*run{}, map[string][]delivery{}
	for _, d := range deliveries {
		byID[d.id] = d
		delivered[d.key] = append(delivered[d.key], d)
	}
	for _, r := range all {
		byKey[r.key] = append(byKey[r.key], r)
	}
	// disturbed returns what was done to the instance of a delivery before it had an answer.
	disturbed := func(d delivery) *disturbance {
		for i, x := range done {
			if x.slot == d.slot && x.until.After(d.began) && (d.end.IsZero() || x.from.Before(d.end)) && (x.beyond || x.from.Equal(x.until)) {
				return &done[i]
			}
		}
		return nil
	}
	for _, key := range keys {
		rs := byKey[key]
		slices.SortFunc(rs, func(a, b *run) int { return a.began.Compare(b.began) })
		effects, failures, quiet := 0, 0, true
		for _, d := range delivered[key] {
			quiet = quiet && disturbed(d) == nil
			if acknowledges(d.status) && !slices.ContainsFunc(rs, func(r *run) bool { return !r.effect.IsZero() && r.effect.Before(d.end) }) {
				t.Errorf("%s: delivery %d is answered %d, and its work has had no effect", key, d.id, d.status)
			}
		}
		unexplained := []string{}
		for i, r := range rs {
			d := byID[r.delivery]
			cause := disturbed(d)
			if !r.failure.IsZero() {
				failures++
			}
			if !r.effect.IsZero() {
				effects++
				// The receipt has the success of one of the runs. Each further run needs a cause.
				if acknowledges(d.status) || cause == nil {
					unexplained = append(unexplained, fmt.Sprintf("delivery %d, answered %d", d.id, d.status))
				}
			}
			for _, earlier := range rs[:i] {
				end := earlier.effect
				if end.IsZero() {
					end = earlier.failure
				}
				if end.IsZero() || end.Before(r.began) {
					continue
				}
				if by := disturbed(byID[earlier.delivery]); by != nil {
					v.overlaps[by.what]++
				} else {
					t.Errorf("%s: a run of delivery %d began while one of delivery %d was at work", key, r.delivery, earlier.delivery)
				}
			}
		}
		v.failures += failures
		switch {
		case effects == 0:
			t.Errorf("%s: its work was never done; %d runs, %d deliveries", key, len(rs), len(delivered[key]))
		case len(unexplained) > 1:
			t.Errorf("%s: its work was done %d times: %v", key, effects, unexplained)
		case effects > 1:
			for _, r := range rs {
				if by := disturbed(byID[r.delivery]); by != nil && !r.effect.IsZero() && !acknowledges(byID[r.delivery].status) {
					what := by.what
					if !by.dead.IsZero() && r.effect.After(by.dead) {
						what += workedOn
					} else if !by.beyond {
						v.widest = max(v.widest, by.from.Sub(r.effect)) // negative if the effect came during the kill
						what += " between effect and record"
					}
					v.again[what]++
					break
				}
			}
		}
		if quiet {
			v.undisturbed++
			if len(rs) != 1+failures || effects != 1 {
				t.Errorf("%s: undisturbed, and it has %d runs with %d failures", key, len(rs), failures)
			}
		}
	}
	return v
}
