package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	got := httptest.NewRecorder()
	serve.Handler(pl.Function, func(context.Context) (*app.App, error) { return a, nil }).ServeHTTP(got, r)
	switch got.Code {
	case http.StatusNoContent:
		return nil
	case http.StatusAccepted:
		return errRefusedAgain
	}
	return fmt.Errorf("%s answered %d: %s", pl.Function, got.Code, strings.TrimSpace(got.Body.String()))
}
