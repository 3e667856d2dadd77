package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/phasegate/phasegate/scripts/dev/serve"
	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// placeOf returns where a topic's messages go.
func placeOf(p *pipeline.Pipeline, topic string) (pipeline.PushSubscription, error) {
	var known []string
	for _, pl := range p.PushSubscriptions() {
		if pl.Topic == topic {
			return pl, nil
		}
		known = append(known, pl.Topic)
	}
	return pipeline.PushSubscription{}, fmt.Errorf("topic %q feeds no function of this pipeline; these do: %s", topic, strings.Join(known, ", "))
}

// reply is what a function's handler says.
type reply struct {
	status int
	body   bytes.Buffer
	header http.Header
}

// Header implements http.ResponseWriter.
func (a *reply) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *reply) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *reply) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// errRefusedAgain means that a message is still invalid: it is in quarantine.
var errRefusedAgain = errors.New("refused again")

// handOver gives a delivery to its function's own handler, in this process: the same
// code, state and answers as when it was pushed. nil: it is done, or was before.
// Idempotent, as the handler is.
func handOver(ctx context.Context, a *app.App, pl pipeline.PushSubscription, e wire.Envelope) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/"+pl.Query, bytes.NewReader(e.Push()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	got := &reply{header: http.Header{}}
	serve.Handler(pl.Function, func(context.Context) (*app.App, error) { return a, nil }).ServeHTTP(got, r)
	switch got.status {
	case http.StatusNoContent:
		return nil
	case http.StatusAccepted:
		return errRefusedAgain
	}
	return fmt.Errorf("%s answered %d: %s", pl.Function, got.status, strings.TrimSpace(got.body.String()))
}
