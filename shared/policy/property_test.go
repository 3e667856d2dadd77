package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func TestDecide_ResultDoesNotDependOnRunOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		covered := anyCovered(t, in.Runs)
		other := in
		if len(in.Runs) > 0 {
			other.Runs = rapid.Permutation(in.Runs).Draw(t, "shuffled")
		}
		differ(t, "verdict", Decide(in), Decide(other))
		want, wantLate := Pending(in, covered)
		got, late := Pending(other, covered)
		differ(t, "pending", keysOf(want), keysOf(got))
		differ(t, "late", wantLate, late)
	})
}

func TestVerdict_SatisfiedAndMissingFollowMessageOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		v := Decide(in)
		counting := processorsOf(Counting(in))
		satisfied, missing := names(), names()
		for _, name := range in.Transition.Order {
			switch {
			case !in.Mode.Names(name):
			case slices.Contains(counting, name):
				satisfied = append(satisfied, name)
			default:
				missing = append(missing, name)
			}
		}
		differ(t, "satisfied", satisfied, v.Satisfied)
		differ(t, "missing", missing, v.Missing)
		if len(satisfied)+len(missing) != in.Mode.Size() {
			t.Fatalf("%d and %d of %d", len(satisfied), len(missing), in.Mode.Size())
		}
		for _, name := range v.Ignored {
			if slices.Contains(v.Satisfied, name) {
				t.Fatalf("%s is satisfied and ignored", name)
			}
		}
	})
}

// State only grows: what a further run does is never to take something back.
func TestDecide_AdditionalRunRevertsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		before := Decide(in)
		further := anyRun(t, in.Transition, len(in.Runs))
		if len(before.Missing) > 0 && rapid.Bool().Draw(t, "of a missing one") {
			name := rapid.SampledFrom(before.Missing).Draw(t, "missing")
			further.Processor, further.Reported, further.Status = name, name, wire.StatusSuccess
		}
		in.Runs = append(in.Runs, further)
		after := Decide(in)
		for _, name := range before.Satisfied {
			if !slices.Contains(after.Satisfied, name) {
				t.Fatalf("%s is no longer satisfied", name)
			}
		}
		notBefore := in.Mode.NotBefore != nil && in.Now.Before(in.Transition.Calendar().Instant(gameDay, *in.Mode.NotBefore))
		switch {
		case before.State == Ready && after.State != Ready,
			before.State == Grace && after.State == Overdue,
			before.State == Grace && after.State == Waiting && !notBefore:
			t.Fatalf("%s (%s) became %s (%s)", before.State, before.Reason, after.State, after.Reason)
		}
	})
}

// The engine creates no empty batch; with these promises it never has to refuse one.
func TestPending_FirstHandOverMatchesVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		v := Decide(in)
		runs, late := Pending(in, nil)
		handed := processorsOf(runs)
		if late != (len(runs) > 0) {
			t.Fatalf("late %v with %d runs, none handed over before", late, len(runs))
		}
		if v.State != Ready && v.State != Grace {
			return
		}
		for _, name := range in.Mode.Critical {
			if !slices.Contains(v.Satisfied, name) || !slices.Contains(handed, name) {
				t.Fatalf("%s without the critical %s: satisfied %v, handed over %v", v.State, name, v.Satisfied, handed)
			}
		}
		switch pct := fmt.Sprintf("critical_plus_majority_%dpct", len(handed)*100/in.Mode.Size()); {
		case v.State == Grace:
		case v.Cause == AllComplete:
			if len(handed) != in.Mode.Size() {
				t.Fatalf("all complete, handed over %v", handed)
			}
		case v.Cause == CriticalComplete:
			if in.Mode.Complete != pipeline.CompleteCritical || len(handed) == in.Mode.Size() {
				t.Fatalf("critical complete, handed over %v of a mode that is complete with %s", handed, in.Mode.Complete)
			}
		case v.Cause != pct:
			t.Fatalf("cause %s, want %s", v.Cause, pct)
		}
	})
}

// The properties would hold of nothing if hardly anything but waiting were drawn.
func TestSituations_CoverEveryOutcome(t *testing.T) {
	seen := map[string]int{}
	generator := rapid.Custom(situations)
	for seed := range 500 {
		in := generator.Example(seed)
		v := Decide(in)
		cause, _, _ := strings.Cut(v.Cause, "_majority_")
		if reason, _, ok := strings.Cut(v.Reason, " "); v.State == Overdue && ok {
			cause = map[bool]string{true: "deadline", false: "too late"}[reason == "deadline"]
		}
		if v.State == Ready && strings.Contains(v.Reason, "handed over without the rest") {
			cause = "at deadline"
		}
		seen[string(v.State)+" "+cause]++
		if runs, late := Pending(in, firstHalf(in)); len(runs) > 0 {
			seen[fmt.Sprintf("pending, late %v", late)]++
		}
	}
	for _, want := range []string{"waiting ", "grace ", "overdue deadline", "overdue too late", "ready all_complete", "ready critical_complete", "ready critical_plus", "ready at deadline",
		"pending, late true", "pending, late false"} {
		if seen[want] < 5 {
			t.Errorf("%d of 500 situations are %q: %v", seen[want], want, seen)
		}
	}
}

