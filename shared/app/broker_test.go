package app_test

import (
	"errors"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/wire"
)

// answers makes the broker answer a request to publish with these ids.
type answers []string

func (a answers) React(any) (bool, any, error) {
	return true, &pubsubpb.PublishResponse{MessageIds: a}, nil
}

func TestBroker_ConfirmsOnlyWhatHasAnID(t *testing.T) {
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: answers{"m1", ""}})
	defer server.Close()
	b, err := app.NewBroker(t.Context(), "p", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := b.Publish(t.Context(), "topic", make([]wire.Outgoing, 3))
	if got[0].ID != "m1" || got[0].Err != nil {
		t.Errorf("the first: %+v", got[0])
	}
	if got[1].ID != "" || !errors.Is(got[1].Err, cycle.ErrUnconfirmed) {
		t.Errorf("the second, whose id is empty: %+v", got[1])
	}
	if got[2].ID != "" || got[2].Err == nil {
		t.Errorf("the third, for which there is no id: %+v", got[2])
	}
}

func TestBroker_PublishesNothingThatPubSubNeverTakes(t *testing.T) {
	server := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: answers{"m1"}})
	defer server.Close()
	b, err := app.NewBroker(t.Context(), "p", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := b.Publish(t.Context(), "topic", []wire.Outgoing{{Data: make([]byte, app.MaxPublish)}})
	if got[0].ID != "" || !errors.Is(got[0].Err, app.ErrTooLarge) {
		t.Errorf("%+v", got[0])
	}
}
