package cycle

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/wire"
)

const (
	// groupLimit bounds the work on a group. It has no caller whose deadline could end it, and
	// lies below the function's own limit, 2 minutes.
	groupLimit = 100 * time.Second
	// maxGroup bounds the completions of one commit: Firestore takes 10 MiB a commit
	// (https://cloud.google.com/firestore/quotas), and one completion is 52 KiB at most.
	maxGroup = 100
)

// Report is one completion as it was delivered.
type Report struct {
	Completion wire.Completion
	MessageID  string
}

// groups collects the completions of a period that arrive while earlier ones are handled: they
// share the next commit and the next evaluation. A completion never waits for company: if
// none of its period is at work, it is handled at once. Losing a line loses nothing, because
// each caller waits for the answer to its own completion.
type groups struct {
	mu    sync.Mutex
	lines map[string]*line // by Key.String; present while its goroutine runs
}

// line is the queue of one period in this process.
type line struct{ waiting []*member }

type member struct {
	ctx    context.Context // of its request
	report Report
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
	m := &member{ctx: ctx, report: r, answer: make(chan answer, 1)}
	e.groups.join(key.String(), m, func(l *line) { e.serve(key, l) })
	select {
	case a := <-m.answer:
		return a.result, a.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("%s: wait for its group: %w", key, ctx.Err())
	}
}

// join adds a member to the group that is collected, and starts the period's line if it does
// not run.
func (g *groups) join(id string, m *member, serve func(*line)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[id]
	if l == nil {
		l = &line{}
		if g.lines == nil {
			g.lines = map[string]*line{}
		}
		g.lines[id] = l
		go serve(l)
	}
	l.waiting = append(l.waiting, m)
}

// next takes the group that has been collected; later completions join the one after it. Where
// nobody waits the line ends.
func (g *groups) next(id string, l *line) []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(l.waiting) == 0 {
		delete(g.lines, id)
		return nil
	}
	n := min(len(l.waiting), maxGroup)
	taken := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	return taken
}

// serve handles one group after another until none waits.
func (e *Engine) serve(key Key, l *line) {
	for {
		group := e.groups.next(key.String(), l)
		if group == nil {
			return
		}
		e.handle(key, group)
	}
}

// handle answers each member of a group. A panic is an answer too, and ends no other period's
// work: the messages are redelivered.
func (e *Engine) handle(key Key, group []*member) {
	ctx, cancel := context.WithTimeout(sponsor(group), groupLimit)
	defer cancel()
	reports := make([]Report, len(group))
	for i, m := range group {
		reports[i] = m.report
	}
	answers := make([]answer, len(group))
	defer func() {
		if r := recover(); r != nil {
			e.Log.ErrorContext(ctx, "panic while completions were handled", "transition", key.Transition.ID, "period", string(key.Period),
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			for i := range answers {
				answers[i] = answer{err: fmt.Errorf("%s: panic: %v", key, r)}
			}
		}
		for i, m := range group {
			m.answer <- answers[i]
		}
	}()
	copy(answers, e.handleGroup(ctx, key, reports))
}

// sponsor returns the context of a member that still waits: notifications about the group's
// evaluation go out with its answer, and log lines carry its trace. Its end does not end the
// work.
func sponsor(group []*member) context.Context {
	for _, m := range group {
		if m.ctx.Err() == nil {
			return context.WithoutCancel(m.ctx)
		}
	}
	return context.WithoutCancel(group[0].ctx)
}

// handleGroup records the reports by one commit, then does what is due once for all that
// are recorded. A report that could not be recorded fails alone.
func (e *Engine) handleGroup(ctx context.Context, key Key, reports []Report) []answer {
	answers := make([]answer, len(reports))
	var ids []string
	for i, err := range e.recordAll(ctx, key, reports) {
		if answers[i].err = err; err == nil {
			ids = append(ids, reports[i].MessageID)
		}
	}
	if len(ids) == 0 {
		return answers
	}
	c := e.convergence(key, ids...)
	result, err := c.run(ctx)
	for i, r := range reports {
		if answers[i].err == nil {
			answers[i] = answer{Result{Busy: result.Busy, OwnClaim: c.own[r.MessageID]}, err}
		}
	}
	return answers
}
