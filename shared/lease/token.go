package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/phasegate/phasegate/shared/store"
)

// Rearm gives the lease a new token, listed as outstanding in the same commit. The work under
// the present token was tried and failed, and cannot be retried under that token. The present one stays listed until [Lease.Settle]. Errors are those of
// [Lease.Renew]; after one that is no [ErrLost] the token may be the new one.
func (l *Lease) Rearm(ctx context.Context) (Token, error) {
	defer l.logLoss()
	l.call.Lock()
	defer l.call.Unlock()
	for range maxRaces {
		if err := l.Check(); err != nil {
			return Token{}, err
		}
		began, before, nonce := l.locks.Now(), l.Token().Nonce, l.locks.NewID()
		snap, err := l.locks.Store.Get(ctx, l.locks.tokensRef(l.key.String()))
		if err != nil {
			return Token{}, fmt.Errorf("new token of %s: %w", l.key, err)
		}
		listed, err := outstanding(snap.Docs[0])
		if err != nil {
			return Token{}, fmt.Errorf("new token of %s: %w", l.key, err)
		}
		l.mu.Lock()
		l.former = append(l.former, nonce) // before anybody else can see it
		l.mu.Unlock()
		versions, err := l.locks.Store.Apply(ctx, store.MergeIf(l.locks.lockRef(l.key.String()), l.version, append(renewal(), store.F(nonce, "nonce"))...),
			l.locks.listing(snap.Docs[0], listed, nonce))
		switch {
		case err == nil:
			l.mu.Lock()
			l.version, l.confirmed = versions[0], began
			l.token = Token{Nonce: nonce, At: versions[0]}
			l.former = append(l.former, before)
			l.mu.Unlock()
			return l.Token(), l.Check()
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists):
			return Token{}, fmt.Errorf("new token of %s: %w", l.key, err)
		}
		if err := l.readBack(ctx); err != nil {
			return Token{}, err
		}
		if l.Token().Nonce != before {
			return l.Token(), nil // by this write or an earlier one
		}
	}
	return Token{}, fmt.Errorf("new token of %s: no end after %d conflicts", l.key, maxRaces)
}

// Used returns the nonces that this lease has had, the present one last.
func (l *Lease) Used() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.Clone(l.former), l.token.Nonce)
}

// Settle takes nonces from the list of those that are outstanding: of each it is known
// that nothing can be written under it any more. Idempotent; what it fails to do is done
// by a later holder.
func (l *Lease) Settle(ctx context.Context, nonces ...string) error {
	if len(nonces) == 0 {
		return nil
	}
	ref := l.locks.tokensRef(l.key.String())
	for range maxRaces {
		snap, err := l.locks.Store.Get(ctx, ref)
		if err != nil {
			return fmt.Errorf("settle tokens of %s: %w", l.key, err)
		}
		listed, err := outstanding(snap.Docs[0])
		if err != nil {
			return fmt.Errorf("settle tokens of %s: %w", l.key, err)
		}
		left := []any{}
		for _, n := range listed {
			if !slices.Contains(nonces, n) {
				left = append(left, n)
			}
		}
		if len(left) == len(listed) {
			return nil
		}
		end := store.Stays()
		if len(left) == 0 { // an empty list and none are the same
			end = store.Expires(snap.ReadTime)
		}
		_, err = l.locks.Store.Apply(ctx, store.MergeIf(ref, snap.Docs[0].Version, store.F(left, "nonces"), end))
		if !errors.Is(err, store.ErrConflict) {
			if err != nil {
				err = fmt.Errorf("settle tokens of %s: %w", l.key, err)
			}
			return err
		}
	}
	return fmt.Errorf("settle tokens of %s: no end after %d conflicts", l.key, maxRaces)
}
