package cycle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

const (
	// groupLimit bounds the work on a group. It has no caller whose deadline could end it, and
	// lies below the function's own limit, 2 minutes.
	groupLimit = 100 * time.Second
	// maxCommit bounds the records of one commit in bytes: Firestore takes 10 MiB a commit
	// (https://cloud.google.com/firestore/quotas).
	maxCommit = 4 << 20
	// slowEvaluation is how long the next evaluation of a period waits for the one before it.
	// Most take some calls of the store; one that checks readiness can take half a minute.
	slowEvaluation = time.Second
)

// Report is one completion as it was delivered.
type Report struct {
	Completion wire.Completion
	MessageID  string
}

// groups collects the completions of a period that arrive while earlier ones are at work. There
// are two stages: a group is recorded by one commit, and those that were recorded since the last
// evaluation began are evaluated together. So a completion is recorded, and shown, although an
// earlier evaluation waits for a readiness check. A completion never waits for company: if none
// of its period is at work, it is handled at once. The groups after it keep a distance if the
// transition has many processors. Losing a line loses nothing, because each caller waits for the
// answer to its own completion.
type groups struct {
	mu    sync.Mutex
	lines map[string]*line // by Key.String; present while a stage of it runs
}

const (
	// unpaced is how many processors a transition has at most whose groups follow at once: so few
	// completions need no distance, and each is shown at once.
	unpaced = 50
	// paceOfRun and maxPace give the distance of the others: see [Key.pace].
	paceOfRun = 12 * time.Millisecond
	maxPace   = 15 * time.Second
)

// pace is the least time between two records of a period by this process. Firestore takes one
// commit a second to a document for long. With 1,000 processors and more, five processes record 0.42
// times a second at most. They write the compatibility document less than 0.5 times, although some
// tries come too late and are repeated. An evaluation follows each record, so it needs no distance of its own,
// which the last completion would wait for too.
func (k Key) pace() time.Duration {
	n := len(k.Transition.Order)
	if n <= unpaced {
		return 0
	}
	return min(maxPace, time.Duration(n)*paceOfRun)
}

// line is the queue of one period in this process. A stage that does not run has no waiting members.
type line struct {
	waiting, recorded     []*member // to be recorded, to be evaluated
	recording, evaluating bool
}

type member struct {
	ctx    context.Context // of its request
	report Report
	bytes  int         // of its record
	answer chan answer // takes one
}

type answer struct {
	result Result
	err    error
}

// Complete records a completion and does what is due for its period, together with others that
// arrive at the same time. The answer is for this completion: its record and its claim. An
// error means that the message must be redelivered; it may have been recorded. Idempotent.
//
// The work goes on when ctx ends: others share it.
func (e *Engine) Complete(ctx context.Context, key Key, r Report) (Result, error) {
	_, record := key.fitting(r.Completion).Record()
	m := &member{ctx: ctx, report: r, bytes: len(record), answer: make(chan answer, 1)}
	e.groups.join(key, m, e.recordings)
	select {
	case a := <-m.answer:
		return a.result, a.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("%s: wait for its group: %w", key, ctx.Err())
	}
}

// join adds a member to the group that is collected, and begins to record if no goroutine does.
func (g *groups) join(key Key, m *member, record func(Key, *line)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[key.String()]
	if l == nil {
		l = &line{}
		if g.lines == nil {
			g.lines = map[string]*line{}
		}
		g.lines[key.String()] = l
	}
	l.waiting = append(l.waiting, m)
	if !l.recording {
		l.recording = true
		go record(key, l)
	}
}

// next takes the group that a stage has collected; later completions join the one after it.
// Without waiting members the stage ends, and the line with its last stage.
func (g *groups) next(key Key, l *line, collected *[]*member, runs *bool) []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(*collected) == 0 {
		*runs = false
		if !l.recording && !l.evaluating {
			delete(g.lines, key.String())
		}
		return nil
	}
	n, bytes := 1, (*collected)[0].bytes
	for ; n < len(*collected) && bytes+(*collected)[n].bytes <= maxCommit; n++ {
		bytes += (*collected)[n].bytes
	}
	taken := (*collected)[:n:n]
	*collected = (*collected)[n:]
	return taken
}

