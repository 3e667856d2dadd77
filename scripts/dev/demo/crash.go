package demo

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store"
)

// crash ends one request, once armed, at the worst moment: the broker has accepted
// every message and their ids are about to be written down.
type crash struct {
	armed atomic.Bool
	died  func(triggers int) // says so, with how many messages the broker has
}

func (c *crash) on(stores func(now func() time.Time) app.Stores) func(now func() time.Time) app.Stores {
	return func(now func() time.Time) app.Stores {
		return func(ctx context.Context, config app.Config) (store.Store, error) {
			s, err := stores(now)(ctx, config)
			return crashing{s, c}, err
		}
	}
}

type crashing struct {
	store.Store
	crash *crash
}

// Apply cuts the connection as a killed process would; the claim stays behind.
func (s crashing) Apply(ctx context.Context, writes ...store.Write) ([]store.Version, error) {
	ids := 0
	for _, w := range writes {
		for _, f := range w.Fields {
			if f.Path[0] == "messages" && f.Path[len(f.Path)-1] == "id" {
				ids++
			}
		}
	}
	if ids > 0 && s.crash.armed.CompareAndSwap(true, false) {
		s.crash.died(ids)
		panic(http.ErrAbortHandler)
	}
	return s.Store.Apply(ctx, writes...)
}

// Close closes the store below, if it can be closed.
func (s crashing) Close() error {
	if c, ok := s.Store.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}