func firstHalf(in Input) map[string]bool {
	counting := Counting(in)
	return coveredBy(counting[:(len(counting)+1)/2]...)
}

func TestPending_ReturnsCountingUncoveredRunsUntilNoneRemain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		covered := anyCovered(t, in.Runs)
		counting := keysOf(Counting(in))
		handed := map[string]bool{}
		for _, r := range Counting(in) {
			handed[r.Processor] = handed[r.Processor] || covered[r.Key]
		}
		runs, late := Pending(in, covered)
		wantLate := false
		for _, r := range runs {
			if covered[r.Key] || !slices.Contains(counting, r.Key) {
				t.Fatalf("%s is pending; counting %v, covered %v", r.Key, counting, covered)
			}
			wantLate = wantLate || !handed[r.Processor]
		}
		if late != wantLate {
			t.Fatalf("late %v, want %v", late, wantLate)
		}
		for _, r := range runs {
			covered[r.Key] = true
		}
		if again, late := Pending(in, covered); len(again) > 0 || late {
			t.Fatalf("still pending after the hand-over: %v, late %v", keysOf(again), late)
		}
	})
}

// Runs arrive in any order and hand-overs happen at any time between them. Each run
// goes once, in the end nothing is left, and every processor with a run in time went.
func TestPending_HandsOverEachRunAtMostOnceInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		arriving, covered := in.Runs, map[string]bool{}
		in.Runs = nil
		handOver := func() {
			runs, _ := Pending(in, covered)
			for _, r := range runs {
				if covered[r.Key] {
					t.Fatalf("%s is handed over twice", r.Key)
				}
				covered[r.Key] = true
			}
		}
		for _, r := range arriving {
			in.Runs = append(in.Runs, r)
			if rapid.Bool().Draw(t, "hand over") {
				handOver()
			}
		}
		handOver()
		if left, _ := Pending(in, covered); len(left) > 0 {
			t.Fatalf("left over: %v", keysOf(left))
		}
		var handed []Run
		for _, r := range in.Runs {
			if covered[r.Key] {
				handed = append(handed, r)
			}
		}
		first, _ := Pending(in, nil)
		differ(t, "processors handed over", processorsOf(first), processorsOf(handed))
	})
}

// NextCheck is a promise: until then an evaluation finds nothing new, and then it does. With
// it states go from waiting to grace or ready, from grace to ready, from waiting to
// overdue, and never back.
func TestDecide_VerdictIsUnchangedUntilNextCheck(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := situations(t)
		in.GraceStart = time.Time{}
		in.Runs = slices.DeleteFunc(in.Runs, func(r Run) bool { return r.EventTime.After(in.Now) })
		v := Decide(in)
		for range 4 { // no cycle lives through more states
			if v.State == Grace && in.GraceStart.IsZero() {
				in.GraceStart = in.Now // as the engine does
			}
			look := in
			until := 1000 * time.Hour
			if !v.NextCheck.IsZero() {
				until = v.NextCheck.Sub(in.Now)
			}
			if until <= 0 {
				t.Fatalf("%s, and its next check was due %v ago", v.State, -until)
			}
			look.Now = in.Now.Add(time.Duration(rapid.Int64Range(0, int64(until)-1).Draw(t, "meanwhile")))
			if mid := Decide(look); mid.State != v.State || mid.Cause != v.Cause || !mid.Since.Equal(v.Since) {
				t.Fatalf("%s %s until %s became %s %s at %s", v.State, v.Cause, v.NextCheck, mid.State, mid.Cause, look.Now)
			}
			if v.NextCheck.IsZero() {
				return
			}
			in.Now = v.NextCheck
			next := Decide(in)
			switch v.State + " " + next.State {
			case Waiting + " " + Ready, Waiting + " " + Overdue, Grace + " " + Ready:
			default:
				t.Fatalf("%s (%s) became %s (%s) at %s", v.State, v.Reason, next.State, next.Reason, in.Now)
			}
			if next.State == Ready && !next.Since.Equal(in.Now) {
				t.Fatalf("ready at %s, said to be since %s", in.Now, next.Since)
			}
			v = next
		}
		t.Fatalf("%s after four evaluations", v.State)
	})
}