// pass hands members on to be evaluated, and begins with it if no goroutine does.
func (g *groups) pass(key Key, l *line, recorded []*member, evaluate func(Key, *line)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.recorded = append(l.recorded, recorded...)
	if len(l.recorded) > 0 && !l.evaluating {
		l.evaluating = true
		go evaluate(key, l)
	}
}

// recordings records one group after another, at a distance, until none waits. Its turns have a random
// beginning: processes that get their first completions together would meet at each turn, and
// evaluations that meet write the compatibility document in vain.
func (e *Engine) recordings(key Key, l *line) {
	pace := key.pace()
	turn := time.Now().Add(time.Duration(rand.Int64N(int64(pace) + 1)))
	for {
		group := e.groups.next(key, l, &l.waiting, &l.recording)
		if group == nil {
			return
		}
		var recorded []*member
		for i, a := range e.together(key, group, e.recordGroup) {
			if a.err == nil {
				recorded = append(recorded, group[i])
			} else {
				group[i].answer <- a
			}
		}
		e.groups.pass(key, l, recorded, e.evaluations)
		for pace > 0 && time.Until(turn) <= 0 {
			turn = turn.Add(pace)
		}
		time.Sleep(time.Until(turn))
	}
}

// evaluations evaluates one group after another until none is left. The next one does not wait
// for one that is slow: that holds a claim and checks readiness, and meanwhile the next shows
// what was recorded. What one of them leaves to the holder of a claim, the holder does: it reads
// again at its end.
func (e *Engine) evaluations(key Key, l *line) {
	for {
		group := e.groups.next(key, l, &l.recorded, &l.evaluating)
		if group == nil {
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i, a := range e.together(key, group, e.evaluateGroup) {
				group[i].answer <- a
			}
		}()
		slow := time.NewTimer(slowEvaluation)
		select {
		case <-done:
		case <-slow.C:
		}
		slow.Stop()
	}
}

// together does work once for a group and returns the answer to each member. A panic is an
// answer too, and ends no other period's work: the messages are redelivered.
func (e *Engine) together(key Key, group []*member, work func(context.Context, Key, []Report) []answer) (answers []answer) {
	answered := sponsor(group)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(group[answered].ctx), groupLimit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			e.Log.ErrorContext(ctx, "panic while completions were handled", "transition", key.Transition.ID, "period", string(key.Period),
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			answers = slices.Repeat([]answer{{err: fmt.Errorf("%s: panic: %v", key, r)}}, len(group))
		}
	}()
	reports := make([]Report, len(group))
	for i, m := range group {
		reports[i] = m.report
	}
	answers = work(ctx, key, reports)
	for i := range answers {
		if i != answered {
			answers[i].result.Cycles = nil
		}
	}
	return answers
}

// sponsor returns the index of a member that still waits: notifications about the group's
// evaluation go out with its answer, and log lines carry its trace. Its end does not end the
// work.
func sponsor(group []*member) int {
	return max(0, slices.IndexFunc(group, func(m *member) bool { return m.ctx.Err() == nil }))
}

// recordGroup records the reports by one commit. One that could not be recorded fails alone.
func (e *Engine) recordGroup(ctx context.Context, key Key, reports []Report) []answer {
	answers := make([]answer, len(reports))
	for i, err := range e.recordAll(ctx, key, reports) {
		answers[i].err = err
	}
	return answers
}

// evaluateGroup does what is due, once for all of the reports. They are recorded.
func (e *Engine) evaluateGroup(ctx context.Context, key Key, reports []Report) []answer {
	ids := make([]string, len(reports))
	for i, r := range reports {
		ids[i] = r.MessageID
	}
	c := e.convergence(key, ids...)
	result, err := c.run(ctx)
	answers := make([]answer, len(reports))
	for i, id := range ids {
		answers[i] = answer{Result{Busy: result.Busy, OwnClaim: c.own[id], Cycles: result.Cycles}, err}
	}
	return answers
}
