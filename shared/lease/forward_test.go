package lease

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/phasegate/phasegate/shared/store"
)

// forward is the clock of all clients of a history on a real server, whose own clock cannot
// be set. It runs like the real clock while a client works. When all clients are asleep, it
// jumps to the time at which the first of them wakes. The store behind it shows the server's
// times as if the server's clock had jumped, too.
type forward struct {
	together time.Duration // clients that would wake so soon after the first wake with it: their calls overlap

	mu       sync.Mutex
	awake    int
	sleepers []sleeper
	jumps    []jump
}

type sleeper struct {
	until time.Time
	wake  chan struct{}
}

// jump: from a moment of the real clock on, so much is added to it.
type jump struct {
	from  time.Time
	added time.Duration
}

func (f *forward) now() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return f.shown(time.Now()) }

// shown returns a moment of the real clock as the clients see it.
func (f *forward) shown(real time.Time) time.Time {
	for i := len(f.jumps) - 1; i >= 0; i-- {
		if !real.Before(f.jumps[i].from) {
			return real.Add(f.jumps[i].added)
		}
	}
	return real
}

// real is the inverse of shown, for a moment that was shown.
func (f *forward) real(shown time.Time) time.Time {
	for i := len(f.jumps) - 1; i >= 0; i-- {
		if real := shown.Add(-f.jumps[i].added); !real.Before(f.jumps[i].from) {
			return real
		}
	}
	return shown
}

// enter is called before a goroutine that uses the clock begins, leave when it has ended.
func (f *forward) enter() { f.mu.Lock(); defer f.mu.Unlock(); f.awake++ }

func (f *forward) leave() { f.mu.Lock(); defer f.mu.Unlock(); f.awake--; f.advance() }

func (f *forward) sleep(d time.Duration) {
	f.mu.Lock()
	s := sleeper{f.shown(time.Now()).Add(d), make(chan struct{})}
	f.sleepers = append(f.sleepers, s)
	f.awake--
	f.advance()
	f.mu.Unlock()
	<-s.wake
}

// advance jumps when all are asleep. Stamps are in whole milliseconds: a jump begins with
// one, so that none from after it lies before it.
func (f *forward) advance() {
	if f.awake > 0 || len(f.sleepers) == 0 {
		return
	}
	first := f.sleepers[0].until
	for _, s := range f.sleepers {
		if s.until.Before(first) {
			first = s.until
		}
	}
	from := time.Now().Truncate(time.Millisecond).Add(time.Millisecond)
	if ahead := first.Sub(f.shown(from)); ahead > 0 {
		added := ahead.Truncate(time.Microsecond) + time.Microsecond // whole ones, as versions are
		if n := len(f.jumps); n > 0 {
			added += f.jumps[n-1].added
		}
		f.jumps = append(f.jumps, jump{from, added})
		<-time.After(time.Until(from))
	}
	var left []sleeper
	for _, s := range f.sleepers {
		if s.until.After(first.Add(f.together)) {
			left = append(left, s)
			continue
		}
		f.awake++
		close(s.wake)
	}
	f.sleepers = left
}

// forwarded is a store whose server's clock is the one of a history.
type forwarded struct {
	store.Store
	*forward
}

func (s forwarded) Get(ctx context.Context, refs ...store.Ref) (store.Snapshot, error) {
	snap, err := s.Store.Get(ctx, refs...)
	s.mu.Lock()
	defer s.mu.Unlock()
	snap.ReadTime = s.shown(snap.ReadTime)
	for i := range snap.Docs {
		snap.Docs[i].Version = s.version(snap.Docs[i].Version)
		for name, v := range snap.Docs[i].Data {
			if at, ok := v.(time.Time); ok {
				snap.Docs[i].Data[name] = s.shown(at)
			}
		}
	}
	return snap, err
}

func (s forwarded) Apply(ctx context.Context, ws ...store.Write) ([]store.Version, error) {
	own := make([]store.Write, len(ws))
	s.mu.Lock()
	for i, w := range ws {
		if own[i] = w; w.Version != 0 {
			own[i].Version = store.Version(s.real(w.Version.Time()).UnixMicro())
		}
	}
	s.mu.Unlock()
	versions, err := s.Store.Apply(ctx, own...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range versions {
		versions[i] = s.version(versions[i])
	}
	return versions, err
}

func (s forwarded) Scan(context.Context, string, string, string) iter.Seq2[store.Doc, error] {
	panic("a history scans nothing")
}

func (f *forward) version(v store.Version) store.Version {
	if v == 0 {
		return 0
	}
	return store.Version(f.shown(v.Time()).UnixMicro())
}
