//go:build !race

package cycle

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/wire"
)

// harm is what happens at one call of a process.
type harm int

const (
	none     harm = iota
	diesHere      // before the call: it has no effect, and the process makes no other
	diesNext      // after the call: it has its effect, and the process makes no other
	lost          // the call has its effect, its answer is an error; the process lives
	refused       // the call has no effect, its answer is an error; the process lives
)

var harms = map[harm]string{diesHere: "dies_before", diesNext: "dies_after", lost: "answer_lost", refused: "fails"}

var errDead = errors.New("this process is dead")

// process is one instance whose calls are numbered from 1. At call number at, first
// the rival acts, if there is one, then the harm.
type process struct {
	store.Store
	send  Publish
	at    int
	harm  harm
	rival func()
	calls int
	dead  bool
	// request: the call number at wrote an operator's request.
	request bool
}

// call runs one call and returns the error that the process sees.
func (p *process) call(do func() error) error {
	p.calls++
	if p.dead {
		return errDead
	}
	if p.calls != p.at {
		return do()
	}
	if p.rival != nil {
		p.rival()
	}
	switch p.harm {
	case diesHere:
		p.dead = true
		return errDead
	case diesNext:
		_ = do()
		p.dead = true
		return errDead
	case lost:
		_ = do()
		return errLost
	case refused:
		return errLost
	}
	return do()
}

func (p *process) Get(ctx context.Context, refs ...store.Ref) (s store.Snapshot, err error) {
	err = p.call(func() (err error) { s, err = p.Store.Get(ctx, refs...); return err })
	return s, err
}

func (p *process) Apply(ctx context.Context, ws ...store.Write) (vs []store.Version, err error) {
	for _, w := range ws {
		p.request = p.request || p.calls+1 == p.at && slices.ContainsFunc(w.Fields, func(f store.Field) bool { return f.Path[0] == "request" })
	}
	err = p.call(func() (err error) { vs, err = p.Store.Apply(ctx, ws...); return err })
	return vs, err
}

func (p *process) Scan(ctx context.Context, collection, from, to string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		if err := p.call(func() error { return nil }); err != nil {
			yield(store.Doc{}, err)
			return
		}
		p.Store.Scan(ctx, collection, from, to)(yield)
	}
}

func (p *process) publish(ctx context.Context, topic string, msgs []wire.Outgoing) []Published {
	var out []Published
	if err := p.call(func() error { out = p.send(ctx, topic, msgs); return nil }); err != nil {
		out = make([]Published, len(msgs))
		for i := range out {
			out[i] = Published{Err: err}
		}
	}
	return out
}
