//go:build unix && !race

package cycle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/store"
)

// In a fifth of the worlds each report is the end of a run, which works under the lock of its
// processor. Requests start the runs, often two at once. A request that does not get the lock
// is repeated. A run publishes its report while it holds the lock, and then its request is
// acknowledged.

// simRequest asks for the run whose report is the message.
type simRequest struct {
	message *simMessage
	tries   int
	served  bool
}

// simLocks is what is known about the runs of a world.
type simLocks struct {
	rng      *rand.Rand // nil: there are none
	requests []*simRequest
	working  map[string]*simWorker // by class: the last one seen at work
	nonces   map[string][]string   // by class: of every lock that was acquired
	ids      int
}

type simWorker struct {
	thread *simThread
	lease  *lease.Lease
}

const simLease = 2 * time.Minute

// lock gives a world runs, which publish its messages.
func (s *simulation) lock() {
	if s.seed/10%5 != 0 { // families go by the last digit
		return
	}
	s.locks = simLocks{rng: rand.New(rand.NewPCG(s.seed, 2)), working: map[string]*simWorker{}, nonces: map[string][]string{}}
	requests := map[*simMessage]*simRequest{}
	for i, e := range s.events {
		if e.message == nil {
			continue
		}
		r := requests[e.message]
		if r == nil {
			r = &simRequest{message: e.message}
			requests[e.message] = r
			s.locks.requests = append(s.locks.requests, r)
			if s.locks.rng.IntN(2) == 0 { // the request is delivered twice, at about one time
				s.events = append(s.events, simEvent{at: e.at.Add(time.Duration(s.locks.rng.IntN(60)) * time.Second), request: r})
			}
		}
		s.events[i] = simEvent{at: e.at, request: r}
	}
}

// class names the lock of a message's processor. Strangers have one among them.
func (m *simMessage) class() string {
	if m.hopeless || m.as[0].decoded.Processor == "" {
		return "Stranger"
	}
	return m.as[0].decoded.Processor
}

func (s *simulation) serve(r *simRequest, in *simInstance) *simThread {
	r.tries++
	th := &simThread{instance: in, request: r, job: fmt.Sprintf("run of %s#%d", r.message.envelope.MessageID, r.tries)}
	return s.start(th, func() bool { return th.process() })
}

// process is what a runner does. It returns true when the request is acknowledged.
func (th *simThread) process() bool {
	s, r, in := th.sim, th.request, th.instance
	locks := lease.New(lease.Config{Store: (*simStore)(s), Now: func() time.Time { return s.clock(in) }, Lease: simLease,
		Instance: fmt.Sprint(in.id), Log: simSilence, NewID: func() string { s.locks.ids++; return fmt.Sprintf("l%d", s.locks.ids) }})
	class := r.message.class()
	got, err := locks.Acquire(context.Background(), lease.Key{Class: class, Period: simPeriod}, th.job)
	if err != nil {
		return false
	}
	s.locks.nonces[class] = append(s.locks.nonces[class], got.Token().Nonce)
	for range 1 + s.locks.rng.IntN(3) {
		if !th.works(class, got) {
			return false
		}
		if err := got.Renew(context.Background()); err != nil && got.Check() != nil {
			return false
		}
	}
	if !th.works(class, got) {
		return false
	}
	s.event(time.Duration(s.locks.rng.IntN(1000))*time.Millisecond, simEvent{message: r.message})
	r.served = true
	delete(s.locks.working, class)
	_ = got.Release(context.Background()) // else it expires
	return true
}

// works is a step of the work, now and then a long one. It returns false if the lock is lost.
func (th *simThread) works(class string, got *lease.Lease) bool {
	s := th.sim
	th.sleep(time.Duration(s.locks.rng.IntN([]int{1, 30, 60, 60, 200}[s.locks.rng.IntN(5)])+1) * time.Second)
	if got.Check() != nil {
		return false
	}
	if other := s.locks.working[class]; other != nil && other.thread != th && !other.thread.done && !other.thread.killed && other.lease.Check() == nil {
		s.fail("%s and %s are both at work as %s", th, other.thread, class)
	}
	s.locks.working[class] = &simWorker{th, got}
	doc := s.doc(store.Ref{Collection: "processing_locks", ID: got.Key().String()})
	if doc.Data["nonce"] != got.Token().Nonce {
		s.fail("%s is at work, and %v has the lock of %s", th, doc.Data["execution_id"], class)
	}
	return true
}

// asked is the requester's side of an answer: a request that was not served is repeated.
func (s *simulation) asked(th *simThread, ok bool) {
	r := th.request
	if !ok && !s.calm {
		s.event(min(10*time.Second<<min(r.tries, 4), simLease), simEvent{request: r})
	}
}

// serveAll repeats the requests that were not served, until all are.
func (s *simulation) serveAll() {
	for range 40 {
		left := 0
		for _, r := range s.locks.requests {
			if !r.served && s.problem == "" {
				left++
				s.serve(r, s.instances[0])
			}
		}
		if left == 0 {
			break
		}
		s.play()
		s.now = s.now.Add(30 * time.Second)
	}
	for _, r := range s.locks.requests {
		if !r.served {
			s.fail("%s is asked for, and never runs", r.message.envelope.MessageID)
		}
	}
	for class, nonces := range s.locks.nonces {
		doc := s.doc(store.Ref{Collection: "lock_tokens", ID: class + "_" + string(simPeriod)})
		listed, _ := doc.Data["nonces"].([]any)
		for _, nonce := range nonces {
			if !slices.Contains(listed, any(nonce)) {
				s.fail("token %s of %s is not listed as outstanding", nonce, class)
			}
		}
	}
}
