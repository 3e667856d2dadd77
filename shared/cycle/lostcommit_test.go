package cycle

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/store/firestore/firestoretest"
)

// Firestore fails each commit of a hand-over in turn, before or after it was applied. The driver sends
// the commit again and meets its own. Each message is published once.
func TestComplete_PublishesOnceAlthoughAnyCommitIsLost(t *testing.T) {
	const processors = 3
	p := firestoretest.Start(t, emulatortest.Firestore(t), firestoretest.Limits{Waiting: 10})
	t.Setenv("FIRESTORE_EMULATOR_HOST", p.Addr)
	s := onFirestore(t)
	play := func(t *testing.T, fault func(commit int) firestoretest.Fault) (commits int) {
		t.Helper()
		w := &world{t: t, tr: wide(t, processors), clock: &clock{t: at("2026-02-04 06:00")}, log: &syncBuffer{},
			broker: &broker{}, prefix: "l" + rand.Text(), store: &counting{Store: s}}
		w.engine = New(Config{Store: w.store, Publish: w.broker.publish, Check: Unchecked, Now: time.Now, NewID: rand.Text, Claim: time.Minute, Prefix: w.prefix, Log: w.newEngine().Log})
		p.Fail(func(n int) firestoretest.Fault { commits = n + 1; return fault(n) })
		defer p.Fail(nil)
		for i := range processors {
			c := run(fmt.Sprintf("processor_%d", i), "2026-02-04 06:00")
			if _, err := w.engine.Complete(t.Context(), w.key(c.Period), Report{c, fmt.Sprint("m", i)}); err != nil {
				t.Errorf("completion %d: %v", i, err)
			}
		}
		if got := w.broker.tables(); len(got) != processors || len(slices.Compact(sorted(got))) != processors {
			t.Errorf("published %q", got)
		}
		return commits
	}
	commits := play(t, func(int) firestoretest.Fault { return firestoretest.Fault{} })
	if commits < processors {
		t.Fatalf("%d commits", commits)
	}
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded} {
		for _, applied := range []bool{false, true} {
			for lost := range commits {
				t.Run(fmt.Sprintf("%s_applied_%v_%d", code, applied, lost), func(t *testing.T) {
					play(t, func(n int) firestoretest.Fault {
						if n == lost {
							return firestoretest.Fault{Code: code, Applied: applied}
						}
						return firestoretest.Fault{}
					})
				})
			}
		}
	}
}
